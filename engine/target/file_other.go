//go:build !linux

package target

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"sync/atomic"
	"syscall"

	"github.com/cairn-backup/cairn/manifest"
)

// A file is a regular file that is being restored.
type file struct {
	writer *dirWriter
	parent *folder // referenced until Close
	name   string
	path   string
	meta   meta
	size   int64
	file   *os.File
	end    atomic.Int64 // of what was written, bytes
	closed atomic.Bool
}

// create makes the file name in parent. The file takes over the reference to
// parent, unless it fails.
func (w *dirWriter) create(parent *folder, name, path string, n manifest.Node) (*file, error) {
	h, err := parent.root.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	return &file{writer: w, parent: parent, name: name, path: path, meta: metaOf(n), size: int64(n.Size), file: h}, nil
}

// WriteAt writes all of p at off.
func (f *file) WriteAt(p []byte, off int64) (int, error) {
	if off < 0 || off > f.size-int64(len(p)) {
		return 0, f.writer.fail("write", f.path, syscall.EFBIG)
	}
	n, err := f.file.WriteAt(p, off)
	if err != nil {
		return n, f.writer.fail("write", f.path, err)
	}
	for end := off + int64(n); ; {
		old := f.end.Load()
		if end <= old || f.end.CompareAndSwap(old, end) {
			return n, nil
		}
	}
}

// ReadAt reads what was written.
func (f *file) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.file.ReadAt(p, off)
	if err != nil && !errors.Is(err, io.EOF) {
		err = f.writer.fail("read", f.path, err)
	}
	return n, err
}

// Close finishes the file.
func (f *file) Close() error {
	if f.closed.Swap(true) {
		return f.writer.fail("close", f.path, fs.ErrClosed)
	}
	defer f.writer.folders.release(f.parent)
	defer f.writer.open.Add(-1)
	var err error
	if f.end.Load() != f.size { // it ends in a hole
		err = f.file.Truncate(f.size)
	}
	if err == nil {
		err = f.file.Sync()
	}
	err = errors.Join(err, f.file.Close())
	if err == nil {
		err = f.writer.set(f.parent.root, f.name, manifest.File, f.meta)
	}
	if err != nil {
		return f.writer.fail("close", f.path, err)
	}
	return nil
}

// Discard closes the file as it is. What it holds is to be removed, and need not
// be written to the disk first.
func (f *file) Discard() error {
	if f.closed.Swap(true) {
		return nil
	}
	defer f.writer.folders.release(f.parent)
	defer f.writer.open.Add(-1)
	if err := f.file.Close(); err != nil {
		return f.writer.fail("close", f.path, err)
	}
	return nil
}

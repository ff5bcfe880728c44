package source

import (
	"errors"
	"fmt"
	"io"
	"io/fs"

	"golang.org/x/sys/unix"

	"github.com/cairn-backup/cairn/manifest"
)

// A file is an open regular file. It calls the system directly: os.File costs
// twice as much for files of a few hundred bytes.
type file struct {
	view *dirView
	rel  string
	fd   int // -1 after Close
	off  int64

	// As of the last look, in bytes.
	size, stored int64
}

var (
	_ io.ReadCloser = (*file)(nil)
	_ Again         = (*file)(nil)
	_ Sparse        = (*file)(nil)
	_ Paged         = (*file)(nil)
)

// Read reads on from where the last Read or Seek ended.
func (f *file) Read(p []byte) (int, error) {
	n, err := f.pread(p, f.off)
	f.off += int64(n)
	return n, err
}

// ReadAt reads at off and fails with io.EOF if p is not filled.
func (f *file) ReadAt(p []byte, off int64) (n int, err error) {
	for n < len(p) && err == nil {
		var m int
		m, err = f.pread(p[n:], off+int64(n))
		n += m
	}
	return n, err
}

func (f *file) pread(p []byte, off int64) (int, error) {
	if f.fd < 0 {
		return 0, f.view.fail("read", f.rel, fs.ErrClosed)
	}
	if len(p) == 0 {
		return 0, nil
	}
	n, err := retry(func() (int, error) { return unix.Pread(f.fd, p, off) })
	switch {
	case err != nil:
		return 0, f.view.fail("read", f.rel, err)
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

// Seek moves the place of the next Read.
func (f *file) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekStart:
	case io.SeekCurrent:
		offset += f.off
	case io.SeekEnd:
		if _, err := f.Again(); err != nil {
			return 0, err
		}
		offset += f.size
	default:
		offset = -1
	}
	if offset < 0 {
		return 0, f.view.fail("seek", f.rel, unix.EINVAL)
	}
	f.off = offset
	return offset, nil
}

// Again looks at the open file.
func (f *file) Again() (manifest.Node, error) {
	if f.fd < 0 {
		return manifest.Node{}, f.view.fail("stat", f.rel, fs.ErrClosed)
	}
	var st unix.Stat_t
	if err := unix.Fstat(f.fd, &st); err != nil {
		return manifest.Node{}, f.view.fail("stat", f.rel, err)
	}
	if kindOf(st.Mode) != manifest.File {
		return manifest.Node{}, f.view.fail("open", f.rel, fmt.Errorf("no regular file: %w", ErrChanged))
	}
	f.size, f.stored = st.Size, int64(st.Blocks)*512 //nolint:unconvert // narrower on some systems
	return f.view.node(&st), nil
}

// NextData asks the file system, unless the file has as many blocks as bytes
// and so hardly a hole.
func (f *file) NextData(off int64) (start, end int64, err error) {
	if off < 0 {
		return 0, 0, f.view.fail("seek", f.rel, unix.EINVAL)
	}
	if f.stored >= f.size {
		return f.allData(off)
	}
	start, err = unix.Seek(f.fd, off, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO):
		return 0, 0, io.EOF
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EOPNOTSUPP):
		return f.allData(off) // the file system cannot tell
	case err != nil:
		return 0, 0, f.view.fail("seek", f.rel, err)
	}
	end, err = unix.Seek(f.fd, start, unix.SEEK_HOLE)
	switch {
	case errors.Is(err, unix.ENXIO): // cut off in between
		return 0, 0, io.EOF
	case err != nil:
		return 0, 0, f.view.fail("seek", f.rel, err)
	}
	return start, end, nil
}

// Grain asks the options, and looks at the begin of the file.
func (f *file) Grain() (int, error) { return f.view.grain(f.rel, f, f.size) }

func (f *file) allData(off int64) (start, end int64, err error) {
	if off >= f.size {
		return 0, 0, io.EOF
	}
	return off, f.size, nil
}

// Close closes the file.
func (f *file) Close() error {
	if f.fd < 0 {
		return f.view.fail("close", f.rel, fs.ErrClosed)
	}
	fd := f.fd
	f.fd = -1
	if err := unix.Close(fd); err != nil {
		return f.view.fail("close", f.rel, err)
	}
	return nil
}

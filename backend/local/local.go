// Package local keeps objects as files below one directory of this machine or
// of a network mount, one file an object, its path the key.
//
// What makes a Put atomic, exclusive and durable is said in put.go. Names that
// are no keys (lost+found, .DS_Store, temporary files, whatever a user drops
// there) are left alone and never seen; nor is anything reached through a
// symbolic link that leads out of the directory.
package local

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"path"
	"sync"
	"sync/atomic"

	"github.com/cairn-backup/cairn/backend"
)

// A Backend keeps objects as files. New is the only way to one. It holds the
// directory open from its first call on, so that nothing is written below the
// mount point when a disk is taken away.
type Backend struct {
	disk disk

	// method is the way of publishing that worked last: the file system does
	// not change, and a way that failed once is not tried again.
	method atomic.Int32

	mu     sync.Mutex       // guards what follows
	dirs   map[string]bool  // directories known to exist durably
	swept  map[string]bool  // directories looked through for old temporary files
	failed map[string]error // files and directories whose fsync failed
}

var (
	_ backend.Backend = (*Backend)(nil)
	_ backend.Initer  = (*Backend)(nil)
)

// New returns the store in the directory dir. It does no I/O. Unless dir is
// there, or Init makes it, every call returns backend.ErrNotExist.
func New(dir string) *Backend { return newBackend(&osDisk{dir: dir}) }

func newBackend(d disk) *Backend {
	return &Backend{
		disk:   d,
		dirs:   make(map[string]bool),
		swept:  make(map[string]bool),
		failed: make(map[string]error),
	}
}

// Init implements backend.Initer: it makes the directory, for the owner alone
// (mode 0700), unless it is there. It makes no parents: where they are missing
// a disk may be unmounted or the name mistyped, and it returns
// backend.ErrNotExist.
func (b *Backend) Init(ctx context.Context) error {
	if err := backend.Ended(ctx); err != nil {
		return failure("init", "", err)
	}
	if err := b.disk.makeRoot(); err != nil {
		return failure("init", "", err)
	}
	b.sweep(".")
	return nil
}

// Close releases the directory. A later call opens it again.
func (b *Backend) Close() error { return b.disk.close() }

// Get implements backend.Backend.
func (b *Backend) Get(ctx context.Context, key backend.Key, off, n int64) (io.ReadCloser, error) {
	if err := check(ctx, key); err != nil {
		return nil, failure("get", key, err)
	}
	f, err := b.disk.open(string(key))
	if err != nil {
		return nil, failure("get", key, err)
	}
	n, err = span(f, off, n)
	if err != nil {
		_ = f.Close() // only opened for reading
		return nil, failure("get", key, err)
	}
	return backend.NewBody(ctx, io.NewSectionReader(f, off, n), n, f), nil
}

func span(f readFile, off, n int64) (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if !info.Mode().IsRegular() {
		return 0, backend.ErrNotExist
	}
	return backend.Span(off, n, info.Size())
}

// Stat implements backend.Backend.
func (b *Backend) Stat(ctx context.Context, key backend.Key) (backend.Info, error) {
	if err := check(ctx, key); err != nil {
		return backend.Info{}, failure("stat", key, err)
	}
	info, err := b.disk.lstat(string(key))
	if err == nil && !info.Mode().IsRegular() {
		err = backend.ErrNotExist
	}
	if err != nil {
		return backend.Info{}, failure("stat", key, err)
	}
	return describe(key, info), nil
}

// Delete implements backend.Backend. The file's directory stays, empty or not:
// to remove it would race with a Put.
func (b *Backend) Delete(ctx context.Context, key backend.Key) error {
	if err := check(ctx, key); err != nil {
		return failure("delete", key, err)
	}
	err := b.delete(string(key))
	if notExist(err) && !errors.Is(err, errNoRoot) {
		return nil
	}
	return failure("delete", key, err)
}

func (b *Backend) delete(name string) error {
	info, err := b.disk.lstat(name)
	switch {
	case err == nil && !info.Mode().IsRegular():
		return nil // not an object, and remove would take an empty directory
	case err == nil:
		err = b.disk.remove(name)
	}
	if err != nil && !notExist(err) {
		return err
	}
	// Also if it was gone: whoever removed it may have crashed before this.
	return b.sync(path.Dir(name), b.disk.syncDir)
}

// check is what every call with a key does first.
func check(ctx context.Context, key backend.Key) error {
	if err := key.Validate(); err != nil {
		return err
	}
	return backend.Ended(ctx)
}

func describe(key backend.Key, info fs.FileInfo) backend.Info {
	return backend.Info{Key: key, Size: info.Size(), Modified: info.ModTime()}
}

// Name implements backend.Namer: the directory as it was given.
func (b *Backend) Name() string {
	if d, ok := b.disk.(*osDisk); ok {
		return "file:" + d.dir
	}
	return ""
}

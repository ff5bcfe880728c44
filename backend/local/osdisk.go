package local

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
)

// osDisk is a directory of this machine. Every path goes through an os.Root,
// so that no symbolic link can lead out of it.
type osDisk struct {
	dir string

	mu     sync.Mutex // guards opened
	opened *os.Root   // nil until the first call
}

var _ disk = (*osDisk)(nil)

// root returns the open root.
func (d *osDisk) root() (*os.Root, error) {
	d.mu.Lock()
	r := d.opened
	d.mu.Unlock()
	if r != nil {
		return r, nil
	}
	r, err := os.OpenRoot(d.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", errNoRoot, err)
	}
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.opened == nil {
		d.opened = r
	} else {
		_ = r.Close() // someone else was faster
	}
	return d.opened, nil
}

func (d *osDisk) close() error {
	d.mu.Lock()
	r := d.opened
	d.opened = nil
	d.mu.Unlock()
	if r == nil {
		return nil
	}
	return r.Close()
}

func (d *osDisk) makeRoot() error {
	err := os.Mkdir(d.dir, 0o700)
	made := err == nil
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if info, err := os.Stat(d.dir); err != nil {
		return err
	} else if !info.IsDir() {
		return fmt.Errorf("%s is not a directory", d.dir)
	}
	parent, err := os.Open(filepath.Dir(filepath.Clean(d.dir)))
	if err == nil {
		err = syncDirAndClose(parent)
	}
	if !made && errors.Is(err, fs.ErrPermission) {
		err = nil // another user made it, in a directory of theirs
	}
	if err != nil {
		return err
	}
	// A root that was open may be of a directory that has been removed.
	if err := d.close(); err != nil {
		return err
	}
	_, err = d.root()
	return err
}

func (d *osDisk) mkdir(dir string) error {
	r, err := d.root()
	if err != nil {
		return err
	}
	return r.Mkdir(dir, 0o700)
}

func (d *osDisk) createTemp(name string) (tempFile, error) {
	r, err := d.root()
	if err != nil {
		return nil, err
	}
	f, err := r.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	return namedFile{f}, nil
}

// namedFile is a file under a temporary name.
type namedFile struct{ *os.File }

// Sync makes what was written durable.
func (f namedFile) Sync() error { return flush(f.File) }

func (d *osDisk) link(from, to string) error {
	r, err := d.root()
	if err != nil {
		return err
	}
	if err := r.Link(from, to); err != nil {
		if isNoLink(err) {
			return fmt.Errorf("%w: %w", errNoMethod, err)
		}
		return err
	}
	return nil
}

func (d *osDisk) rename(from, to string) error {
	r, err := d.root()
	if err != nil {
		return err
	}
	if err := renameNoReplace(r, from, to); err != nil {
		if isNoMethod(err) {
			return fmt.Errorf("%w: %w", errNoMethod, err)
		}
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return nil
}

func (d *osDisk) syncFile(name string) error {
	r, err := d.root()
	if err != nil {
		return err
	}
	f, err := r.OpenFile(name, syncFlags, 0)
	if err != nil {
		return err
	}
	return syncAndClose(f)
}

func (d *osDisk) syncDir(dir string) error {
	r, err := d.root()
	if err != nil {
		return err
	}
	f, err := r.Open(dir)
	if err != nil {
		return err
	}
	return syncDirAndClose(f)
}

func (d *osDisk) remove(name string) error {
	r, err := d.root()
	if err != nil {
		return err
	}
	return r.Remove(name)
}

func (d *osDisk) lstat(name string) (fs.FileInfo, error) {
	r, err := d.root()
	if err != nil {
		return nil, err
	}
	return r.Lstat(name)
}

func (d *osDisk) open(name string) (readFile, error) {
	r, err := d.root()
	if err != nil {
		return nil, err
	}
	f, err := r.OpenFile(name, readFlags, 0)
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (d *osDisk) sameFile(x, y string) bool {
	a, err := d.lstat(x)
	if err != nil {
		return false
	}
	b, err := d.lstat(y)
	return err == nil && os.SameFile(a, b)
}

func (d *osDisk) readDir(dir string, keep func(string) bool) ([]fs.FileInfo, error) {
	r, err := d.root()
	if err != nil {
		return nil, err
	}
	// A root of its own makes each lstat one call, whatever the depth.
	sub, err := r.OpenRoot(dir)
	if err != nil {
		if info, e := r.Stat(dir); e == nil && !info.IsDir() {
			return nil, &os.PathError{Op: "open", Path: dir, Err: syscall.ENOTDIR} // OpenRoot's is no errno
		}
		return nil, err
	}
	defer func() { _ = sub.Close() }() // nothing was written through it
	f, err := sub.Open(".")
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // nor through this
	names, err := f.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	var infos []fs.FileInfo
	for _, name := range names {
		if !keep(name) {
			continue
		}
		info, err := sub.Lstat(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, err
		}
		infos = append(infos, info)
	}
	return infos, nil
}

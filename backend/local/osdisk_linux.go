package local

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"

	"golang.org/x/sys/unix"
)

// flush is fsync(2).
func flush(f *os.File) error { return f.Sync() }

// unnamedFile is a file without a name in an open directory.
type unnamedFile struct {
	*os.File
	dir *os.File
}

// Close closes the file, and with it the directory.
func (f *unnamedFile) Close() error { return errors.Join(f.File.Close(), f.dir.Close()) }

func (d *osDisk) createUnnamed(dir string) (tempFile, error) {
	r, err := d.root()
	if err != nil {
		return nil, err
	}
	parent, err := r.Open(dir)
	if err != nil {
		return nil, err
	}
	fd, err := openTmpfile(parent)
	if err != nil {
		_ = parent.Close() // nothing was written through it
		if isNoMethod(err) {
			return nil, fmt.Errorf("%w: O_TMPFILE: %w", errNoMethod, err)
		}
		return nil, &os.PathError{Op: "create file in", Path: dir, Err: err}
	}
	return &unnamedFile{File: os.NewFile(uintptr(fd), path.Join(dir, "unnamed")), dir: parent}, nil
}

func openTmpfile(dir *os.File) (int, error) {
	for {
		fd, err := unix.Openat(int(dir.Fd()), ".", unix.O_TMPFILE|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

func (d *osDisk) linkUnnamed(f tempFile, name string) error {
	u, ok := f.(*unnamedFile)
	if !ok {
		panic("local: linkUnnamed of a file that createUnnamed did not make")
	}
	base := path.Base(name)
	// Through /proc, since AT_EMPTY_PATH is for root alone up to Linux 6.10;
	// and the other way where /proc is not mounted.
	err := unix.Linkat(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(int(u.Fd())), int(u.dir.Fd()), base, unix.AT_SYMLINK_FOLLOW)
	if errors.Is(err, unix.ENOENT) {
		err = unix.Linkat(int(u.Fd()), "", int(u.dir.Fd()), base, unix.AT_EMPTY_PATH)
	}
	switch {
	case err == nil:
		return nil
	case isNoLink(err), errors.Is(err, unix.ENOENT):
		return fmt.Errorf("%w: linkat: %w", errNoMethod, err)
	}
	return &os.LinkError{Op: "link", Old: "unnamed file", New: name, Err: err}
}

func renameNoReplace(r *os.Root, from, to string) error {
	dir, err := r.Open(path.Dir(to))
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }() // nothing was written through it
	// from is in the same directory, see publishNamed.
	return unix.Renameat2(int(dir.Fd()), path.Base(from), int(dir.Fd()), path.Base(to), unix.RENAME_NOREPLACE)
}

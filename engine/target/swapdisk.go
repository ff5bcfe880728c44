package target

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// A disk does what an exchange does to the file system, step by step, so that
// tests can stop it before any of them. Paths are absolute.
type disk interface {
	lstat(path string) (fs.FileInfo, error)
	list(dir string) ([]string, error)
	read(path string) ([]byte, error)

	mkdir(path string) error
	write(path string, data []byte) error // durable but for its name
	rename(from, to string) error         // over what is there
	move(from, to string) error           // fs.ErrExist if something is there
	swap(a, b string) error               // errors.ErrUnsupported
	remove(path string) error             // nil if it is not there
	removeAll(path string) error
	syncDir(path string) error
	copyMeta(from, to string) error
}

// osDisk is the real one.
type osDisk struct{}

var _ disk = osDisk{}

func (osDisk) lstat(path string) (fs.FileInfo, error) { return os.Lstat(path) }
func (osDisk) read(path string) ([]byte, error)       { return os.ReadFile(path) }
func (osDisk) mkdir(path string) error                { return os.Mkdir(path, 0o700) }
func (osDisk) rename(from, to string) error           { return os.Rename(from, to) }
func (osDisk) move(from, to string) error             { return moveFile(from, to) }
func (osDisk) swap(a, b string) error                 { return swapFiles(a, b) }
func (osDisk) copyMeta(from, to string) error         { return copyMeta(from, to) }
func (osDisk) syncDir(path string) error              { return syncPath(path) }

func (osDisk) list(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, err
}

func (osDisk) write(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func (osDisk) remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// removeAll removes a tree, also where its directories forbid it, and nothing
// that is mounted in it.
func (osDisk) removeAll(path string) error {
	mounts, err := mountsBelow(path)
	if err != nil {
		return err
	}
	if len(mounts) > 0 {
		return &fs.PathError{Op: "remove", Path: mounts[0], Err: errMount}
	}
	if err := os.RemoveAll(path); err == nil {
		return nil
	}
	// The modes of its directories may be in the way of their owner.
	_ = filepath.WalkDir(path, func(p string, d fs.DirEntry, _ error) error { // what stays is found out below
		if d != nil && d.IsDir() {
			_ = os.Chmod(p, 0o700) //nolint:gosec // it is about to be removed
		}
		return nil
	})
	return os.RemoveAll(path)
}

// moveChecked is move where the system has no call for it.
func moveChecked(from, to string) error {
	if _, err := os.Lstat(to); !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(err, &fs.PathError{Op: "rename", Path: to, Err: fs.ErrExist})
	}
	return os.Rename(from, to)
}

// copyMeta gives one directory the mode, owner and time of another. The owner
// is left where the user may not set it.
func copyMeta(from, to string) error {
	fi, err := os.Stat(from)
	if err != nil {
		return err
	}
	uid, gid := ownerIDs(fi)
	if err := os.Lchown(to, uid, gid); err != nil && !errors.Is(err, fs.ErrPermission) && !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	if err := os.Chtimes(to, fi.ModTime(), fi.ModTime()); err != nil {
		return err
	}
	return os.Chmod(to, fi.Mode())
}

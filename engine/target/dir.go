package target

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// A DirTarget is a directory. Its fields are set before Begin and not changed
// after.
//
// The directory may be absent, if what it lies in exists, or be empty; a
// symbolic link that leads to an empty directory will do as well. Everything
// goes through os.Root: whatever a snapshot holds, nothing outside the
// directory is written.
//
// Restoring is not atomic: a crash leaves a part. Commit makes the whole
// durable.
//
// Owners are restored by number. Owners, device nodes and attributes that only
// the superuser may set are left out for other users, and counted. Where the
// owner is not the one in the snapshot, the setuid and setgid bits are left
// out as well: they would lend the wrong user's rights.
type DirTarget struct {
	path string

	// NoOwner leaves every entry to the user who restores.
	NoOwner bool
}

var _ Target = (*DirTarget)(nil)

// Dir returns a target that is the directory at path.
func Dir(path string) *DirTarget { return &DirTarget{path: path} }

// Begin makes the directory if it is absent.
func (d *DirTarget) Begin(ctx context.Context, need Need) (Writer, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	path, err := filepath.Abs(d.path)
	if err != nil {
		return nil, &Error{Op: "begin", Path: d.path, Err: err}
	}
	w := &dirWriter{
		path:    path,
		noOwner: d.NoOwner,
		uid:     os.Geteuid(),
		gid:     os.Getegid(),
		dirs:    map[string]*dirState{},
		links:   map[uint64]string{},
	}
	if err := w.begin(need); err != nil {
		return nil, err
	}
	return w, nil
}

func (w *dirWriter) begin(need Need) error {
	before, err := os.Stat(w.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := checkSpace(filepath.Dir(w.path), need); err != nil {
			return w.fail("begin", "", err)
		}
		if err := w.makeTop(); err != nil {
			return w.fail("mkdir", "", err)
		}
	case err != nil:
		return w.fail("begin", "", err)
	case !before.IsDir():
		return w.fail("begin", "", ErrNotDirectory)
	default:
		if err := checkEmpty(w.path); err != nil {
			return w.fail("begin", "", err)
		}
		if err := checkSpace(w.path, need); err != nil {
			return w.fail("begin", "", err)
		}
	}
	if err := w.openTop(); err != nil {
		if w.created {
			err = errors.Join(err, os.Remove(w.path))
		}
		return w.fail("begin", "", err)
	}
	return nil
}

// makeTop makes the target directory, closed to others for as long as what is
// in it is not finished.
func (w *dirWriter) makeTop() error {
	if err := os.Mkdir(w.path, 0o777); err != nil {
		return err
	}
	w.created = true
	return nil
}

// openTop opens the target directory and keeps what it was like.
func (w *dirWriter) openTop() error {
	root, err := os.OpenRoot(w.path)
	if err != nil {
		return err
	}
	top, err := newFolder("", root)
	if err != nil {
		return errors.Join(err, root.Close())
	}
	w.folders = newFolders(top)
	if err := w.lookAtTop(top); err != nil {
		return errors.Join(err, w.folders.close())
	}
	state := &dirState{ready: make(chan struct{})}
	if w.created {
		state.meta = &w.before
	}
	close(state.ready)
	w.dirs[""] = state
	w.order = append(w.order, state)
	return nil
}

// lookAtTop finds out what the target directory is like. One that was made
// here is closed to others, and what it inherited is taken away: an entry has
// the permissions that it had, and no more.
func (w *dirWriter) lookAtTop(top *folder) error {
	var err error
	if w.before, err = top.stat(); err != nil || !w.created {
		w.inherit = len(w.before.xattrs) > 0
		return err
	}
	if len(w.before.xattrs) > 0 {
		w.before.xattrs = nil
		w.before.mode &^= 0o070 // was the ACL's mask and not the group's
		if err := top.strip("."); err != nil {
			return err
		}
	}
	return top.root.Chmod(".", 0o700)
}

// checkEmpty returns ErrNotEmpty if the directory has an entry.
func checkEmpty(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	names, err := dir.Readdirnames(1)
	_ = dir.Close() // nothing was written to it
	if len(names) > 0 {
		return fmt.Errorf("%w: it holds %q", ErrNotEmpty, names[0])
	}
	if errors.Is(err, os.ErrNotExist) || len(names) == 0 && isEOF(err) {
		return nil
	}
	return err
}

// lack returns ErrNoSpace if there is less than is needed.
func lack(what string, need, free uint64) error {
	if need <= free {
		return nil
	}
	return fmt.Errorf("%w: %d %s are needed and %d free", ErrNoSpace, need, what, free)
}

package target

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
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
// With Overwrite the directory may hold something. Each entry that differs is
// then made under a name of its own (".cairn-*.tmp") and renamed over what was
// there, so that it is either the old or the new one, at every moment. A file of
// 4 MiB or more of which parts are right is mended in place instead: only the
// ranges that differ are written, and a crash leaves a mixture. Links are never
// followed, nothing is written through a name that a file also has outside the
// target, and what another program has open it goes on seeing. Abort removes
// what was new; what was replaced, mended or deleted stays so. [SwapTarget] is
// the one that gives all or nothing.
//
// Owners are restored by number. Owners, device nodes and attributes that only
// the superuser may set are left out for other users, and counted. Where the
// owner is not the one in the snapshot, the setuid and setgid bits are left
// out as well: they would lend the wrong user's rights.
type DirTarget struct {
	path string

	// NoOwner leaves every entry to the user who restores.
	NoOwner bool

	// Overwrite says what becomes of what is there already. Default: Refuse.
	Overwrite Overwrite

	// Delete removes, at Commit, what the snapshot does not hold, and lets a
	// file take the place of a directory that is not empty. Only directories
	// that were restored as a whole are tidied, and none that another file
	// system is mounted on.
	Delete bool

	// Skip holds paths of files and directories that Delete leaves alone wherever
	// they show up, with the directories above them: the repository and its cache,
	// as in source.DirSource.Skip. Those that do not exist are ignored.
	Skip []string

	// DryRun writes nothing at all, and reports what would be done.
	DryRun bool

	// Report is told what became of each entry, one call at a time. It must be
	// quick, and is called only with Overwrite or DryRun. Default: nobody.
	Report func(Change)
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
	if d.Overwrite != Refuse || d.DryRun {
		skip, err := lookAll(d.Skip)
		if err != nil {
			return nil, err
		}
		w.over = &overlay{
			overwrite: d.Overwrite, remove: d.Delete && d.Overwrite != Refuse, dry: d.DryRun, report: d.Report, skip: skip,
			seed: maphash.MakeSeed(), held: map[uint64]struct{}{}, inodes: map[inode]uint64{}, kept: map[uint64]bool{},
		}
	}
	w.few = w.over == nil && syncsEach(need)
	if err := w.begin(need); err != nil {
		return nil, err
	}
	if w.over != nil {
		return &overWriter{w}, nil
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
		if w.over != nil && w.over.dry {
			w.absentTop()
			return nil
		}
		if err := w.makeTop(); err != nil {
			return w.fail("mkdir", "", err)
		}
	case err != nil:
		return w.fail("begin", "", err)
	case !before.IsDir():
		return w.fail("begin", "", ErrNotDirectory)
	case w.over != nil && w.over.overwrite != Refuse:
		// What is needed depends on what differs: see Fit.
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
	state := &dirState{ready: make(chan struct{}), existed: !w.created, inherit: w.inherit, before: w.before}
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

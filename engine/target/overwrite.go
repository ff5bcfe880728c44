package target

import (
	"errors"
	"fmt"
	"hash/maphash"
	"io/fs"
	"sync"

	"github.com/cairn-backup/cairn/manifest"
)

// Overwrite says what [DirTarget] does with what is there already.
type Overwrite uint8

const (
	// Refuse takes a directory that is empty or absent, and no other.
	Refuse Overwrite = iota

	// Changed makes every entry as the snapshot has it. What is so already
	// stays untouched; contents are compared, never times alone.
	Changed

	// Never keeps every entry that is there, whatever it is like, and makes
	// what is missing. Directories are filled and keep their metadata.
	Never
)

// ErrKept says that an entry was there, and stays as it is since Overwrite is
// Never. It is no failure.
var ErrKept = errors.New("what is there is kept")

// What says what became of one entry.
type What uint8

// What can become of an entry.
const (
	Unchanged What = iota // it was as it should be
	Created               // nothing was there
	Replaced              // something else was there
	Mended                // parts of the content were written, in place
	Adjusted              // mode, owner, time or attributes were set
	Kept                  // it is not as in the snapshot, and stays: Never, or a mount point
	Deleted               // the snapshot does not hold it
)

// String returns w as one word.
func (w What) String() string {
	names := [...]string{"unchanged", "created", "replaced", "mended", "adjusted", "kept", "deleted"}
	if int(w) < len(names) {
		return names[w]
	}
	return "unknown"
}

// A Change is what became of one entry of the target, or would become in a dry
// run.
type Change struct {
	Path string // relative to the target; "" is the target itself
	Kind manifest.NodeKind
	What What
}

// Changes counts entries of every kind by what became of them.
type Changes struct {
	Unchanged, Created, Replaced, Mended, Adjusted, Kept, Deleted uint64
}

func (c *Changes) add(w What) {
	switch w {
	case Unchanged:
		c.Unchanged++
	case Created:
		c.Created++
	case Replaced:
		c.Replaced++
	case Mended:
		c.Mended++
	case Adjusted:
		c.Adjusted++
	case Kept:
		c.Kept++
	case Deleted:
		c.Deleted++
	}
}

// An Updater is a Writer over what the target held before. Whoever restores
// asks for it, and where there is one compares content before fetching it: see
// [Mender]. Create returns [ErrKept] for an entry that stays, and Make returns
// it for a further name of such an entry, whose content has to be written then.
//
// The methods are safe for concurrent use.
type Updater interface {
	Writer

	// DryRun reports whether nothing is written. Content need not be fetched
	// then: a file of which Keep and Zero have not covered all is reported as
	// changed.
	DryRun() bool

	// Hold says that the snapshot holds an entry at path, restored or not: it
	// is not deleted.
	Hold(path string)

	// Whole says that Hold was called for every entry of the directory at
	// path. In other directories nothing is deleted.
	Whole(path string)

	// Changes returns what became of the entries; complete after Commit.
	Changes() Changes
}

// A Mender is a File in whose place there is a file already.
//
// Who calls Mend takes it on to cover the size of the node with WriteAt, Keep
// and Zero, each byte once. Who does not writes as to any other File, and
// nothing of the old content stays.
type Mender interface {
	File

	// Discard leaves what was there as far as it was not written over.
	Discarder

	// Mend returns the size of the old content in bytes. ReadAt reads it from
	// then on, save what was written over. It comes before every other call.
	Mend() int64

	// Keep says that the old content at off, of n bytes, is right.
	Keep(off, n int64) error

	// Zero makes n bytes at off zeros, as a hole if it can. They may lie
	// beyond the old content.
	Zero(off, n int64) error
}

// An overlay is what a dirWriter knows of what was there before.
type overlay struct {
	overwrite Overwrite
	remove    bool
	dry       bool
	absent    bool // a dry run, and the target is not there
	report    func(Change)
	skip      []fs.FileInfo // what is never removed
	seed      maphash.Seed

	mu      sync.Mutex // guards what follows, and serialises report
	changes Changes
	// held are the paths in the snapshot, as hashes: 500,000 take 16 MB. Two
	// paths with one hash would keep an entry that should go, at odds of about
	// one to ten million in a tree of a million entries.
	held   map[uint64]struct{}
	inodes map[inode]uint64 // files with several names that stay, by group of links
	kept   map[uint64]bool  // groups of links whose first name was kept
}

// An inode is the identity of a file on its system.
type inode struct{ dev, ino uint64 }

// errAbsent says that a dry run met a directory that would have to be made.
var errAbsent = errors.New("not there")

var _ Updater = (*overWriter)(nil)

// An overWriter is a dirWriter over what was there before.
type overWriter struct{ *dirWriter }

// DryRun reports whether nothing is written.
func (w *overWriter) DryRun() bool { return w.over.dry }

// Hold keeps path from being deleted.
func (w *overWriter) Hold(path string) {
	if w.over.remove {
		w.over.hold(path)
	}
}

// Whole lets Commit delete from the directory at path.
func (w *overWriter) Whole(path string) {
	if !w.over.remove {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if state := w.dirs[path]; state != nil {
		state.whole = true
	}
}

// Changes returns the counts.
func (w *overWriter) Changes() Changes {
	w.over.mu.Lock()
	defer w.over.mu.Unlock()
	return w.over.changes
}

func (o *overlay) hold(path string) {
	h := maphash.String(o.seed, path)
	o.mu.Lock()
	o.held[h] = struct{}{}
	o.mu.Unlock()
}

func (o *overlay) holds(path string) bool {
	h := maphash.String(o.seed, path)
	o.mu.Lock()
	defer o.mu.Unlock()
	_, ok := o.held[h]
	return ok
}

// tell counts a change and reports it. A nil overlay tells nobody.
func (o *overlay) tell(path string, kind manifest.NodeKind, what What) {
	if o == nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.changes.add(what)
	if o.report != nil {
		o.report(Change{Path: path, Kind: kind, What: what})
	}
}

// claim reports whether the old entry may stand for a node of this group of
// links: it has no other name, or its names are those of the group.
func (o *overlay) claim(fi fs.FileInfo, link uint64) bool {
	id, names := inodeOf(fi)
	if names < 2 {
		return true
	}
	if link == 0 {
		return false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if owner, taken := o.inodes[id]; taken {
		return owner == link
	}
	o.inodes[id] = link
	return true
}

// keep notes that the first name of a group of links stays as it is.
func (o *overlay) keep(link uint64) {
	if link == 0 {
		return
	}
	o.mu.Lock()
	o.kept[link] = true
	o.mu.Unlock()
}

func (o *overlay) keeps(link uint64) bool {
	if o == nil || link == 0 {
		return false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.kept[link]
}

// enter takes the directory that is there, or makes room for one that is to be
// made. It reports whether one is there.
func (w *dirWriter) enter(parent *folder, name string, state *dirState) (exists bool, err error) {
	fi, err := parent.root.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		w.over.tell(state.path, manifest.Dir, Created)
		if w.over.dry {
			return false, errAbsent
		}
		return false, nil
	case err != nil:
		return false, err
	case fi.IsDir():
		return true, w.lookAtDir(parent, name, fi, state)
	case w.over.overwrite == Never:
		return false, fmt.Errorf("%w: %w", ErrNotDirectory, fs.ErrExist)
	}
	w.over.tell(state.path, manifest.Dir, Replaced)
	if w.over.dry {
		return false, errAbsent
	}
	return false, parent.root.Remove(name)
}

// lookAtDir keeps what a directory is like that was there before, and opens it
// to its owner for as long as it is written to.
func (w *dirWriter) lookAtDir(parent *folder, name string, fi fs.FileInfo, state *dirState) error {
	const owner = 0o700
	if fi.Mode().Perm()&owner != owner && !w.superuser() && !w.over.dry {
		if err := parent.root.Chmod(name, fi.Mode().Perm()|owner); err != nil {
			return err
		}
		state.opened = true
	}
	f, err := w.folders.open(parent, state.path, name)
	if err != nil {
		return err
	}
	defer w.folders.release(f)
	if got, err := f.root.Stat("."); err != nil || inodeOfDir(got) != inodeOfDir(fi) {
		return errors.Join(err, ErrNotDirectory) // it was exchanged, perhaps for a link
	}
	if state.before, err = f.stat(); err != nil {
		return err
	}
	state.before.mode = state.before.mode&^0o777 | uint32(fi.Mode().Perm())
	state.existed, state.inherit = true, len(state.before.xattrs) > 0
	return nil
}

func inodeOfDir(fi fs.FileInfo) inode {
	id, _ := inodeOf(fi)
	return id
}

// replace renames temp over name. A directory that holds something gives way
// only if Delete is set.
func (w *dirWriter) replace(parent *folder, temp, name, path string) error {
	fi, err := parent.root.Lstat(name)
	if err == nil && fi.IsDir() {
		err = w.clearDir(parent, name, path)
	}
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		err = parent.root.Rename(temp, name)
	}
	if err != nil {
		_ = parent.root.Remove(temp) // the first error tells more
	}
	return err
}

// clearDir removes a directory that is in the way of something else.
func (w *dirWriter) clearDir(parent *folder, name, path string) error {
	if !w.over.remove {
		err := parent.root.Remove(name)
		if err != nil {
			return fmt.Errorf("a directory is in its place: %w", err)
		}
		return nil
	}
	gone, err := w.removeTree(parent, name, path, quiet)
	if err == nil && !gone {
		err = errStays
	}
	return err
}

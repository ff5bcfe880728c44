package target

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/cairn-backup/cairn/manifest"
)

// A dirWriter restores into a directory.
type dirWriter struct {
	path    string
	noOwner bool
	uid     int // of the process; asking costs a call for each file
	gid     int
	created bool     // Begin made the directory
	inherit bool     // what is made straight in the directory gets an ACL from it
	before  meta     // what the directory was like
	folders *folders // open directories
	over    *overlay // nil where only an empty target is taken
	few     bool     // entries: each is made durable by itself; not of an overlay

	flush                   atomic.Bool  // something was made that cannot be made durable by itself
	open                    atomic.Int64 // files
	owners, devices, xattrs atomic.Uint64

	mu      sync.Mutex // guards what follows
	done    bool       // committed or aborted
	dirs    map[string]*dirState
	order   []*dirState       // every directory after the one that it lies in
	entries []string          // made in directories that were there before
	links   map[uint64]string // the first name of each group of hard links
}

// A dirState is a directory that was made, or is being made.
type dirState struct {
	path  string
	ready chan struct{} // closed when it is made, or cannot be
	err   error         // why not; read after ready

	meta    *meta // to be set at Commit; nil: none is known
	applied bool  // meta was set, and may forbid to go on

	// What follows is of a directory that was there before.
	existed bool
	inherit bool // what is made in it gets an ACL from it
	opened  bool // to its owner, who had no access
	before  meta
	whole   bool // every entry that the snapshot has in it is held
}

// A meta is the metadata of an entry.
type meta struct {
	mode     uint32
	uid, gid uint32
	mtime    manifest.Time
	xattrs   []manifest.Xattr
}

func metaOf(n manifest.Node) meta {
	return meta{mode: n.Mode & 0o7777, uid: n.UID, gid: n.GID, mtime: n.MTime, xattrs: n.Xattrs}
}

var _ Writer = (*dirWriter)(nil)

// superuser reports whether owners can be set.
func (w *dirWriter) superuser() bool { return w.uid == 0 }

// Skipped returns what was left out so far.
func (w *dirWriter) Skipped() Skipped {
	return Skipped{Owners: w.owners.Load(), Devices: w.devices.Load(), Xattrs: w.xattrs.Load()}
}

// fail returns err as an error of the entry at path.
func (w *dirWriter) fail(op, path string, err error) error {
	if known := (*Error)(nil); errors.As(err, &known) {
		return err
	}
	if path == "" {
		path = w.path
	} else {
		path = strings.TrimSuffix(w.path, "/") + "/" + path
	}
	err = cause(err)
	if outOfSpace(err) && !errors.Is(err, ErrNoSpace) {
		err = fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	return &Error{Op: op, Path: path, Err: err}
}

// cause strips what the os package says of operation and path, since [Error]
// says it.
func cause(err error) error {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return p.Err
	}
	return err
}

func isEOF(err error) bool { return errors.Is(err, io.EOF) }

// check refuses what no writer can do.
func (w *dirWriter) check(ctx context.Context, path string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if path != "" && !validPath(path) {
		return w.fail("make", path, ErrPath)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.done {
		return w.fail("make", path, ErrDone)
	}
	return nil
}

// validPath reports whether every element of p can be the name of an entry.
func validPath(p string) bool {
	for e := range strings.SplitSeq(p, "/") {
		if e == "" || e == "." || e == ".." || strings.ContainsAny(e, forbidden) {
			return false
		}
	}
	return true
}

// splitPath returns the directory and the name of the entry at p.
func splitPath(p string) (dir, name string) {
	if i := strings.LastIndexByte(p, '/'); i >= 0 {
		return p[:i], p[i+1:]
	}
	return "", p
}

// folder opens the directory at path, which it makes if nobody did. The caller
// releases it.
func (w *dirWriter) folder(path string) (*folder, error) {
	if f := w.folders.take(path); f != nil {
		return f, nil
	}
	state, mine := w.claim(path)
	if mine {
		w.mkdir(state)
	}
	<-state.ready
	if state.err != nil {
		return nil, state.err
	}
	above, name := splitPath(path)
	parent, err := w.folder(above)
	if err != nil {
		return nil, err
	}
	defer w.folders.release(parent)
	f, err := w.folders.open(parent, path, name)
	if err != nil {
		return nil, w.fail("open", path, err)
	}
	return f, nil
}

// claim returns the state of the directory at path. It is mine if there was
// none: then the caller calls mkdir.
func (w *dirWriter) claim(path string) (state *dirState, mine bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if state, ok := w.dirs[path]; ok {
		return state, false
	}
	state = &dirState{path: path, ready: make(chan struct{})}
	w.dirs[path] = state
	return state, true
}

// mkdir makes a directory that only its owner can enter, and settles its state.
func (w *dirWriter) mkdir(state *dirState) {
	defer close(state.ready)
	above, name := splitPath(state.path)
	parent, err := w.folder(above)
	if err != nil {
		state.err = w.absent(state.path, manifest.Node{Kind: manifest.Dir}, err)
		if state.err == nil {
			state.err = errAbsent
		}
		return
	}
	defer w.folders.release(parent)
	exists := false
	if w.over != nil {
		if exists, err = w.enter(parent, name, state); err != nil {
			state.err = w.failUnlessAbsent("mkdir", state.path, err)
			return
		}
	}
	if !exists {
		if err := parent.mkdir(name); err != nil {
			state.err = w.fail("mkdir", state.path, err)
			return
		}
	}
	w.mu.Lock()
	w.order = append(w.order, state)
	w.mu.Unlock()
	if exists {
		return
	}
	if err := w.made(parent, state.path); err != nil {
		state.err = w.fail("mkdir", state.path, err)
	}
}

// made keeps what Abort must remove one by one, and takes inherited ACLs away:
// both concern only what lies straight in a directory that was there before.
func (w *dirWriter) made(parent *folder, path string) error {
	if w.created || w.over == nil && strings.Contains(path, "/") {
		return nil
	}
	above, name := splitPath(path)
	w.mu.Lock()
	state := w.dirs[above]
	if state.existed {
		w.entries = append(w.entries, path)
	}
	w.mu.Unlock()
	if state.inherit {
		return parent.strip(name)
	}
	return nil
}

// inherits reports whether what is made at path gets an ACL from its directory.
func (w *dirWriter) inherits(path string) bool {
	above, _ := splitPath(path)
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.dirs[above].inherit
}

// Make makes an entry.
func (w *dirWriter) Make(ctx context.Context, path string, n manifest.Node) error {
	if err := w.check(ctx, path); err != nil {
		return err
	}
	if n.Kind == manifest.Dir {
		return w.makeDir(path, n)
	}
	if path == "" {
		return w.fail("make", path, fmt.Errorf("%s: %w", n.Kind, ErrNotDirectory))
	}
	above, name := splitPath(path)
	parent, err := w.folder(above)
	if err != nil {
		return w.absent(path, n, err)
	}
	defer w.folders.release(parent)
	if first, ok := w.first(n.Link); ok {
		return w.link(first, parent, name, path)
	}
	if w.over != nil {
		if done, err := w.makeOver(parent, name, path, n); done || err != nil {
			return err
		}
	}
	if made, err := w.makeEntry(parent, name, n); err != nil {
		return w.fail("make", path, err)
	} else if !made {
		return nil
	}
	w.flush.Store(true) // neither file nor directory
	w.setFirst(n.Link, path)
	if err := w.made(parent, path); err != nil {
		return w.fail("make", path, err)
	}
	if err := w.setEntry(parent, name, n); err != nil {
		return w.fail("set", path, err)
	}
	w.over.tell(path, n.Kind, Created)
	return nil
}

// makeDir makes a directory, or takes the one that was made for what is in it.
func (w *dirWriter) makeDir(path string, n manifest.Node) error {
	state, mine := w.claim(path)
	if mine {
		w.mkdir(state)
	}
	<-state.ready
	if errors.Is(state.err, errAbsent) {
		return nil // a dry run
	}
	if state.err != nil {
		return state.err
	}
	m := metaOf(n)
	if state.existed && w.over != nil {
		if err := w.lookOver(state, m); err != nil || w.over.overwrite == Never {
			return err
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if state.meta != nil && path != "" {
		return w.fail("mkdir", path, fs.ErrExist)
	}
	state.meta = &m
	return nil
}

// makeEntry makes what is neither file nor directory. It is not made if the
// user may not.
func (w *dirWriter) makeEntry(parent *folder, name string, n manifest.Node) (made bool, err error) {
	switch n.Kind {
	case manifest.Symlink:
		return true, parent.root.Symlink(n.Target, name)
	case manifest.FIFO:
		return true, parent.mkfifo(name)
	case manifest.CharDevice, manifest.BlockDevice:
		made, err = parent.mknod(name, n)
		if err == nil && !made {
			w.devices.Add(1)
		}
		return made, err
	case manifest.File:
		return false, fmt.Errorf("a link to a file that was not created: %w", ErrUnsupported)
	default:
		return false, fmt.Errorf("%s: %w", n.Kind, ErrUnsupported)
	}
}

// first returns the first name of a group of hard links.
func (w *dirWriter) first(link uint64) (string, bool) {
	if link == 0 {
		return "", false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	path, ok := w.links[link]
	return path, ok
}

func (w *dirWriter) setFirst(link uint64, path string) {
	if link == 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, ok := w.links[link]; !ok {
		w.links[link] = path
	}
}

// link makes name in parent a further name of the entry at first.
func (w *dirWriter) link(first string, parent *folder, name, path string) error {
	above, old := splitPath(first)
	dir, err := w.folder(above)
	if err != nil {
		return w.absent(path, manifest.Node{Kind: manifest.File}, err)
	}
	defer w.folders.release(dir)
	if w.over != nil {
		if done, err := w.linkOver(dir, old, parent, path); done || err != nil {
			return err
		}
	}
	if err := w.linkAt(dir, old, parent, name); err != nil {
		return w.fail("link", path, err)
	}
	if err := w.made(parent, path); err != nil {
		return w.fail("link", path, err)
	}
	w.over.tell(path, manifest.File, Created)
	return nil
}

// Create makes a regular file.
func (w *dirWriter) Create(ctx context.Context, path string, n manifest.Node) (File, error) {
	if err := w.check(ctx, path); err != nil {
		return nil, err
	}
	if path == "" || n.Kind != manifest.File {
		return nil, w.fail("create", path, fmt.Errorf("%s: %w", n.Kind, ErrUnsupported))
	}
	above, name := splitPath(path)
	parent, err := w.folder(above)
	if err != nil {
		return w.absentFile(path, n, err)
	}
	if w.over != nil {
		if f, err := w.createAny(parent, path, n); f != nil || err != nil {
			return f, err
		}
	}
	f, err := w.create(parent, name, path, n)
	if err != nil {
		w.folders.release(parent)
		return nil, w.fail("create", path, err)
	}
	w.open.Add(1)
	w.setFirst(n.Link, path)
	if err := w.made(parent, path); err != nil {
		return nil, errors.Join(w.fail("create", path, err), f.Discard())
	}
	w.over.tell(path, manifest.File, Created)
	return f, nil
}

// Commit gives the directories their metadata and makes everything durable.
func (w *dirWriter) Commit(ctx context.Context) error {
	w.mu.Lock()
	done := w.done
	w.mu.Unlock()
	switch {
	case done:
		return w.fail("commit", "", ErrDone)
	case w.open.Load() != 0:
		return w.fail("commit", "", ErrOpenFiles)
	}
	if err := w.tidy(ctx); err != nil {
		return err
	}
	if w.over == nil || !w.over.dry {
		if err := w.setDirs(ctx); err != nil {
			return err
		}
	}
	w.mu.Lock()
	w.done = true
	w.mu.Unlock()
	if err := w.folders.close(); err != nil {
		return w.fail("close", "", err)
	}
	return nil
}

// setDirs gives the directories their metadata and makes everything durable.
func (w *dirWriter) setDirs(ctx context.Context) error {
	// What is inside goes first: afterwards it may not be accessible.
	for _, state := range slices.Backward(w.order) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if state.meta == nil && !state.opened && !w.few {
			continue
		}
		if err := w.setDir(state); err != nil {
			return w.fail("set", state.path, err)
		}
	}
	if err := w.sync(); err != nil {
		return w.fail("sync", "", err)
	}
	return nil
}

// setDir gives a directory its metadata, if there are any, and makes it durable
// if that is not done for all at once.
func (w *dirWriter) setDir(state *dirState) error {
	f, err := w.folder(state.path)
	if err != nil {
		return err
	}
	defer w.folders.release(f)
	switch state.applied = state.meta != nil || state.opened; {
	case !state.applied:
	case state.meta == nil:
		err = f.root.Chmod(".", fs.FileMode(state.before.mode&0o777))
	case w.over != nil && state.existed:
		err = w.adjustFolder(f, *state.meta)
	default:
		err = w.setFolder(f, *state.meta)
	}
	if err != nil || !w.few {
		return err
	}
	return w.syncFolder(f)
}

package target

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"

	"github.com/cairn-backup/cairn/manifest"
)

// absentTop prepares a dry run where no target is.
func (w *dirWriter) absentTop() {
	w.over.absent = true
	state := &dirState{ready: make(chan struct{}), err: errAbsent}
	close(state.ready)
	w.dirs[""] = state
	w.folders = newFolders(nil)
	w.over.tell("", manifest.Dir, Created)
}

// failUnlessAbsent leaves errAbsent bare: it is no failure.
func (w *dirWriter) failUnlessAbsent(op, path string, err error) error {
	if errors.Is(err, errAbsent) {
		return err
	}
	return w.fail(op, path, err)
}

// absent takes an entry of a directory that a dry run did not make. Other
// errors it returns.
func (w *dirWriter) absent(path string, n manifest.Node, err error) error {
	if !errors.Is(err, errAbsent) {
		return err
	}
	w.setFirst(n.Link, path)
	w.over.tell(path, n.Kind, Created)
	return nil
}

// absentFile does the same for a file.
func (w *dirWriter) absentFile(path string, n manifest.Node, err error) (File, error) {
	if !errors.Is(err, errAbsent) {
		return nil, err
	}
	w.setFirst(n.Link, path)
	w.open.Add(1)
	return &dryFile{writer: w, path: path}, nil
}

// createAny deals with a file where something is already, and with every file
// in a dry run. It returns nothing where the file is to be made. It takes over
// the reference to parent unless it returns nothing.
func (w *dirWriter) createAny(parent *folder, path string, n manifest.Node) (File, error) {
	_, name := splitPath(path)
	fi, err := parent.root.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if !w.over.dry {
			return nil, nil //nolint:nilnil // neither: the caller goes on
		}
		w.folders.release(parent)
		return w.absentFile(path, n, errAbsent)
	case err != nil:
		w.folders.release(parent)
		return nil, w.fail("create", path, err)
	case w.over.overwrite == Never:
		w.folders.release(parent)
		w.over.keep(n.Link)
		w.over.tell(path, kindOf(fi.Mode()), Kept)
		return nil, ErrKept
	}
	f, err := w.createOver(parent, fi, path, n)
	if err != nil {
		w.folders.release(parent)
		return nil, err
	}
	w.setFirst(n.Link, path)
	return f, nil
}

// makeOver makes an entry where something is already. It reports false where
// nothing is.
func (w *dirWriter) makeOver(parent *folder, name, path string, n manifest.Node) (done bool, err error) {
	fi, err := parent.root.Lstat(name)
	missing := errors.Is(err, fs.ErrNotExist)
	switch {
	case err != nil && !missing:
		return false, w.fail("make", path, err)
	case !missing && w.over.overwrite == Never:
		w.over.keep(n.Link)
		w.over.tell(path, kindOf(fi.Mode()), Kept)
		return true, nil
	case w.over.keeps(n.Link):
		return false, ErrKept
	case missing && w.over.dry:
		return true, w.absent(path, n, errAbsent)
	case missing:
		return false, nil
	}
	what, err := w.makeAnew(parent, fi, path, n)
	if err != nil {
		return false, w.fail("make", path, err)
	}
	w.setFirst(n.Link, path)
	w.over.tell(path, n.Kind, what)
	return true, nil
}

// makeAnew makes an entry in the place of fi, unless that is as it should be.
func (w *dirWriter) makeAnew(parent *folder, fi fs.FileInfo, path string, n manifest.Node) (What, error) {
	_, name := splitPath(path)
	if sameEntry(parent, name, fi, n) && w.over.claim(fi, n.Link) {
		_, names := inodeOf(fi)
		adjust := w.adjust
		if names > 1 || w.over.dry {
			adjust = w.differs
		}
		changed, err := adjust(parent, name, n)
		switch {
		case err != nil:
			return 0, err
		case !changed:
			return Unchanged, nil
		case names < 2 || w.over.dry:
			return Adjusted, nil
		}
	}
	if fi.IsDir() && !w.over.remove {
		if empty, err := emptyDir(parent, name); err != nil || !empty {
			return 0, errors.Join(err, errDirectory)
		}
	}
	if w.over.dry {
		return Replaced, nil
	}
	temp := tempName()
	made, err := w.makeEntry(parent, temp, n)
	if err != nil {
		return 0, err
	}
	if !made { // it is counted, and what was there stays
		return Kept, nil
	}
	if w.inherits(path) {
		err = parent.strip(temp)
	}
	if err == nil {
		err = w.setEntry(parent, temp, n)
	}
	if err != nil {
		return 0, errors.Join(err, parent.root.Remove(temp))
	}
	return Replaced, w.replace(parent, temp, name, path)
}

// sameEntry reports whether fi is what n describes, metadata aside.
func sameEntry(parent *folder, name string, fi fs.FileInfo, n manifest.Node) bool {
	if kindOf(fi.Mode()) != n.Kind {
		return false
	}
	switch n.Kind {
	case manifest.Symlink:
		to, err := parent.root.Readlink(name)
		return err == nil && to == n.Target
	case manifest.FIFO:
		return true
	case manifest.CharDevice, manifest.BlockDevice:
		return sameDevice(fi, n)
	default:
		return false
	}
}

// linkOver makes a further name where something is already. It reports false
// where nothing is.
func (w *dirWriter) linkOver(dir *folder, old string, parent *folder, path string) (done bool, err error) {
	_, name := splitPath(path)
	fi, err := parent.root.Lstat(name)
	missing := errors.Is(err, fs.ErrNotExist)
	first, errFirst := dir.root.Lstat(old)
	switch {
	case err != nil && !missing:
		return false, w.fail("link", path, err)
	case missing && !w.over.dry:
		return false, nil
	case missing:
		w.over.tell(path, manifest.File, Created)
		return true, nil
	case w.over.overwrite == Never:
		w.over.tell(path, kindOf(fi.Mode()), Kept)
		return true, nil
	case errFirst == nil && os.SameFile(first, fi):
		w.over.tell(path, manifest.File, Unchanged)
		return true, nil
	}
	if fi.IsDir() && !w.over.remove {
		if empty, err := emptyDir(parent, name); err != nil || !empty {
			return false, w.fail("link", path, errors.Join(err, errDirectory))
		}
	}
	if !w.over.dry {
		temp := tempName()
		if err := w.linkAt(dir, old, parent, temp); err != nil {
			return false, w.fail("link", path, err)
		}
		if err := w.replace(parent, temp, name, path); err != nil {
			return false, w.fail("link", path, err)
		}
	}
	w.over.tell(path, manifest.File, Replaced)
	return true, nil
}

// lookOver reports how the metadata of a directory that was there differ.
func (w *dirWriter) lookOver(state *dirState, m meta) error {
	if w.over.overwrite == Never {
		w.over.tell(state.path, manifest.Dir, Unchanged)
		return nil
	}
	f, err := w.folder(state.path)
	if err != nil {
		return err
	}
	defer w.folders.release(f)
	changed, err := w.folderDiffers(f, m)
	if err != nil {
		return w.fail("stat", state.path, err)
	}
	what := Unchanged
	if changed {
		what = Adjusted
	}
	w.over.tell(state.path, manifest.Dir, what)
	return nil
}

// A dryFile stands for a file that would be made.
type dryFile struct {
	writer *dirWriter
	path   string
	mu     sync.Mutex // guards closed
	closed bool
}

var _ Mender = (*dryFile)(nil)

// Mend returns 0: there is no old content.
func (*dryFile) Mend() int64 { return 0 }

// Keep does nothing.
func (*dryFile) Keep(int64, int64) error { return nil }

// Zero does nothing.
func (*dryFile) Zero(int64, int64) error { return nil }

// WriteAt does nothing.
func (*dryFile) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }

// ReadAt has nothing to read.
func (f *dryFile) ReadAt([]byte, int64) (int, error) {
	return 0, f.writer.fail("read", f.path, fmt.Errorf("a dry run: %w", fs.ErrNotExist))
}

// Discard forgets the file.
func (f *dryFile) Discard() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.closed {
		f.closed = true
		f.writer.open.Add(-1)
	}
	return nil
}

// Close reports the file.
func (f *dryFile) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return f.writer.fail("close", f.path, fs.ErrClosed)
	}
	f.closed = true
	f.writer.open.Add(-1)
	f.writer.over.tell(f.path, manifest.File, Created)
	return nil
}

package target

import (
	"errors"
	"io/fs"
	"os"
	"slices"
)

// Abort removes every directory that was made, from the inside out, with the
// files in it; a directory that someone else made there meanwhile stays, and
// with it those it lies in. It goes on after an error. What was there before and
// was replaced stays so.
func (w *dirWriter) Abort() error {
	w.mu.Lock()
	done := w.done
	w.done = true
	w.mu.Unlock()
	if done {
		return nil
	}
	if w.over != nil && w.over.dry {
		return w.folders.close()
	}
	var first error
	keep := func(path string, err error) {
		if err != nil && first == nil {
			first = w.fail("abort", path, err)
		}
	}
	w.reopen(keep)
	for _, state := range slices.Backward(w.order) {
		if !state.existed && state.path != "" {
			keep(state.path, w.removeDir(state.path))
		}
	}
	keep("", w.clearOld())
	for _, state := range slices.Backward(w.order) {
		if w.over != nil && state.existed {
			keep(state.path, w.giveBack(state))
		}
	}
	keep("", w.folders.close())
	if w.created {
		keep("", os.Remove(w.path))
	}
	return first
}

// reopen makes directories accessible again that Commit has closed to their
// owner, from the outside in.
func (w *dirWriter) reopen(keep func(string, error)) {
	for _, state := range w.order {
		if !state.applied {
			continue
		}
		if state.path == "" {
			top, err := w.folder("")
			keep("", err)
			if err == nil {
				keep("", w.setFolder(top, w.before))
				if w.created {
					keep("", top.root.Chmod(".", 0o700))
				}
				w.folders.release(top)
			}
			continue
		}
		above, name := splitPath(state.path)
		parent, err := w.folder(above)
		if err != nil {
			keep(state.path, err)
			continue
		}
		keep(state.path, parent.root.Chmod(name, 0o700))
		w.folders.release(parent)
	}
}

// removeDir removes a directory that was made and the files in it.
func (w *dirWriter) removeDir(path string) error {
	f, err := w.folder(path)
	if err != nil {
		return err
	}
	err = clearFolder(f)
	w.folders.release(f)
	above, name := splitPath(path)
	parent, errAbove := w.folder(above)
	if errAbove != nil {
		return errors.Join(err, errAbove)
	}
	defer w.folders.release(parent)
	return errors.Join(err, parent.root.Remove(name))
}

// clearOld removes the files in the target directory, if that is ours, and else
// those that were made in directories which were there before.
func (w *dirWriter) clearOld() error {
	if w.created {
		top, err := w.folder("")
		if err != nil {
			return err
		}
		defer w.folders.release(top)
		return clearFolder(top)
	}
	var first error
	for _, path := range w.entries {
		// A directory has been removed, or stays with what is in it.
		_, isDir := w.dirs[path]
		if err := w.removeEntry(path); !isDir && err != nil && first == nil {
			first = err
		}
	}
	return first
}

func (w *dirWriter) removeEntry(path string) error {
	above, name := splitPath(path)
	f, err := w.folder(above)
	if err != nil {
		return err
	}
	defer w.folders.release(f)
	if err := f.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return w.fail("abort", path, err)
	}
	return nil
}

// giveBack gives a directory that was there before the metadata that it had.
func (w *dirWriter) giveBack(state *dirState) error {
	f, err := w.folder(state.path)
	if err != nil {
		return err
	}
	defer w.folders.release(f)
	if !state.applied {
		if err := f.root.Chtimes(".", state.before.mtime.Time(), state.before.mtime.Time()); err != nil || !state.opened {
			return err
		}
		return f.root.Chmod(".", fs.FileMode(state.before.mode&0o777))
	}
	return w.setFolder(f, state.before)
}

// clearFolder removes what is in f and is no directory.
func clearFolder(f *folder) error {
	dir, err := f.root.Open(".")
	if err != nil {
		return err
	}
	defer dir.Close() //nolint:errcheck // nothing was written to it
	entries, err := dir.ReadDir(-1)
	for _, e := range entries {
		if e.IsDir() {
			continue
		}
		if err := f.root.Remove(e.Name()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return err
}

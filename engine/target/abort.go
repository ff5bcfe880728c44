package target

import (
	"errors"
	"io/fs"
	"os"
	"slices"
)

// Abort removes every directory that was made, from the inside out, with the
// files in it; a directory that someone else made there meanwhile stays, and
// with it those it lies in. It goes on after an error.
func (w *dirWriter) Abort() error {
	w.mu.Lock()
	done := w.done
	w.done = true
	w.mu.Unlock()
	if done {
		return nil
	}
	var first error
	keep := func(path string, err error) {
		if err != nil && first == nil {
			first = w.fail("abort", path, err)
		}
	}
	w.reopen(keep)
	for _, state := range slices.Backward(w.order) {
		if state.path != "" {
			keep(state.path, w.removeDir(state.path))
		}
	}
	keep("", w.clearTop())
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

// clearTop removes the files in the target directory: all, if the directory is
// ours, and else those that were made.
func (w *dirWriter) clearTop() error {
	top, err := w.folder("")
	if err != nil {
		return err
	}
	defer w.folders.release(top)
	if w.created {
		return clearFolder(top)
	}
	for _, name := range w.entries {
		_, isDir := w.dirs[name]
		if err := top.root.Remove(name); !isDir && err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
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

package target

import (
	"context"
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"slices"

	"github.com/cairn-backup/cairn/manifest"
)

// errMount says that what should go is, or holds, a mount point.
var errMount = errors.New("another file system is mounted there")

// errStays says that what should go holds something that stays.
var errStays = errors.New("something in it is to be left alone, or another file system is mounted there")

// telling says whether what is removed is reported.
type telling uint8

const (
	loud telling = iota
	quiet
)

// tempName returns a name for a file that is not finished.
func tempName() string { return ".cairn-" + rand.Text() + ".tmp" }

// tidy removes what the snapshot does not hold from the directories that are
// known whole.
func (w *dirWriter) tidy(ctx context.Context) error {
	if w.over == nil || !w.over.remove {
		return nil
	}
	for _, state := range w.order {
		if !state.whole || !state.existed {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := w.tidyDir(state.path); err != nil {
			return w.fail("delete", state.path, err)
		}
	}
	return nil
}

func (w *dirWriter) tidyDir(path string) error {
	f, err := w.folder(path)
	if err != nil {
		return err
	}
	defer w.folders.release(f)
	top, err := w.folder("")
	if err != nil {
		return err
	}
	defer w.folders.release(top)
	if same, err := sameMount(top, f); err != nil || !same {
		return err
	}
	entries, err := readFolder(f.root)
	if err != nil {
		return err
	}
	for _, e := range entries {
		at := below(path, e.Name())
		if w.over.holds(at) {
			continue
		}
		if err := w.remove(f, e, at); err != nil {
			return err
		}
	}
	return nil
}

func (w *dirWriter) remove(f *folder, e fs.DirEntry, path string) error {
	if e.IsDir() {
		_, err := w.removeTree(f, e.Name(), path, loud)
		return err
	}
	_, err := w.removeFile(f, e, path, loud)
	return err
}

// removeFile removes what is no directory, and reports whether it is gone.
func (w *dirWriter) removeFile(f *folder, e fs.DirEntry, path string, how telling) (gone bool, err error) {
	if stays, err := w.skips(f, e.Name(), path); err != nil || stays {
		return false, err
	}
	if !w.over.dry {
		if err := f.root.Remove(e.Name()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false, w.fail("delete", path, err)
		}
	}
	if how == loud {
		w.over.tell(path, kindOf(e.Type()), Deleted)
	}
	return true, nil
}

// skips reports whether an entry is one of those that are never removed.
func (w *dirWriter) skips(f *folder, name, path string) (bool, error) {
	if len(w.over.skip) == 0 {
		return false, nil
	}
	fi, err := f.root.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, w.fail("delete", path, err)
	}
	stays := slices.ContainsFunc(w.over.skip, func(s fs.FileInfo) bool { return os.SameFile(s, fi) })
	if stays {
		w.over.tell(path, kindOf(fi.Mode()), Kept)
	}
	return stays, nil
}

// lookAll returns what is at the paths, without those that do not exist.
func lookAll(paths []string) ([]fs.FileInfo, error) {
	var infos []fs.FileInfo
	for _, path := range paths {
		fi, err := os.Stat(path)
		switch {
		case err == nil:
			infos = append(infos, fi)
		case !errors.Is(err, fs.ErrNotExist):
			// What cannot be told apart cannot be left alone.
			return nil, &Error{Op: "stat", Path: path, Err: cause(err)}
		}
	}
	return infos, nil
}

// removeTree removes the directory name in f with all below it, and reports
// whether it is gone. Where another file system is mounted nothing is removed,
// and the directories above it stay; so it is with what is never removed.
func (w *dirWriter) removeTree(f *folder, name, path string, how telling) (gone bool, err error) {
	if stays, err := w.skips(f, name, path); err != nil || stays {
		return false, err
	}
	inner, err := w.openTree(f, name, path)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil // others remove it, too
	}
	if err != nil {
		return false, err
	}
	defer func() { _ = inner.close() }() // nothing was written to it
	if same, err := sameMount(f, inner); err != nil || !same {
		w.over.tell(path, manifest.Dir, Kept)
		return false, err
	}
	entries, err := readFolder(inner.root)
	if err != nil {
		return false, w.fail("delete", path, err)
	}
	gone = true
	for _, e := range entries {
		at := below(path, e.Name())
		var removed bool
		if e.IsDir() {
			removed, err = w.removeTree(inner, e.Name(), at, how)
		} else {
			removed, err = w.removeFile(inner, e, at, how)
		}
		if err != nil {
			return false, err
		}
		gone = gone && removed
	}
	if !gone {
		w.over.tell(path, manifest.Dir, Kept)
		return false, nil
	}
	if !w.over.dry {
		if err := f.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false, w.fail("delete", path, err)
		}
	}
	if how == loud {
		w.over.tell(path, manifest.Dir, Deleted)
	}
	return true, nil
}

// openTree opens a directory that is to be removed, whatever its mode.
func (w *dirWriter) openTree(f *folder, name, path string) (*folder, error) {
	fi, err := f.root.Lstat(name)
	if err != nil {
		return nil, w.fail("delete", path, err)
	}
	if !fi.IsDir() {
		return nil, w.fail("delete", path, ErrNotDirectory)
	}
	if fi.Mode().Perm()&0o700 != 0o700 && !w.superuser() && !w.over.dry {
		if err := f.root.Chmod(name, 0o700); err != nil {
			return nil, w.fail("delete", path, err)
		}
	}
	root, err := f.root.OpenRoot(name)
	if err != nil {
		return nil, w.fail("delete", path, err)
	}
	got, err := root.Stat(".")
	if err == nil && !os.SameFile(got, fi) {
		err = ErrNotDirectory // it was exchanged, perhaps for a link
	}
	var inner *folder
	if err == nil {
		inner, err = newFolder(path, root)
	}
	if err != nil {
		return nil, w.fail("delete", path, errors.Join(err, root.Close()))
	}
	return inner, nil
}

func readFolder(root *os.Root) ([]fs.DirEntry, error) {
	dir, err := root.Open(".")
	if err != nil {
		return nil, err
	}
	entries, err := dir.ReadDir(-1)
	_ = dir.Close() // nothing was written to it
	return entries, err
}

func below(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

func kindOf(m fs.FileMode) manifest.NodeKind {
	switch m & fs.ModeType {
	case 0:
		return manifest.File
	case fs.ModeDir:
		return manifest.Dir
	case fs.ModeSymlink:
		return manifest.Symlink
	case fs.ModeNamedPipe:
		return manifest.FIFO
	case fs.ModeSocket:
		return manifest.Socket
	case fs.ModeDevice | fs.ModeCharDevice:
		return manifest.CharDevice
	default:
		return manifest.BlockDevice
	}
}

//go:build !linux

package target

import (
	"errors"
	"io/fs"
	"os"
	"syscall"

	"github.com/cairn-backup/cairn/manifest"
)

// A system holds nothing: everything is done through os.Root.
type system struct{ root *os.Root }

func newSystem(root *os.Root) (system, error) { return system{root: root}, nil }

func (s system) close() error { return nil }

// stat returns the directory's own mode and time.
func (s system) stat() (meta, error) {
	fi, err := s.root.Stat(".")
	if err != nil {
		return meta{}, err
	}
	m := meta{mode: uint32(fi.Mode().Perm()), mtime: manifest.TimeOf(fi.ModTime())}
	m.uid, m.gid = ownerOf(fi)
	return m, nil
}

// strip does nothing: ACLs are not known here.
func (s system) strip(string) error { return nil }

func (s system) mkdir(name string) error { return s.root.Mkdir(name, 0o700) }

func (s system) mkfifo(string) error { return ErrUnsupported }

// mknod makes nothing: the entry is counted as left out.
func (s system) mknod(string, manifest.Node) (made bool, err error) { return false, nil }

// linkAt goes by paths from the top, since os.Root links within one root.
func (w *dirWriter) linkAt(oldDir *folder, oldName string, newDir *folder, newName string) error {
	top, err := w.folder("")
	if err != nil {
		return err
	}
	defer w.folders.release(top)
	return top.root.Link(joinPath(oldDir.path, oldName), joinPath(newDir.path, newName))
}

func joinPath(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

// syncsEach reports that directories are made durable when all are done.
func syncsEach(Need) bool { return false }

func (w *dirWriter) syncFolder(f *folder) error { return syncFolder(f.root) }

// sync makes the directories durable, the files are since their Close. Systems
// that cannot do it say so in one way or another.
func (w *dirWriter) sync() error {
	for _, state := range w.order {
		f, err := w.folder(state.path)
		if err != nil {
			return err
		}
		err = w.syncFolder(f)
		w.folders.release(f)
		if err != nil {
			return err
		}
	}
	return nil
}

func outOfSpace(err error) bool { return errors.Is(err, syscall.ENOSPC) }

// checkSpace knows nothing: a full disk is found out while writing.
func checkSpace(string, Need) error { return nil }

// set gives an entry its owner, time and mode. Extended attributes are left
// out, and counted.
func (w *dirWriter) set(root *os.Root, name string, kind manifest.NodeKind, m meta) error {
	if len(m.xattrs) > 0 {
		w.xattrs.Add(1)
	}
	fi, err := root.Lstat(name)
	if err != nil {
		return err
	}
	uid, gid := ownerOf(fi)
	owned := uid == m.uid && gid == m.gid
	if !owned && !w.noOwner {
		err := fs.ErrPermission
		if w.superuser() {
			err = root.Lchown(name, int(m.uid), int(m.gid))
		}
		owned = err == nil
		if err != nil && !errors.Is(err, fs.ErrPermission) {
			return err
		}
		if !owned {
			w.owners.Add(1)
		}
	}
	if kind == manifest.Symlink {
		return nil // no call sets the time of a link itself
	}
	if err := root.Chtimes(name, m.mtime.Time(), m.mtime.Time()); err != nil {
		return err
	}
	return root.Chmod(name, modeOf(m.mode, owned))
}

// modeOf returns mode as os knows it, without setuid and setgid for an entry
// whose owner is another.
func modeOf(mode uint32, owned bool) fs.FileMode {
	m := fs.FileMode(mode & 0o777)
	if mode&0o1000 != 0 {
		m |= fs.ModeSticky
	}
	if owned && mode&0o4000 != 0 {
		m |= fs.ModeSetuid
	}
	if owned && mode&0o2000 != 0 {
		m |= fs.ModeSetgid
	}
	return m
}

func (w *dirWriter) setEntry(parent *folder, name string, n manifest.Node) error {
	return w.set(parent.root, name, n.Kind, metaOf(n))
}

func (w *dirWriter) setFolder(f *folder, m meta) error {
	return w.set(f.root, ".", manifest.Dir, m)
}

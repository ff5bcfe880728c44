//go:build !linux

package target

import (
	"io/fs"
	"os"
	"syscall"

	"github.com/cairn-backup/cairn/manifest"
)

// dontWait is known on Linux only. An entry that is opened was a regular file a
// moment ago.
const dontWait = 0

var errTooLong = error(syscall.EFBIG)

// nextData knows no holes.
func nextData(_ *os.File, off int64) (int64, error) { return off, nil }

// punch writes zeros.
func punch(f *os.File, off int64, zeros []byte) error {
	_, err := f.WriteAt(zeros, off)
	return err
}

func syncFile(f *os.File) error { return f.Sync() }

// adjust gives an entry that was there the metadata of n, and reports whether
// they were others. With look alone it changes nothing.
func (w *dirWriter) adjust(parent *folder, name string, n manifest.Node, look bool) (changed bool, err error) {
	return w.adjustMeta(parent.root, name, n.Kind, metaOf(n), look)
}

func (w *dirWriter) adjustFolder(f *folder, m meta, look bool) (changed bool, err error) {
	return w.adjustMeta(f.root, ".", manifest.Dir, m, look)
}

func (w *dirWriter) adjustMeta(root *os.Root, name string, kind manifest.NodeKind, m meta, look bool) (changed bool, err error) {
	fi, err := root.Lstat(name)
	if err != nil {
		return false, err
	}
	uid, gid := ownerOf(fi)
	owned := uid == m.uid && gid == m.gid
	mode := modeOf(m.mode, owned)
	const bits = fs.ModePerm | fs.ModeSticky | fs.ModeSetuid | fs.ModeSetgid
	same := kind == manifest.Symlink || fi.Mode()&bits == mode && manifest.TimeOf(fi.ModTime()) == m.mtime
	if same && (owned || w.noOwner || !w.superuser()) {
		return false, nil
	}
	if look {
		return true, nil
	}
	return true, w.set(root, name, kind, m)
}

// sameDevice is never asked: device nodes are not made here.
func sameDevice(fs.FileInfo, manifest.Node) bool { return false }

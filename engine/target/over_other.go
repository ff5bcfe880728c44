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
// they were others.
func (w *dirWriter) adjust(parent *folder, name string, n manifest.Node) (changed bool, err error) {
	return w.adjustMeta(parent.root, name, n.Kind, metaOf(n))
}

// differs reports what adjust would, and changes nothing.
func (w *dirWriter) differs(parent *folder, name string, n manifest.Node) (bool, error) {
	return w.metaDiffers(parent.root, name, n.Kind, metaOf(n))
}

func (w *dirWriter) adjustFolder(f *folder, m meta) error {
	_, err := w.adjustMeta(f.root, ".", manifest.Dir, m)
	return err
}

func (w *dirWriter) folderDiffers(f *folder, m meta) (bool, error) {
	return w.metaDiffers(f.root, ".", manifest.Dir, m)
}

func (w *dirWriter) adjustMeta(root *os.Root, name string, kind manifest.NodeKind, m meta) (changed bool, err error) {
	differs, err := w.metaDiffers(root, name, kind, m)
	if err != nil || !differs {
		return false, err
	}
	return true, w.set(root, name, kind, m)
}

func (w *dirWriter) metaDiffers(root *os.Root, name string, kind manifest.NodeKind, m meta) (bool, error) {
	fi, err := root.Lstat(name)
	if err != nil {
		return false, err
	}
	uid, gid := ownerOf(fi)
	owned := uid == m.uid && gid == m.gid
	mode := modeOf(m.mode, owned)
	const bits = fs.ModePerm | fs.ModeSticky | fs.ModeSetuid | fs.ModeSetgid
	same := kind == manifest.Symlink || fi.Mode()&bits == mode && manifest.TimeOf(fi.ModTime()) == m.mtime
	return !same || !owned && !w.noOwner && w.superuser(), nil
}

// sameDevice is never asked: device nodes are not made here.
func sameDevice(fs.FileInfo, manifest.Node) bool { return false }

// allocated returns how much room a file takes, in bytes, as far as is known.
func allocated(fi fs.FileInfo) int64 { return fi.Size() }

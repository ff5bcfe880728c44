package target

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/cairn-backup/cairn/manifest"
)

// dontWait keeps an open from waiting for the other end of a FIFO.
const dontWait = unix.O_NONBLOCK

var errTooLong = error(unix.EFBIG)

// inodeOf returns the identity of an entry and how many names it has.
func inodeOf(fi fs.FileInfo) (inode, uint64) {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return inode{}, 1
	}
	return inode{dev: uint64(st.Dev), ino: st.Ino}, uint64(st.Nlink) //nolint:unconvert // other on other machines
}

// sameMount reports whether b, which lies below a, is of the same mount.
func sameMount(a, b *folder) (bool, error) {
	var x, y unix.Statx_t
	const want = unix.STATX_BASIC_STATS | unix.STATX_MNT_ID
	if err := unix.Statx(a.fd, "", unix.AT_EMPTY_PATH, want, &x); err != nil {
		return false, err
	}
	if err := unix.Statx(b.fd, "", unix.AT_EMPTY_PATH, want, &y); err != nil {
		return false, err
	}
	if x.Dev_major != y.Dev_major || x.Dev_minor != y.Dev_minor {
		return false, nil
	}
	if x.Mask&y.Mask&unix.STATX_MNT_ID == 0 { // before Linux 5.8
		return true, nil
	}
	return x.Mnt_id == y.Mnt_id, nil
}

// nextData returns where data begin at or behind off.
func nextData(f *os.File, off int64) (int64, error) {
	next, err := unix.Seek(int(f.Fd()), off, unix.SEEK_DATA)
	switch {
	case err == nil:
		return next, nil
	case errors.Is(err, unix.ENXIO):
		return 1<<63 - 1, nil
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOTSUP):
		return off, nil
	}
	return 0, err
}

// punch makes a hole; zeros are what to write where holes are not known.
func punch(f *os.File, off int64, zeros []byte) error {
	const mode = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE
	err := again(func() error { return unix.Fallocate(int(f.Fd()), mode, off, int64(len(zeros))) })
	if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.ENOSYS) {
		_, err = f.WriteAt(zeros, off)
	}
	return err
}

// syncFile does nothing: Commit syncs the file system.
func syncFile(*os.File) error { return nil }

// adjust gives an entry that was there the metadata of n, and reports whether
// they were others.
func (w *dirWriter) adjust(parent *folder, name string, n manifest.Node) (changed bool, err error) {
	return w.adjustMeta(subject{fd: -1, dir: parent.fd, name: name}, n.Kind, metaOf(n))
}

// differs reports what adjust would, and changes nothing.
func (w *dirWriter) differs(parent *folder, name string, n manifest.Node) (bool, error) {
	d, err := w.compareMeta(subject{fd: -1, dir: parent.fd, name: name}, n.Kind, metaOf(n))
	return d.found, err
}

func (w *dirWriter) adjustFolder(f *folder, m meta) error {
	_, err := w.adjustMeta(subject{fd: f.fd, dir: f.fd, name: "."}, manifest.Dir, m)
	return err
}

func (w *dirWriter) folderDiffers(f *folder, m meta) (bool, error) {
	d, err := w.compareMeta(subject{fd: f.fd, dir: f.fd, name: "."}, manifest.Dir, m)
	return d.found, err
}

func (w *dirWriter) adjustMeta(s subject, kind manifest.NodeKind, m meta) (changed bool, err error) {
	d, err := w.compareMeta(s, kind, m)
	if err != nil {
		return false, err
	}
	if !d.found {
		if d.foreign && !w.noOwner {
			w.owners.Add(1)
		}
		return false, nil
	}
	for _, name := range d.extra {
		if err := s.removeXattr(name); err != nil && !xattrRefused(err) {
			return true, err
		}
	}
	return true, w.set(s, kind, m)
}

// A difference is between the metadata of an entry and those it should have.
type difference struct {
	found   bool     // something can be set
	foreign bool     // the owner or the group is another
	extra   []string // attributes that should not be there
}

func (w *dirWriter) compareMeta(s subject, kind manifest.NodeKind, m meta) (difference, error) {
	var st unix.Stat_t
	if err := s.stat(&st); err != nil {
		return difference{}, err
	}
	have, err := s.xattrs()
	if err != nil {
		return difference{}, err
	}
	missing, extra := compareXattrs(have, m.xattrs)
	owned := st.Uid == m.uid && st.Gid == m.gid
	mode := m.mode
	if !owned && (w.noOwner || !w.superuser()) {
		mode &^= unix.S_ISUID | unix.S_ISGID
	}
	mtime := manifest.Time{Sec: int64(st.Mtim.Sec), Nsec: uint32(st.Mtim.Nsec)} //nolint:unconvert // narrower on some systems
	same := !missing && len(extra) == 0 && mtime == m.mtime &&
		(owned || w.noOwner || !w.superuser()) && (kind == manifest.Symlink || st.Mode&0o7777 == mode)
	return difference{found: !same, foreign: !owned, extra: extra}, nil
}

// compareXattrs reports whether any of want is missing in have, and which names
// are there that should not be.
func compareXattrs(have, want []manifest.Xattr) (missing bool, extra []string) {
	right := 0
	for _, x := range have {
		i := slices.IndexFunc(want, func(y manifest.Xattr) bool { return x.Name == y.Name })
		switch {
		case i < 0 && removable(x.Name):
			extra = append(extra, x.Name)
		case i >= 0 && bytes.Equal(x.Value, want[i].Value):
			right++
		}
	}
	return right < len(want), extra
}

// removable reports whether an attribute that the snapshot does not hold is
// taken away. What the system itself keeps in attributes is not.
func removable(name string) bool {
	return strings.HasPrefix(name, "user.") || strings.HasPrefix(name, "trusted.") ||
		strings.HasPrefix(name, "system.posix_acl_") || name == "security.capability"
}

func (s subject) xattrPath() string { return system{fd: s.dir}.proc(s.name) }

func (s subject) removeXattr(name string) error {
	return again(func() error { return unix.Lremovexattr(s.xattrPath(), name) })
}

// xattrs returns the attributes of an entry, as far as they can be read.
func (s subject) xattrs() ([]manifest.Xattr, error) {
	names := make([]byte, 64<<10) // the most that Linux allows
	n, err := unix.Llistxattr(s.xattrPath(), names)
	if err != nil {
		if xattrRefused(err) || errors.Is(err, unix.ENOENT) {
			return nil, nil
		}
		return nil, err
	}
	var found []manifest.Xattr
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names[:n]), "\x00"), "\x00") {
		if name == "" {
			continue
		}
		value := make([]byte, 64<<10)
		if n, err := unix.Lgetxattr(s.xattrPath(), name, value); err == nil {
			found = append(found, manifest.Xattr{Name: name, Value: bytes.Clone(value[:n])})
		}
	}
	return found, nil
}

// sameDevice reports whether fi is the device node that n describes.
func sameDevice(fi fs.FileInfo, n manifest.Node) bool {
	st, ok := fi.Sys().(*syscall.Stat_t)
	dev := uint64(0)
	if ok {
		dev = uint64(st.Rdev) //nolint:unconvert // narrower on some machines
	}
	return ok && uint64(unix.Major(dev))<<32|uint64(unix.Minor(dev)) == n.Device
}

// allocated returns how much room a file takes, in bytes.
func allocated(fi fs.FileInfo) int64 {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return st.Blocks * 512 // the unit of stat(2), whatever the file system's is
	}
	return fi.Size()
}

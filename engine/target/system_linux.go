package target

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/cairn-backup/cairn/manifest"
)

// forbidden are the bytes that no name can hold.
const forbidden = "\x00"

// A system is what of an open directory only this system has: its descriptor.
// Calls take names in it and never follow a link.
type system struct {
	dir *os.File
	fd  int
}

func newSystem(root *os.Root) (system, error) {
	dir, err := root.Open(".")
	if err != nil {
		return system{}, err
	}
	return system{dir: dir, fd: int(dir.Fd())}, nil
}

func (s system) close() error { return s.dir.Close() }

// The attributes that hold POSIX ACLs.
var aclNames = [...]string{"system.posix_acl_access", "system.posix_acl_default"}

// stat returns the directory's own metadata, with no attributes but ACLs.
func (s system) stat() (meta, error) {
	var st unix.Stat_t
	if err := unix.Fstat(s.fd, &st); err != nil {
		return meta{}, err
	}
	var acls []manifest.Xattr
	for _, name := range aclNames {
		value := make([]byte, 64<<10) // the most that Linux allows
		if n, err := unix.Fgetxattr(s.fd, name, value); err == nil {
			acls = append(acls, manifest.Xattr{Name: name, Value: value[:n]})
		}
	}
	return meta{
		xattrs: acls,
		mode:   st.Mode & 0o7777,
		uid:    st.Uid,
		gid:    st.Gid,
		mtime:  manifest.Time{Sec: int64(st.Mtim.Sec), Nsec: uint32(st.Mtim.Nsec)}, //nolint:unconvert // narrower on some systems
	}, nil
}

// strip takes away the ACLs of an entry.
func (s system) strip(name string) error {
	for _, acl := range aclNames {
		err := again(func() error { return unix.Lremovexattr(s.proc(name), acl) })
		if err != nil && !xattrRefused(err) {
			return err
		}
	}
	return nil
}

// proc names an entry to calls that take only a path and do not follow it.
func (s system) proc(name string) string {
	return "/proc/self/fd/" + strconv.Itoa(s.fd) + "/" + name
}

func (s system) mkdir(name string) error {
	return again(func() error { return unix.Mkdirat(s.fd, name, 0o700) })
}

func (s system) mkfifo(name string) error {
	return again(func() error { return unix.Mknodat(s.fd, name, unix.S_IFIFO|0o600, 0) })
}

// mknod makes a device node, if the user may.
func (s system) mknod(name string, n manifest.Node) (made bool, err error) {
	kind := uint32(unix.S_IFCHR)
	if n.Kind == manifest.BlockDevice {
		kind = unix.S_IFBLK
	}
	dev := unix.Mkdev(uint32(n.Device>>32), uint32(n.Device))
	err = again(func() error { return unix.Mknodat(s.fd, name, kind|0o600, int(dev)) })
	if errors.Is(err, unix.EPERM) {
		return false, nil
	}
	return err == nil, err
}

// again calls f again while a signal interrupts it.
func again(f func() error) error {
	for {
		err := f()
		if err != unix.EINTR { //nolint:errorlint // a bare errno
			return err
		}
	}
}

func (w *dirWriter) linkAt(oldDir *folder, oldName string, newDir *folder, newName string) error {
	return again(func() error { return unix.Linkat(oldDir.fd, oldName, newDir.fd, newName, 0) })
}

// fewEntries is up to how many entries a restore makes each of them durable by
// itself. That takes a flush of the disk for each, and none of what else the
// machine has to write: a database is not restored more slowly because others
// write, too.
const fewEntries = 16

// syncsEach reports whether a restore of so many entries makes each file durable
// when it is closed, and each directory when it is done.
func syncsEach(need Need) bool { return need.Entries > 0 && need.Entries <= fewEntries }

// syncFolder makes a directory durable, with the names in it.
func (w *dirWriter) syncFolder(f *folder) error { return w.fsync(f.fd) }

// fsync makes what fd stands for durable. What cannot be by itself, such as a
// directory on SMB, sync does with everything else.
func (w *dirWriter) fsync(fd int) error {
	err := again(func() error { return unix.Fsync(fd) })
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.ENOSYS) {
		w.flush.Store(true)
		return nil
	}
	return err
}

// sync makes everything durable that is not yet. Of few entries that is the
// directory's own name; of many it is done with one call, since one for each small
// file would take much longer. Since Linux 5.8 that reports what failed to be
// written since the directory was opened.
func (w *dirWriter) sync() error {
	if w.few && w.created {
		if err := w.syncName(); err != nil {
			return err
		}
	}
	if w.few && !w.flush.Load() {
		return nil
	}
	top, err := w.folder("")
	if err != nil {
		return err
	}
	defer w.folders.release(top)
	return again(func() error { return unix.Syncfs(top.fd) })
}

// syncName makes the name of the target durable.
func (w *dirWriter) syncName() error {
	dir, err := os.Open(filepath.Dir(w.path))
	if err != nil { // what may be entered, and not read
		w.flush.Store(true)
		return nil // made durable with everything else
	}
	defer dir.Close()             //nolint:errcheck // nothing was written to it
	return w.fsync(int(dir.Fd())) //nolint:gosec // a descriptor
}

func outOfSpace(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}

// checkSpace returns ErrNoSpace if the file system of path cannot hold what is
// needed.
func checkSpace(path string, need Need) error {
	var st unix.Statfs_t
	if err := again(func() error { return unix.Statfs(path, &st) }); err != nil {
		return err
	}
	blocks := st.Bavail
	if os.Geteuid() == 0 {
		blocks = st.Bfree
	}
	if err := lack("bytes", need.Bytes, blocks*uint64(max(st.Bsize, 0))); err != nil {
		return err
	}
	if st.Files == 0 { // no fixed number of inodes
		return nil
	}
	return lack("inodes", need.Entries, st.Ffree)
}

// A subject is what metadata are set on: a file that is open, or else a name
// in a directory.
type subject struct {
	fd   int // -1: by name
	dir  int
	name string
}

func (s subject) chown(uid, gid uint32) error {
	return again(func() error {
		if s.fd >= 0 {
			return unix.Fchown(s.fd, int(uid), int(gid))
		}
		return unix.Fchownat(s.dir, s.name, int(uid), int(gid), unix.AT_SYMLINK_NOFOLLOW)
	})
}

func (s subject) setXattr(x manifest.Xattr) error {
	return again(func() error {
		if s.fd >= 0 {
			return unix.Fsetxattr(s.fd, x.Name, x.Value, 0)
		}
		return unix.Lsetxattr("/proc/self/fd/"+strconv.Itoa(s.dir)+"/"+s.name, x.Name, x.Value, 0)
	})
}

// chmod is not called for symbolic links, which have no mode of their own.
func (s subject) chmod(mode uint32) error {
	if s.fd >= 0 {
		return again(func() error { return unix.Fchmod(s.fd, mode) })
	}
	err := again(func() error { return unix.Fchmodat(s.dir, s.name, mode, unix.AT_SYMLINK_NOFOLLOW) })
	if !errors.Is(err, unix.EOPNOTSUPP) {
		return err
	}
	// Before Linux 6.6 that call does not exist. A descriptor that stands for
	// the entry itself can be named in /proc.
	fd, err := unix.Openat(s.dir, s.name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }() // nothing was written to it
	return again(func() error { return unix.Chmod("/proc/self/fd/"+strconv.Itoa(fd), mode) })
}

func (s subject) stat(st *unix.Stat_t) error {
	return again(func() error {
		if s.fd >= 0 {
			return unix.Fstat(s.fd, st)
		}
		return unix.Fstatat(s.dir, s.name, st, unix.AT_SYMLINK_NOFOLLOW)
	})
}

func (s subject) setTime(t manifest.Time) error {
	mtime, err := unix.TimeToTimespec(t.Time())
	if err != nil {
		return err // the system has 32 bits
	}
	ts := []unix.Timespec{{Nsec: unix.UTIME_NOW}, mtime}
	return again(func() error { return unix.UtimesNanoAt(s.dir, s.name, ts, unix.AT_SYMLINK_NOFOLLOW) })
}

// set gives metadata to an entry with as few calls as possible.
//
// The order matters. Changing the owner takes away setuid bits and
// capabilities, so it comes first. User attributes need write permission, which
// the mode may not give; an ACL changes the mode. A directory's time is set by
// a name in it, which needs search permission, so the mode is last; it changes
// no time.
func (w *dirWriter) set(s subject, kind manifest.NodeKind, m meta) error {
	var st unix.Stat_t
	if err := s.stat(&st); err != nil {
		return err
	}
	owned, err := w.setOwner(s, &st, m)
	if err != nil {
		return err
	}
	changed, err := w.setXattrs(s, m.xattrs)
	if err != nil {
		return err
	}
	if err := s.setTime(m.mtime); err != nil {
		return err
	}
	if kind == manifest.Symlink {
		return nil
	}
	mode := m.mode
	if !owned {
		mode &^= unix.S_ISUID | unix.S_ISGID
	}
	if !changed && st.Mode&0o7777 == mode {
		return nil
	}
	return s.chmod(mode)
}

// setOwner changes the owner if it is another, and the user may. It reports
// whether the entry has the owner and group that it should; st.Mode is as it is
// after.
func (w *dirWriter) setOwner(s subject, st *unix.Stat_t, m meta) (owned bool, err error) {
	if st.Uid == m.uid && st.Gid == m.gid {
		return true, nil
	}
	if w.noOwner {
		return false, nil
	}
	err = error(unix.EPERM)
	if w.superuser() {
		err = s.chown(m.uid, m.gid)
	}
	switch {
	case err == nil:
		st.Mode &^= unix.S_ISUID | unix.S_ISGID
		return true, nil
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EINVAL): // EINVAL: not in this user namespace
		w.owners.Add(1)
		return false, nil
	}
	return false, err
}

// setXattrs sets what can be set, and counts the entry if anything could not.
// It reports whether an ACL may have changed the mode.
func (w *dirWriter) setXattrs(s subject, xattrs []manifest.Xattr) (mode bool, err error) {
	left := false
	for _, x := range xattrs {
		mode = mode || strings.HasPrefix(x.Name, "system.")
		err := s.setXattr(x)
		switch {
		case err == nil:
		case xattrRefused(err):
			left = true
		default:
			return mode, err
		}
	}
	if left {
		w.xattrs.Add(1)
	}
	return mode, nil
}

// xattrRefused reports whether an attribute is refused by the user's rights or
// by the file system, which may have no attributes, not of this kind, or no
// room for so large ones (ENOSPC; if the disk is full files will tell).
func xattrRefused(err error) bool {
	for _, refused := range []syscall.Errno{
		unix.EPERM, unix.EACCES, unix.ENOTSUP, unix.EINVAL, unix.ENODATA,
		unix.ENOSPC, unix.EDQUOT, unix.E2BIG, unix.ERANGE,
	} {
		if errors.Is(err, refused) {
			return true
		}
	}
	return false
}

func (w *dirWriter) setEntry(parent *folder, name string, n manifest.Node) error {
	return w.set(subject{fd: -1, dir: parent.fd, name: name}, n.Kind, metaOf(n))
}

func (w *dirWriter) setFolder(f *folder, m meta) error {
	if f.path == "" { // it may have an ACL of its own
		if err := f.strip("."); err != nil {
			return err
		}
	}
	return w.set(subject{fd: f.fd, dir: f.fd, name: "."}, manifest.Dir, m)
}

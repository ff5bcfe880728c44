package enginetest

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

type inode struct{ dev, ino uint64 }

// sysEntry is what only this system tells.
type sysEntry struct {
	inode    inode
	uid, gid uint32
	rdev     uint64
	xattrs   map[string]string
}

func sysOf(path string, info fs.FileInfo) (sysEntry, error) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return sysEntry{}, fmt.Errorf("%s: no stat", path)
	}
	e := sysEntry{inode: inode{st.Dev, st.Ino}, uid: st.Uid, gid: st.Gid}
	if info.Mode()&fs.ModeDevice != 0 {
		e.rdev = st.Rdev
	}
	var err error
	e.xattrs, err = xattrsOf(path)
	return e, err
}

// xattrsOf reads the extended attributes that a backup keeps: POSIX ACLs and
// capabilities are among them, labels of a security module are not.
func xattrsOf(path string) (map[string]string, error) {
	buf := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, buf)
	if errors.Is(err, unix.ENOTSUP) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listxattr %s: %w", path, err)
	}
	found := make(map[string]string)
	for name := range strings.SplitSeq(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00") {
		if name == "" || name == "security.selinux" {
			continue
		}
		value := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			return nil, fmt.Errorf("getxattr %s %s: %w", path, name, err)
		}
		found[name] = string(value[:n])
	}
	return found, nil
}

func (e sysEntry) differences(got sysEntry) (lines []string) {
	if e.uid != got.uid || e.gid != got.gid {
		lines = append(lines, fmt.Sprintf("owner is %d:%d, want %d:%d", got.uid, got.gid, e.uid, e.gid))
	}
	if e.rdev != got.rdev {
		lines = append(lines, fmt.Sprintf("device is %#x, want %#x", got.rdev, e.rdev))
	}
	for _, name := range slices.Sorted(maps.Keys(e.xattrs)) {
		if v, ok := got.xattrs[name]; !ok || v != e.xattrs[name] {
			lines = append(lines, fmt.Sprintf("attribute %q is %.60q, want %.60q", name, v, e.xattrs[name]))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(got.xattrs)) {
		if _, ok := e.xattrs[name]; !ok {
			lines = append(lines, fmt.Sprintf("attribute %q should not be there", name))
		}
	}
	return lines
}

// Holes returns how many bytes of a file's size take no space on disk, as the
// file system tells.
func Holes(path string) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close() // only read
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	holes := info.Size()
	for at := int64(0); ; {
		start, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA) //nolint:gosec // a descriptor
		if errors.Is(err, unix.ENXIO) {
			return holes, nil
		}
		if err != nil {
			return 0, err
		}
		if at, err = unix.Seek(int(f.Fd()), start, unix.SEEK_HOLE); err != nil { //nolint:gosec // a descriptor
			return 0, err
		}
		holes -= at - start
	}
}

// The functions below make what only this system has. What the file system or
// the user's rights do not permit is left out.

func makeFIFO(path string) error { return permitted(unix.Mkfifo(path, 0o640)) }

func makeDevice(path string, minor uint32) error {
	return permitted(unix.Mknod(path, unix.S_IFCHR|0o600, int(unix.Mkdev(240, minor)))) //nolint:gosec // a device number
}

func setXattr(path, name string, value []byte) error {
	return permitted(unix.Lsetxattr(path, name, value, 0))
}

func setOwner(path string, uid, gid int) error { return permitted(os.Lchown(path, uid, gid)) }

func setMode(path string, mode uint32) error { return permitted(unix.Chmod(path, mode)) }

func setTime(path string, sec, nsec int64) error {
	return unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{{Sec: 1, Nsec: 1}, {Sec: sec, Nsec: nsec}}, unix.AT_SYMLINK_NOFOLLOW)
}

func permitted(err error) error {
	for _, e := range []error{unix.ENOTSUP, unix.EPERM, unix.EACCES, unix.EINVAL, unix.ENOSPC} {
		if errors.Is(err, e) {
			return nil
		}
	}
	return err
}

// errLeftOut says that this system has no such entry.
var errLeftOut = errors.New("left out")

// oddNames says that any byte but slash and NUL may be in a name.
const oddNames = true

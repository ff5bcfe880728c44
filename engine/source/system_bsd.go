//go:build darwin || freebsd || netbsd

package source

import (
	"io/fs"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/cairn-backup/cairn/manifest"
)

// addSystem adds to n what only the system's own record tells.
func (v *dirView) addSystem(n *manifest.Node, fi fs.FileInfo) {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return
	}
	n.UID, n.GID = st.Uid, st.Gid
	n.Owner, n.Group = v.owners.user(st.Uid), v.owners.group(st.Gid)
	n.Look = manifest.Look{
		Dev:   uint64(st.Dev), //nolint:unconvert // of another width elsewhere
		Ino:   uint64(st.Ino), //nolint:unconvert // of another width elsewhere
		CTime: manifest.Time{Sec: int64(st.Ctimespec.Sec), Nsec: uint32(st.Ctimespec.Nsec)},
	}
	if n.Kind != manifest.Dir && st.Nlink > 1 {
		n.Link = linkOf(inode{dev: n.Look.Dev, ino: n.Look.Ino})
	}
	if n.Kind == manifest.CharDevice || n.Kind == manifest.BlockDevice {
		rdev := uint64(st.Rdev) //nolint:unconvert // of another width elsewhere
		n.Device = uint64(unix.Major(rdev))<<32 | uint64(unix.Minor(rdev))
	}
}

func deviceOf(fi fs.FileInfo) uint64 {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return uint64(st.Dev) //nolint:unconvert // of another width elsewhere
	}
	return 0
}

package source

import (
	"golang.org/x/sys/unix"

	"github.com/cairn-backup/cairn/manifest"
)

// node returns what st says, without a name.
func (v *dirView) node(st *unix.Stat_t) manifest.Node {
	id := inodeOf(st)
	n := manifest.Node{
		Kind:  kindOf(st.Mode),
		Mode:  st.Mode & 0o7777,
		UID:   st.Uid,
		GID:   st.Gid,
		Owner: v.owners.user(st.Uid),
		Group: v.owners.group(st.Gid),
		MTime: timeOf(st.Mtim),
		Look:  manifest.Look{Dev: id.dev, Ino: id.ino, CTime: timeOf(st.Ctim)},
	}
	switch n.Kind {
	case manifest.File:
		n.Size = uint64(max(st.Size, 0))
	case manifest.CharDevice, manifest.BlockDevice:
		rdev := uint64(st.Rdev) //nolint:unconvert // narrower on some systems
		n.Device = uint64(unix.Major(rdev))<<32 | uint64(unix.Minor(rdev))
	default:
	}
	if n.Kind != manifest.Dir && st.Nlink > 1 {
		n.Link = linkOf(id)
	}
	return n
}

func inodeOf(st *unix.Stat_t) inode {
	return inode{dev: uint64(st.Dev), ino: st.Ino} //nolint:unconvert // narrower on some systems
}

func timeOf(t unix.Timespec) manifest.Time {
	return manifest.Time{Sec: int64(t.Sec), Nsec: uint32(t.Nsec)} //nolint:unconvert // narrower on some systems
}

func kindOf(mode uint32) manifest.NodeKind {
	switch mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return manifest.Dir
	case unix.S_IFLNK:
		return manifest.Symlink
	case unix.S_IFIFO:
		return manifest.FIFO
	case unix.S_IFSOCK:
		return manifest.Socket
	case unix.S_IFCHR:
		return manifest.CharDevice
	case unix.S_IFBLK:
		return manifest.BlockDevice
	}
	return manifest.File
}

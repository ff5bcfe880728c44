//go:build unix && !linux

package target

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// forbidden are the bytes that no name can hold.
const forbidden = "\x00"

func ownerOf(fi fs.FileInfo) (uid, gid uint32) {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return st.Uid, st.Gid
	}
	return 0, 0
}

func syncFolder(root *os.Root) error {
	dir, err := root.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// inodeOf returns the identity of an entry and how many names it has.
func inodeOf(fi fs.FileInfo) (inode, uint64) {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return inode{}, 1
	}
	return inode{dev: uint64(st.Dev), ino: st.Ino}, uint64(st.Nlink) //nolint:unconvert,gosec // other on other systems
}

// sameMount reports whether b, which lies below a, is of the same file system.
func sameMount(a, b *folder) (bool, error) {
	x, err := a.root.Stat(".")
	if err != nil {
		return false, err
	}
	y, err := b.root.Stat(".")
	if err != nil {
		return false, err
	}
	i, _ := inodeOf(x)
	j, _ := inodeOf(y)
	return i.dev == j.dev, nil
}

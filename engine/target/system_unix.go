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

//go:build linux || darwin || freebsd

package index

import "golang.org/x/sys/unix"

// freeSpace returns what an ordinary user may still write to the file system
// of dir, in bytes.
func freeSpace(dir string) (uint64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, err
	}
	blocks := int64(st.Bavail)
	if blocks < 0 { // FreeBSD counts the reserve below zero
		return 0, nil
	}
	return uint64(blocks) * uint64(st.Bsize), nil
}

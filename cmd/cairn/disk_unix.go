//go:build unix

package main

import (
	"os"
	"syscall"
)

// sameDisk reports whether one of paths lies on the same file system as dir.
func sameDisk(dir string, paths []string) bool {
	want, ok := device(dir)
	if !ok {
		return false
	}
	for _, path := range paths {
		if got, ok := device(path); ok && got == want {
			return true
		}
	}
	return false
}

func device(path string) (dev uint64, ok bool) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return uint64(st.Dev), true //nolint:unconvert // its type differs between systems
}

// allocated returns the bytes that a file takes on the disk. The files of the
// index are sparse.
func allocated(info os.FileInfo) int64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return int64(st.Blocks) * 512 //nolint:unconvert // its type differs between systems
	}
	return info.Size()
}

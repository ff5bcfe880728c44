//go:build !unix

package main

import (
	"os"
	"path/filepath"
	"strings"
)

// sameDisk reports whether one of paths lies on the same volume as dir.
func sameDisk(dir string, paths []string) bool {
	for _, path := range paths {
		if abs, err := filepath.Abs(path); err == nil && strings.EqualFold(filepath.VolumeName(abs), filepath.VolumeName(dir)) {
			return true
		}
	}
	return false
}

// allocated returns the size of a file: what it takes on the disk is not told.
func allocated(info os.FileInfo) int64 { return info.Size() }

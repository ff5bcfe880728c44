//go:build !linux

package target

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// swapFiles is not known here: two renames do.
func swapFiles(string, string) error { return errors.ErrUnsupported }

func moveFile(from, to string) error { return moveChecked(from, to) }

// isMount reports whether path is on another file system than what it lies in.
func isMount(path string) (bool, error) {
	fi, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	above, err := os.Lstat(filepath.Dir(path))
	if err != nil {
		return false, err
	}
	a, _ := inodeOf(fi)
	b, _ := inodeOf(above)
	return a.dev != b.dev, nil
}

// mountsBelow knows nothing: a rename takes them along.
func mountsBelow(string) ([]string, error) { return nil, nil }

// mayReplace knows nothing: making the directory to stage in will tell.
func mayReplace(swapPlace, fs.FileInfo) error { return nil }

// usersOf knows nothing here.
func usersOf(string) ([]string, error) { return nil, nil }

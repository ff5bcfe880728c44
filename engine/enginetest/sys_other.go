//go:build !linux

package enginetest

import (
	"errors"
	"io/fs"
	"os"
	"time"
)

type inode struct{ dev, ino uint64 }

// sysEntry is what only the system tells: here, nothing that is compared.
type sysEntry struct{ inode inode }

func sysOf(string, fs.FileInfo) (sysEntry, error) { return sysEntry{}, nil }

func (sysEntry) differences(sysEntry) []string { return nil }

// Holes returns 0: what takes no space is not asked here.
func Holes(string) (int64, error) { return 0, nil }

// errLeftOut says that this system has no such entry.
var errLeftOut = errors.New("left out")

func makeFIFO(string) error { return errLeftOut }

func makeDevice(string, uint32) error { return errLeftOut }

func setXattr(string, string, []byte) error { return nil }

func setOwner(string, int, int) error { return nil }

func setMode(path string, mode uint32) error { return os.Chmod(path, fs.FileMode(mode&0o777)) }

func setTime(path string, sec, nsec int64) error {
	info, err := os.Lstat(path)
	if err != nil || info.Mode()&fs.ModeSymlink != 0 {
		return err
	}
	return os.Chtimes(path, time.Time{}, time.Unix(sec, nsec))
}

// oddNames says that any byte but slash and NUL may be in a name.
const oddNames = false

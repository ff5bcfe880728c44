package local

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/windows"
)

const (
	readFlags = os.O_RDONLY
	// syncFlags open a file for its fsync: FlushFileBuffers wants write access.
	syncFlags = os.O_RDWR
)

// flush is FlushFileBuffers.
func flush(f *os.File) error { return f.Sync() }

// syncAndClose flushes a file and closes it.
func syncAndClose(f *os.File) error {
	err := flush(f)
	_ = f.Close() // nothing was written through it
	if err != nil {
		return &syncError{err}
	}
	return nil
}

// syncDirAndClose only closes: directories cannot be flushed. NTFS journals
// their changes, in order.
func syncDirAndClose(f *os.File) error { return f.Close() }

func (d *osDisk) createUnnamed(string) (tempFile, error) { return nil, errNoMethod }

func (d *osDisk) linkUnnamed(tempFile, string) error { return errNoMethod }

// renameNoReplace renames without MOVEFILE_REPLACE_EXISTING, and returns when
// that is on the disk.
func renameNoReplace(r *os.Root, from, to string) error {
	src, err := windows.UTF16PtrFromString(filepath.Join(r.Name(), filepath.FromSlash(from)))
	if err != nil {
		return err
	}
	dst, err := windows.UTF16PtrFromString(filepath.Join(r.Name(), filepath.FromSlash(to)))
	if err != nil {
		return err
	}
	return windows.MoveFileEx(src, dst, windows.MOVEFILE_WRITE_THROUGH)
}

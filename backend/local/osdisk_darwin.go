package local

import (
	"errors"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

// flush tells the drive to write its cache, too (F_FULLFSYNC, which is what
// Sync does here). Network mounts do not have that, and fsync(2) is all there
// is to ask for.
func flush(f *os.File) error {
	err := f.Sync()
	if errors.Is(err, unix.ENOTSUP) {
		return unix.Fsync(int(f.Fd()))
	}
	return err
}

func (d *osDisk) createUnnamed(string) (tempFile, error) { return nil, errNoMethod }

func (d *osDisk) linkUnnamed(tempFile, string) error { return errNoMethod }

func renameNoReplace(r *os.Root, from, to string) error {
	dir, err := r.Open(path.Dir(to))
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }() // nothing was written through it
	// from is in the same directory, see publishNamed.
	return unix.RenameatxNp(int(dir.Fd()), path.Base(from), int(dir.Fd()), path.Base(to), unix.RENAME_EXCL)
}

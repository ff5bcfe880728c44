package local

import (
	"os"
	"path"

	"golang.org/x/sys/unix"
)

func (d *osDisk) createUnnamed(string) (tempFile, error) { return nil, errNoMethod }

func (d *osDisk) linkUnnamed(tempFile, string) error { return errNoMethod }

func renameNoReplace(r *os.Root, from, to string) error {
	dir, err := r.Open(path.Dir(to))
	if err != nil {
		return err
	}
	defer dir.Close() // nothing was written through it
	// from is in the same directory, see publishNamed.
	return unix.RenameatxNp(int(dir.Fd()), path.Base(from), int(dir.Fd()), path.Base(to), unix.RENAME_EXCL)
}

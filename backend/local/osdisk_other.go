//go:build unix && !linux && !darwin

package local

import (
	"os"
	"syscall"
)

// flush is fsync(2).
func flush(f *os.File) error { return f.Sync() }

func (d *osDisk) createUnnamed(string) (tempFile, error) { return nil, errNoMethod }

func (d *osDisk) linkUnnamed(tempFile, string) error { return errNoMethod }

func renameNoReplace(*os.Root, string, string) error { return syscall.ENOSYS }

//go:build unix

package local

import (
	"os"
	"syscall"
)

const (
	// readFlags open an object. Should someone have put a FIFO in its place,
	// O_NONBLOCK lets us see that instead of waiting for a writer.
	readFlags = os.O_RDONLY | syscall.O_NONBLOCK
	// syncFlags open a file for its fsync.
	syncFlags = os.O_RDONLY | syscall.O_NONBLOCK
)

// syncAndClose fsyncs a file and closes it.
func syncAndClose(f *os.File) error {
	err := flush(f)
	_ = f.Close() // nothing was written through it
	if err != nil {
		return &syncError{err}
	}
	return nil
}

// syncDirAndClose fsyncs a directory and closes it.
func syncDirAndClose(f *os.File) error {
	if err := syncAndClose(f); !isNoDirSync(err) {
		return err
	}
	return nil
}

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

// syncHandle fsyncs a file or directory and closes it.
func syncHandle(f *os.File) error {
	err := f.Sync()
	_ = f.Close() // nothing was written through it
	if err == nil || isNoDirSync(err) {
		return nil
	}
	return &syncError{err}
}

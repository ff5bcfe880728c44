//go:build unix

package target

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

func ownerIDs(fi fs.FileInfo) (uid, gid int) {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return int(st.Uid), int(st.Gid)
	}
	return -1, -1
}

func inodeNumber(_ string, fi fs.FileInfo) (uint64, error) {
	id, _ := inodeOf(fi)
	return id.ino, nil
}

func syncPath(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// A swapLock is held by the process that exchanges a target. The system lets go
// of it when the process ends.
type swapLock struct{ file *os.File }

// lockSwap takes the lock. It returns ErrInUse if another has it.
func lockSwap(at swapPlace) (*swapLock, error) {
	for {
		f, err := os.OpenFile(at.lock, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			if errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EROFS) {
				err = fmt.Errorf("%w: directory %s may not be written: %w", ErrNotSwappable, at.dir, cause(err))
			}
			return nil, err
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			_ = f.Close() // nothing was written to it
			return nil, fmt.Errorf("%w: %w: another restore of it is running", ErrNotSwappable, ErrInUse)
		}
		// Whoever had it may have removed it meanwhile.
		mine, errMine := f.Stat()
		there, errThere := os.Lstat(at.lock)
		if errMine == nil && errThere == nil && os.SameFile(mine, there) {
			return &swapLock{file: f}, nil
		}
		_ = f.Close() // nothing was written to it
		if errMine != nil {
			return nil, errMine
		}
	}
}

// release lets go of the lock. A second call does nothing.
func (l *swapLock) release() error {
	if l.file == nil {
		return nil
	}
	err := errors.Join(os.Remove(l.file.Name()), l.file.Close())
	l.file = nil
	return err
}

package local

import (
	"context"
	"errors"
	"io/fs"
	"syscall"

	"github.com/cairn-backup/cairn/backend"
)

// failure wraps err for the caller of op. It returns nil for nil.
func failure(op string, key backend.Key, err error) error {
	if err == nil {
		return nil
	}
	return &backend.OpError{Op: op, Key: key, Kind: kind(err), Err: err}
}

// kind returns the sentinel for an error of the file system, or nil if there
// is none or the error has one already. An I/O error has none: it is not known
// to go away, so nobody is told to try again.
func kind(err error) error {
	switch {
	case errors.Is(err, backend.ErrUnknownOutcome), errors.Is(err, backend.ErrUnsupported),
		errors.Is(err, backend.ErrInvalidKey), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return nil
	case isNoSpace(err):
		return backend.ErrNoSpace
	case isReadOnly(err):
		return backend.ErrReadOnly
	case errors.Is(err, fs.ErrPermission):
		return backend.ErrUnauthorized
	case notExist(err):
		return backend.ErrNotExist
	case errors.Is(err, fs.ErrExist):
		return backend.ErrExist
	}
	if _, lost := errors.AsType[*syncError](err); !lost && isUnavailable(err) {
		return backend.ErrUnavailable
	}
	return nil
}

// notExist says whether err means that there is no such file. So it does if a
// file stands where the path has a directory.
func notExist(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, backend.ErrNotExist)
}

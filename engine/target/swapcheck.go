package target

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// check finds out what speaks against an exchange.
func (s *SwapTarget) check(at swapPlace, need Need) error {
	fi, err := os.Lstat(at.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case !fi.IsDir() && !fi.Mode().IsRegular():
		return fmt.Errorf("%w: it is neither a directory nor a regular file", ErrNotSwappable)
	}
	mounts, err := mountsBelow(at.path)
	if err != nil {
		return err
	}
	if len(mounts) > 0 {
		return fmt.Errorf("%w: another file system is mounted at %s", ErrNotSwappable, mounts[0])
	}
	for _, path := range s.Skip {
		if held, err := at.holds(path); err != nil {
			return err
		} else if held {
			return fmt.Errorf("%w: %s lies in it, and would be removed with the old one", ErrNotSwappable, path)
		}
	}
	if err := checkSpace(at.dir, need); err != nil {
		return err
	}
	if s.Quiesce != nil {
		return nil
	}
	return s.checkOpen(at)
}

// holds reports whether path is the target or lies in it, whatever links lead
// there.
func (at swapPlace) holds(path string) (bool, error) {
	top, err := os.Lstat(at.path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if path, err = filepath.Abs(path); err == nil {
		path, err = filepath.EvalSymlinks(path)
	}
	for err == nil {
		var fi fs.FileInfo
		if fi, err = os.Lstat(path); err == nil && os.SameFile(fi, top) {
			return true, nil
		}
		above := filepath.Dir(path)
		if above == path {
			break
		}
		path = above
	}
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return false, err
}

// writable reports why nothing can be renamed where the target is.
func (at swapPlace) writable() error {
	if at.path == at.dir && filepath.Dir(at.path) == at.path {
		return fmt.Errorf("%w: it is the root of everything", ErrNotSwappable)
	}
	fi, err := os.Lstat(at.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if at.mount && fi != nil && !fi.IsDir() {
		return fmt.Errorf("%w: a single file is mounted there", ErrNotSwappable)
	}
	if err := mayReplace(at, fi); err != nil {
		return fmt.Errorf("%w: %w", ErrNotSwappable, err)
	}
	return nil
}

// checkOpen refuses what others have open.
func (s *SwapTarget) checkOpen(at swapPlace) error {
	if s.Force {
		return nil
	}
	users, err := usersOf(at.path)
	if err != nil {
		return err
	}
	if len(users) == 0 {
		return nil
	}
	const most = 3
	more := ""
	if len(users) > most {
		more = fmt.Sprintf(" and %d more", len(users)-most)
		users = users[:most]
	}
	return fmt.Errorf("%w: %w: open in %s%s", ErrNotSwappable, ErrInUse, strings.Join(users, ", "), more)
}

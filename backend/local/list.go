package local

import (
	"context"
	"errors"
	"io/fs"
	"iter"
	"slices"
	"strings"

	"github.com/cairn-backup/cairn/backend"
)

// List implements backend.Backend. It reads one directory at a time, and its
// memory is that of the largest ones on one path.
func (b *Backend) List(ctx context.Context, prefix backend.Key) iter.Seq2[backend.Info, error] {
	return func(yield func(backend.Info, error) bool) {
		err := prefix.ValidatePrefix()
		if err == nil {
			l := &listing{disk: b.disk, prefix: string(prefix), yield: yield}
			// The directory in which all such keys are.
			err = l.walk(ctx, l.prefix[:strings.LastIndexByte(l.prefix, '/')+1])
		}
		if err != nil && !errors.Is(err, errStopped) {
			yield(backend.Info{}, failure("list", prefix, err))
		}
	}
}

// errStopped ends a walk whose consumer has had enough.
var errStopped = errors.New("stopped")

type listing struct {
	disk   disk
	prefix string
	yield  func(backend.Info, error) bool
}

// walk yields what is in and below dir, which is empty or ends in a slash.
func (l *listing) walk(ctx context.Context, dir string) error {
	if err := backend.Ended(ctx); err != nil {
		return err
	}
	name := strings.TrimSuffix(dir, "/")
	if name == "" {
		name = "."
	}
	entries, err := l.disk.readDir(name, func(name string) bool { return l.wants(dir + name) })
	if notExist(err) && !errors.Is(err, errNoRoot) {
		return nil // no such directory, or no longer: no such objects
	}
	if err != nil {
		return err
	}
	sortByKey(entries)
	for _, e := range entries {
		path := dir + e.Name()
		switch {
		case e.IsDir():
			err = l.walk(ctx, path+"/")
		case e.Mode().IsRegular() && strings.HasPrefix(path, l.prefix):
			err = l.emit(ctx, backend.Key(path), e)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// wants says whether a file or directory of that path can be or hold an object
// of the listing. Names that are no keys are not ours.
func (l *listing) wants(path string) bool {
	if backend.Key(path).Validate() != nil {
		return false
	}
	return strings.HasPrefix(path, l.prefix) || strings.HasPrefix(l.prefix, path+"/")
}

func (l *listing) emit(ctx context.Context, key backend.Key, info fs.FileInfo) error {
	if err := backend.Ended(ctx); err != nil {
		return err
	}
	if !l.yield(describe(key, info), nil) {
		return errStopped
	}
	return nil
}

// sortByKey brings the entries of a directory into the order of the keys they
// stand for. That is the order of the names if a directory's ends in a slash:
// "a-b" is before "a/c", and that is before "a0".
func sortByKey(entries []fs.FileInfo) {
	name := func(e fs.FileInfo) string {
		if e.IsDir() {
			return e.Name() + "/"
		}
		return e.Name()
	}
	slices.SortFunc(entries, func(x, y fs.FileInfo) int { return strings.Compare(name(x), name(y)) })
}

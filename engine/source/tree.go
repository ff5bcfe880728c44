package source

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/cairn-backup/cairn/manifest"
)

// A tree is a root and what is known of paths below it.
type tree struct {
	root manifest.Root
}

// inside returns the part of path below the root, "" for the root itself.
func (t tree) inside(path string) (rel string, err error) {
	if path == t.root.Name {
		return "", nil
	}
	rel, ok := strings.CutPrefix(path, t.root.Name+"/")
	if !ok || !validPath(rel) {
		return "", &Error{Op: "open", Path: path, Err: fs.ErrNotExist}
	}
	return rel, nil
}

// at returns the path that the entry at rel is known by outside.
func (t tree) at(rel string) string {
	if rel == "" {
		return t.root.Path
	}
	return strings.TrimSuffix(t.root.Path, "/") + "/" + rel
}

// fail returns err as an error of the entry at rel, if it is not yet one.
func (t tree) fail(op, rel string, err error) error {
	if e, ok := errors.AsType[*Error](err); ok && e.Path == t.at(rel) {
		return err
	}
	return &Error{Op: op, Path: t.at(rel), Err: cause(err)}
}

// cause strips what the os package says of operation and path, since [Error]
// says it.
func cause(err error) error {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return p.Err
	}
	return err
}

// noEOF returns err, or what it says if it could be taken for a good end: as
// io.EOF by a reader, as io.ErrUnexpectedEOF by whoever fills a buffer that the
// content may be shorter than. A connection or an archive that breaks off fails
// with these.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("broken off: %s", err.Error())
	}
	return err
}

// validPath reports whether every element of p can be the name of an entry.
func validPath(p string) bool {
	for e := range strings.SplitSeq(p, "/") {
		if e == "" || e == "." || e == ".." {
			return false
		}
	}
	return true
}

// splitPath returns the directory and the name of the entry at p.
func splitPath(p string) (dir, name string) {
	if i := strings.LastIndexByte(p, '/'); i >= 0 {
		return p[:i], p[i+1:]
	}
	return "", p
}

// joinPath is path.Join without cleaning.
func joinPath(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

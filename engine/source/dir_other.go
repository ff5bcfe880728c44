//go:build !linux

package source

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/cairn-backup/cairn/manifest"
)

// A dirSystem reaches entries through os.Root, which keeps every look and every
// open inside the tree.
type dirSystem struct {
	dir  *os.Root // the root, or what lies above a root that is no directory
	base string   // the name there of a root that is no directory
	top  fs.FileInfo
}

// open opens the root.
func (v *dirView) open() error {
	path, err := v.resolve()
	if err != nil {
		return err
	}
	if v.top, err = os.Lstat(path); err != nil {
		return v.fail("stat", "", err)
	}
	if v.skipped(v.top) {
		return v.fail("open", "", ErrSkipped)
	}
	if !v.top.IsDir() {
		v.base = filepath.Base(path)
		path = filepath.Dir(path)
	}
	if v.dir, err = os.OpenRoot(path); err != nil {
		return v.fail("open", "", err)
	}
	return nil
}

// Close closes the root.
func (v *dirView) Close() error {
	if v.dir == nil {
		return nil
	}
	if err := v.dir.Close(); err != nil {
		return v.fail("close", "", err)
	}
	v.dir = nil
	return nil
}

func (v *dirView) skipped(fi fs.FileInfo) bool {
	return slices.ContainsFunc(v.skip, func(s fs.FileInfo) bool { return os.SameFile(s, fi) })
}

// name returns the name of the entry at rel in v.dir.
func (v *dirView) name(rel string) string {
	switch {
	case v.base != "":
		return v.base
	case rel == "":
		return "."
	}
	return filepath.FromSlash(rel)
}

func (v *dirView) rootNode() (manifest.Node, error) {
	n, _, err := v.look("", v.root.Name)
	return n, err
}

// look returns the node of the entry at rel under the name given.
func (v *dirView) look(rel, name string) (manifest.Node, fs.FileInfo, error) {
	fi, err := v.dir.Lstat(v.name(rel))
	if err != nil {
		return manifest.Node{Name: name}, nil, v.fail("stat", rel, err)
	}
	n := nodeOf(fi)
	v.addSystem(&n, fi)
	n.Name = name
	return n, fi, nil
}

// names returns the names in the directory at rel.
func (v *dirView) names(rel string) ([]string, error) {
	if v.base != "" {
		return nil, errors.New("not a directory")
	}
	f, err := v.dir.Open(v.name(rel))
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // nothing was written to it
	if v.oneFS && rel != "" {
		fi, err := f.Stat()
		if err != nil || deviceOf(fi) != deviceOf(v.top) {
			return nil, err
		}
	}
	return f.Readdirnames(-1)
}

// yieldAll yields the entries of a directory.
func (v *dirView) yieldAll(ctx context.Context, l listing, yield func(manifest.Node, error) bool) {
	for _, name := range l.names {
		if err := ctx.Err(); err != nil {
			yield(manifest.Node{}, err)
			return
		}
		at := joinPath(l.rel, name)
		w, err := l.rules.verdict(l.rel, name)
		if err != nil {
			if !yield(manifest.Node{Name: name}, v.fail("stat", at, err)) {
				return
			}
			continue
		}
		if w == leave {
			continue
		}
		n, fi, err := v.look(at, name)
		if err == nil && v.skipped(fi) {
			v.add(v.root.Path, at)
			continue
		}
		if err == nil && (w.leaves(n.Kind) || v.foreign(n, fi)) {
			continue
		}
		if !yield(n, err) {
			return
		}
	}
}

// foreign reports whether an entry is left out for its file system. The
// directory that another one is mounted on is kept, empty.
func (v *dirView) foreign(n manifest.Node, fi fs.FileInfo) bool {
	return v.oneFS && n.Kind != manifest.Dir && deviceOf(fi) != deviceOf(v.top)
}

// Complete reads the target of a symbolic link.
func (v *dirView) Complete(ctx context.Context, path string, n *manifest.Node) error {
	if err := ctx.Err(); err != nil || n.Kind != manifest.Symlink {
		return err
	}
	rel, err := v.inside(path)
	if err != nil {
		return err
	}
	if n.Target, err = v.dir.Readlink(v.name(rel)); err != nil {
		return v.fail("readlink", rel, err)
	}
	return nil
}

// openRegular opens the regular file at rel and no other, though os.Root would
// follow a link within the tree and wait for the writer of a pipe.
func (v *dirView) openRegular(ctx context.Context, rel string) (*file, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	before, err := v.dir.Lstat(v.name(rel))
	if err != nil {
		return nil, v.fail("open", rel, err)
	}
	if !before.Mode().IsRegular() {
		return nil, v.fail("open", rel, ErrChanged)
	}
	f, err := v.dir.Open(v.name(rel))
	if err != nil {
		return nil, v.fail("open", rel, err)
	}
	now, err := f.Stat()
	if err == nil && !os.SameFile(before, now) {
		err = ErrChanged
	}
	if err != nil {
		_ = f.Close() // nothing was written to it
		return nil, v.fail("open", rel, err)
	}
	return &file{view: v, rel: rel, File: f}, nil
}

// A file is an open regular file whose errors are those of a source.
type file struct {
	*os.File
	view *dirView
	rel  string
}

var (
	_ Again = (*file)(nil)
	_ Paged = (*file)(nil)
)

// Read reads on.
func (f *file) Read(p []byte) (int, error) {
	n, err := f.File.Read(p)
	if err != nil && err != io.EOF { //nolint:errorlint // as io.Reader says
		err = f.view.fail("read", f.rel, err)
	}
	return n, err
}

// Grain asks the options, and looks at the begin of the file.
func (f *file) Grain() (int, error) {
	n, err := f.Again()
	if err != nil {
		return 0, err
	}
	grain, err := f.view.grain(f.rel, f.File, int64(n.Size)) //nolint:gosec // a file's size
	if err != nil {
		err = f.view.fail("read", f.rel, err)
	}
	return grain, err
}

// Again looks at the open file.
func (f *file) Again() (manifest.Node, error) {
	fi, err := f.Stat()
	if err != nil {
		return manifest.Node{}, f.view.fail("stat", f.rel, err)
	}
	n := nodeOf(fi)
	f.view.addSystem(&n, fi)
	return n, nil
}

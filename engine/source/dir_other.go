//go:build !linux

package source

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"

	"github.com/cairn-backup/cairn/manifest"
)

// A dirView is a view of a directory through os.Root, which keeps every look
// and every open inside the tree.
type dirView struct {
	tree
	leftOut
	exclude *matcher // nil: nothing is left out
	oneFS   bool
	caches  bool
	skip    []fs.FileInfo

	dir    *os.Root // the root, or what lies above a root that is no directory
	base   string   // the name there of a root that is no directory
	top    fs.FileInfo
	owners owners
}

var (
	_ View      = (*dirView)(nil)
	_ Completer = (*dirView)(nil)
)

// open opens the root.
func (v *dirView) open() error {
	// The links of the root's own path are followed, here and nowhere else.
	path, err := filepath.EvalSymlinks(v.root.Path)
	if err != nil {
		return v.fail("open", "", err)
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

// ReadDir yields nodes with all that one look tells.
func (v *dirView) ReadDir(ctx context.Context, path string) iter.Seq2[manifest.Node, error] {
	return func(yield func(manifest.Node, error) bool) {
		if err := ctx.Err(); err != nil {
			yield(manifest.Node{}, err)
			return
		}
		if path == "" {
			n, _, err := v.look("", v.root.Name)
			yield(n, err)
			return
		}
		rel, err := v.inside(path)
		if err != nil {
			yield(manifest.Node{}, err)
			return
		}
		names, err := v.names(rel)
		if err != nil {
			yield(manifest.Node{}, v.fail("read", rel, err))
			return
		}
		v.yieldAll(ctx, rel, names, yield)
	}
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

// names returns the names in the directory at rel, sorted.
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
	names, err := f.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	if _, found := slices.BinarySearch(names, cacheTag); v.caches && found && v.tagged(rel) {
		return []string{cacheTag}, nil
	}
	return names, nil
}

// tagged reports whether the directory at rel has a valid CACHEDIR.TAG.
func (v *dirView) tagged(rel string) bool {
	f, err := v.openRegular(joinPath(rel, cacheTag))
	if err != nil {
		return false
	}
	defer f.Close() //nolint:errcheck // nothing was written to it
	var head [len(cacheSignature)]byte
	_, err = io.ReadFull(f, head[:])
	return err == nil && string(head[:]) == cacheSignature
}

func (v *dirView) yieldAll(ctx context.Context, rel string, names []string, yield func(manifest.Node, error) bool) {
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			yield(manifest.Node{}, err)
			return
		}
		at := joinPath(rel, name)
		w := v.verdict(at)
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

// OpenFile opens the regular file at path.
func (v *dirView) OpenFile(ctx context.Context, path string) (io.ReadCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	rel, err := v.inside(path)
	if err != nil {
		return nil, err
	}
	f, err := v.openRegular(rel)
	if err != nil {
		return nil, v.fail("open", rel, err)
	}
	return &file{view: v, rel: rel, File: f}, nil
}

// openRegular opens the regular file at rel and no other, though os.Root would
// follow a link within the tree and wait for the writer of a pipe.
func (v *dirView) openRegular(rel string) (*os.File, error) {
	before, err := v.dir.Lstat(v.name(rel))
	if err != nil {
		return nil, err
	}
	if !before.Mode().IsRegular() {
		return nil, ErrChanged
	}
	f, err := v.dir.Open(v.name(rel))
	if err != nil {
		return nil, err
	}
	now, err := f.Stat()
	if err == nil && !os.SameFile(before, now) {
		err = ErrChanged
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// A file is an open regular file whose errors are those of a source.
type file struct {
	*os.File
	view *dirView
	rel  string
}

var _ Again = (*file)(nil)

// Read reads on.
func (f *file) Read(p []byte) (int, error) {
	n, err := f.File.Read(p)
	if err != nil && err != io.EOF { //nolint:errorlint // as io.Reader says
		err = f.view.fail("read", f.rel, err)
	}
	return n, err
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

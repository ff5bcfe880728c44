package source

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"path"

	"github.com/cairn-backup/cairn/manifest"
)

// FS returns a source that is fsys, as one root called name. Kinds, modes,
// times, sizes and the targets of symbolic links are kept; an fs.FS tells no
// more. Links are not followed if fsys implements fs.ReadLinkFS; else they
// cannot be told from what they lead to.
func FS(name string, fsys fs.FS) Source { return fsSource{name: name, fsys: fsys} }

type fsSource struct {
	name string
	fsys fs.FS
}

// Open looks at the top of the file system.
func (s fsSource) Open(ctx context.Context) (View, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	root := manifest.UniqueNames([]string{s.name})[0]
	v := &fsView{fsys: s.fsys, tree: tree{root: root}}
	if _, err := fs.Lstat(s.fsys, "."); err != nil {
		return nil, v.fail("open", "", err)
	}
	return v, nil
}

type fsView struct {
	tree
	fsys fs.FS
}

// Info describes the file system.
func (v *fsView) Info() Info {
	return Info{Kind: manifest.KindFiles, Name: v.root.Name, Roots: []manifest.Root{v.root}}
}

// Finish does nothing: an fs.FS has no way to say that it changed.
func (v *fsView) Finish(ctx context.Context) error { return ctx.Err() }

// Close does nothing.
func (v *fsView) Close() error { return nil }

// ReadDir yields complete nodes.
func (v *fsView) ReadDir(ctx context.Context, dir string) iter.Seq2[manifest.Node, error] {
	return func(yield func(manifest.Node, error) bool) {
		if err := ctx.Err(); err != nil {
			yield(manifest.Node{}, err)
			return
		}
		if dir == "" {
			yield(v.node("", v.root.Name))
			return
		}
		rel, err := v.inside(dir)
		if err != nil {
			yield(manifest.Node{}, err)
			return
		}
		entries, err := fs.ReadDir(v.fsys, path.Join(".", rel)) // sorted by name
		if err != nil {
			yield(manifest.Node{}, v.fail("read", rel, err))
			return
		}
		for _, e := range entries {
			if err := ctx.Err(); err != nil {
				yield(manifest.Node{}, err)
				return
			}
			if !yield(v.node(joinPath(rel, e.Name()), e.Name())) {
				return
			}
		}
	}
}

// node looks at the entry at rel and returns it under the name given.
func (v *fsView) node(rel, name string) (manifest.Node, error) {
	at := path.Join(".", rel)
	fi, err := fs.Lstat(v.fsys, at)
	if err != nil {
		return manifest.Node{Name: name}, v.fail("stat", rel, err)
	}
	n := nodeOf(fi)
	n.Name = name
	if n.Kind == manifest.Symlink {
		if n.Target, err = fs.ReadLink(v.fsys, at); err != nil {
			return manifest.Node{Name: name}, v.fail("readlink", rel, err)
		}
	}
	return n, nil
}

// OpenFile opens a regular file.
func (v *fsView) OpenFile(ctx context.Context, name string) (io.ReadCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	rel, err := v.inside(name)
	if err != nil {
		return nil, err
	}
	at := path.Join(".", rel)
	// Looked at before it is opened: opening a pipe would wait, and opening a
	// link would follow it.
	fi, err := fs.Lstat(v.fsys, at)
	if err != nil {
		return nil, v.fail("open", rel, err)
	}
	if !fi.Mode().IsRegular() {
		return nil, v.fail("open", rel, ErrChanged)
	}
	f, err := v.fsys.Open(at)
	if err != nil {
		return nil, v.fail("open", rel, err)
	}
	return &fsFile{view: v, rel: rel, file: f}, nil
}

// An fsFile makes the errors of a file those of its source.
type fsFile struct {
	view *fsView
	rel  string
	file fs.File
}

var (
	_ Again = (*fsFile)(nil)
	_ Paged = (*fsFile)(nil)
)

// Read reads on.
func (f *fsFile) Read(p []byte) (int, error) {
	n, err := f.file.Read(p)
	if err != nil && err != io.EOF { //nolint:errorlint // as io.Reader says
		err = f.view.fail("read", f.rel, noEOF(err))
	}
	return n, err
}

// Grain looks at the begin of a file that can be read anywhere.
func (f *fsFile) Grain() (int, error) {
	at, ok := f.file.(io.ReaderAt)
	if !ok {
		return 0, nil
	}
	n, err := f.Again()
	if err != nil {
		return 0, err
	}
	grain, err := grainOf(at, int64(n.Size)) //nolint:gosec // a file's size
	if err != nil {
		err = f.view.fail("read", f.rel, noEOF(err))
	}
	return grain, err
}

// Again looks at the open file.
func (f *fsFile) Again() (manifest.Node, error) {
	fi, err := f.file.Stat()
	if err != nil {
		return manifest.Node{}, f.view.fail("stat", f.rel, err)
	}
	n := nodeOf(fi)
	if n.Kind != manifest.File {
		return manifest.Node{}, f.view.fail("open", f.rel, fmt.Errorf("no regular file: %w", ErrChanged))
	}
	return n, nil
}

// Close closes the file.
func (f *fsFile) Close() error {
	if err := f.file.Close(); err != nil {
		return f.view.fail("close", f.rel, err)
	}
	return nil
}

// nodeOf returns what fi says by itself, without a name.
func nodeOf(fi fs.FileInfo) manifest.Node {
	n := manifest.Node{Mode: uint32(fi.Mode().Perm()), MTime: manifest.TimeOf(fi.ModTime())}
	for _, bit := range []struct {
		is   fs.FileMode
		mode uint32
	}{{fs.ModeSetuid, 0o4000}, {fs.ModeSetgid, 0o2000}, {fs.ModeSticky, 0o1000}} {
		if fi.Mode()&bit.is != 0 {
			n.Mode |= bit.mode
		}
	}
	switch m := fi.Mode(); {
	case m.IsRegular():
		n.Kind = manifest.File
		n.Size = uint64(max(fi.Size(), 0))
	case m.IsDir():
		n.Kind = manifest.Dir
	case m&fs.ModeSymlink != 0:
		n.Kind = manifest.Symlink
	case m&fs.ModeNamedPipe != 0:
		n.Kind = manifest.FIFO
	case m&fs.ModeCharDevice != 0:
		n.Kind = manifest.CharDevice
	case m&fs.ModeDevice != 0:
		n.Kind = manifest.BlockDevice
	default: // a socket, or what only its own system knows
		n.Kind = manifest.Socket
	}
	return n
}

package engine

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"iter"
	"strings"
	"time"

	"github.com/cairn-backup/cairn/chunk"
	"github.com/cairn-backup/cairn/manifest"
)

// An FS shows a snapshot as a file system: fs.FS, fs.ReadDirFS, fs.StatFS and
// fs.ReadLinkFS. The roots of the snapshot are its top entries. FileInfo.Sys
// returns the *manifest.Node. It is safe for concurrent use; its files are not.
type FS struct {
	repo *Repository
	ctx  context.Context //nolint:containedctx // io/fs has no contexts: this one lives as long as the view
	snap manifest.Snapshot
}

var (
	_ fs.ReadDirFS  = (*FS)(nil)
	_ fs.StatFS     = (*FS)(nil)
	_ fs.ReadLinkFS = (*FS)(nil)
)

// FS returns a view of a snapshot. Everything it reads ends with ctx.
func (r *Repository) FS(ctx context.Context, id manifest.ID) (*FS, error) {
	if err := r.readable(); err != nil {
		return nil, err
	}
	snap, needs, err := r.find(ctx, id)
	if err != nil {
		return nil, err
	}
	if err := r.store.Load(ctx, needs); err != nil {
		return nil, err
	}
	return &FS{repo: r, ctx: ctx, snap: snap}, nil
}

// Snapshot returns what is shown.
func (f *FS) Snapshot() manifest.Snapshot { return f.snap }

// node finds the node of a path. It follows no symbolic links.
func (f *FS) node(op, name string) (manifest.Node, error) {
	fail := func(err error) error { return &fs.PathError{Op: op, Path: name, Err: err} }
	if !fs.ValidPath(name) && !validRaw(name) {
		return manifest.Node{}, fail(fs.ErrInvalid)
	}
	n := f.top()
	if name == "." {
		return n, nil
	}
	for part := range strings.SplitSeq(name, "/") {
		if n.Kind != manifest.Dir {
			return manifest.Node{}, fail(fs.ErrNotExist)
		}
		var err error
		if n, err = manifest.Lookup(f.ctx, f.repo.store, n.Tree, part); err != nil {
			return manifest.Node{}, fail(f.repo.meanwhile(err, f.snap.ID))
		}
	}
	return n, nil
}

// validRaw is fs.ValidPath for names that are not UTF-8.
func validRaw(name string) bool {
	return fs.ValidPath(strings.ToValidUTF8(name, "?"))
}

func (f *FS) top() manifest.Node {
	return manifest.Node{Name: ".", Kind: manifest.Dir, Mode: 0o555, MTime: f.snap.Start, Tree: f.snap.Tree}
}

// Open opens a file or directory. A file reads the blocks that it is asked for;
// it is an io.ReaderAt and an io.Seeker as well.
func (f *FS) Open(name string) (fs.File, error) {
	n, err := f.node("open", name)
	if err != nil {
		return nil, err
	}
	if n.Kind == manifest.Dir {
		return &dirFile{fs: f, name: name, node: n}, nil
	}
	return &file{fs: f, name: name, node: n}, nil
}

// Stat returns the info of a path; a symbolic link's own.
func (f *FS) Stat(name string) (fs.FileInfo, error) {
	n, err := f.node("stat", name)
	if err != nil {
		return nil, err
	}
	return info{&n}, nil
}

// Lstat is Stat: no link is followed.
func (f *FS) Lstat(name string) (fs.FileInfo, error) { return f.Stat(name) }

// ReadLink returns where a symbolic link points.
func (f *FS) ReadLink(name string) (string, error) {
	n, err := f.node("readlink", name)
	if err != nil {
		return "", err
	}
	if n.Kind != manifest.Symlink {
		return "", &fs.PathError{Op: "readlink", Path: name, Err: fs.ErrInvalid}
	}
	return n.Target, nil
}

// ReadDir returns the entries of a directory, by name.
func (f *FS) ReadDir(name string) ([]fs.DirEntry, error) {
	n, err := f.node("readdir", name)
	if err != nil {
		return nil, err
	}
	if n.Kind != manifest.Dir {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: errors.New("not a directory")}
	}
	return f.list(name, n)
}

func (f *FS) list(name string, n manifest.Node) ([]fs.DirEntry, error) {
	var entries []fs.DirEntry
	for e, err := range manifest.ReadDir(f.ctx, f.repo.store, n.Tree) {
		if err != nil {
			return entries, f.listError(name, err)
		}
		entries = append(entries, fs.FileInfoToDirEntry(info{&e}))
	}
	return entries, nil
}

func (f *FS) listError(name string, err error) error {
	return &fs.PathError{Op: "readdir", Path: name, Err: f.repo.meanwhile(err, f.snap.ID)}
}

// info is the fs.FileInfo of a node.
type info struct{ node *manifest.Node }

func (i info) Name() string       { return i.node.Name }
func (i info) Size() int64        { return int64(i.node.Size) } //nolint:gosec // a file's size
func (i info) ModTime() time.Time { return i.node.MTime.Time() }
func (i info) IsDir() bool        { return i.node.Kind == manifest.Dir }
func (i info) Sys() any           { return i.node }

func (i info) Mode() fs.FileMode {
	m := fs.FileMode(i.node.Mode & 0o777)
	for bit, mode := range map[uint32]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if i.node.Mode&bit != 0 {
			m |= mode
		}
	}
	switch i.node.Kind {
	case manifest.Dir:
		m |= fs.ModeDir
	case manifest.Symlink:
		m |= fs.ModeSymlink
	case manifest.FIFO:
		m |= fs.ModeNamedPipe
	case manifest.Socket:
		m |= fs.ModeSocket
	case manifest.CharDevice:
		m |= fs.ModeDevice | fs.ModeCharDevice
	case manifest.BlockDevice:
		m |= fs.ModeDevice
	case manifest.File:
	}
	return m
}

// A dirFile is an open directory. It holds no more entries than ReadDir is
// asked for.
type dirFile struct {
	fs   *FS
	name string
	node manifest.Node
	next func() (manifest.Node, error, bool) // nil before the first ReadDir
	stop func()
}

func (d *dirFile) Stat() (fs.FileInfo, error) { return info{&d.node}, nil }

// Close ends the listing.
func (d *dirFile) Close() error {
	if d.stop != nil {
		d.stop()
	}
	return nil
}

func (d *dirFile) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: d.name, Err: errors.New("is a directory")}
}

// ReadDir returns the next n entries, or all that are left if n <= 0.
func (d *dirFile) ReadDir(n int) ([]fs.DirEntry, error) {
	if d.next == nil {
		d.next, d.stop = iter.Pull2(manifest.ReadDir(d.fs.ctx, d.fs.repo.store, d.node.Tree))
	}
	var entries []fs.DirEntry
	for n <= 0 || len(entries) < n {
		e, err, ok := d.next()
		if err != nil {
			return entries, d.fs.listError(d.name, err)
		}
		if !ok {
			break
		}
		entries = append(entries, fs.FileInfoToDirEntry(info{&e}))
	}
	if n > 0 && len(entries) == 0 {
		return nil, io.EOF
	}
	return entries, nil
}

// A file is an open file of a snapshot. What is no regular file reads as empty.
type file struct {
	fs   *FS
	name string
	node manifest.Node
	at   int64
	last manifest.Patched // the extent read last; its Length is 0 before
	next []chunk.ID       // what is read behind it
	id   chunk.ID         // the chunk read last for it, and its bytes with the patches
	data []byte
}

var (
	_ io.ReaderAt = (*file)(nil)
	_ io.Seeker   = (*file)(nil)
)

func (f *file) Stat() (fs.FileInfo, error) { return info{&f.node}, nil }
func (f *file) Close() error               { f.data = nil; return nil }

func (f *file) Read(p []byte) (int, error) {
	n, err := f.ReadAt(p, f.at)
	f.at += int64(n)
	if n > 0 && errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

// Seek sets where Read goes on.
func (f *file) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += f.at
	case io.SeekEnd:
		offset += int64(f.node.Size) //nolint:gosec // a file's size
	}
	if offset < 0 {
		return 0, &fs.PathError{Op: "seek", Path: f.name, Err: fs.ErrInvalid}
	}
	f.at = offset
	return offset, nil
}

// ReadAt reads the extents that p covers.
func (f *file) ReadAt(p []byte, off int64) (int, error) {
	fail := func(n int, err error) (int, error) {
		return n, &fs.PathError{Op: "read", Path: f.name, Err: f.fs.repo.meanwhile(err, f.fs.snap.ID)}
	}
	size := int64(f.node.Size) //nolint:gosec // a file's size
	switch {
	case off < 0:
		return fail(0, fs.ErrInvalid)
	case len(p) == 0:
		return 0, nil
	case off >= size:
		return 0, io.EOF
	}
	want := p[:min(int64(len(p)), size-off)]
	if in := f.node.Content.Inline; in != nil {
		copy(want, in[off:])
	} else if n, err := f.readExtents(want, uint64(off)); err != nil {
		return fail(n, err)
	}
	if len(want) < len(p) {
		return len(want), io.EOF
	}
	return len(p), nil
}

func (f *file) readExtents(p []byte, off uint64) (int, error) {
	done, err := f.readLast(p, off)
	if err != nil || done == len(p) {
		return done, err
	}
	off += uint64(done)              //nolint:gosec // a length
	end := off + uint64(len(p)-done) //nolint:gosec // a length
	for extents, err := range f.extents(off, end) {
		if err != nil {
			return done, err
		}
		ids := chunksOf(extents)
		for _, e := range extents {
			if e.Kind != manifest.Hole {
				ids = ids[1:]
			}
			f.last, f.next, f.id = e, ids, chunk.ID{}
			n, err := f.readLast(p[done:], off)
			done += n
			off += uint64(n) //nolint:gosec // a length
			if err != nil || done == len(p) {
				return done, err
			}
		}
	}
	return done, io.ErrUnexpectedEOF
}

// maxExtents is how many extents are looked at before the first of them is read.
const maxExtents = 128

// extents yields those that cover the bytes from off to end, some at a time: who
// knows what comes next reads it along. An error comes last.
func (f *file) extents(off, end uint64) iter.Seq2[[]manifest.Patched, error] {
	return func(yield func([]manifest.Patched, error) bool) {
		var some []manifest.Patched
		for e, err := range manifest.PatchedExtents(f.fs.ctx, f.fs.repo.store, f.node.Content, off) {
			if err != nil {
				if len(some) == 0 || yield(some, nil) {
					yield(nil, err)
				}
				return
			}
			some = append(some, e)
			covered := e.Offset+e.Length >= end
			if !covered && len(some) < maxExtents {
				continue
			}
			if !yield(some, nil) || covered {
				return
			}
			some = some[:0]
		}
		if len(some) > 0 {
			yield(some, nil)
		}
	}
}

// chunksOf returns the chunks of extents, in their order.
func chunksOf(extents []manifest.Patched) []chunk.ID {
	var ids []chunk.ID
	for _, e := range extents {
		if e.Kind != manifest.Hole {
			ids = append(ids, e.ID)
		}
	}
	return ids
}

// readLast reads what the extent read last covers, from off on: small reads, one
// behind the other, need no look into the list of extents.
func (f *file) readLast(p []byte, off uint64) (done int, err error) {
	for done < len(p) && off >= f.last.Offset && off < f.last.Offset+f.last.Length {
		n, err := f.readExtent(p[done:], &f.last, off-f.last.Offset)
		if err != nil {
			return done, err
		}
		done += n
		off += uint64(n) //nolint:gosec // a length
	}
	return done, nil
}

// readExtent copies bytes of one extent, from skip on, up to the end of a chunk.
func (f *file) readExtent(p []byte, e *manifest.Patched, skip uint64) (int, error) {
	if e.Kind == manifest.Hole {
		n := min(uint64(len(p)), e.Length-skip)
		clear(p[:n])
		return int(n), nil //nolint:gosec // at most len(p)
	}
	if f.data == nil || f.id != e.ID {
		data, err := f.fs.repo.patchedChunk(f.fs.ctx, e, f.next)
		if err != nil {
			return 0, err
		}
		f.id, f.data = e.ID, data
	}
	return copy(p, f.data[skip%uint64(len(f.data)):]), nil
}

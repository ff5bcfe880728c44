package engine

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"iter"
	"path/filepath"
	"slices"

	"github.com/cairn-backup/cairn/chunk"
	"github.com/cairn-backup/cairn/chunk/wire"
	"github.com/cairn-backup/cairn/engine/internal/pages"
	"github.com/cairn-backup/cairn/engine/internal/rule"
	"github.com/cairn-backup/cairn/engine/source"
	"github.com/cairn-backup/cairn/manifest"
)

// A pager reads files that consist of pages, for one goroutine. Such a file is
// stored in groups of 64 KiB, at fixed places, a chunk each. Of a group that
// changed since the parent only the pages that did are stored, as patches of
// the parent's chunk.
//
// Whether a group is as in the parent its ID tells, which is that of the chunk
// or, of a patched group, in the file of fingerprints. Which of its pages changed
// the fingerprints tell. Where there are none for exactly what the parent's list
// says of the group, it is read from the repository and compared byte by byte.
type pager struct {
	print   *pages.Printer // nil before the first use
	group   []byte         // the one in hand
	prints  []byte         // of its pages
	changed []bool         // by page
}

// An oldContent is what a parent has of a file.
type oldContent struct {
	content manifest.Content
	index   int // in parents.trees
}

// earlier returns the content of the newest parent that has the file, if any of
// it may be taken over.
func (s *saver) earlier(match []oldNode) *oldContent {
	if s.opts.Reread {
		return nil
	}
	for i := range match {
		if n := &match[i].node; n.Kind == manifest.File && n.Size > manifest.MaxInline {
			return &oldContent{content: n.Content, index: match[i].index}
		}
	}
	return nil
}

// prints is where the fingerprints of this repository are kept.
func (r *Repository) prints() (*pages.Cache, error) {
	dir, err := r.cacheDir()
	if err != nil || dir == "" {
		return new(pages.Cache), err
	}
	return &pages.Cache{Dir: filepath.Join(dir, "pages"), Meta: r.keys.Meta, Repository: r.id, ReadOnly: r.opts.ReadOnly}, nil
}

// A pagedFile is one file that a pager reads.
type pagedFile struct {
	*fileReader
	path  string
	grain int
	list  *manifest.ContentWriter
	last  chunk.ID // what the list has last, if what follows could be joined to it
	index int      // of the parent
	old   oldGroups
	known *pages.Reader
	learn *pages.Writer
}

// paged stores the content of an open file.
func (f *fileReader) paged(ctx context.Context, p *pending, file io.Reader, grain int) (_ manifest.Content, size uint64, err error) {
	g := &f.pager
	if g.print == nil {
		if g.print, err = pages.NewPrinter(f.repo.keys.Chunk); err != nil {
			return manifest.Content{}, 0, err
		}
		g.group = make([]byte, pages.Group)
	}
	cache, err := f.repo.prints()
	if err != nil {
		return manifest.Content{}, 0, err
	}
	x := &pagedFile{fileReader: f, path: p.path, grain: grain, list: manifest.NewContentWriter(f.session)}
	name := x.name()
	if !f.opts.DryRun {
		x.learn = cache.Create(name, grain)
		defer x.learn.Abort()
	}
	if p.old != nil {
		x.index = p.old.index
		x.old.open(ctx, f.repo, p.old.content)
		defer x.old.close()
		x.known = cache.Open(name, grain)
		defer x.known.Close()
	}
	if sparse, ok := file.(source.Sparse); ok {
		size, err = x.sparse(ctx, sparse, p.node.Size)
	} else {
		size, err = x.stream(ctx, file)
	}
	if err != nil {
		return manifest.Content{}, 0, err
	}
	c, err := x.list.Finish(ctx)
	if err == nil {
		x.learn.Finish()
	}
	return c, size, err
}

// name is that of the file of fingerprints: of the path in what is backed up. What
// it holds counts for other versions of the file as far as they are the same.
func (x *pagedFile) name() [16]byte {
	group := x.group()
	p := wire.AppendBytes([]byte("cairn v1 page fingerprints"), group[:])
	id := x.out.Name(wire.AppendText(p, x.path))
	return [16]byte(id[:16])
}

// stream stores what can only be read from begin to end.
func (x *pagedFile) stream(ctx context.Context, file io.Reader) (size uint64, err error) {
	for {
		n, err := io.ReadFull(file, x.pager.group)
		end := err == io.EOF || err == io.ErrUnexpectedEOF // ReadFull's own; one that is wrapped is the source's
		if err != nil && !end {
			return size, err
		}
		if n > 0 {
			if err := x.add(ctx, size, x.pager.group[:n]); err != nil {
				return size, err
			}
		}
		if size += uint64(n); end { //nolint:gosec // a length
			return size, nil
		}
	}
}

// sparse stores the groups that have data, and the others as holes.
func (x *pagedFile) sparse(ctx context.Context, file source.Sparse, size uint64) (uint64, error) {
	at := uint64(0)
	for at < size {
		start, end, err := file.NextData(int64(at)) //nolint:gosec // an offset of a file
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return 0, err
		}
		if from := min(uint64(start), size) / pages.Group * pages.Group; from > at { //nolint:gosec // an offset of a file
			if err := x.hole(ctx, from-at); err != nil {
				return 0, err
			}
			at = from
		}
		for at < min(uint64(end), size) { //nolint:gosec // an offset of a file
			p := x.pager.group[:min(size-at, pages.Group)]
			n, err := file.ReadAt(p, int64(at)) //nolint:gosec // an offset of a file
			if err != nil && !errors.Is(err, io.EOF) {
				return 0, err
			}
			clear(p[n:]) // it shrank, which the next look tells
			if err := x.add(ctx, at, p); err != nil {
				return 0, err
			}
			at += uint64(len(p))
		}
	}
	if at < size {
		return size, x.hole(ctx, size-at)
	}
	return size, nil
}

func (x *pagedFile) hole(ctx context.Context, n uint64) error {
	x.last = chunk.ID{}
	x.meter.AddBytes(int64(n)) //nolint:gosec // a file's size
	return x.list.Add(ctx, manifest.Extent{Kind: manifest.Hole, Length: n})
}

// add stores the group at off, which is a multiple of the length of a group.
func (x *pagedFile) add(ctx context.Context, off uint64, group []byte) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if zeros(group) {
		return x.hole(ctx, uint64(len(group)))
	}
	x.meter.AddBytes(int64(len(group)))
	old, err := x.old.at(ctx, off, len(group))
	if err != nil {
		return err
	}
	if old != nil && old.ID == x.last {
		old = nil // an extent that equals its neighbour is one with it, and cannot be patched
	}
	g := pagedGroup{pagedFile: x, data: group, id: x.out.Name(group), old: old}
	g.look(off / pages.Group)
	is, err := g.store(ctx)
	if err != nil {
		return err
	}
	x.learn.Add(pages.Record{Group: off / pages.Group, Key: x.key(&is), ID: g.id, Prints: g.prints})
	if x.last = is.ID; len(is.Patches) > 0 {
		x.last = chunk.ID{}
	}
	if err := x.list.Add(ctx, is.Extent); err != nil {
		return err
	}
	for _, p := range is.Patches {
		if err := x.list.Add(ctx, p.Extent); err != nil {
			return err
		}
	}
	return nil
}

// key names what a list says of a group: its chunk and its patches.
func (x *pagedFile) key(e *manifest.Patched) chunk.ID {
	if len(e.Patches) == 0 {
		return e.ID
	}
	p := append([]byte("cairn v1 patched group"), e.ID[:]...)
	for _, patch := range e.Patches {
		p = binary.LittleEndian.AppendUint64(p, patch.Offset-e.Offset)
		p = binary.LittleEndian.AppendUint64(p, patch.Length)
		p = append(p, patch.ID[:]...)
	}
	return x.out.Name(p)
}

// A pagedGroup is a group in hand.
type pagedGroup struct {
	*pagedFile
	data   []byte
	id     chunk.ID          // of data
	old    *manifest.Patched // what the parent has there; nil: nothing as long
	known  *pages.Record     // of old; nil: nothing is known
	prints []byte            // of data; nil if nobody wants them
}

// look finds what is known of the old group, and makes the fingerprints of the new.
func (g *pagedGroup) look(number uint64) {
	known, ok := g.pagedFile.known.Find(number)
	if ok && g.old != nil && known.Key == g.key(g.old) {
		g.known = &known
		if known.ID == g.id {
			g.prints = known.Prints
			return
		}
	}
	if g.known != nil || g.learn != nil {
		p := &g.pager
		p.prints = p.print.Prints(p.prints[:0], g.data, g.grain)
		g.prints = p.prints
	}
}

// store stores the group, and returns the extents that give it.
func (g *pagedGroup) store(ctx context.Context) (manifest.Patched, error) {
	switch {
	case g.old == nil:
	case g.id == g.old.ID: // as the parent's chunk, whatever patches it had
		g.inherit(g.index)
		return g.whole(), nil
	case g.known != nil && g.known.ID == g.id: // as the parent's chunk with its patches
		g.inherit(g.index)
		return *g.old, nil
	default:
		changed, err := g.changed(ctx)
		if err != nil {
			return manifest.Patched{}, err
		}
		if changed != nil {
			if is, ok, err := g.patch(ctx, changed); ok || err != nil {
				return is, err
			}
		}
	}
	_, _, err := g.out.PutNamed(ctx, g.id, g.data)
	return g.whole(), err
}

func (g *pagedGroup) whole() manifest.Patched {
	return manifest.Patched{Placed: manifest.Placed{Extent: manifest.Extent{
		Kind: manifest.Data, Length: uint64(len(g.data)), ID: g.id,
	}}}
}

// changed returns which pages are not as in the parent; nil if that cannot be told.
func (g *pagedGroup) changed(ctx context.Context) ([]bool, error) {
	n := (len(g.data) + g.grain - 1) / g.grain
	g.pager.changed = slices.Grow(g.pager.changed[:0], n)[:n]
	changed := g.pager.changed
	if g.known != nil && pages.Changed(changed, g.known.Prints, g.prints) {
		if slices.Contains(changed, true) {
			return changed, nil
		}
		// The group is another, so two pages have one fingerprint.
		return nil, nil
	}
	old, err := g.repo.patchedChunk(ctx, g.old, nil)
	if errors.Is(err, ErrCorrupt) {
		return nil, nil // the damage of a parent must not keep a new backup from being made
	}
	for i := range changed {
		at, end := i*g.grain, min((i+1)*g.grain, len(g.data))
		changed[i] = err == nil && !bytes.Equal(old[at:end], g.data[at:end])
	}
	return changed, err
}

// patch stores the pages that changed. It reports false if the group is to be
// written whole.
func (g *pagedGroup) patch(ctx context.Context, changed []bool) (is manifest.Patched, ok bool, err error) {
	is = manifest.Patched{Placed: g.old.Placed}
	old := make([]pages.Span, len(g.old.Patches))
	for i, p := range g.old.Patches {
		old[i] = pages.Span{Off: int(p.Offset - g.old.Offset), End: int(p.Offset - g.old.Offset + p.Length)} //nolint:gosec // within a group
	}
	keep, write, ok := pages.Plan(len(g.data), g.grain, changed, old)
	if !ok {
		return is, false, nil
	}
	if !rule.Off(rule.Base) {
		g.inherit(g.index)
	}
	for _, i := range keep {
		is.Patches = append(is.Patches, g.old.Patches[i])
	}
	for _, s := range write {
		id, _, err := g.out.Put(ctx, g.data[s.Off:s.End])
		if err != nil {
			return is, false, err
		}
		is.Patches = append(is.Patches, manifest.Placed{Offset: g.old.Offset + uint64(s.Off), Extent: manifest.Extent{ //nolint:gosec // within a group
			Kind: manifest.Patch, Length: uint64(s.End - s.Off), ID: id, //nolint:gosec // as above
			First: uint64(s.Off / g.grain), Count: uint64((s.End - s.Off) / g.grain), //nolint:gosec // as above
		}})
	}
	slices.SortFunc(is.Patches, func(a, b manifest.Placed) int { return cmp.Compare(a.Offset, b.Offset) })
	return is, true, nil
}

// oldGroups reads a parent's content, group by group. The zero oldGroups has none.
type oldGroups struct {
	next func() (manifest.Patched, error, bool)
	stop func()
	here manifest.Patched
	ok   bool
}

func (o *oldGroups) open(ctx context.Context, r *Repository, c manifest.Content) {
	o.next, o.stop = iter.Pull2(manifest.PatchedExtents(ctx, r.store, c, 0))
	o.ok = true
}

func (o *oldGroups) close() { o.stop() }

// at returns what the parent has of the group at off, of n bytes; nil if that is
// no chunk of just these bytes. Offsets must rise from call to call. A parent that
// cannot be read is not compared with any further.
func (o *oldGroups) at(ctx context.Context, off uint64, n int) (*manifest.Patched, error) {
	for o.ok && o.here.Offset+o.here.Length <= off {
		e, err, ok := o.next()
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		o.here, o.ok = e, ok && err == nil
	}
	if !o.ok || o.here.Offset > off || o.here.Kind == manifest.Hole {
		return nil, nil //nolint:nilnil // as documented
	}
	e := o.here
	e.Length /= max(e.Count, 1)
	if e.Length != uint64(n) || (off-e.Offset)%e.Length != 0 { //nolint:gosec // a length
		return nil, nil //nolint:nilnil // as documented
	}
	e.Kind, e.Count, e.Offset = manifest.Data, 0, off // one of a Repeat is like any other
	return &e, nil
}

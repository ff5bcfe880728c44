package engine

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/cairn-backup/cairn/chunk"
	"github.com/cairn-backup/cairn/engine/internal/log"
	"github.com/cairn-backup/cairn/engine/internal/store"
	"github.com/cairn-backup/cairn/manifest"
)

// checkSnapshots walks the tree of every snapshot: each chunk must have a place
// in a pack that is there and that the snapshot's needs name.
func (c *checker) checkSnapshots(ctx context.Context) error {
	c.report.Snapshots = uint64(len(c.snaps))
	s := newSeen()
	for _, info := range c.snaps {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		snap, err := c.repo.openSnapshot(info)
		if err != nil {
			f := c.find(Finding{Offset: -1, Detail: err.Error(), Err: err})
			c.hurts(f, info.Summary.ID, "")
			continue
		}
		w := &treeCheck{checker: c, info: info, seen: s, spare: make(chan struct{}, c.repo.opts.Workers)}
		needs, _, err := w.list(ctx, "", snap.Tree)
		c.report.Chunks += w.chunks.Load()
		if err != nil {
			return err
		}
		missing := needs.Subtract(info.Needs)
		if len(missing) > 0 {
			if missing, err = c.unnamed(ctx, info, snap.Tree, missing); err != nil {
				return err
			}
		}
		if len(missing) > 0 {
			err := &store.CorruptError{Offset: -1, Err: errors.New("it relies on packs that its record does not name: " + missing.String())}
			f := c.find(Finding{Offset: -1, Detail: err.Error(), Err: err})
			c.hurts(f, info.Summary.ID, "")
		}
	}
	return nil
}

// unnamed returns those packs among missing that the snapshot needs and does not
// name. The index knows one place of a chunk, and it may be another one than that
// on which the snapshot relies: sessions that run at the same time store the same
// chunk twice, and so does a backup after damage.
func (c *checker) unnamed(ctx context.Context, info *log.SnapshotInfo, tree chunk.ID, missing log.Ranges) (log.Ranges, error) {
	w := &treeCheck{
		checker: c, info: info, seen: newSeen(), spare: make(chan struct{}, c.repo.opts.Workers),
		outside: missing, relied: make(map[chunk.ID]uint64), quiet: true,
	}
	if _, _, err := w.list(ctx, "", tree); err != nil {
		return nil, err
	}
	for number := range info.Needs.All() {
		if c.wholeBad(number) && !c.listed(number) {
			return nil, nil // what it held no one can say, and its damage is found
		}
		if len(w.relied) == 0 {
			return nil, nil
		}
	}
	err := c.eachTable(ctx, info.Needs, func(_ uint64, t store.PackTable) error {
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, b := range t.Table.Blocks {
			for _, ch := range b.Chunks {
				delete(w.relied, ch.ID)
			}
		}
		return nil
	})
	return log.RangesOf(slices.Collect(maps.Values(w.relied))), err
}

// listed reports whether the chunks of a pack are known.
func (c *checker) listed(number uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.sums[number]
	return ok
}

// seen are the directories that were walked and are whole, with the packs that
// they and all below need. It is safe for concurrent use.
type seen struct {
	mu    sync.Mutex // guards needs
	needs map[chunk.ID]log.Ranges
}

func newSeen() *seen { return &seen{needs: make(map[chunk.ID]log.Ranges)} }

func (s *seen) get(id chunk.ID) (log.Ranges, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	needs, ok := s.needs[id]
	return needs, ok
}

func (s *seen) put(id chunk.ID, needs log.Ranges) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.needs[id] = needs
}

// A treeCheck walks one snapshot, several directories at a time.
type treeCheck struct {
	*checker
	info   *log.SnapshotInfo
	seen   *seen
	spare  chan struct{} // has a token for each directory that is walked beside
	chunks atomic.Uint64
	quiet  bool // damage has been found by an earlier walk

	outside log.Ranges // packs whose chunks are noted in relied

	mu     sync.Mutex          // guards what follows
	relied map[chunk.ID]uint64 // and their packs
}

// from notes that a chunk is read from a pack.
func (w *treeCheck) from(id chunk.ID, number uint64) {
	if w.outside.Contains(number) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.relied[id] = number
	}
}

func (w *treeCheck) hurt(path string, f *finding) {
	if !w.quiet {
		w.hurts(f, w.info.Summary.ID, path)
	}
}

// A dirCheck is one directory that is being walked.
type dirCheck struct {
	*treeCheck
	group *errgroup.Group // the directories below that are walked beside

	needs   log.Ranges // guarded by below
	whole   bool       // guarded by below
	below   sync.Mutex
	numbers []uint64 // packs, not yet in needs
	cause   *finding // of the page that could not be read last
	fatal   error    // an error that is no damage
}

// list walks a directory and returns the packs that it and all below it need,
// and whether nothing of it is damaged.
func (w *treeCheck) list(ctx context.Context, path string, tree chunk.ID) (log.Ranges, bool, error) {
	if needs, ok := w.seen.get(tree); ok {
		return needs, true, nil
	}
	if ctx.Err() != nil {
		return nil, false, context.Cause(ctx)
	}
	group, ctx := errgroup.WithContext(ctx)
	d := &dirCheck{treeCheck: w, group: group, whole: true}
	err := d.entries(ctx, path, tree)
	if err := errors.Join(group.Wait(), err); err != nil {
		return nil, false, err
	}
	d.needs = d.needs.Union(log.RangesOf(d.numbers))
	if d.whole {
		w.seen.put(tree, d.needs)
	}
	return d.needs, d.whole, nil
}

func (d *dirCheck) entries(ctx context.Context, path string, tree chunk.ID) error {
	for n, err := range manifest.ReadDir(ctx, d, tree) {
		if err != nil {
			return d.unreadable(path, err)
		}
		at := join(path, n.Name)
		switch n.Kind {
		case manifest.Dir:
			if err := d.dir(ctx, at, n.Tree); err != nil {
				return err
			}
		case manifest.File:
			if err := d.file(ctx, at, &n); err != nil {
				return err
			}
		default: // all there is of it is in the node
		}
	}
	return nil
}

// dir walks a directory below, beside this one if a token is to be had.
func (d *dirCheck) dir(ctx context.Context, path string, tree chunk.ID) error {
	walk := func() error {
		needs, whole, err := d.list(ctx, path, tree)
		d.below.Lock()
		defer d.below.Unlock()
		d.needs = d.needs.Union(needs)
		d.whole = d.whole && whole
		return err
	}
	select {
	case d.spare <- struct{}{}:
		d.group.Go(func() error {
			defer func() { <-d.spare }()
			return walk()
		})
		return nil
	default:
		return walk()
	}
}

// unreadable notes that a list cannot be read. It returns the error if that is no
// damage.
func (d *dirCheck) unreadable(path string, err error) error {
	if d.fatal != nil {
		return d.fatal
	}
	f := d.cause
	if d.cause = nil; f == nil && !d.quiet {
		f = d.treeDamage(err)
	}
	d.damaged(path, f)
	return nil
}

func (d *dirCheck) damaged(path string, f *finding) {
	d.hurt(path, f)
	d.below.Lock()
	defer d.below.Unlock()
	d.whole = false
}

// file resolves the chunks of one file.
func (d *dirCheck) file(ctx context.Context, path string, n *manifest.Node) error {
	var ids []chunk.ID
	causes := make(map[*finding]struct{})
	for e, err := range manifest.Extents(ctx, d, n.Content, 0) {
		if err != nil {
			if err := d.unreadable(path, err); err != nil {
				return err
			}
			break
		}
		if e.Kind != manifest.Hole {
			ids = append(ids, e.ID)
		}
		if len(ids) == 1024 {
			if err := d.resolve(ids, causes); err != nil {
				return err
			}
			ids = ids[:0]
		}
	}
	if err := d.resolve(ids, causes); err != nil {
		return err
	}
	for f := range causes {
		d.damaged(path, f)
	}
	return nil
}

// resolve looks chunks up and adds to causes what keeps them from being read.
func (d *dirCheck) resolve(ids []chunk.ID, causes map[*finding]struct{}) error {
	places, found, err := d.store.Places(ids)
	if err != nil {
		return err
	}
	d.chunks.Add(uint64(len(ids)))
	for i, id := range ids {
		if !found[i] {
			causes[d.lostChunk(id)] = struct{}{}
			continue
		}
		if f := d.damageAt(places[i]); f != nil {
			causes[f] = struct{}{}
		}
		d.relies(id, places[i].Pack)
	}
	return nil
}

// relies notes the pack that a chunk is in.
func (d *dirCheck) relies(id chunk.ID, number uint64) {
	d.from(id, number)
	if last := len(d.numbers) - 1; last >= 0 && d.numbers[last] == number {
		return
	}
	if d.numbers = append(d.numbers, number); len(d.numbers) < 1<<16 {
		return
	}
	d.below.Lock() // or a file of terabytes would have a number for each chunk
	defer d.below.Unlock()
	d.needs = d.needs.Union(log.RangesOf(d.numbers))
	d.numbers = d.numbers[:0]
}

// Chunk reads one page of a list and remembers its pack. It makes a dirCheck a
// manifest.Getter. A page in a pack that is damaged elsewhere may be whole.
func (d *dirCheck) Chunk(ctx context.Context, id chunk.ID) ([]byte, error) {
	places, found, err := d.store.Places([]chunk.ID{id})
	if err != nil {
		d.fatal = err
		return nil, err
	}
	if !found[0] {
		d.cause = d.lostChunk(id)
		return nil, d.cause.Err
	}
	d.relies(id, places[0].Pack)
	data, err := d.store.Chunk(ctx, id)
	switch {
	case err == nil:
	case !errors.Is(err, ErrCorrupt):
		d.fatal = err
	default:
		if d.cause = d.damageAt(places[0]); d.cause == nil {
			d.cause = d.badBlock(d.packs[places[0].Pack], places[0], err)
		}
	}
	return data, err
}

package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/cairn-backup/cairn/chunk"
	"github.com/cairn-backup/cairn/chunk/pack"
	"github.com/cairn-backup/cairn/engine/internal/layout"
	"github.com/cairn-backup/cairn/engine/internal/log"
	"github.com/cairn-backup/cairn/engine/internal/store"
	"github.com/cairn-backup/cairn/manifest"
)

// checkPacks opens every pack, several at a time.
func (c *checker) checkPacks(ctx context.Context) error {
	for number, info := range c.packs {
		if !c.sound[number] {
			c.meter.AddFilesTotal(1)
			c.meter.AddBytesTotal(int64(info.Size))
		}
	}
	g, groupCtx := errgroup.WithContext(ctx)
	g.SetLimit(c.repo.opts.Workers)
	for number, info := range c.packs {
		c.mu.Lock()
		skip := c.dead[number] != nil || c.sound[number]
		c.mu.Unlock()
		if skip || groupCtx.Err() != nil {
			continue
		}
		table := c.tables[number]
		g.Go(func() error {
			err := c.checkPack(groupCtx, number, info, table)
			c.meter.AddFiles(1)
			c.meter.AddBytes(int64(info.Size))
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return context.Cause(ctx)
}

func (c *checker) checkPack(ctx context.Context, number uint64, info log.PackInfo, table pack.Table) error {
	footer, err := c.store.ReadTable(ctx, info)
	if err == nil && !sameTable(footer, table) {
		err = &store.CorruptError{Object: string(layout.Pack(info.ID)), Offset: -1, Err: errors.New("footer and index segment differ")}
	}
	if errors.Is(err, ErrCorrupt) {
		c.deadPack(number, info, err)
		return nil
	}
	if err != nil {
		return err
	}
	if c.opts.Depth < DepthData {
		c.foundWhole(number)
		return nil
	}
	r, err := c.store.Reader()
	if err != nil {
		return err
	}
	defer c.store.Release(r)
	object, err := c.store.ReadRange(ctx, number, 0, int64(info.Size))
	if errors.Is(err, ErrCorrupt) {
		c.deadPack(number, info, err)
		return nil
	}
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.report.BytesRead += uint64(len(object))
	c.mu.Unlock()
	p := readPack{number, info, object}
	sound := true
	for _, b := range footer.Blocks {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		sound = c.checkBlock(ctx, r, p, store.PackTable{Pack: info.ID, Table: pack.Table{Births: footer.Births, Blocks: []pack.Block{b}}}) && sound
	}
	if sound {
		c.foundWhole(number)
	}
	return nil
}

func (c *checker) foundWhole(number uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sound[number] = true
}

// A readPack is a pack with its bytes.
type readPack struct {
	number uint64
	info   log.PackInfo
	object []byte
}

// checkBlock opens the one block of t and hashes its chunks. It reports whether
// all is well.
func (c *checker) checkBlock(ctx context.Context, r *store.Reader, p readPack, t store.PackTable) (sound bool) {
	b := t.Table.Blocks[0]
	entries := store.Entries(p.number, t)
	if len(entries) == 0 {
		return true
	}
	sound = true
	raw, err := c.store.OpenBlock(ctx, r, entries[0].Place, p.object[b.Offset:uint64(b.Offset)+uint64(b.Stored)])
	for _, e := range entries {
		chunkErr := err
		if err == nil {
			_, chunkErr = c.store.Cut(r, raw, e.ID, e.Place)
		}
		if chunkErr == nil {
			continue
		}
		sound = false
		c.mu.Lock()
		c.bad[e.ID] = struct{}{}
		c.mu.Unlock()
		if err == nil {
			c.find(Finding{Object: string(layout.Pack(p.info.ID)), Detail: chunkErr.Error(), Snapshots: c.needing(p.number), Err: chunkErr})
		}
	}
	if err != nil {
		c.find(Finding{Object: string(layout.Pack(p.info.ID)), Detail: err.Error(), Snapshots: c.needing(p.number), Err: err})
	}
	return sound
}

func sameTable(a, b pack.Table) bool {
	return len(a.Births) == len(b.Births) && (len(a.Births) == 0 || reflect.DeepEqual(a.Births, b.Births)) && reflect.DeepEqual(a.Blocks, b.Blocks)
}

// checkSnapshots walks the tree of every snapshot: each chunk must have a place
// in a pack that is there and that the snapshot's needs name.
func (c *checker) checkSnapshots(ctx context.Context) error {
	c.report.Snapshots = uint64(len(c.snaps))
	seen := make(map[chunk.ID]log.Ranges)
	for _, info := range c.snaps {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		snap, err := c.repo.openSnapshot(info)
		if err != nil {
			c.find(Finding{Detail: err.Error(), Snapshots: []manifest.ID{info.Summary.ID}, Err: err})
			continue
		}
		w := &treeCheck{checker: c, info: info, seen: seen}
		needs, err := w.list(ctx, "", snap.Tree)
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
			w.hurt("", fmt.Errorf("it relies on packs that its record does not name: %v: %w", missing, ErrCorrupt))
		}
	}
	return nil
}

// unnamed returns those packs among missing that the snapshot needs and does not
// name. Sessions that run at the same time store the same chunk twice; the index
// knows one place of it, while the snapshot names the pack of the other.
func (c *checker) unnamed(ctx context.Context, info *log.SnapshotInfo, tree chunk.ID, missing log.Ranges) (log.Ranges, error) {
	w := &treeCheck{
		checker: c, info: info, seen: make(map[chunk.ID]log.Ranges),
		outside: missing, relied: make(map[chunk.ID]uint64), hits: maxHurt, // found before
	}
	chunks := c.report.Chunks
	_, err := w.list(ctx, "", tree)
	c.report.Chunks = chunks // counted before
	if err != nil {
		return nil, err
	}
	for number := range info.Needs.All() {
		stored, ok := c.packs[number]
		if !ok || c.dead[number] != nil {
			continue
		}
		if len(w.relied) == 0 {
			break
		}
		table, err := c.store.ReadTable(ctx, stored)
		if err != nil && !errors.Is(err, ErrCorrupt) { // damage has been found before
			return nil, err
		}
		for _, b := range table.Blocks {
			for _, ch := range b.Chunks {
				delete(w.relied, ch.ID)
			}
		}
	}
	return log.RangesOf(slices.Collect(maps.Values(w.relied))), nil
}

// A treeCheck walks one snapshot.
type treeCheck struct {
	*checker
	info *log.SnapshotInfo
	seen map[chunk.ID]log.Ranges // packs under a directory that was walked without a finding
	hits int

	outside log.Ranges          // packs whose chunks are noted in relied
	relied  map[chunk.ID]uint64 // and their packs
}

// from notes that a chunk is read from a pack.
func (w *treeCheck) from(id chunk.ID, number uint64) {
	if w.outside.Contains(number) {
		w.relied[id] = number
	}
}

// maxHurt bounds the findings of one snapshot's walk.
const maxHurt = 100

func (w *treeCheck) hurt(path string, err error) {
	if w.hits++; w.hits > maxHurt {
		return
	}
	w.find(Finding{Detail: err.Error(), Snapshots: []manifest.ID{w.info.Summary.ID}, Path: path, Err: err})
}

// list walks a directory and returns the packs that it and all below it need.
func (w *treeCheck) list(ctx context.Context, path string, tree chunk.ID) (log.Ranges, error) {
	if needs, ok := w.seen[tree]; ok {
		return needs, nil
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	before := w.hits
	g := &needGetter{check: w}
	for n, err := range manifest.ReadDir(ctx, g, tree) {
		if err != nil {
			if g.fatal != nil {
				return nil, g.fatal
			}
			w.hurt(path, err)
			break
		}
		at := join(path, n.Name)
		switch n.Kind {
		case manifest.Dir:
			below, err := w.list(ctx, at, n.Tree)
			if err != nil {
				return nil, err
			}
			g.needs = g.needs.Union(below)
		case manifest.File:
			if err := w.file(ctx, at, &n, g); err != nil {
				return nil, err
			}
		default: // all there is of it is in the node
		}
	}
	needs := g.needs.Union(log.RangesOf(g.numbers))
	if w.hits == before {
		w.seen[tree] = needs
	}
	return needs, nil
}

// file resolves the chunks of one file.
func (w *treeCheck) file(ctx context.Context, path string, n *manifest.Node, g *needGetter) error {
	var ids []chunk.ID
	for e, err := range manifest.Extents(ctx, g, n.Content, 0) {
		if err != nil {
			if g.fatal != nil {
				return g.fatal
			}
			w.hurt(path, err)
			return nil
		}
		if e.Kind != manifest.Hole {
			ids = append(ids, e.ID)
		}
		if len(ids) == 1024 {
			if err := w.chunks(path, ids, g); err != nil {
				return err
			}
			ids = ids[:0]
		}
	}
	return w.chunks(path, ids, g)
}

func (w *treeCheck) chunks(path string, ids []chunk.ID, g *needGetter) error {
	numbers, found, err := w.store.Where(ids)
	if err != nil {
		return err
	}
	w.report.Chunks += uint64(len(ids))
	for i, id := range ids {
		if !found[i] {
			w.hurt(path, &store.CorruptError{ID: id, Offset: -1, Err: errors.New("no readable pack holds the chunk")})
			continue
		}
		if _, bad := w.bad[id]; bad {
			w.hurt(path, &store.CorruptError{ID: id, Offset: -1, Err: errors.New("its stored bytes are damaged")})
		} else if err := w.dead[numbers[i]]; err != nil {
			w.hurt(path, &store.CorruptError{ID: id, Offset: -1, Err: err})
		}
		w.from(id, numbers[i])
		if last := len(g.numbers) - 1; last < 0 || g.numbers[last] != numbers[i] {
			g.numbers = append(g.numbers, numbers[i])
		}
	}
	return nil
}

// A needGetter reads tree pages and remembers which packs they came from.
type needGetter struct {
	check   *treeCheck
	needs   log.Ranges
	numbers []uint64
	fatal   error // an error that is no damage
}

// Chunk reads one page.
func (g *needGetter) Chunk(ctx context.Context, id chunk.ID) ([]byte, error) {
	numbers, found, err := g.check.store.Where([]chunk.ID{id})
	if err == nil && found[0] {
		g.check.from(id, numbers[0])
		g.numbers = append(g.numbers, numbers[0])
	}
	data, err := g.check.store.Chunk(ctx, id)
	if err != nil && !errors.Is(err, ErrCorrupt) {
		g.fatal = err
	}
	return data, err
}

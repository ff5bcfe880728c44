package engine

import (
	"context"
	"crypto/sha256"
	"errors"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/cairn-backup/cairn/chunk"
	"github.com/cairn-backup/cairn/chunk/pack"
	"github.com/cairn-backup/cairn/engine/internal/index"
	"github.com/cairn-backup/cairn/engine/internal/layout"
	"github.com/cairn-backup/cairn/engine/internal/log"
	"github.com/cairn-backup/cairn/engine/internal/store"
)

// tableSum stands for the table of a pack: to keep the tables themselves would
// take memory for every chunk.
type tableSum = [sha256.Size]byte

func sumOf(t pack.Table) tableSum { return sha256.Sum256(t.Append(nil)) }

// checkSegments reads every index segment and fills the check's own index.
func (c *checker) checkSegments(ctx context.Context) error {
	c.sums = make(map[uint64]tableSum, len(c.packs))
	c.numbers = make(map[pack.ID]uint64, len(c.packs))
	for n, info := range c.packs {
		c.numbers[info.ID] = n
	}
	var excused log.Ranges // listed by a segment that cannot be read
	g, groupCtx := errgroup.WithContext(ctx)
	g.SetLimit(c.repo.opts.Workers)
	for _, seg := range c.segments {
		g.Go(func() error {
			tables, err := c.store.ReadSegment(groupCtx, seg)
			if errors.Is(err, ErrCorrupt) {
				c.findObject(layout.Segment(seg.ID), why(err), err)
				c.mu.Lock()
				defer c.mu.Unlock()
				excused = excused.Union(seg.Packs)
				return nil
			}
			if err != nil {
				return err
			}
			return c.takeTables(tables)
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return c.checkUnlisted(ctx, excused)
}

// takeTables puts the chunks of packs into the index.
func (c *checker) takeTables(tables []store.PackTable) error {
	for _, t := range tables {
		n, ok := c.numbers[t.Pack]
		if !ok {
			continue
		}
		c.mu.Lock()
		c.sums[n] = sumOf(t.Table)
		c.mu.Unlock()
		if err := c.index.Insert(store.Entries(n, t)); err != nil {
			return err
		}
	}
	return nil
}

// checkUnlisted reads the footers of the packs that no readable segment lists.
func (c *checker) checkUnlisted(ctx context.Context, excused log.Ranges) error {
	g, groupCtx := errgroup.WithContext(ctx)
	g.SetLimit(c.repo.opts.Workers)
	for n, info := range c.packs {
		c.mu.Lock()
		_, listed := c.sums[n]
		c.mu.Unlock()
		if listed || c.wholeBad(n) {
			continue
		}
		g.Go(func() error {
			t, err := c.store.ReadTable(groupCtx, info)
			if errors.Is(err, ErrCorrupt) {
				c.wholePack(n, info, err)
				return nil
			}
			if err != nil {
				return err
			}
			if !excused.Contains(n) {
				c.findObject(layout.Pack(info.ID), "no index segment lists its chunks; its footer does",
					&store.CorruptError{Object: string(layout.Pack(info.ID)), Offset: -1, Err: errors.New("not in the index")})
			}
			c.mu.Lock()
			c.unlisted = append(c.unlisted, n)
			c.mu.Unlock()
			return c.takeTables([]store.PackTable{{Pack: info.ID, Size: uint64(info.Size), Table: t}})
		})
	}
	return g.Wait()
}

// eachTable reads the tables of the packs with these numbers once more and calls
// f for each, for several at a time. What cannot be read is left out: it has
// been found before.
func (c *checker) eachTable(ctx context.Context, packs log.Ranges, f func(number uint64, t store.PackTable) error) error {
	g, groupCtx := errgroup.WithContext(ctx)
	g.SetLimit(c.repo.opts.Workers)
	for _, seg := range c.segments {
		if !seg.Packs.Intersects(packs) {
			continue
		}
		g.Go(func() error {
			tables, err := c.store.ReadSegment(groupCtx, seg)
			if err != nil && !errors.Is(err, ErrCorrupt) {
				return err
			}
			for _, t := range tables {
				if n, ok := c.numbers[t.Pack]; ok && packs.Contains(n) {
					if err := f(n, t); err != nil {
						return err
					}
				}
			}
			return nil
		})
	}
	for _, n := range c.unlisted {
		if !packs.Contains(n) {
			continue
		}
		g.Go(func() error {
			info := c.packs[n]
			t, err := c.store.ReadTable(groupCtx, info)
			if err != nil {
				if errors.Is(err, ErrCorrupt) {
					return nil
				}
				return err
			}
			return f(n, store.PackTable{Pack: info.ID, Size: uint64(info.Size), Table: t})
		})
	}
	return g.Wait()
}

// preferGood makes the index name another copy of what is damaged, where there
// is one: it keeps one place for each chunk, whichever came last.
func (c *checker) preferGood(ctx context.Context) error {
	if len(c.bad) == 0 {
		return nil
	}
	all := make([]uint64, 0, len(c.packs))
	for n := range c.packs {
		if !c.wholeBad(n) {
			all = append(all, n)
		}
	}
	var mu sync.Mutex // or of two copies of one chunk each could be found to be missing
	return c.eachTable(ctx, log.RangesOf(all), func(n uint64, t store.PackTable) error {
		entries := store.Entries(n, t)
		ids := make([]chunk.ID, len(entries))
		for i := range entries {
			ids[i] = entries[i].ID
		}
		mu.Lock()
		defer mu.Unlock()
		places, found := make([]index.Place, len(ids)), make([]bool, len(ids))
		if err := c.index.LookupMany(ids, places, found); err != nil {
			return err
		}
		better := entries[:0]
		for i, e := range entries {
			if (!found[i] || c.isBad(places[i])) && !c.isBad(e.Place) {
				better = append(better, e)
			}
		}
		return c.index.Insert(better)
	})
}

// why returns the reason in err, without the object that a Finding names beside
// it.
func why(err error) string {
	if e, ok := errors.AsType[*store.CorruptError](err); ok {
		return e.Err.Error()
	}
	return err.Error()
}

package engine

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/cairn-backup/cairn/chunk/pack"
	"github.com/cairn-backup/cairn/engine/internal/log"
	"github.com/cairn-backup/cairn/engine/internal/store"
)

// choose returns the packs that are to be opened, rising.
//
// Packs with recorded damage are always among them: what is found of those says
// whether a snapshot is still hurt.
func (c *checker) choose() []uint64 {
	var chosen, due []uint64
	for number, info := range c.packs {
		switch {
		case c.wholeBad(number):
		case len(c.known[number]) > 0:
			chosen = append(chosen, number)
		case c.opts.MaxAge == 0 || c.ledger.due(number, info.ID, c.opts.MaxAge):
			due = append(due, number)
		}
	}
	if c.opts.Sample > 0 {
		share := int(math.Ceil(c.opts.Sample * float64(len(c.packs))))
		rand.Shuffle(len(due), func(i, j int) { due[i], due[j] = due[j], due[i] })
		due = due[:min(share, len(due))]
	}
	chosen = append(chosen, due...)
	slices.Sort(chosen)
	return chosen
}

// checkPacks opens packs, several at a time.
func (c *checker) checkPacks(ctx context.Context) error {
	chosen := c.choose()
	all := len(chosen)
	chosen = slices.DeleteFunc(chosen, func(number uint64) bool { return c.sound[number] })
	c.report.Opened, c.report.Verified = uint64(all-len(chosen)), uint64(all-len(chosen)) //nolint:gosec // lengths
	for _, number := range chosen {
		c.meter.AddFilesTotal(1)
		if c.opts.Depth >= DepthData {
			c.meter.AddBytesTotal(int64(c.packs[number].Size))
		}
	}
	g, groupCtx := errgroup.WithContext(ctx)
	g.SetLimit(c.repo.opts.Workers)
	rooms := make(chan []byte, c.repo.opts.Workers)
	for range cap(rooms) {
		rooms <- nil
	}
	for _, number := range chosen {
		if groupCtx.Err() != nil {
			break
		}
		info := c.packs[number]
		g.Go(func() error {
			// A pack is larger than all the garbage that is let lie.
			room := <-rooms
			defer func() { rooms <- room }()
			err := c.checkPack(groupCtx, number, info, &room)
			c.meter.AddFiles(1)
			if c.opts.Depth >= DepthData {
				c.meter.AddBytes(int64(info.Size))
			}
			return errors.Join(err, c.ledger.saveNowAndThen(groupCtx))
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if len(c.packs) > all && c.opts.Sample+float64(c.opts.MaxAge) > 0 {
		c.note("%d of %d packs were opened, as the options choose", all, len(c.packs))
	}
	return context.Cause(ctx)
}

// checkPack opens a pack, and reads it into room, which it makes larger if need be.
func (c *checker) checkPack(ctx context.Context, number uint64, info log.PackInfo, room *[]byte) error {
	footer, err := c.readFooter(ctx, number, info)
	if errors.Is(err, ErrCorrupt) {
		c.wholePack(number, info, err)
		return nil
	}
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.report.Opened++
	c.mu.Unlock()
	if c.opts.Depth < DepthData {
		return nil
	}
	if cap(*room) < int(info.Size) {
		*room = make([]byte, max(int(info.Size), store.RoomyPack))
	}
	object := (*room)[:info.Size]
	err = c.store.ReadInto(ctx, number, 0, object)
	if errors.Is(err, ErrCorrupt) {
		c.wholePack(number, info, err)
		return nil
	}
	if err != nil {
		return err
	}
	r, err := c.store.Reader()
	if err != nil {
		return err
	}
	defer c.store.Release(r)
	p := readPack{number, info, object}
	for _, b := range footer.Blocks {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		t := store.PackTable{Pack: info.ID, Table: pack.Table{Births: footer.Births, Blocks: []pack.Block{b}}}
		if err := c.checkBlock(ctx, r, p, t); err != nil {
			return err
		}
	}
	good := c.readAll(number)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.report.BytesRead += uint64(len(object))
	c.report.Verified++
	if good {
		c.sound[number] = true
		c.ledger.verified(number, info.ID)
	}
	return nil
}

// readFooter reads the table of a pack, a second time if the first is wrong, and
// compares it with that of the segment.
func (c *checker) readFooter(ctx context.Context, number uint64, info log.PackInfo) (pack.Table, error) {
	footer, err := c.store.ReadTable(ctx, info)
	if errors.Is(err, ErrCorrupt) {
		if footer, err = c.store.ReadTable(ctx, info); err == nil {
			c.flaky.Add(1)
		}
	}
	if err != nil {
		return footer, err
	}
	c.mu.Lock()
	sum, listed := c.sums[number]
	c.mu.Unlock()
	if listed && sumOf(footer) != sum {
		err = &store.CorruptError{Offset: -1, Err: errors.New("footer and index segment differ")}
	}
	return footer, err
}

// A readPack is a pack with its bytes.
type readPack struct {
	number uint64
	info   log.PackInfo
	object []byte
}

// checkBlock opens the one block of t and hashes its chunks. What is wrong is
// read once more before it counts as damage: it will be recorded for ever.
func (c *checker) checkBlock(ctx context.Context, r *store.Reader, p readPack, t store.PackTable) error {
	b := t.Table.Blocks[0]
	err := c.openBlock(ctx, r, p, t, p.object[b.Offset:uint64(b.Offset)+uint64(b.Stored)])
	if err == nil || !errors.Is(err, ErrCorrupt) {
		return err
	}
	again, rerr := c.store.ReadRange(ctx, p.number, int64(b.Offset), int64(b.Stored))
	if rerr != nil && !errors.Is(rerr, ErrCorrupt) {
		return rerr
	}
	if rerr == nil {
		switch rerr = c.openBlock(ctx, r, p, t, again); {
		case rerr == nil:
			c.flaky.Add(1)
			return nil
		case !errors.Is(rerr, ErrCorrupt):
			return rerr
		}
	}
	c.badBlock(p.info, store.Entries(p.number, t)[0].Place, err)
	return nil
}

func (c *checker) openBlock(ctx context.Context, r *store.Reader, p readPack, t store.PackTable, sealed []byte) error {
	entries := store.Entries(p.number, t)
	if len(entries) == 0 {
		return nil
	}
	raw, err := c.store.OpenBlock(ctx, r, entries[0].Place, sealed)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if _, err := c.store.Cut(r, raw, e.ID, e.Place); err != nil {
			return err
		}
	}
	return nil
}

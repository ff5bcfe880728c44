package engine

import (
	"context"
	"errors"
	"log/slog"
	"slices"

	"github.com/cairn-backup/cairn/chunk"
	"github.com/cairn-backup/cairn/chunk/pack"
	"github.com/cairn-backup/cairn/engine/internal/layout"
	"github.com/cairn-backup/cairn/engine/internal/log"
	"github.com/cairn-backup/cairn/engine/internal/store"
)

// A gcPack is a pack of which a part is dead.
type gcPack struct {
	number  uint64
	kept    uint64 // bytes of blocks that hold anything that lives
	dropped uint64 // bytes of the others
}

// A gcTables reads the tables of packs: from index segments, of which it keeps
// the last few, or from the packs' own footers. Both are authenticated.
type gcTables struct {
	repo   *Repository
	recent [2]loadedSegment
}

type loadedSegment struct {
	id     [16]byte
	tables []store.PackTable
}

// segment returns the tables of a segment; none if it is damaged.
func (x *gcTables) segment(ctx context.Context, seg log.SegmentInfo) ([]store.PackTable, error) {
	for i, s := range x.recent {
		if s.id == seg.ID {
			x.recent[0], x.recent[i] = x.recent[i], x.recent[0]
			return s.tables, nil
		}
	}
	tables, err := x.repo.store.ReadSegment(ctx, seg)
	if errors.Is(err, ErrCorrupt) {
		x.repo.opts.Logger.WarnContext(ctx, "an index segment is damaged; the footers of its packs are read instead", slog.Any("error", err))
		tables, err = nil, nil
	}
	if err != nil {
		return nil, err
	}
	x.recent[1] = x.recent[0]
	x.recent[0] = loadedSegment{seg.ID, tables}
	return tables, nil
}

// each calls visit with the table of each of the packs, all of which are live
// in st. Those of which no table can be read are left out: nothing is done
// with them.
func (x *gcTables) each(ctx context.Context, st *log.State, packs log.Ranges, visit func(number uint64, info log.PackInfo, t pack.Table) error) error {
	visited := make(map[uint64]struct{}, packs.Count())
	for seg := range st.Segments() {
		if !seg.Packs.Intersects(packs) {
			continue
		}
		tables, err := x.segment(ctx, seg)
		if err != nil {
			return err
		}
		for _, t := range tables {
			number, live := st.PackNumber(t.Pack)
			if _, done := visited[number]; !live || done || !packs.Contains(number) {
				continue
			}
			info, _ := st.Pack(number)
			if uint64(info.Size) != t.Size {
				continue // the footer tells
			}
			visited[number] = struct{}{}
			if err := visit(number, info, t.Table); err != nil {
				return err
			}
		}
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
	}
	for number := range packs.All() {
		if _, done := visited[number]; done {
			continue
		}
		info, live := st.Pack(number)
		if !live {
			continue
		}
		t, err := x.repo.store.ReadTable(ctx, info)
		if errors.Is(err, ErrCorrupt) {
			continue
		}
		if err == nil {
			err = visit(number, info, t)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// planWalk reads the trees of all that counts, and then the tables of all packs,
// to find those with dead chunks.
func (g *gcPlan) planWalk(ctx context.Context, st *log.State, plan *GCPlan) error {
	g.marks = newWalk(g.repo, st)
	g.meter.AddFilesTotal(int64(st.SnapshotCount()))
	if err := g.catchUp(ctx, st); err != nil {
		return err
	}
	plan.Walked = true
	for _, read := range g.marks.snapshots {
		if !read {
			plan.Unread++
		}
	}
	spared, _ := g.unread(st)
	packs := st.Live().Subtract(g.bare)
	if err := g.findTwice(ctx, st, packs); err != nil {
		return err
	}
	var dead, partly []gcPack
	err := g.tables.each(ctx, st, packs, func(number uint64, info log.PackInfo, t pack.Table) error {
		p := gcPack{number: number}
		held := g.look(st, number, t, &p)
		switch {
		case held:
			g.held = append(g.held, string(layout.Pack(info.ID)))
		case p.dropped == 0:
		case p.kept == 0:
			dead = append(dead, p)
		case float64(p.dropped) >= g.opts.Share*float64(p.dropped+p.kept) || len(st.DamagedBlocks(number)) > 0:
			partly = append(partly, p)
		default:
			count(&plan.Partial, p.dropped)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return g.choose(ctx, st, plan, candidates{dead: dead, partly: partly, spared: spared})
}

// look counts what lives in a pack. Held says that a block with a chunk that is
// used is damaged, and that there is no other copy of it: the pack must stay.
func (g *gcPlan) look(st *log.State, number uint64, t pack.Table, p *gcPack) (held bool) {
	damaged := st.DamagedBlocks(number)
	for _, b := range t.Blocks {
		use, kept := g.weigh(b, func(c chunk.ID) bool { return g.marks.lives(c, damaged, b.Number) && !g.elsewhere(c, number) })
		p.kept += kept
		p.dropped += uint64(b.Stored) - kept
		held = held || (use.Whole || len(use.Chunks) > 0) && damaged.Contains(uint64(b.Number))
	}
	return held
}

// weigh decides what of a block is copied, and how many bytes that are: all of
// it as it is, or the chunks that live if so much of it is dead as makes a pack
// worth rewriting. Else a block of which one chunk in 25 lives would stay for ever.
func (g *gcPlan) weigh(b pack.Block, lives func(chunk.ID) bool) (use store.Use, kept uint64) {
	var live uint64
	for i, c := range b.Chunks {
		if lives(c.ID) {
			use.Chunks = append(use.Chunks, i)
			live += uint64(c.Length)
		}
	}
	dead := uint64(b.Raw) - live
	if dead == 0 || live > 0 && float64(dead) < g.opts.Share*float64(b.Raw) {
		return store.Use{Whole: true}, uint64(b.Stored)
	}
	return use, uint64(b.Stored) * live / uint64(b.Raw)
}

// elsewhere reports whether another pack is the home of a chunk that is stored
// more than once.
func (g *gcPlan) elsewhere(id chunk.ID, number uint64) bool {
	home, twice := g.twice[id]
	return twice && home != number
}

// findTwice finds chunks that are used and lie in more than one pack, as they do
// when two backups store the same at the same time, and chooses the newest of
// these packs as the home of each. A damaged pack is nobody's home: what is used
// of it has one wherever else it lies.
func (g *gcPlan) findTwice(ctx context.Context, st *log.State, packs log.Ranges) error {
	hurt, err := g.usedOfHurt(ctx, st, packs)
	if err != nil {
		return err
	}
	var chunks uint64
	for _, info := range st.Packs() {
		chunks += uint64(info.Chunks)
	}
	seen := newFilter(chunks, seenBits, seenLimit)
	g.twice = make(map[chunk.ID]uint64)
	return g.tables.each(ctx, st, packs, func(number uint64, _ log.PackInfo, t pack.Table) error {
		if len(st.DamagedBlocks(number)) > 0 {
			return nil
		}
		for _, b := range t.Blocks {
			for _, c := range b.Chunks {
				switch {
				case hurt[c.ID]:
					g.twice[c.ID] = max(g.twice[c.ID], number)
				case !g.marks.marks.has(c.ID):
				case !seen.has(c.ID):
					seen.add(c.ID)
				case len(g.twice) < maxTwice || g.twice[c.ID] != 0:
					g.twice[c.ID] = max(g.twice[c.ID], number)
				}
			}
		}
		return nil
	})
}

// usedOfHurt returns the chunks that are used and lie in damaged packs.
func (g *gcPlan) usedOfHurt(ctx context.Context, st *log.State, packs log.Ranges) (map[chunk.ID]bool, error) {
	var damaged []uint64
	for d := range st.Damage() {
		damaged = append(damaged, d.Pack)
	}
	used := make(map[chunk.ID]bool)
	err := g.tables.each(ctx, st, packs.Intersect(log.RangesOf(damaged)), func(_ uint64, _ log.PackInfo, t pack.Table) error {
		for _, b := range t.Blocks {
			for _, c := range b.Chunks {
				if g.marks.marks.has(c.ID) && len(used) < maxTwice { // beyond that the next run goes on
					used[c.ID] = true
				}
			}
		}
		return nil
	})
	return used, err
}

// candidates are packs that may go.
type candidates struct {
	dead, partly []gcPack
	spared       log.Ranges
}

// choose decides which of the candidates the plan names: not those that are
// spared or young, and of those that must be copied the ones with the most to
// free for what they cost.
func (g *gcPlan) choose(ctx context.Context, st *log.State, plan *GCPlan, c candidates) error {
	all := make([]uint64, 0, len(c.dead)+len(c.partly))
	for _, p := range slices.Concat(c.dead, c.partly) {
		all = append(all, p.number)
	}
	free := log.RangesOf(all).Subtract(c.spared)
	young, err := g.young(ctx, st, free)
	if err != nil {
		return err
	}
	free = free.Subtract(young)
	held := log.RangesOf(all).Subtract(free)
	plan.Spared = plan.Spared.plus(sizeOf(st, held))
	g.again = len(held) > 0
	g.chooseFrom(st, plan, c, free)
	return nil
}

// chooseFrom names those of the candidates that are free to go.
func (g *gcPlan) chooseFrom(st *log.State, plan *GCPlan, c candidates, free log.Ranges) {
	var dead, copied []uint64
	for _, p := range c.dead {
		if free.Contains(p.number) {
			dead = append(dead, p.number)
		}
	}
	sortByGain(c.partly)
	var kept uint64
	for _, p := range c.partly {
		info, _ := st.Pack(p.number)
		switch {
		case !free.Contains(p.number):
		case g.opts.MaxRepack < 0:
			count(&plan.Partial, p.dropped)
		case g.opts.MaxRepack > 0 && kept+p.kept > uint64(g.opts.MaxRepack):
			count(&plan.Left, uint64(info.Size))
		default:
			copied = append(copied, p.number)
			kept += p.kept
		}
	}
	g.dead, g.partly = log.RangesOf(dead), log.RangesOf(copied)
	g.again = g.again || plan.Left.Objects > 0
	plan.Dead, plan.Repacked = sizeOf(st, g.dead), sizeOf(st, g.partly)
	if kept > 0 {
		plan.Copied = GCCount{Objects: kept/(16<<20) + 1, Bytes: kept + kept/32}
		plan.Index = plan.Index.plus(GCCount{Objects: kept/batchBytes + 1, Bytes: kept / 1024})
	}
	plan.BytesRead += kept
	plan.Requests.Get += int64(plan.Repacked.Objects) //nolint:gosec // a count of objects
}

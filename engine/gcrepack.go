package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/chunk"
	"github.com/cairn-backup/cairn/chunk/pack"
	"github.com/cairn-backup/cairn/engine/internal/layout"
	"github.com/cairn-backup/cairn/engine/internal/log"
	"github.com/cairn-backup/cairn/engine/internal/rule"
	"github.com/cairn-backup/cairn/engine/internal/store"
	"github.com/cairn-backup/cairn/engine/progress"
)

const (
	// batchBytes is how much one record replaces, of what must be copied: so much
	// more than before is stored until the old packs are deleted, at most.
	batchBytes = 128 << 20
	// batchChunks is how many chunks the packs of one record may have. While it
	// is prepared each takes 32 bytes.
	batchChunks = 1 << 18
	// batchPacks bounds the size of a record.
	batchPacks = 1 << 14
	// maxTries is how often a batch reads the trees of what landed meanwhile
	// before it gives up.
	maxTries = 10
)

// sortByGain puts packs first that free the most for what must be copied.
func sortByGain(packs []gcPack) {
	slices.SortFunc(packs, func(a, b gcPack) int {
		return cmp.Or(cmp.Compare(float64(b.dropped)/float64(b.kept+1), float64(a.dropped)/float64(a.kept+1)), cmp.Compare(a.number, b.number))
	})
}

// A batch is packs that one record replaces.
type batch struct {
	repacker *store.Repacker
	packs    map[uint64]*batchPack
}

// A batchPack says what becomes of the chunks of one pack.
type batchPack struct {
	homes   log.Ranges // of chunks that are used and stored elsewhere, too
	dropped []chunk.ID // not used by anything that was read
	damage  log.Ranges // blocks that were known to be damaged
}

// doomDead dooms, batch by batch, the packs of which a part or all is dead.
func (x *gcRun) doomDead(ctx context.Context) error {
	if x.marks == nil {
		return nil
	}
	// What needs no room comes first.
	for _, packs := range []log.Ranges{x.dead, x.partly} {
		for len(packs) > 0 {
			rest, err := x.doomBatch(ctx, packs)
			if err != nil {
				return err
			}
			packs = rest
			if err := x.deleteDoomed(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// doomBatch dooms the first of packs and returns the others.
func (x *gcRun) doomBatch(ctx context.Context, packs log.Ranges) (rest log.Ranges, err error) {
	x.meter.SetPhase(progress.Copy)
	st, err := x.read(ctx)
	if err != nil {
		return nil, err
	}
	now, rest := x.cut(st, packs)
	b := &batch{repacker: x.repo.store.Repack(), packs: make(map[uint64]*batchPack)}
	err = x.tables.each(ctx, st, now, func(number uint64, info log.PackInfo, t pack.Table) error {
		return x.prepare(ctx, st, b, gcTable{number, info, t})
	})
	if err == nil {
		err = b.repacker.Flush(ctx)
	}
	if err != nil {
		return nil, err
	}
	done, err := x.land(ctx, b)
	if err != nil {
		return nil, err
	}
	x.stale(now.Count() - done)
	return rest, nil
}

// stale counts packs that had to stay.
func (x *gcRun) stale(n uint64) {
	x.report.Stale.Objects += n
	x.again = x.again || n > 0
}

// read reads the log and the trees of what landed since.
func (x *gcRun) read(ctx context.Context) (*log.State, error) {
	if err := x.repo.log.Refresh(ctx); err != nil {
		return nil, err
	}
	st := x.state()
	if rule.Off(rule.Landed) {
		return st, nil
	}
	return st, x.catchUp(ctx, st)
}

// cut returns so many of packs as one record replaces, and the rest.
func (x *gcRun) cut(st *log.State, packs log.Ranges) (now, rest log.Ranges) {
	var numbers []uint64
	var bytes, chunks uint64
	copying := packs.Intersects(x.partly)
	for n := range packs.All() {
		info, _ := st.Pack(n)
		if copying {
			bytes += uint64(info.Size)
		}
		chunks += uint64(info.Chunks)
		if len(numbers) > 0 && (bytes > batchBytes || chunks > batchChunks || len(numbers) == batchPacks) {
			break
		}
		numbers = append(numbers, n)
	}
	now = log.RangesOf(numbers)
	return now, packs.Subtract(now)
}

// A gcTable is a pack and its table.
type gcTable struct {
	number uint64
	info   log.PackInfo
	table  pack.Table
}

// prepare copies what lives in a pack, and notes what does not.
func (x *gcRun) prepare(ctx context.Context, st *log.State, b *batch, t gcTable) error {
	p := &batchPack{damage: st.DamagedBlocks(t.number)}
	uses := make([]store.Use, len(t.table.Blocks))
	var homes []uint64
	for i, block := range t.table.Blocks {
		dropped, elsewhere := len(p.dropped), len(homes)
		uses[i], _ = x.weigh(block, func(id chunk.ID) bool {
			if !x.marks.lives(id, p.damage, block.Number) {
				p.dropped = append(p.dropped, id)
				return false
			}
			if home, ok := x.home(st, id, t.number); ok {
				homes = append(homes, home)
				return false
			}
			return true
		})
		if uses[i].Whole { // then all of it is in the new pack
			p.dropped, homes = p.dropped[:dropped], homes[:elsewhere]
		}
		if (uses[i].Whole || len(uses[i].Chunks) > 0) && p.damage.Contains(uint64(block.Number)) {
			return nil // nobody may rely on it, and there is nothing better
		}
	}
	p.homes = log.RangesOf(homes)
	src := store.Source{Number: t.number, Info: t.info, Table: t.table}
	err := b.repacker.Copy(ctx, src, uses)
	if errors.Is(err, ErrCorrupt) { // once more, since it will be recorded for ever
		err = b.repacker.Copy(ctx, src, uses)
	}
	if errors.Is(err, ErrCorrupt) {
		return x.foundDamage(ctx, t, err)
	}
	if err != nil {
		return err
	}
	b.packs[t.number] = p
	return nil
}

// foundDamage reports a pack that cannot be rewritten, and tells the log which
// block is damaged, or that all of it is, so that the next backup stores it
// again. That it cannot tell does not end the collection.
func (x *gcRun) foundDamage(ctx context.Context, t gcTable, cause error) error {
	key := string(layout.Pack(t.info.ID))
	x.repo.opts.Logger.WarnContext(ctx, "a damaged pack is not rewritten", slog.String("pack", key), slog.Any("error", cause))
	x.report.Damaged = append(x.report.Damaged, key)
	blocks := wholeBlocks()
	corrupt, known := errors.AsType[*store.CorruptError](cause)
	if i := slices.IndexFunc(t.table.Blocks, func(b pack.Block) bool { return known && int64(b.Offset) == corrupt.Offset }); i >= 0 && !missing(cause) {
		blocks = log.RangesOf([]uint64{uint64(t.table.Blocks[i].Number)})
	}
	_, err := x.append(ctx, func(st *log.State) ([]log.Effect, error) {
		info, live := st.Pack(t.number)
		fresh := blocks.Subtract(st.DamagedBlocks(t.number))
		if !live || info.ID != t.info.ID || len(fresh) == 0 {
			return nil, nil
		}
		return []log.Effect{log.Damage{Pack: t.number, Blocks: fresh}}, nil
	})
	if err != nil {
		x.repo.opts.Logger.WarnContext(ctx, "the damage could not be recorded", slog.String("pack", key), slog.Any("error", err))
	}
	return context.Cause(ctx)
}

// missing reports whether err says that an object is not there, or ends early.
func missing(err error) bool {
	return errors.Is(err, backend.ErrNotExist) || errors.Is(err, backend.ErrRange)
}

// home returns another pack that holds a chunk and that this collection leaves
// alone.
func (x *gcRun) home(st *log.State, id chunk.ID, number uint64) (uint64, bool) {
	home, twice := x.twice[id]
	if !twice || home == number || x.dead.Contains(home) || x.partly.Contains(home) || len(st.DamagedBlocks(home)) > 0 {
		return 0, false
	}
	_, live := st.Pack(home)
	return home, live
}

// errBehind says that all of a batch is named by snapshots that landed just now.
var errBehind = errors.New("snapshots landed that were not read")

// land adds the record that dooms the packs of a batch and names their
// successors. It returns how many it doomed.
func (x *gcRun) land(ctx context.Context, b *batch) (uint64, error) {
	for tries := 0; ; tries++ {
		done, err := x.tryLand(ctx, b)
		if !errors.Is(err, errBehind) {
			return done, err
		}
		if tries == maxTries {
			return 0, nil
		}
		if _, err := x.read(ctx); err != nil {
			return 0, err
		}
		b.recheck(x.marks.marks)
	}
}

// recheck takes packs out of the batch whose dropped chunks came to be used by
// what was read since.
func (b *batch) recheck(marks *filter) {
	for n, p := range b.packs {
		if slices.ContainsFunc(p.dropped, marks.has) {
			delete(b.packs, n)
		}
	}
}

func (x *gcRun) tryLand(ctx context.Context, b *batch) (uint64, error) {
	x.meter.SetPhase(progress.Commit)
	var doom log.Doom
	var figures GCFigures
	_, err := x.append(ctx, func(st *log.State) ([]log.Effect, error) {
		figures = GCFigures{}
		var effects []log.Effect
		var err error
		doom, err = x.holds(st, b)
		if err != nil || len(doom.Packs) == 0 {
			return nil, err
		}
		if add, any := b.repacker.Add(st.NextPack()); any {
			effects = append(effects, add)
		}
		x.noteSegments(st, doom.Segments)
		figures.Dead = x.note(st, doom.Packs.Intersect(x.dead), isDead)
		figures.Repacked = x.note(st, doom.Packs.Intersect(x.partly), isRepacked)
		return append(effects, doom), nil
	})
	switch {
	case errors.Is(err, errBehind):
		return 0, errBehind
	case errors.Is(err, ErrConflict): // another collector has swept what was just stored
		return 0, nil
	case err != nil:
		return 0, fmt.Errorf("doom: %w", err)
	}
	if len(doom.Packs) == 0 {
		return 0, nil
	}
	packs, bytes, segment := b.repacker.Written()
	x.report.Copied = x.report.Copied.plus(GCCount{packs, bytes})
	if segment > 0 {
		count(&x.report.Index, segment)
	}
	return doom.Packs.Count(), nil
}

// holds returns the Doom of those packs of a batch that may go behind st: they
// are live, so are the homes of what is used of them, and nothing names them
// that was not read. errBehind says that reading what landed may leave more.
func (x *gcRun) holds(st *log.State, b *batch) (log.Doom, error) {
	var numbers []uint64
	for n, p := range b.packs {
		if _, live := st.Pack(n); live && sound(st, p.homes) && st.DamagedBlocks(n).Equal(p.damage) {
			numbers = append(numbers, n)
		}
	}
	packs := log.RangesOf(numbers)
	spared, behind := x.unread(st)
	if rule.Off(rule.Landed) {
		spared = nil
	}
	if behind && packs.Intersects(spared) {
		return log.Doom{}, errBehind
	}
	doom := log.Doom{Packs: packs.Subtract(spared), More: true}
	if len(doom.Packs) == 0 {
		return doom, nil
	}
	if x.forgot {
		doom.Purged = x.purged
	}
	first := st.NextPack()
	for n := range doom.Packs.All() {
		if rule.Off(rule.Succeed) {
			break
		}
		doom.Successors = append(doom.Successors, log.Successor{Pack: n, By: b.packs[n].homes.Union(b.repacker.By(n, first))})
	}
	doom.Segments = emptied(st, doom.Packs)
	return doom, nil
}

// sound reports whether packs are live and nothing in them is known to be
// damaged.
func sound(st *log.State, packs log.Ranges) bool {
	if len(st.Dead(packs)) > 0 {
		return false
	}
	for d := range st.Damage() {
		if packs.Contains(d.Pack) {
			return false
		}
	}
	return true
}

// emptied returns the segments that list no live pack once packs are gone.
func emptied(st *log.State, packs log.Ranges) (ids [][16]byte) {
	live := st.Live().Subtract(packs)
	for seg := range st.Segments() {
		if !seg.Packs.Intersects(live) {
			ids = append(ids, seg.ID)
		}
	}
	return ids
}

package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/chunk"
	"github.com/cairn-backup/cairn/chunk/pack"
	"github.com/cairn-backup/cairn/engine/internal/index"
	"github.com/cairn-backup/cairn/engine/internal/keys"
	"github.com/cairn-backup/cairn/engine/internal/layout"
	"github.com/cairn-backup/cairn/engine/internal/log"
	"github.com/cairn-backup/cairn/engine/internal/store"
	"github.com/cairn-backup/cairn/engine/progress"
	"github.com/cairn-backup/cairn/manifest"
)

// memoryIndex is how many chunks a check looks up in memory; beyond it the
// index that it builds for itself is on disk, if there is a cache directory.
const memoryIndex = 2 << 20

// Check looks for damage, by stored data alone: no cache is asked. The error
// says that it could not check; what it found is in the report. It writes
// nothing to the store.
//
// Memory: 100 to 150 bytes a chunk up to two million chunks, beyond that the
// index is on disk if there is a cache directory; and some for each directory.
func (r *Repository) Check(ctx context.Context, opts CheckOptions) (report CheckReport, err error) {
	begin := time.Now()
	m := progress.NewMeter(opts.Progress)
	defer func() { m.Finish(err) }()
	if err := r.readable(); err != nil {
		return report, fmt.Errorf("check: %w", err)
	}
	c := &checker{repo: r, opts: opts, meter: m, report: &report}
	before := r.Traffic()
	err = c.run(ctx)
	report.Traffic = r.Traffic().Sub(before)
	slices.SortStableFunc(report.Findings, func(a, b Finding) int { return compareFindings(a, b) })
	report.Elapsed = time.Since(begin)
	if err != nil {
		return report, fmt.Errorf("check: %w", err)
	}
	return report, nil
}

// A checker is one run of Check.
type checker struct {
	repo  *Repository
	opts  CheckOptions
	meter *progress.Meter

	packs  map[uint64]log.PackInfo // live when the check began
	snaps  []*log.SnapshotInfo     // visible then
	segs   []log.SegmentInfo       // live then
	tables map[uint64]pack.Table   // from the segments; nil once not needed
	index  *index.Index
	store  *store.Store

	mu     sync.Mutex            // guards what follows
	sound  map[uint64]bool       // packs that an earlier pass found whole
	bad    map[chunk.ID]struct{} // chunks that cannot be read
	dead   map[uint64]error      // packs that cannot be read
	report *CheckReport
}

// maxPasses bounds how often a check begins again since something was collected.
const maxPasses = 5

// run makes passes until one found nothing, or nothing was collected meanwhile:
// what was missing then was missing indeed. Packs that were found whole are not
// read again.
func (c *checker) run(ctx context.Context) error {
	c.sound = make(map[uint64]bool)
	for pass := 1; ; pass++ {
		*c.report = CheckReport{BytesRead: c.report.BytesRead}
		err := c.pass(ctx)
		if err != nil && !errors.Is(err, ErrCorrupt) || err == nil && len(c.report.Findings) == 0 {
			return err
		}
		collected, err2 := c.collected(ctx)
		switch {
		case err2 != nil:
			return err2
		case !collected:
			return err
		case pass == maxPasses:
			return fmt.Errorf("packs are collected again and again while they are checked: %w", ErrConflict)
		}
	}
}

// collected reports whether a pack or segment was doomed since the pass began.
func (c *checker) collected(ctx context.Context) (collected bool, err error) {
	if err := c.repo.refresh(ctx); err != nil {
		return false, err
	}
	_ = c.repo.log.View(func(st *log.State) error { // the function returns nil
		for number := range c.packs {
			if _, live := st.Pack(number); !live {
				collected = true
			}
		}
		for _, seg := range c.segs {
			if _, live := st.Segment(seg.ID); !live {
				collected = true
			}
		}
		return nil
	})
	return collected, nil
}

func (c *checker) pass(ctx context.Context) (err error) {
	c.bad, c.dead = make(map[chunk.ID]struct{}), make(map[uint64]error)
	c.meter.SetPhase(progress.Open)
	if err := c.checkLog(ctx); err != nil {
		return err
	}
	if err := c.checkSlots(ctx); err != nil {
		return err
	}
	remove, err := c.openIndex()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.index.Close(), remove()) }()
	if err := c.checkObjects(ctx); err != nil {
		return err
	}
	if err := c.checkSegments(ctx); err != nil {
		return err
	}
	if c.opts.Depth >= DepthPacks {
		c.meter.SetPhase(progress.Verify)
		if err := c.checkPacks(ctx); err != nil {
			return err
		}
	}
	c.tables = nil
	c.meter.SetPhase(progress.Plan)
	return c.checkSnapshots(ctx)
}

func (c *checker) find(f Finding) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.report.Findings = append(c.report.Findings, f)
}

func (c *checker) note(format string, args ...any) {
	c.report.Notes = append(c.report.Notes, fmt.Sprintf(format, args...))
}

// checkLog reads every record again and every checkpoint.
func (c *checker) checkLog(ctx context.Context) error {
	r := c.repo
	if err := r.refresh(ctx); err != nil {
		return err
	}
	if err := r.log.Problem(); err != nil {
		c.find(Finding{Object: string(layout.Records), Detail: err.Error() + "; cairn repair log says what can be done", Err: err})
	}
	problems, err := r.log.Verify(ctx)
	if err != nil {
		return err
	}
	for _, p := range problems {
		c.find(Finding{Object: string(p.Key), Detail: p.Err.Error(), Err: p.Err})
	}
	c.report.Records = r.log.Head().N
	sessions := 0
	err = r.log.View(func(st *log.State) error {
		c.packs = maps.Collect(st.Packs())
		c.snaps = slices.Collect(st.Snapshots())
		c.segs = slices.Collect(st.Segments())
		for range st.Sessions() {
			sessions++
		}
		return nil
	})
	if sessions > 0 {
		c.note("%d unfinished backups are recorded: the next run goes on from them", sessions)
	}
	c.report.Packs = uint64(len(c.packs))
	return err
}

// checkSlots reads the clear part of every key slot.
func (c *checker) checkSlots(ctx context.Context) error {
	foreign := 0
	for info, err := range c.repo.meter.List(ctx, layout.Slots) {
		if err != nil {
			return err
		}
		object, err := backend.ReadAll(ctx, c.repo.meter, info.Key, maxConfig)
		if err != nil && !errors.Is(err, backend.ErrNotExist) {
			return err
		}
		slot, _, err := keys.ReadSlot(object)
		switch {
		case err != nil:
			c.find(Finding{Object: string(info.Key), Detail: err.Error(), Err: errors.Join(err, ErrCorrupt)})
		case slot.Repository != c.repo.id:
			foreign++
		}
	}
	if foreign > 0 {
		c.note("%d key slots are left of an init that did not come to its end", foreign)
	}
	return nil
}

// openIndex makes an index that only this check uses.
func (c *checker) openIndex() (remove func() error, err error) {
	r := c.repo
	o := index.Options{Repository: r.id}
	remove = func() error { return nil }
	var chunks uint64
	for _, info := range c.packs {
		chunks += uint64(info.Chunks)
	}
	if chunks > memoryIndex && r.opts.CacheDir != "" && !r.opts.ReadOnly {
		if o.Dir, err = os.MkdirTemp(r.opts.CacheDir, "check-"); err != nil {
			return remove, err
		}
		remove = func() error { return os.RemoveAll(o.Dir) }
	}
	if c.index, err = index.Open(o); err != nil {
		return remove, errors.Join(err, remove())
	}
	c.store = store.New(store.Options{
		Backend: r.meter, Repository: r.id, Keys: r.keys, Log: r.log, Index: c.index,
		Workers: r.opts.Workers, Logger: r.opts.Logger, Strict: true,
	})
	return remove, nil
}

// checkObjects compares what is stored with what the log says is.
func (c *checker) checkObjects(ctx context.Context) error {
	sizes := make(map[pack.ID]int64)
	for info, err := range c.repo.meter.List(ctx, layout.Packs) {
		if err != nil {
			return err
		}
		if id, err := layout.ParsePack(info.Key); err == nil {
			sizes[id] = info.Size
		}
	}
	for n, info := range c.packs {
		size, ok := sizes[info.ID]
		delete(sizes, info.ID)
		switch {
		case !ok:
			c.deadPack(n, info, errors.New("the pack is missing"))
		case size != int64(info.Size):
			c.deadPack(n, info, fmt.Errorf("the pack has %d bytes, not %d", size, info.Size))
		}
	}
	if len(sizes) > 0 {
		var bytes int64
		for _, size := range sizes {
			bytes += size
		}
		c.note("%d packs (%d bytes) are stored that no record names: unfinished backups left them, collection removes them", len(sizes), bytes)
	}
	return nil
}

func (c *checker) deadPack(number uint64, info log.PackInfo, err error) {
	c.mu.Lock()
	c.dead[number] = err
	c.mu.Unlock()
	c.find(Finding{
		Object: string(layout.Pack(info.ID)), Detail: err.Error(), Snapshots: c.needing(number),
		Err: &store.CorruptError{Object: string(layout.Pack(info.ID)), Offset: -1, Err: err},
	})
}

// needing returns the snapshots whose needs name the pack.
func (c *checker) needing(number uint64) (ids []manifest.ID) {
	_ = c.repo.log.View(func(st *log.State) error { // the function returns nil
		for s := range st.Snapshots() {
			if s.Needs.Contains(number) {
				ids = append(ids, s.Summary.ID)
			}
		}
		return nil
	})
	return ids
}

// checkSegments reads every index segment and fills the check's own index.
func (c *checker) checkSegments(ctx context.Context) error {
	c.tables = make(map[uint64]pack.Table)
	numbers := make(map[pack.ID]uint64, len(c.packs))
	for n, info := range c.packs {
		numbers[info.ID] = n
	}
	c.report.Segments = uint64(len(c.segs))
	for _, seg := range c.segs {
		tables, err := c.store.ReadSegment(ctx, seg)
		if errors.Is(err, ErrCorrupt) {
			c.find(Finding{Object: string(layout.Segment(seg.ID)), Detail: err.Error(), Err: err})
			continue
		}
		if err != nil {
			return err
		}
		for _, t := range tables {
			if n, ok := numbers[t.Pack]; ok {
				c.tables[n] = t.Table
			}
		}
	}
	for n, info := range c.packs {
		if err := c.fillIndex(ctx, n, info); err != nil {
			return err
		}
	}
	return nil
}

// fillIndex puts the chunks of a pack into the index. Where no segment lists
// them its footer is read.
func (c *checker) fillIndex(ctx context.Context, number uint64, info log.PackInfo) error {
	if _, dead := c.dead[number]; dead {
		return nil
	}
	t, ok := c.tables[number]
	if !ok {
		var err error
		t, err = c.store.ReadTable(ctx, info)
		if errors.Is(err, ErrCorrupt) {
			c.deadPack(number, info, err)
			return nil
		}
		if err != nil {
			return err
		}
		c.find(Finding{
			Object: string(layout.Pack(info.ID)), Detail: "no readable index segment lists its chunks; its footer does",
			Err: &store.CorruptError{Object: string(layout.Pack(info.ID)), Offset: -1, Err: errors.New("not in the index")},
		})
		c.tables[number] = t
	}
	return c.index.Insert(store.Entries(number, store.PackTable{Pack: info.ID, Size: uint64(info.Size), Table: t}))
}

func compareFindings(a, b Finding) int {
	switch {
	case a.Object < b.Object:
		return -1
	case a.Object > b.Object:
		return 1
	}
	return 0
}

package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"sync/atomic"
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
)

const (
	// memoryIndex is how many chunks a check looks up in memory; beyond it the
	// index that it builds for itself is on disk, if there is a cache directory.
	memoryIndex = 2 << 20
	// maxPasses bounds how often a check begins anew because something was
	// collected while it looked for it. What was verified is not read again.
	maxPasses = 20
)

// Check looks for damage, by stored data alone: no cache is asked. The error
// says that it could not check; what it found until then is in the report and is
// not confirmed: it may have been collected meanwhile. It writes
// nothing to the store unless CheckOptions.Record says so. Of key slots it reads
// the clear header alone, since the rest opens only with that slot's secret.
//
// Others may back up and collect meanwhile.
//
// Memory: 100 to 150 bytes a chunk up to two million chunks, beyond that the
// index is on disk if there is a cache directory; about 250 bytes a pack, and
// some for each directory.
func (r *Repository) Check(ctx context.Context, opts CheckOptions) (report CheckReport, err error) {
	begin := time.Now()
	m := r.newMeter(opts.Progress)
	defer func() { m.Finish(err) }()
	if err := errors.Join(r.readable(), opts.validate()); err != nil {
		return report, fmt.Errorf("check: %w", err)
	}
	ledger, before := r.openLedger(), r.Traffic()
	sound := make(map[uint64]bool)
	soundLog := false
	for pass := 1; ; pass++ {
		c := &checker{repo: r, opts: opts, meter: m, ledger: ledger, sound: sound, soundLog: &soundLog, report: CheckReport{BytesRead: report.BytesRead}}
		err = c.pass(ctx)
		again, err2 := c.again(ctx, err)
		if !again || pass == maxPasses {
			if err == nil && !again {
				c.settle(ctx)
			}
			report = c.result()
			if err = errors.Join(err, err2); again {
				err = fmt.Errorf("packs are collected again and again while they are checked: %w", ErrConflict)
			}
			break
		}
		report.BytesRead = c.report.BytesRead
	}
	err = errors.Join(err, ledger.save(ctx))
	report.Traffic = r.Traffic().Sub(before)
	report.Elapsed = time.Since(begin)
	if err != nil {
		return report, fmt.Errorf("check: %w", err)
	}
	return report, nil
}

// A checker is one pass of a Check.
type checker struct {
	repo   *Repository
	opts   CheckOptions
	meter  *progress.Meter
	ledger *ledger

	packs    map[uint64]log.PackInfo // live when the check began
	segments []log.SegmentInfo       // live then
	doomed   map[pack.ID]bool        // then
	snaps    []*log.SnapshotInfo     // visible then
	known    map[uint64]log.Ranges   // blocks recorded as damaged then
	numbers  map[pack.ID]uint64      // of packs
	index    *index.Index
	store    *store.Store
	flaky    atomic.Uint64 // blocks that were read wrong, and right the next time
	// soundLog says that an earlier pass read all of the log and found nothing. Each
	// record that comes then is read in any case, and to read a long log takes
	// longer than two collections may be apart.
	soundLog *bool

	mu       sync.Mutex      // guards what follows
	sound    map[uint64]bool // packs that this or an earlier pass verified
	bad      map[uint64]*badPack
	found    []*finding
	more     *finding // for those that found has no room for
	lost     map[chunk.ID]*finding
	unlisted []uint64            // packs that no readable segment lists, but their footer
	sums     map[uint64]tableSum // of the tables that a segment or else the footer has
	report   CheckReport
}

// A finding is a Finding that is not finished. The checker's mu guards it.
type finding struct {
	Finding
	pack   uint64
	blocks log.Ranges // of pack, by number; none: it is about something else
}

func (c *checker) pass(ctx context.Context) (err error) {
	c.bad, c.known, c.lost = make(map[uint64]*badPack), make(map[uint64]log.Ranges), make(map[chunk.ID]*finding)
	c.doomed = make(map[pack.ID]bool)
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
	c.takeKnown()
	if err := c.checkSegments(ctx); err != nil {
		return err
	}
	if c.opts.Depth >= DepthPacks {
		c.meter.SetPhase(progress.Verify)
		if err := c.checkPacks(ctx); err != nil {
			return err
		}
	}
	c.meter.SetPhase(progress.Plan)
	if err := c.preferGood(ctx); err != nil {
		return err
	}
	return c.checkSnapshots(ctx)
}

// find adds a finding and returns where it is kept, for what it hurts.
func (c *checker) find(f Finding) *finding {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.findLocked(finding{Finding: f})
}

func (c *checker) findLocked(f finding) *finding {
	if len(c.found) < maxFindings {
		c.found = append(c.found, &f)
		return &f
	}
	c.report.More++
	if c.more == nil {
		c.more = &finding{Finding: Finding{Offset: -1, Detail: "there is more damage than can be listed", Err: ErrCorrupt}}
	}
	return c.more
}

// findObject adds a finding about an object as a whole.
func (c *checker) findObject(key backend.Key, detail string, err error) {
	c.find(Finding{Object: string(key), Offset: -1, Detail: detail, Err: err})
}

func (c *checker) note(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.report.Notes = append(c.report.Notes, fmt.Sprintf(format, args...))
}

// again reports whether the check must begin anew: something is missing or
// wrong, and something was collected since the pass began. Packs that were found
// whole are not read again.
func (c *checker) again(ctx context.Context, err error) (collected bool, refreshErr error) {
	if err != nil && !errors.Is(err, ErrCorrupt) || err == nil && len(c.found) == 0 {
		return false, nil
	}
	if err := c.repo.refresh(ctx); err != nil {
		return false, err
	}
	_ = c.repo.log.View(func(st *log.State) error { // the function returns nil
		for number, info := range c.packs {
			if now, live := st.Pack(number); !live || now.ID != info.ID {
				collected = true
			}
		}
		live := make(map[[16]byte]bool, len(c.segments))
		for seg := range st.Segments() {
			live[seg.ID] = true
		}
		for _, seg := range c.segments {
			collected = collected || !live[seg.ID]
		}
		return nil
	})
	return collected, nil
}

// settle ends a check that came to its end: what is known and mended becomes a
// note, the rest is recorded.
func (c *checker) settle(ctx context.Context) {
	c.settleKnown()
	if c.opts.Record {
		c.record(ctx)
	}
}

// result puts the report together.
func (c *checker) result() CheckReport {
	if n := c.flaky.Load(); n > 0 {
		c.note("%d blocks were read wrong once and right the next time: the disk, the memory or the network is not reliable", n)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	slices.SortStableFunc(c.found, func(a, b *finding) int {
		return cmp.Or(cmp.Compare(a.Object, b.Object), cmp.Compare(a.Offset, b.Offset))
	})
	if c.more != nil {
		c.found = append(c.found, c.more)
	}
	for _, f := range c.found {
		c.report.Findings = append(c.report.Findings, f.Finding)
	}
	return c.report
}

// checkLog reads every record and every checkpoint again.
func (c *checker) checkLog(ctx context.Context) error {
	r := c.repo
	if err := r.refresh(ctx); err != nil {
		return err
	}
	if err := r.log.Problem(); err != nil {
		c.findObject(layout.Records, err.Error()+"; cairn repair log says what can be done", err)
	}
	var problems []log.Finding
	if !*c.soundLog {
		var err error
		if problems, err = r.log.Verify(ctx); err != nil {
			return err
		}
		*c.soundLog = len(problems) == 0
	}
	mended := 0
	for _, p := range problems {
		if p.Mended {
			mended++
			continue
		}
		c.findObject(p.Key, p.Err.Error(), p.Err)
	}
	if mended > 0 {
		c.note("%d records are damaged or missing below a repair of the log, which goes on behind them", mended)
	}
	c.report.Records = r.log.Head().N
	sessions := 0
	err := r.log.View(func(st *log.State) error {
		c.packs = maps.Collect(st.Packs())
		c.segments = slices.Collect(st.Segments())
		c.snaps = slices.Collect(st.Snapshots())
		for d := range st.Damage() {
			c.known[d.Pack] = d.Blocks
		}
		for d := range st.Doomed() {
			if id, err := layout.ParsePack(d.Key); err == nil {
				c.doomed[id] = true
			}
		}
		for range st.Sessions() {
			sessions++
		}
		return nil
	})
	if sessions > 0 {
		c.note("%d unfinished backups are recorded: the next run goes on from them", sessions)
	}
	c.report.Packs, c.report.Segments = uint64(len(c.packs)), uint64(len(c.segments))
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
		switch {
		case errors.Is(err, backend.ErrNotExist):
			continue // removed meanwhile
		case errors.Is(err, backend.ErrTooLarge):
			c.findObject(info.Key, err.Error(), errors.Join(err, ErrCorrupt))
			continue
		case err != nil:
			return err
		}
		slot, _, err := keys.ReadSlot(object)
		switch {
		case err != nil:
			c.findObject(info.Key, err.Error(), errors.Join(err, ErrCorrupt))
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
		if id, err := layout.ParsePack(info.Key); err == nil && !c.doomed[id] {
			sizes[id] = info.Size
		}
	}
	for n, info := range c.packs {
		size, ok := sizes[info.ID]
		delete(sizes, info.ID)
		if !ok { // that a listing lacks it proves nothing
			stat, err := c.repo.meter.Stat(ctx, layout.Pack(info.ID))
			switch {
			case err == nil:
				size, ok = stat.Size, true
			case !errors.Is(err, backend.ErrNotExist):
				return err
			}
		}
		switch {
		case !ok:
			c.wholePack(n, info, errors.New("the pack is missing"))
		case size != int64(info.Size):
			c.wholePack(n, info, fmt.Errorf("the pack has %d bytes, not %d", size, info.Size))
		}
	}
	if err := c.noteProbes(ctx); err != nil {
		return err
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

// noteProbes notes what is left of tries of the store whose process was killed.
func (c *checker) noteProbes(ctx context.Context) error {
	left, now := 0, c.repo.now()
	for info, err := range c.repo.meter.List(ctx, layout.Probes) {
		if err != nil {
			return err
		}
		if !info.Modified.IsZero() && now.Sub(info.Modified) >= probeAge {
			left++
		}
	}
	if left > 0 {
		c.note("%d probes are stored by which somebody tried the store and was interrupted: collection removes them", left)
	}
	return nil
}

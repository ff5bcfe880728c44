package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/chunk"
	"github.com/cairn-backup/cairn/engine/internal/layout"
	"github.com/cairn-backup/cairn/engine/internal/log"
	"github.com/cairn-backup/cairn/engine/progress"
)

// PlanGC finds out what no snapshot needs any more. It only reads: the tail of
// the log, and where there is something to collect also the trees of the
// snapshots, the index segments and a listing of the store.
//
// A repository whose log has a problem is not collected: ErrRolledBack,
// ErrLogHole, ErrLogDamaged.
//
// Memory: see docs/design.md; about 5 bytes for each stored chunk, up to 450 MiB,
// and 40 for each page of the trees. A plan holds it until it is let go.
func (r *Repository) PlanGC(ctx context.Context, opts GCOptions) (plan *GCPlan, err error) {
	m := r.newMeter(opts.Progress)
	defer func() { m.Finish(err) }()
	if err := r.readable(); err != nil {
		return nil, fmt.Errorf("plan collection: %w", err)
	}
	if err := r.log.Problem(); err != nil {
		return nil, fmt.Errorf("plan collection: %w", err)
	}
	opts, err = opts.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("plan collection: %w", err)
	}
	g := &gcPlan{
		repo: r, opts: opts, meter: m, ages: newAges(r.meter, r.now()),
		before: r.Traffic(), began: time.Now(), sizes: make(map[backend.Key]uint64), why: make(map[backend.Key]gcReason),
	}
	g.tables.repo, g.ages.aged = r, r.opts.tuning.agedTo
	plan = &GCPlan{run: g}
	g.planning = true
	if err := g.plan(ctx, plan); err != nil {
		return nil, fmt.Errorf("plan collection: %w", err)
	}
	g.meter, g.planning = nil, false
	return plan, nil
}

// now returns the time by which a collection tells young from old.
func (r *Repository) now() time.Time {
	if r.opts.tuning.now != nil {
		return r.opts.tuning.now()
	}
	return time.Now()
}

// A gcPlan is what Run goes by. What is in it are candidates: whether one may
// go is decided by the State behind which the record lands.
//
// A pack is in one of three lists, or stays: bare, since nothing names it; dead,
// since nothing uses a chunk of it; partly, since so little of it is used that
// this is copied. A chunk that is stored twice has one home, and its other copies
// count as not used.
type gcPlan struct {
	repo   *Repository
	opts   GCOptions
	meter  *progress.Meter
	ages   *ages
	before Traffic
	began  time.Time

	purged  uint64              // snapshots forgotten by records up to this one are gone for good
	forgot  bool                // there are such snapshots
	ended   map[[16]byte]uint64 // unfinished backups to give up, and the record that last updated each
	idle    map[[16]byte]uint64 // those that may go on and are not running, likewise
	bare    log.Ranges          // packs that nothing names
	unnamed []backend.Key       // objects that no record names
	hints   []backend.Key       // old checkpoints, and probes of the store that were left
	sizes   map[backend.Key]uint64
	why     map[backend.Key]gcReason

	mends  bool                // packs are damaged that something names: see planBare
	marks  *gcWalk             // nil: the trees are not read
	twice  map[chunk.ID]uint64 // the home of chunks that are stored more than once
	held   []string            // keys of damaged packs that hold what nothing else holds
	tables gcTables
	dead   log.Ranges // packs of which nothing is used
	partly log.Ranges // packs of which a part is used, to be rewritten
	folds  bool       // there are segments to fold
	again  bool       // something dead is left for another run
	old    bool       // an earlier collection, or who gave up a session, left something

	planning bool
	ran      atomic.Bool
}

// A gcReason says why an object is deleted.
type gcReason uint8

const (
	isEarlier gcReason = iota
	isUnneeded
	isDead
	isRepacked
	isUnnamed
	isFolded
)

// reasonOf returns where objects of that reason are counted.
func reasonOf(f *GCFigures, why gcReason) *GCCount {
	return [...]*GCCount{
		isEarlier: &f.Earlier, isUnneeded: &f.Unneeded, isDead: &f.Dead, isRepacked: &f.Repacked, isUnnamed: &f.Unnamed, isFolded: &f.Folded,
	}[why]
}

func (g *gcPlan) plan(ctx context.Context, plan *GCPlan) error {
	r := g.repo
	g.meter.SetPhase(progress.Open)
	if err := r.log.Refresh(ctx); err != nil {
		return err
	}
	st := g.state()
	plan.Record = st.Position().N
	g.meter.SetPhase(progress.Plan)
	if err := g.planPolicy(ctx, st); err != nil {
		return err
	}
	plan.Sessions = uint64(len(g.ended))
	for info := range st.Forgotten() {
		if info.Forgotten > g.purged {
			plan.Waiting++
		}
	}
	if err := g.planBare(ctx, st, plan); err != nil {
		return err
	}
	for range st.Doomed() {
		count(&plan.Earlier, 0)
	}
	g.old = st.Uncollected()
	if g.opts.Walk == Always || g.opts.Walk == Auto && (g.old || g.forgot || g.mends || len(g.ended) > 0) {
		if err := g.planWalk(ctx, st, plan); err != nil {
			return err
		}
	}
	g.planFold(st, plan)
	if g.opts.Sweep == Always || g.opts.Sweep == Auto && !plan.Empty() {
		if err := g.planSweep(ctx, st, plan); err != nil {
			return err
		}
	}
	g.estimate(plan)
	return nil
}

// state returns the State as it is now, to keep.
func (g *gcPlan) state() (st *log.State) {
	_ = g.repo.log.View(func(s *log.State) error { // the function returns nil
		st = s.Clone()
		return nil
	})
	return st
}

// planPolicy finds out which forgotten snapshots and unfinished backups count
// no more.
func (g *gcPlan) planPolicy(ctx context.Context, st *log.State) error {
	at := make(map[uint64]bool)
	for info := range st.Forgotten() {
		at[info.Forgotten] = true
	}
	records := slices.Sorted(maps.Keys(at))
	n, err := g.ages.oldest(ctx, records, g.opts.DeleteDelay)
	if err != nil {
		return err
	}
	if n > 0 {
		g.purged, g.forgot = records[n-1], true
	}
	g.ended, g.idle = make(map[[16]byte]uint64), make(map[[16]byte]uint64)
	for s := range st.Sessions() {
		age := time.Duration(0)
		if g.opts.SessionAge > 0 || g.opts.SpareAge > 0 {
			if age, err = g.ages.record(ctx, s.N); err != nil {
				return err
			}
		}
		switch {
		case age >= g.opts.SessionAge:
			g.ended[s.ID] = s.N
		case age >= g.opts.SpareAge:
			g.idle[s.ID] = s.N
		}
	}
	return nil
}

// names returns the packs that are named by what counts in st: by visible
// snapshots, by those that can be undeleted, and by unfinished backups that are
// not given up.
func (g *gcPlan) names(st *log.State) log.Ranges {
	sets := make([]log.Ranges, 0, st.SnapshotCount())
	for info := range st.Snapshots() {
		sets = append(sets, info.Needs)
	}
	for info := range st.Forgotten() {
		if info.Forgotten > g.purged {
			sets = append(sets, info.Needs)
		}
	}
	for s := range st.Sessions() {
		if !g.gone(s) {
			sets = append(sets, s.Needs)
		}
	}
	return unionOf(sets)
}

// gone reports whether the collection gives that session up: it is as it was
// when the plan was made.
func (g *gcPlan) gone(s *log.SessionInfo) bool {
	n, ok := g.ended[s.ID]
	return ok && n == s.N
}

// unionOf puts many sets together, in time that is not the square of theirs.
func unionOf(sets []log.Ranges) log.Ranges {
	switch len(sets) {
	case 0:
		return nil
	case 1:
		return sets[0]
	}
	half := len(sets) / 2
	return unionOf(sets[:half]).Union(unionOf(sets[half:]))
}

// planBare finds the packs that nothing names.
//
// While packs are damaged that something names, there are none to be had so
// cheaply: what was lost may have been stored again, in a pack that only the
// newer snapshots name, and when these are deleted nothing does. Then only
// packs go of which the walk finds no chunk in use, and the walk rewrites the
// damaged ones, by which the older snapshots come to name the good copies.
func (g *gcPlan) planBare(ctx context.Context, st *log.State, plan *GCPlan) error {
	named := g.names(st)
	bare := st.Live().Subtract(named)
	if g.mends = hurt(st, named); g.mends {
		if g.opts.Walk == Never {
			plan.Spared = plan.Spared.plus(sizeOf(st, bare))
		}
		return nil
	}
	young, err := g.young(ctx, st, bare)
	if err != nil {
		return err
	}
	g.bare = bare.Subtract(young)
	plan.Spared = plan.Spared.plus(sizeOf(st, young))
	plan.Unneeded = sizeOf(st, g.bare)
	return nil
}

// young returns those of packs that were stored only just.
func (g *gcPlan) young(ctx context.Context, st *log.State, packs log.Ranges) (log.Ranges, error) {
	keys := make([]backend.Key, 0, packs.Count())
	numbers := make([]uint64, 0, len(keys))
	for n := range packs.All() {
		if info, ok := st.Pack(n); ok {
			keys, numbers = append(keys, layout.Pack(info.ID)), append(numbers, n)
		}
	}
	young, err := g.ages.young(ctx, keys, g.opts.SpareAge)
	if err != nil {
		return nil, err
	}
	var out []uint64
	for i, key := range keys {
		if young[key] {
			out = append(out, numbers[i])
		}
	}
	return log.RangesOf(out), nil
}

func sizeOf(st *log.State, packs log.Ranges) (c GCCount) {
	for n := range packs.All() {
		if info, ok := st.Pack(n); ok {
			count(&c, uint64(info.Size))
		}
	}
	return c
}

// planSweep lists the store for packs and segments that no record names, and
// for checkpoints of which there are enough newer ones, and for old probes.
func (g *gcPlan) planSweep(ctx context.Context, st *log.State, plan *GCPlan) error {
	doomed := make(map[backend.Key]bool)
	for d := range st.Doomed() {
		doomed[d.Key] = true
	}
	for _, prefix := range []backend.Key{layout.Packs, layout.Segments} {
		for info, err := range g.repo.meter.List(ctx, prefix) {
			if err != nil {
				return err
			}
			if doomed[info.Key] || named(st, info.Key) || g.ages.of(info) < g.opts.SpareAge {
				continue
			}
			g.unnamed = append(g.unnamed, info.Key)
			g.sizes[info.Key] = uint64(info.Size)   //nolint:gosec // not negative
			count(&plan.Unnamed, uint64(info.Size)) //nolint:gosec // not negative
		}
	}
	var hints []backend.Info
	for info, err := range g.repo.meter.List(ctx, layout.Checkpoints) {
		if err != nil {
			return err
		}
		name, err := layout.ParseCheckpoint(info.Key)
		if err == nil && !name.Repaired && name.N <= st.Position().N {
			hints = append(hints, info)
		}
	}
	hints = hints[:max(0, len(hints)-keepHints)]
	for info, err := range g.repo.meter.List(ctx, layout.Probes) {
		if err != nil {
			return err
		}
		// Whatever may be collected at once, somebody may try the store just now.
		if g.ages.of(info) >= max(g.opts.SpareAge, probeAge) {
			hints = append(hints, info)
		}
	}
	for _, info := range hints {
		g.hints = append(g.hints, info.Key)
		count(&plan.Hints, uint64(info.Size)) //nolint:gosec // not negative
	}
	return nil
}

// probeAge is how old the probe of a store must be to count as left by who was
// killed: to try a store takes seconds.
const probeAge = time.Hour

// keepHints is how many of the newest checkpoints stay: if one does not open,
// there is another, and before that one there are the records.
const keepHints = 2

// named reports whether key is that of a live pack or segment, or of nothing
// that a collection may delete.
func named(st *log.State, key backend.Key) bool {
	if id, err := layout.ParsePack(key); err == nil {
		_, live := st.PackNumber(id)
		return live
	}
	id, err := layout.ParseSegment(key)
	if err != nil {
		return true
	}
	_, live := st.Segment(id)
	return live
}

// closing reports whether the run ends with a record whatever it deletes: one
// by which the next collection knows that there is nothing to look for.
func (g *gcPlan) closing() bool { return g.marks != nil && !g.again && (g.old || g.forgot) }

// validation is how many requests it takes to find out whether the store keeps
// the contract, roughly.
const validation = 100

// estimate fills in what Run takes.
func (g *gcPlan) estimate(plan *GCPlan) {
	if plan.Empty() {
		return
	}
	q := &plan.Requests
	q.Put += 4 + int64(plan.Copied.Objects+plan.Index.Objects) + validation/2 //nolint:gosec // counts of objects
	q.Get += 8 + validation/2
	q.Delete += int64(plan.Deletes()) //nolint:gosec // a count of objects
}

var errEarlier = errors.New("the plan was run before")

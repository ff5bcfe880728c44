package engine

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/engine/internal/layout"
	"github.com/cairn-backup/cairn/engine/internal/log"
	"github.com/cairn-backup/cairn/engine/internal/rule"
	"github.com/cairn-backup/cairn/engine/progress"
)

// Run does what the plan says, as far as it still holds: what others need or
// did meanwhile stays, and is counted as Stale. If nothing of the plan holds any
// more it returns ErrPlanStale and has changed nothing. A plan runs once.
//
// Run may be interrupted at any point, by ctx or by the end of the process: what
// is half done is of no harm, and the next collection goes on from there.
//
// Before anything is doomed Run finds out, once for an open Repository, whether
// the store creates only what is absent and lets this user delete:
// ErrUnsupported or ErrUnauthorized, and nothing has been changed.
func (p *GCPlan) Run(ctx context.Context) (report GCReport, err error) {
	g := p.run
	begin := time.Now()
	m := g.repo.newMeter(g.opts.Progress)
	defer func() { m.Finish(err) }()
	x := &gcRun{gcPlan: g, meter: m, report: &report, deleted: make(map[log.Doomed]bool)}
	x.planned, report.Left = p.GCFigures, p.Left
	err = x.run(ctx, p)
	report.Elapsed = time.Since(begin)
	used := g.repo.Traffic().Sub(g.before)
	report.Traffic = used
	report.Requests = GCRequests{
		Put: used.Put.Requests, Get: used.Get.Requests, Stat: used.Stat.Requests, List: used.List.Requests, Delete: used.Delete.Requests,
	}
	if err != nil {
		return report, fmt.Errorf("collect: %w", err)
	}
	return report, nil
}

// A gcRun is one run of a plan.
type gcRun struct {
	*gcPlan
	meter  *progress.Meter
	report *GCReport
	did    bool // something was changed

	planned GCFigures
	deleted map[log.Doomed]bool
}

func (x *gcRun) run(ctx context.Context, p *GCPlan) error {
	r := x.repo
	if x.ran.Swap(true) {
		return fmt.Errorf("%w: %w", ErrPlanStale, errEarlier)
	}
	if err := r.writable(); err != nil {
		return err
	}
	x.report.Damaged = slices.Clone(x.held)
	if p.Empty() {
		return nil
	}
	x.meter.SetPhase(progress.Open)
	if err := r.log.Refresh(ctx); err != nil {
		return err
	}
	if !p.none() {
		if err := r.mayCollect(ctx); err != nil {
			return err
		}
	}
	// What is free already makes room for what is written.
	x.meter.AddFilesTotal(int64(p.Deletes())) //nolint:gosec // a count of objects
	if err := x.deleteDoomed(ctx); err != nil {
		return err
	}
	if err := x.doomBare(ctx); err != nil {
		return err
	}
	if err := x.deleteDoomed(ctx); err != nil {
		return err
	}
	if err := x.doomDead(ctx); err != nil {
		return err
	}
	if err := x.fold(ctx); err != nil {
		return err
	}
	if err := x.deleteHints(ctx); err != nil {
		return err
	}
	if err := x.close(ctx); err != nil {
		return err
	}
	if !x.did && !p.none() {
		return ErrPlanStale
	}
	return nil
}

// mayCollect refuses a store on which a collection could lose what others
// commit meanwhile, and one that lets nobody delete.
func (r *Repository) mayCollect(ctx context.Context) error {
	if r.validated.Load() || r.opts.tuning.valid {
		return nil
	}
	// To delete what is not there changes nothing, and takes the same right.
	var name [16]byte
	_, _ = rand.Read(name[:]) // never returns an error, by its contract since Go 1.24
	if err := r.meter.Delete(ctx, backend.Key("probe/"+hex.EncodeToString(name[:]))); err != nil {
		return fmt.Errorf("this user may not delete: %w", err)
	}
	if err := backend.ValidateCreate(ctx, r.meter); err != nil {
		return fmt.Errorf("the store can not be collected: %w", err)
	}
	r.validated.Store(true)
	return nil
}

// append adds a record, and counts the races that were lost.
func (x *gcRun) append(ctx context.Context, build func(st *log.State) ([]log.Effect, error)) (log.Position, error) {
	tries := 0
	written := false
	pos, err := x.repo.log.Append(ctx, func(st *log.State) ([]log.Effect, error) {
		tries++
		effects, err := build(st)
		written = len(effects) > 0
		return effects, err
	})
	x.report.Lost += max(0, tries-1)
	x.did = x.did || err == nil && written
	return pos, err
}

// doomBare dooms what needs no look at chunks: packs that nothing names, and
// objects that no record names. It gives up unfinished backups.
func (x *gcRun) doomBare(ctx context.Context) error {
	if len(x.bare) == 0 && len(x.unnamed) == 0 && len(x.ended) == 0 && !x.hasEmptied() {
		return nil
	}
	x.meter.SetPhase(progress.Commit)
	if rule.Off(rule.Doom) {
		if err := x.deleteBare(ctx); err != nil {
			return err
		}
	}
	var packs log.Ranges
	var figures GCFigures
	_, err := x.append(ctx, func(st *log.State) ([]log.Effect, error) {
		figures = GCFigures{}
		effects := x.ends(st)
		figures.Sessions = uint64(len(effects))
		packs = st.Live().Intersect(x.bare)
		if named := x.names(st); hurt(st, named) {
			packs = nil // found to be damaged since the plan was made, see planBare
		} else if !rule.Off(rule.Needed) {
			packs = packs.Subtract(named)
		}
		doom := log.Doom{Packs: packs, Objects: x.stillUnnamed(st), Segments: emptied(st, packs), More: st.Uncollected() || len(effects) > 0}
		x.noteSegments(st, doom.Segments)
		figures.Unneeded = x.note(st, packs, isUnneeded)
		for _, key := range doom.Objects {
			count(&figures.Unnamed, x.sizes[key])
		}
		if len(packs) == 0 && len(doom.Objects) == 0 && len(doom.Segments) == 0 {
			return effects, nil
		}
		return append(effects, doom), nil
	})
	if err != nil {
		return fmt.Errorf("doom: %w", err)
	}
	x.report.Sessions += figures.Sessions
	stale := x.bare.Subtract(packs)
	x.report.Stale.Objects += stale.Count()
	return nil
}

// deleteBare deletes what no record dooms yet: only with a rule switched off.
func (x *gcRun) deleteBare(ctx context.Context) error {
	var keys []backend.Key
	st := x.state()
	for n := range x.bare.All() {
		if info, ok := st.Pack(n); ok {
			keys = append(keys, layout.Pack(info.ID))
		}
	}
	return backend.DeleteAll(ctx, x.repo.meter, keys)
}

// hasEmptied reports whether there is a segment that lists nothing live.
func (x *gcRun) hasEmptied() (has bool) {
	_ = x.repo.log.View(func(st *log.State) error { // the function returns nil
		has = len(emptied(st, nil)) > 0
		return nil
	})
	return has
}

// ends gives up the unfinished backups that are as the plan found them.
func (x *gcRun) ends(st *log.State) []log.Effect {
	var effects []log.Effect
	for s := range st.Sessions() {
		if x.gone(s) {
			effects = append(effects, log.End{Session: s.ID})
		}
	}
	return effects
}

// stillUnnamed returns those of the unnamed objects that no record has named
// meanwhile. An object that a record comes to name later is safe: whoever
// writes that record has read this Doom.
func (x *gcRun) stillUnnamed(st *log.State) []backend.Key {
	doomed := make(map[backend.Key]bool)
	for d := range st.Doomed() {
		doomed[d.Key] = true
	}
	var keys []backend.Key
	for _, key := range x.unnamed {
		if !doomed[key] && !named(st, key) {
			keys = append(keys, key)
			x.why[key] = isUnnamed
		}
	}
	return keys
}

// note remembers size and reason of packs that are about to be doomed, which
// the State forgets.
func (x *gcRun) note(st *log.State, packs log.Ranges, why gcReason) (c GCCount) {
	for n := range packs.All() {
		if info, ok := st.Pack(n); ok {
			key := layout.Pack(info.ID)
			x.sizes[key], x.why[key] = uint64(info.Size), why
			count(&c, uint64(info.Size))
		}
	}
	return c
}

// noteSegments remembers the same of segments.
func (x *gcRun) noteSegments(st *log.State, ids [][16]byte) {
	for _, id := range ids {
		seg, _ := st.Segment(id)
		key := layout.Segment(id)
		x.sizes[key], x.why[key] = uint64(seg.Size), isFolded
	}
}

// deleteAtOnce is how many objects are deleted between two looks at ctx, at
// most: as many as S3 takes in one request.
const deleteAtOnce = 1000

// deleteDoomed deletes what the log says may be deleted (R4): every object that a
// Doom names, once this process has made that record durable.
func (x *gcRun) deleteDoomed(ctx context.Context) error {
	x.meter.SetPhase(progress.Delete)
	byRecord := make(map[uint64][]backend.Key)
	_ = x.repo.log.View(func(st *log.State) error { // the function returns nil
		for d := range st.Doomed() {
			if !x.deleted[d] {
				byRecord[d.N] = append(byRecord[d.N], d.Key)
			}
		}
		return nil
	})
	for _, n := range sortedKeys(byRecord) {
		if err := x.repo.log.Durable(ctx, n); err != nil {
			if isLost(err) {
				x.repo.opts.Logger.WarnContext(ctx, "objects that a lost record dooms are not deleted", slog.Uint64("record", n), slog.Any("error", err))
				continue
			}
			return err
		}
		for keys := range slices.Chunk(byRecord[n], deleteAtOnce) {
			if err := backend.Ended(ctx); err != nil {
				return err
			}
			if err := x.deleteKeys(ctx, keys); err != nil {
				return err
			}
			for _, key := range keys {
				count(reasonOf(&x.report.GCFigures, x.why[key]), x.sizes[key])
				x.deleted[log.Doomed{N: n, Key: key}] = true
			}
		}
	}
	return nil
}

// deleteKeys deletes objects. What is not there is deleted already.
func (x *gcRun) deleteKeys(ctx context.Context, keys []backend.Key) error {
	if err := backend.DeleteAll(ctx, x.repo.meter, keys); err != nil {
		return err
	}
	x.did = true
	x.meter.AddFiles(int64(len(keys)))
	return nil
}

// isLost reports whether a record is not there any more, or not what it was: it
// lies before a repair of the log.
func isLost(err error) bool {
	return errors.Is(err, backend.ErrNotExist) || errors.Is(err, ErrLogHole) || errors.Is(err, ErrLogDamaged)
}

func sortedKeys[V any](m map[uint64]V) []uint64 { return slices.Sorted(maps.Keys(m)) }

// deleteHints deletes what no record ever names: old checkpoints, which only save
// the reading of records, and probes.
func (x *gcRun) deleteHints(ctx context.Context) error {
	for keys := range slices.Chunk(x.hints, deleteAtOnce) {
		if err := x.deleteKeys(ctx, keys); err != nil {
			return err
		}
	}
	x.report.Hints = x.planned.Hints
	return nil
}

// close records that everything doomed so far has been deleted.
func (x *gcRun) close(ctx context.Context) error {
	x.meter.SetPhase(progress.Commit)
	_, err := x.append(ctx, func(st *log.State) ([]log.Effect, error) {
		doom := log.Doom{More: st.Uncollected()}
		whole := x.marks != nil && !x.again
		if x.marks != nil {
			doom.More = x.again
		}
		for d := range st.Doomed() {
			if !x.deleted[d] {
				break // in the order they were doomed
			}
			doom.Deleted = d.N
		}
		for d := range st.Doomed() {
			if !x.deleted[d] && d.N == doom.Deleted {
				doom.Deleted-- // not all of that record
				break
			}
		}
		old := false
		for info := range st.Forgotten() {
			old = old || info.Forgotten <= x.purged
		}
		if whole && old {
			doom.Purged = x.purged
		}
		if doom.Deleted == 0 && (!whole || !old && !st.Uncollected()) {
			return nil, nil
		}
		return []log.Effect{doom}, nil
	})
	if err != nil {
		return fmt.Errorf("record what was deleted: %w", err)
	}
	return nil
}

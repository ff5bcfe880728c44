package engine_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/backend/retry"
	"github.com/cairn-backup/cairn/chunk/seal"
	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/engine/internal/layout"
	"github.com/cairn-backup/cairn/engine/internal/log"
	"github.com/cairn-backup/cairn/manifest"
)

// simOptions make many packs, records and partial trees of a few kilobytes.
var simOptions = sync1(func() engine.Options {
	o, err := engine.Polynomial(engine.Options{Workers: 1, Retry: retry.Policy{Tries: 3}}, simEmpty.set.Chunk)
	if err != nil {
		panic(err)
	}
	return engine.Trusting(engine.Settle(engine.Tuned(o, engine.Limits{Block: 2000, Pack: 3000, Publish: 1, Partial: 3000}), 2*time.Minute))
})

func simOpenSealed(object []byte) ([]byte, error) {
	e := &simEmpty
	_, parts, err := seal.OpenObject(e.set.Data(0), seal.KindManifest, seal.Binding{Repository: e.id}, object)
	if err != nil {
		return nil, err
	}
	return parts[0], nil
}

// A simActor does one thing again and again, in one process after another: a
// process that crashes is followed by a new one.
type simActor struct {
	w     *simWorld
	name  string
	rng   *rand.Rand // its own: what it does depends on the seed alone
	proc  *simProc
	repo  *engine.Repository
	times int // it does what it does
}

// act starts an actor.
func (w *simWorld) act(ctx context.Context, name string, times int, do func(ctx context.Context, a *simActor, i int)) {
	a := &simActor{w: w, name: name, rng: rand.New(rand.NewPCG(w.seed, inode(name))), proc: w.proc(name), times: times}
	w.running.Add(1)
	go func() {
		defer func() {
			a.close()
			w.running.Add(-1)
		}()
		for i := range a.times {
			if a.ready(ctx) {
				do(ctx, a, i)
			}
			if a.rng.IntN(6) == 0 {
				a.close()
			}
		}
	}()
}

// ready waits for the actor's turn, in a process that lives, with an open
// repository.
func (a *simActor) ready(ctx context.Context) bool {
	if !a.proc.think(ctx) {
		a.close()
		if a.w.ended.Load() {
			return false
		}
		a.restart()
		if !a.proc.think(ctx) {
			return false
		}
	}
	if a.repo != nil {
		return true
	}
	opts := simOptions
	if a.rng.IntN(2) == 0 {
		opts.Retry.Tries = 1
	}
	r, err := engine.Open(ctx, a.proc, secret, opts)
	if err != nil {
		a.harmless("open", err)
		return false
	}
	if err := r.Problem(); err != nil {
		a.w.baton.Lock()
		defer a.w.baton.Unlock()
		a.w.fail("R6: %s opens a log without damage and finds %v", a.proc.name, err)
	}
	a.repo = r
	return true
}

// restart begins a new process.
func (a *simActor) restart() {
	a.w.baton.Lock()
	defer a.w.baton.Unlock()
	a.proc = a.w.proc(a.name)
}

func (a *simActor) close() {
	if a.repo != nil {
		_ = a.repo.Close() // it has no files, and writes nothing
		a.repo = nil
	}
}

// harmless fails the schedule if err says that there is damage, where there
// is none.
func (a *simActor) harmless(what string, err error) {
	if !a.proc.isDead() && is(err, engine.ErrCorrupt, engine.ErrLogHole, engine.ErrLogDamaged, engine.ErrRolledBack, engine.ErrNoRepository) {
		a.w.baton.Lock()
		defer a.w.baton.Unlock()
		a.w.fail("%s: %s = %v, in a store without damage", a.proc.name, what, err)
	}
}

// backup backs up a data set, which then changes.
func (d *simData) backup(ctx context.Context, a *simActor, i int) {
	m := a.w.model
	a.w.baton.Lock()
	if d.tree == nil || a.rng.IntN(4) > 0 {
		d.change(a.rng, time.Now())
	}
	b := m.begin(fmt.Sprintf("%s-%d", a.name, i), d.name, d.tree)
	at := m.apart(b)
	a.w.baton.Unlock()
	src := &simSource{name: d.name, think: a.proc.think}
	src.now = func() simTree {
		a.w.baton.Lock()
		defer a.w.baton.Unlock()
		b.tree = d.tree
		return b.tree
	}
	opts := engine.BackupOptions{Host: "h", User: "u", Tags: []string{b.tag}, Time: at, Reread: a.rng.IntN(8) == 0}
	report, err := a.repo.Backup(ctx, src, opts)
	a.w.baton.Lock()
	defer a.w.baton.Unlock()
	a.w.say("%s: backup %s = %v", a.proc.name, b.tag, err)
	m.backedUp(a.proc, b, report, err)
	if src.looks > 1 {
		a.w.stats["conflicts"]++
		if b.state == simDone {
			a.w.stats["rescues"]++
		}
	}
}

// visible lists the snapshots as the actor sees them.
func (a *simActor) visible(ctx context.Context) []manifest.Snapshot {
	var all []manifest.Snapshot
	for s, err := range a.repo.Snapshots(ctx, manifest.Filter{}) {
		if err != nil {
			a.harmless("snapshots", err)
			return nil
		}
		all = append(all, s)
	}
	return all
}

// simForgetter forgets some of the snapshots.
func simForgetter(ctx context.Context, a *simActor, _ int) {
	if a.rng.IntN(4) == 0 {
		a.undelete(ctx)
		return
	}
	var ids []manifest.ID
	for _, s := range a.visible(ctx) {
		if a.rng.IntN(2) == 0 {
			ids = append(ids, s.ID)
		}
	}
	if len(ids) == 0 {
		return
	}
	_ = a.forget("delete", ids, new(simForget), func() error { return a.repo.Delete(ctx, ids...) })
}

// forget lets do forget these snapshots, and checks that it did, or says that it
// did not.
func (a *simActor) forget(what string, ids []manifest.ID, f *simForget, do func() error) error {
	a.w.baton.Lock()
	begun := a.w.step
	for _, id := range ids {
		a.w.model.forgets[id] = append(a.w.model.forgets[id], f)
	}
	a.w.baton.Unlock()
	err := do()
	a.harmless(what, err)
	a.w.baton.Lock()
	defer a.w.baton.Unlock()
	a.w.say("%s: %s of %d = %v", a.proc.name, what, len(ids), err)
	f.state = ended(a.proc, err)
	if f.state != simDone {
		return err
	}
	for _, id := range ids {
		// It may have been gone already, and been brought back behind the record up
		// to which this was read.
		if snap, there := a.w.model.snaps[id]; there && snap.since < begun {
			a.w.fail("V2: %s, %s of a snapshot that is visible", a.proc.name, what)
		}
	}
	return nil
}

// simRetention forgets what a policy does not keep. It thinks about its plan
// before it carries it out, so that others may make it stale.
func simRetention(ctx context.Context, a *simActor, _ int) {
	p := manifest.Policy{Last: 1 + a.rng.IntN(2)}
	if a.rng.IntN(2) == 0 {
		p = manifest.Policy{Hourly: 1 + a.rng.IntN(3), Daily: a.rng.IntN(2)}
	}
	plan, err := a.repo.PlanForget(ctx, p, engine.ForgetOptions{})
	if err != nil {
		a.harmless("plan of a policy", err)
		return
	}
	keeps := a.newest(plan)
	if plan.Empty() || !a.rests(ctx) {
		return
	}
	var report engine.ForgetReport
	err = a.forget("policy", plan.Forget(), &simForget{policy: true}, func() (err error) {
		report, err = plan.Run(ctx)
		return err
	})
	a.w.baton.Lock()
	defer a.w.baton.Unlock()
	a.w.stats["forgotten by a policy"] += len(report.Forgotten)
	if errors.Is(err, engine.ErrPlanStale) {
		a.w.stats["stale policies"]++
	}
	for _, id := range keeps {
		if slices.Contains(report.Forgotten, id) {
			a.w.fail("V18: %s forgets the newest snapshot of its group", a.proc.name)
		}
	}
}

// rests waits while others take two hundred turns or fewer, and then for its own.
// It reports whether its process lives.
func (a *simActor) rests(ctx context.Context) bool {
	a.w.baton.Lock()
	a.proc.paused = max(a.proc.paused, a.w.step+a.rng.IntN(200))
	a.w.baton.Unlock()
	return a.proc.think(ctx)
}

// newest returns the newest snapshot of each group, which a policy keeps.
func (a *simActor) newest(plan *engine.ForgetPlan) (ids []manifest.ID) {
	a.w.baton.Lock()
	defer a.w.baton.Unlock()
	for _, g := range plan.Groups {
		last := g.Decisions[len(g.Decisions)-1]
		ids = append(ids, last.Snapshot.ID)
		if !last.Keep {
			a.w.fail("V18: %s does not keep the newest snapshot of a group: %s", a.proc.name, last.Why())
		}
	}
	return ids
}

// undelete takes back what was forgotten, if that is possible still.
func (a *simActor) undelete(ctx context.Context) {
	for s, err := range a.repo.Deleted(ctx) {
		if err != nil {
			a.harmless("deleted snapshots", err)
			return
		}
		err = a.repo.Undelete(ctx, s.ID)
		a.harmless("undelete", err)
		return
	}
}

// simReader restores one of the snapshots.
func simReader(ctx context.Context, a *simActor, _ int) {
	all := a.visible(ctx)
	if len(all) == 0 || !a.proc.think(ctx) {
		return
	}
	snap := all[a.rng.IntN(len(all))]
	var out simTarget
	begun := a.w.now()
	_, err := a.repo.Restore(ctx, snap.ID, &out, engine.RestoreOptions{})
	a.w.baton.Lock()
	s, there := a.w.model.snaps[snap.ID]
	hurt := there && errors.Is(err, engine.ErrCorrupt) && a.w.model.mayFail(s, begun)
	if hurt {
		a.w.stats["restores of what is damaged"]++
	}
	a.w.baton.Unlock()
	if there && !hurt {
		a.harmless("restore", err)
	}
	a.w.baton.Lock()
	defer a.w.baton.Unlock()
	b := a.w.model.backups[snap.Tags[0]]
	a.w.say("%s: restore of %s = %v", a.proc.name, b.tag, err)
	if err == nil {
		a.w.stats["restores"]++
		if there && len(s.paged) > 0 {
			a.w.stats["restores of patches"]++
		}
		if err := out.compare(b.tree); err != nil {
			a.w.fail("V1: restore of %s: %v", b.tag, err)
		}
		return
	}
	if !there && !a.proc.isDead() {
		a.w.stats["restores of what was forgotten meanwhile"]++
		if !typed(err) && !errors.Is(err, io.ErrUnexpectedEOF) {
			a.w.fail("V3: restore of %s, forgotten meanwhile: %v", b.tag, err)
		}
	}
}

// simChecker checks the repository while others work in it.
func simChecker(ctx context.Context, a *simActor, _ int) {
	report, err := a.repo.Check(ctx, engine.CheckOptions{Depth: engine.DepthPacks})
	a.harmless("check", err)
	a.w.baton.Lock()
	defer a.w.baton.Unlock()
	a.w.say("%s: check = %v, %d findings", a.proc.name, err, len(report.Findings))
	if err == nil {
		a.w.stats["checks by an actor"]++
	}
	a.findings(report, err)
}

// findings checks that there is a reason for what a check found. The caller
// holds the baton.
func (a *simActor) findings(report engine.CheckReport, err error) {
	if a.proc.isDead() {
		return
	}
	m := a.w.model
	for _, f := range report.Findings {
		if m.explains(f) {
			a.w.stats["findings of damage"]++
			continue
		}
		// What a check finds of a snapshot that is collected meanwhile is no
		// damage of what is left.
		// A list that is behind hides objects from it, too.
		// And what it could not confirm, since it ended with an error, it only supposes.
		hurt := err == nil && a.w.stale == 0 && slices.ContainsFunc(f.Snapshots, func(id manifest.ID) bool { return m.snaps[id] != nil })
		if hurt {
			a.w.fail("check by %s finds damage: %s: %s (%v)", a.proc.name, f.Object, f.Detail, f.Err)
		}
		a.w.stats["false alarms of a check"]++
	}
}

// simCollector collects, with as little patience as the options allow.
func simCollector(ctx context.Context, a *simActor, _ int) {
	age := func() time.Duration {
		if a.rng.IntN(4) == 0 {
			return time.Minute
		}
		return -1
	}
	when := func() engine.When {
		return []engine.When{engine.Auto, engine.Always, engine.Always, engine.Never}[a.rng.IntN(4)]
	}
	opts := engine.GCOptions{
		DeleteDelay: age(), SpareAge: age(), SessionAge: age(), Share: []float64{-1, -1, 0.25}[a.rng.IntN(3)],
		MaxRepack: []int64{0, 0, 3000}[a.rng.IntN(3)], Walk: when(), Sweep: when(),
	}
	plan, err := a.repo.PlanGC(ctx, opts)
	if err != nil {
		a.harmless("plan of a collection", err)
		return
	}
	if !a.proc.think(ctx) {
		return
	}
	report, err := plan.Run(ctx)
	a.harmless("collection", err)
	a.w.baton.Lock()
	defer a.w.baton.Unlock()
	a.w.say("%s: collection = %+v, %v", a.proc.name, report.GCFigures, err)
	if err == nil {
		a.w.stats["collections"]++
	}
	if errors.Is(err, engine.ErrPlanStale) {
		a.w.stats["stale plans"]++
	}
	a.w.stats["repacks"] += int(report.Repacked.Objects)       //nolint:gosec // a few
	a.w.stats["folded segments"] += int(report.Folded.Objects) //nolint:gosec // a few
	a.w.stats["lost races of a collection"] += report.Lost
}

// simRival is a collector that dooms whatever it may, without any patience:
// also packs and segments that are in the middle of being published.
func simRival(ctx context.Context, a *simActor, _ int) {
	orphans, err := a.orphans(ctx)
	if err != nil {
		return
	}
	var keys []backend.Key
	l := a.repo.Log()
	if err := l.Refresh(ctx); err != nil {
		a.harmless("refresh", err)
		return
	}
	pos, err := l.Append(ctx, func(st *log.State) ([]log.Effect, error) {
		var doom log.Doom
		keys = keys[:0]
		doom.Packs = st.Live()
		for info := range st.Snapshots() {
			doom.Packs = doom.Packs.Subtract(info.Needs)
		}
		for n := range doom.Packs.All() {
			info, _ := st.Pack(n)
			keys = append(keys, layout.Pack(info.ID))
		}
		for seg := range st.Segments() {
			if len(seg.Packs.Subtract(doom.Packs).Subtract(st.Dead(seg.Packs))) == 0 {
				doom.Segments = append(doom.Segments, seg.ID)
				keys = append(keys, layout.Segment(seg.ID))
			}
		}
		waiting := make(map[backend.Key]bool)
		for d := range st.Doomed() {
			waiting[d.Key] = true
		}
		for _, key := range orphans {
			if !simLive(st, key) && !waiting[key] {
				doom.Objects = append(doom.Objects, key)
				keys = append(keys, key)
			}
		}
		if len(keys) == 0 {
			return nil, nil
		}
		return []log.Effect{doom}, nil
	})
	a.harmless("doom", err)
	if err != nil || pos.N == 0 || l.Durable(ctx, pos.N) != nil {
		return
	}
	for _, key := range keys {
		if err := a.proc.Delete(ctx, key); err != nil && !errors.Is(err, backend.ErrUnavailable) {
			return
		}
	}
}

// orphans lists stored packs.
func (a *simActor) orphans(ctx context.Context) (keys []backend.Key, err error) {
	if a.rng.IntN(2) == 0 {
		return nil, nil
	}
	defer func() {
		a.w.baton.Lock()
		defer a.w.baton.Unlock()
		slices.SortFunc(keys, func(x, y backend.Key) int { return strings.Compare(a.w.label(x), a.w.label(y)) })
	}()
	for _, prefix := range []backend.Key{layout.Packs, layout.Segments} {
		for info, err := range a.proc.List(ctx, prefix) {
			if err != nil {
				return nil, err
			}
			keys = append(keys, info.Key)
		}
	}
	return keys, nil
}

// simLive reports whether the log names the object.
func simLive(st *log.State, key backend.Key) bool {
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

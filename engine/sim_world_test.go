package engine_test

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing/synctest"
	"time"

	"github.com/cairn-backup/cairn/backend"
)

// A simWorld is one schedule: a store, actors, and a scheduler that lets one
// call at a time happen, chosen by the seed.
//
// It runs in a bubble of testing/synctest: the scheduler waits until every
// goroutine waits for a call, for another goroutine or for the clock, and then
// decides which call happens, how it ends, who crashes or stops, or how much
// time goes by. So everything that happens depends on the seed alone.
type simWorld struct {
	*simStore
	seed  uint64
	rng   *rand.Rand
	model *simModel
	stats map[string]int

	// baton is held by the scheduler while something happens, and by an actor
	// that looks at what its operation did: several may be woken by the clock at
	// once.
	baton sync.Mutex

	procs   []*simProc
	running atomic.Int64 // actors
	ended   atomic.Bool  // nobody begins anything any more
	last    *simProc

	// How this schedule is: drawn from the seed.
	sticky  float64 // that the same process goes on
	faulty  float64 // that a call goes wrong
	pausing float64
	killing float64
	jumping float64 // that time goes by while calls wait
	stale   int     // for how many steps a list may be behind
	forever bool    // one of the pauses never ends

	digest interface {
		Write(p []byte) (int, error)
		Sum64() uint64
	}
	trace   func(format string, args ...any) // nil: none
	failure error
}

// simNap is how much time goes by at least when everybody waits for the clock:
// more than any pause whose length is drawn at random by the code.
const simNap = 2 * time.Second

// simSteps bounds a schedule, in calls.
const simSteps = 4000

func newSimWorld(seed uint64) *simWorld {
	w := &simWorld{
		simStore: &simStore{
			objects: make(map[backend.Key]simObject), deleted: make(map[backend.Key]simObject), names: make(map[backend.Key]string),
		},
		seed: seed, rng: rand.New(rand.NewPCG(seed, 77)), stats: make(map[string]int), digest: fnv.New64a(),
	}
	pick := func(of ...float64) float64 { return of[w.rng.IntN(len(of))] }
	w.sticky = pick(0, 0.5, 0.9, 0.98)
	w.faulty = pick(0, 0, 0.01, 0.03)
	w.pausing = pick(0, 0.002, 0.01)
	w.killing = pick(0, 0, 0.002, 0.006)
	w.jumping = pick(0, 0.005, 0.02)
	w.stale = int(pick(0, 0, 20, 200))
	w.forever = w.rng.IntN(3) == 0
	for key, object := range simEmpty.objects {
		w.objects[key] = simObject{data: object}
	}
	return w
}

// fail ends the schedule with the first thing that is wrong.
func (w *simWorld) fail(format string, args ...any) {
	if w.failure == nil {
		w.failure = fmt.Errorf("step %d: "+format, append([]any{w.step}, args...)...)
		w.say("FAILURE: %v", w.failure)
	}
}

// note records what happened, for the trace and for its digest, by which two
// runs of a seed are compared.
func (w *simWorld) note(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	// Numbers of packs are left out: what a collection deletes first depends on
	// names that are drawn at random, and a check reads packs in any order.
	_, _ = w.digest.Write(simNumber.ReplaceAll([]byte(line), []byte("$1"))) // a hash never fails
	w.say("%s", line)
}

var simNumber = regexp.MustCompile(`(packs/|index/)\d+`)

func (w *simWorld) say(format string, args ...any) {
	if w.trace != nil {
		w.trace("%5d %9v  %s", w.step, time.Since(simStart).Round(time.Millisecond), fmt.Sprintf(format, args...))
	}
}

// proc starts a process.
func (w *simWorld) proc(name string) *simProc {
	p := &simProc{store: w.simStore, id: len(w.procs), name: fmt.Sprintf("%s#%d", name, len(w.procs))}
	w.procs = append(w.procs, p)
	return p
}

// run lets the actors do what they do until all have ended.
func (w *simWorld) run() {
	nap := simNap
	for w.failure == nil && w.step < simSteps {
		synctest.Wait()
		if w.running.Load() == 0 {
			return
		}
		w.baton.Lock()
		ops := w.eligible()
		goesBy := nap
		switch {
		case len(ops) > 0:
			w.step++
			goesBy, nap = w.turn(ops), simNap
		case nap < 24*time.Hour:
			nap *= 4
		case w.wakeAll():
			nap = simNap
		default:
			w.fail("nobody goes on")
		}
		w.baton.Unlock()
		time.Sleep(goesBy)
	}
	if w.running.Load() > 0 {
		w.stats["cut off"]++
	}
}

// now returns the step.
func (w *simWorld) now() int {
	w.baton.Lock()
	defer w.baton.Unlock()
	return w.step
}

// eligible returns the calls of processes that are not paused.
func (w *simWorld) eligible() []*simOp {
	return slices.DeleteFunc(w.ready(), func(op *simOp) bool { return op.proc.paused > w.step })
}

// wakeAll ends the pauses that end, and reports whether there were any.
func (w *simWorld) wakeAll() bool {
	woken := false
	for _, p := range w.procs {
		if p.paused > w.step && p.paused < simForever {
			p.paused, woken = 0, true
		}
	}
	if !woken { // only those are left that never go on
		for _, p := range w.procs {
			if p.paused == simForever && !p.isDead() {
				w.crash(p)
				woken = true
			}
		}
	}
	return woken
}

const simForever = 1 << 30

// turn lets one thing happen, and returns how much time goes by then.
func (w *simWorld) turn(ops []*simOp) time.Duration {
	op := w.choose(ops)
	switch roll := w.rng.Float64(); {
	case roll < w.jumping:
		d := []time.Duration{time.Second, 10 * time.Second, 40 * time.Second, 3 * time.Minute, 25 * time.Hour}[w.rng.IntN(5)]
		w.note("time goes by: %v", d)
		return d
	case roll < w.jumping+w.pausing:
		op.proc.paused = w.step + 10 + w.rng.IntN(300)
		if w.forever {
			op.proc.paused, w.forever = simForever, false
			w.stats["stopped for ever"]++
		}
		w.stats["pauses"]++
		w.note("%s is paused until %d", op.proc.name, op.proc.paused)
	case roll < w.jumping+w.pausing+w.killing:
		w.stats["crashes"]++
		w.crash(op.proc)
	case len(w.limbo) > 0 && w.rng.IntN(20) == 0:
		w.late()
	default:
		w.last = op.proc
		w.happen(op)
	}
	return 0
}

// choose picks a call, rather one of the process that was last.
func (w *simWorld) choose(ops []*simOp) *simOp {
	if w.last != nil && w.rng.Float64() < w.sticky {
		own := slices.DeleteFunc(slices.Clone(ops), func(op *simOp) bool { return op.proc != w.last })
		if len(own) > 0 {
			return own[w.rng.IntN(len(own))]
		}
	}
	return ops[w.rng.IntN(len(ops))]
}

// happen carries out a call, or lets it go wrong.
func (w *simWorld) happen(op *simOp) {
	w.take(op)
	faulty := w.faulty
	if strings.HasPrefix(string(op.key), "log/") {
		faulty *= 2 // where most depends on it
	}
	wrong := op.kind != simThink && w.rng.Float64() < faulty
	label := w.label(op.key)
	if !op.kind.writes() {
		r := w.readOrFail(op, wrong)
		w.note("%s: %v %s: %s", op.proc.name, op.kind, label, outcome(r.err, len(r.body)+len(r.infos)))
		op.reply <- r
		return
	}
	err, happens := w.fate(op, wrong)
	if happens {
		label, err = w.effect(op, err)
	}
	w.note("%s: %v %s: %s", op.proc.name, op.kind, label, outcome(err, len(op.data)))
	if op.kind == simPut && (err == nil || errors.Is(err, backend.ErrExist)) {
		w.model.durable[op.key] = true // by the contract; what is only seen may be lost still
	}
	op.reply <- simReply{err: err}
}

// outcome is for the trace. Lengths are left out of it where they depend on
// what was drawn at random, as the length of an encoded hash of numbers does.
func outcome(err error, _ int) string {
	var op *backend.OpError
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &op) && op.Kind != nil:
		return op.Kind.Error()
	case errors.As(err, &op):
		return op.Err.Error()
	}
	return err.Error()
}

// readOrFail answers a call that changes nothing.
func (w *simWorld) readOrFail(op *simOp, wrong bool) simReply {
	if wrong {
		w.stats["failed reads"]++
		if op.kind == simGet && w.rng.IntN(2) == 0 {
			r := w.read(op)
			r.broken = len(r.body) > 0
			return r
		}
		return simReply{err: &backend.OpError{Op: op.kind.String(), Key: op.key, Kind: backend.ErrUnavailable}}
	}
	if op.kind == simList && w.stale > 0 {
		since := max(0, w.step-w.rng.IntN(w.stale))
		gone := make(map[backend.Key]simObject)
		for key, o := range w.deleted {
			if o.gone > since {
				gone[key] = o
			}
		}
		r := simReply{infos: w.list(op.key, func(o simObject) bool { return o.step <= since }, gone)}
		if len(r.infos) != len(w.read(op).infos) {
			w.stats["stale lists"]++
		}
		return r
	}
	return w.read(op)
}

// fate says what the caller of a write is told, and whether the write happens.
func (w *simWorld) fate(op *simOp, wrong bool) (err error, happens bool) { //nolint:revive // the error is what is told, not what went wrong
	if !wrong {
		return nil, true
	}
	say := func(kind error) error { return &backend.OpError{Op: op.kind.String(), Key: op.key, Kind: kind} }
	fates := 5
	if op.kind == simDelete {
		fates = 2
	}
	switch w.rng.IntN(fates) {
	case 0:
		w.stats["failed writes"]++
		return say(backend.ErrUnavailable), false
	case 1:
		w.stats["lost replies"]++
		if op.kind == simDelete {
			return say(backend.ErrUnavailable), true
		}
		return say(backend.ErrUnknownOutcome), true
	case 2:
		w.stats["unknown and nothing happened"]++
		return say(backend.ErrUnknownOutcome), false
	case 3:
		w.stats["late writes"]++
		w.limbo = append(w.limbo, op)
		return say(backend.ErrUnknownOutcome), false
	default:
		w.stats["exists by its own put"]++
		return say(backend.ErrExist), true
	}
}

// effect lets a write happen, and shows it to the model. told is what its
// caller is told in any case, or nil.
func (w *simWorld) effect(op *simOp, told error) (label string, err error) {
	if op.kind == simDelete {
		w.model.beforeDelete(op)
	}
	_, there := w.objects[op.key]
	err = w.write(op)
	if !there && op.kind == simPut {
		w.model.afterPut(op)
	}
	if there && op.kind == simDelete {
		w.model.afterDelete(op)
	}
	if told != nil {
		err = told
	}
	return w.label(op.key), err
}

// late lets a write happen, or never happen, whose caller has been told that
// nobody knows.
func (w *simWorld) late() {
	slices.SortFunc(w.limbo, w.compare) // several may have been given up at once
	i := w.rng.IntN(len(w.limbo))
	op := w.limbo[i]
	w.limbo = slices.Delete(w.limbo, i, i+1)
	if w.rng.IntN(3) == 0 {
		w.note("%s: %v %s never happens", op.proc.name, op.kind, w.label(op.key))
		return
	}
	label, err := w.effect(op, nil)
	w.note("%s: %v %s happens late: %s", op.proc.name, op.kind, label, outcome(err, 0))
}

// crash ends a process: what it sent may still happen, what it does from now on
// does not.
func (w *simWorld) crash(p *simProc) {
	w.note("%s crashes", p.name)
	p.mu.Lock()
	p.dead = true
	p.mu.Unlock()
	for _, op := range w.takeAll(p) {
		op.reply <- simReply{err: errSimDead}
	}
}

// end ends the schedule: whoever still runs crashes, and what was sent happens
// or not. Then every goroutine has ended.
func (w *simWorld) end(ctx context.Context) {
	w.ended.Store(true)
	for range 1000 {
		synctest.Wait()
		if w.running.Load() == 0 {
			break
		}
		w.baton.Lock()
		for _, p := range w.procs {
			if !p.isDead() {
				w.crash(p)
			}
		}
		w.baton.Unlock()
		time.Sleep(time.Minute) // what waits for the clock
	}
	if w.running.Load() > 0 {
		w.fail("%d actors did not end", w.running.Load())
		return
	}
	for len(w.limbo) > 0 && w.failure == nil {
		w.late()
	}
	if w.failure == nil {
		w.model.final(ctx)
	}
}

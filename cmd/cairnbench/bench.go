package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// An op is an operation that is measured.
type op string

const (
	opInit      op = "init"
	opFirst     op = "first"
	opUnchanged op = "unchanged"
	opChanged   op = "changed"
	opHistory   op = "history" // all backups of a history but the first
	opDelete    op = "delete"
	opCollect   op = "collect"
	opRestore   op = "restore"
	opCheck     op = "check"
)

// ops are all operations. Restore and check come last: they show that the
// collection took nothing that is needed.
func ops() []op {
	return []op{opInit, opFirst, opUnchanged, opChanged, opHistory, opDelete, opCollect, opRestore, opCheck}
}

// settle is how long a data set is left alone before it is backed up: what
// changed just before a backup must be read again by the next one, since the
// clock of a file system is coarse.
const settle = 2500 * time.Millisecond

// forget is how long to wait behind the removal of many files: ext4 without a journal
// avoids the inodes of deleted files for 60 seconds, or 300 where the inode was not yet
// written to the disk (Linux, fs/ext4/ialloc.c, recently_deleted), and it is several times
// as expensive to create files meanwhile, for whoever comes next. This is a compromise:
// who wants to know works below a tmpfs.
const forget = 40 * time.Second

// Below these scales so few files were deleted that it does not matter, and no
// figure means anything.
const (
	fewFiles = 0.01
	noFigure = 0.003
)

// A bencher measures tools with data sets.
type bencher struct {
	opts    options
	dir     string
	state   *state
	tools   []tool
	say     func(format string, args ...any)
	removed time.Time // when trees of many files were removed last
}

// bench makes the working directory, measures, prints and cleans up.
func bench(ctx context.Context, o options, stdout, stderr io.Writer) (err error) {
	dir := o.dir
	if dir == "" {
		if dir, err = os.MkdirTemp("", "cairnbench-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, removeAll(dir)) }()
	} else if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	b := &bencher{opts: o, dir: dir, say: func(format string, args ...any) {
		_, _ = fmt.Fprintf(stderr, format+"\n", args...) // progress, for who watches
	}}
	if b.state, err = loadState(dir, o); err != nil {
		return err
	}
	if err := b.findTools(ctx); err != nil {
		return err
	}
	for _, name := range o.sets {
		if err := b.measureSet(ctx, newSet(name, o)); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	r := newReport(o, machine(ctx, b.tools), b.state.Results)
	if o.json {
		return r.writeJSON(stdout)
	}
	return r.writeText(stdout)
}

// findTools prepares the tools that were asked for and are installed.
func (b *bencher) findTools(ctx context.Context) error {
	for _, name := range b.opts.tools {
		t, err := findTool(ctx, name, b.opts, b.dir)
		if errors.Is(err, errNotInstalled) {
			b.say("%s is left out: %v", name, err)
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		b.tools = append(b.tools, t)
	}
	if len(b.tools) == 0 {
		return errors.New("none of the tools is installed")
	}
	return nil
}

// data is where the data set lies.
func (b *bencher) data() string { return filepath.Join(b.dir, "data") }

// measureSet measures every round with a data set.
func (b *bencher) measureSet(ctx context.Context, s set) (err error) {
	rounds := b.opts.rounds
	if s.steps > 1 {
		rounds = 1 // it is long enough
	}
	for round := range rounds {
		if err := b.measureRound(ctx, s, round); err != nil {
			return fmt.Errorf("round %d: %w", round+1, err)
		}
	}
	if b.opts.until != "" {
		return nil // to go on with
	}
	b.state.Data = dataState{Made: b.state.Data.Made}
	return errors.Join(b.state.save(), removeAll(b.data()))
}

// measureRound measures every operation once, the tools taking turns.
func (b *bencher) measureRound(ctx context.Context, s set, round int) (err error) {
	r := &benchRound{bencher: b, set: s, round: round, ops: s.ops}
	if i := slices.Index(s.ops, b.opts.until); i >= 0 {
		r.ops = s.ops[:i+1]
	}
	for i := range b.tools {
		// The first of one round is the last of the next.
		t := b.tools[(i+round)%len(b.tools)]
		if s.steps > 1 && isFloor(t) {
			continue // no history of their own
		}
		name := chain(s.name, round+1, t.name())
		if b.state.Chains[name].Ops < len(r.ops) {
			r.turns = append(r.turns, turn{tool: t, chain: name, place: place{filepath.Join(b.dir, name)}})
		}
	}
	if len(r.turns) == 0 {
		return nil // all is measured
	}
	if err := r.prepare(ctx); err != nil {
		return err
	}
	for i, o := range r.ops {
		if err := r.all(ctx, i, o); err != nil {
			return err
		}
	}
	if len(r.ops) < len(s.ops) {
		return nil
	}
	return r.clean()
}

// A benchRound is one round of one data set.
type benchRound struct {
	*bencher
	set   set
	round int
	ops   []op
	turns []turn
}

// A turn is a tool and where it works.
type turn struct {
	tool  tool
	chain string
	place place
}

// base returns how often the data was changed before this round.
func (r *benchRound) base() int { return r.round * r.set.steps }

// prepare brings the data and the places to where the turns can begin or go on.
func (r *benchRound) prepare(ctx context.Context) error {
	change := slices.IndexFunc(r.set.ops, func(o op) bool { return o == opChanged || o == opHistory })
	need := r.base() + r.set.steps
	for _, t := range r.turns {
		if r.state.Chains[t.chain].Ops <= change {
			need = r.base()
		}
	}
	if d := r.state.Data; d.Set != r.set.name || d.Changes > need {
		need = r.base()
		if err := r.make(ctx); err != nil {
			return err
		}
	}
	for _, t := range r.turns {
		p := r.state.Chains[t.chain]
		if p.Ops > 0 && p.Made == r.state.Data.Made {
			continue
		}
		r.state.drop(t.chain)
		if err := removeAll(t.place.dir); err != nil {
			return err
		}
		if _, err := newPlace(t.place.dir); err != nil {
			return err
		}
		r.state.Chains[t.chain] = progress{Made: r.state.Data.Made}
	}
	return r.changeTo(ctx, need)
}

// make makes the data set anew.
func (r *benchRound) make(ctx context.Context) error {
	r.say("%s: making the data set", r.set.name)
	made := r.state.Data.Made + 1
	r.state.Data = dataState{Made: made}
	if err := errors.Join(r.state.save(), removeAll(r.data()), os.Mkdir(r.data(), 0o755)); err != nil {
		return err
	}
	if err := r.set.make(ctx, r.data()); err != nil {
		return err
	}
	r.state.Data = dataState{Set: r.set.name, Made: made}
	return errors.Join(r.state.save(), r.settle(ctx))
}

// changeTo changes the data until it was changed n times.
func (r *benchRound) changeTo(ctx context.Context, n int) error {
	if r.state.Data.Changes >= n {
		return nil
	}
	for r.state.Data.Changes < n {
		if err := r.change(ctx); err != nil {
			return err
		}
	}
	return errors.Join(r.state.save(), r.settle(ctx))
}

// settle leaves the data alone for a while.
func (r *benchRound) settle(ctx context.Context) error {
	if r.opts.scale < noFigure {
		return nil
	}
	return wait(ctx, settle)
}

// change changes the data once. Until the state is saved it is of no use to
// another run.
func (r *benchRound) change(ctx context.Context) error {
	d := r.state.Data
	r.state.Data = dataState{Made: d.Made}
	if err := r.state.save(); err != nil {
		return err
	}
	if err := r.set.change(ctx, r.data(), d.Changes); err != nil {
		return err
	}
	d.Changes++
	r.state.Data = d
	return nil
}

// all lets each tool do operation i, unless it has.
func (r *benchRound) all(ctx context.Context, i int, o op) error {
	var turns []turn
	for _, t := range r.turns {
		if r.state.Chains[t.chain].Ops == i {
			turns = append(turns, t)
		}
	}
	if len(turns) == 0 {
		return nil
	}
	switch o {
	case opHistory:
		return r.history(ctx, turns)
	case opChanged:
		if err := r.changeTo(ctx, r.base()+1); err != nil {
			return err
		}
	case opRestore:
		pause := forget
		if r.opts.scale < fewFiles {
			pause = 0
		}
		if err := wait(ctx, pause-time.Since(r.removed)); err != nil {
			return err
		}
	case opInit, opFirst, opUnchanged, opDelete, opCollect, opCheck:
	}
	for _, t := range turns {
		if err := r.measure(ctx, t, o); err != nil {
			return fmt.Errorf("%s: %s: %w", t.tool.name(), o, err)
		}
	}
	return nil
}

// clean removes repositories and what was restored, so that the next round
// finds the disk as this one did.
func (r *benchRound) clean() error {
	var errs []error
	for _, t := range r.turns {
		errs = append(errs, removeAll(t.place.dir))
	}
	r.removed = time.Now()
	return errors.Join(errs...)
}

// wait returns after d, or when ctx ends.
func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

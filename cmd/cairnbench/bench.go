package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// An op is an operation that is measured.
type op string

const (
	opInit      op = "init"
	opFirst     op = "first"
	opUnchanged op = "unchanged"
	opChanged   op = "changed"
	opRestore   op = "restore"
	opCheck     op = "check"
)

// settle is how long a data set is left alone before it is backed up: what
// changed just before a backup must be read again by the next one, since the
// clock of a file system is coarse.
const settle = 2500 * time.Millisecond

// forget is how long ext4 avoids the inodes of deleted files: until then it is
// several times as expensive to create files, for whoever comes next.
const forget = 40 * time.Second

// fewFiles is the scale below which so few files were deleted that it does not
// matter.
const fewFiles = 0.01

// A bencher measures tools with data sets.
type bencher struct {
	opts    options
	scratch string
	tools   []tool
	say     func(format string, args ...any)
	results []result
	removed time.Time // when trees of many files were removed last
}

// bench makes the scratch directory, measures, prints and cleans up.
func bench(ctx context.Context, o options, stdout, stderr io.Writer) (err error) {
	scratch, err := os.MkdirTemp(o.dir, "cairnbench-")
	if err != nil {
		return err
	}
	if o.keep {
		defer func() { _, _ = fmt.Fprintln(stderr, "everything is left in", scratch) }() // a courtesy
	} else {
		defer func() { err = errors.Join(err, removeAll(scratch)) }()
	}
	b := &bencher{opts: o, scratch: scratch, say: func(format string, args ...any) {
		_, _ = fmt.Fprintf(stderr, format+"\n", args...) // progress, for who watches
	}}
	if err := b.findTools(ctx); err != nil {
		return err
	}
	for _, name := range o.sets {
		if err := b.measureSet(ctx, newSet(name, o)); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	r := newReport(o, machine(ctx, b.tools), b.results)
	if o.json {
		return r.writeJSON(stdout)
	}
	return r.writeText(stdout)
}

// findTools prepares the tools that were asked for and are installed.
func (b *bencher) findTools(ctx context.Context) error {
	for _, name := range b.opts.tools {
		t, err := findTool(ctx, name, b.opts, b.scratch)
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

// measureSet makes a data set and measures every round with it.
func (b *bencher) measureSet(ctx context.Context, s set) (err error) {
	data := filepath.Join(b.scratch, "data")
	b.say("%s: making the data set", s.name)
	defer func() {
		if !b.opts.keep {
			err = errors.Join(err, removeAll(data))
		}
	}()
	if err := os.Mkdir(data, 0o755); err != nil {
		return err
	}
	if err := s.make(ctx, data); err != nil {
		return err
	}
	for round := range b.opts.rounds {
		if err := b.measureRound(ctx, s, data, round); err != nil {
			return fmt.Errorf("round %d: %w", round+1, err)
		}
	}
	return nil
}

// measureRound measures every operation once, the tools taking turns.
func (b *bencher) measureRound(ctx context.Context, s set, data string, round int) (err error) {
	r := &benchRound{bencher: b, set: s, data: data, round: round}
	for i := range b.tools {
		// The first of one round is the last of the next.
		t := b.tools[(i+round)%len(b.tools)]
		place, err := newPlace(b.scratch, t.name())
		if err != nil {
			return err
		}
		r.turns = append(r.turns, turn{tool: t, place: place})
	}
	defer func() { err = errors.Join(err, r.clean()) }()
	if err := wait(ctx, settle); err != nil {
		return err
	}
	for _, o := range []op{opInit, opFirst, opUnchanged} {
		if err := r.measure(ctx, o); err != nil {
			return err
		}
	}
	if err := s.change(ctx, data, round); err != nil {
		return err
	}
	if err := wait(ctx, settle); err != nil {
		return err
	}
	if err := r.measure(ctx, opChanged); err != nil {
		return err
	}
	pause := forget
	if b.opts.scale < fewFiles {
		pause = 0
	}
	if err := wait(ctx, pause-time.Since(b.removed)); err != nil {
		return err
	}
	for _, o := range []op{opRestore, opCheck} {
		if err := r.measure(ctx, o); err != nil {
			return err
		}
	}
	return nil
}

// A benchRound is one round of one data set.
type benchRound struct {
	*bencher
	set   set
	data  string
	round int
	turns []turn
}

// A turn is a tool and where it works.
type turn struct {
	tool  tool
	place place
}

// clean removes repositories and what was restored, so that the next round
// finds the disk as this one did.
func (r *benchRound) clean() error {
	if r.opts.keep && r.round == r.opts.rounds-1 {
		return nil
	}
	var errs []error
	for _, t := range r.turns {
		errs = append(errs, removeAll(t.place.dir))
	}
	r.removed = time.Now()
	return errors.Join(errs...)
}

// measure lets each tool do one operation.
func (r *benchRound) measure(ctx context.Context, o op) error {
	for _, t := range r.turns {
		before, err := size(t.place.repo())
		if err != nil {
			return err
		}
		key, err := t.tool.keyCPU(ctx, t.place, o)
		if err != nil {
			return fmt.Errorf("%s: key derivation: %w", t.tool.name(), err)
		}
		u, err := execute(ctx, t.tool.command(t.place, o, r.data))
		if err != nil {
			return fmt.Errorf("%s: %s: %w", t.tool.name(), o, err)
		}
		after, err := size(t.place.repo())
		if err != nil {
			return err
		}
		m := result{
			Set: r.set.name, Tool: t.tool.name(), Op: o, Round: r.round + 1,
			Wall: u.wall.Seconds(), CPU: max(0, u.cpu()-key), User: u.user.Seconds(), System: u.system.Seconds(), Key: key,
			Peak: u.peak, Repository: after, Added: after - before,
		}
		r.results = append(r.results, m)
		r.say("%s %d: %-6s %-9s %7.2f s CPU %7.2f s wall %5d MiB", r.set.name, m.Round, m.Tool, o, m.CPU, m.Wall, m.Peak>>20)
		if o == opRestore {
			if err := r.compare(ctx, t); err != nil {
				return err
			}
		}
	}
	return nil
}

// compare compares what a tool restored with the source. It stays, see forget.
func (r *benchRound) compare(ctx context.Context, t turn) error {
	if err := sameTrees(ctx, r.data, t.place.restored()); err != nil {
		return fmt.Errorf("%s restored something else: %w", t.tool.name(), err)
	}
	return nil
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

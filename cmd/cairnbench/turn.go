package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// job returns operation o of a tool. Backups are numbered as they are made:
// the first, the unchanged, the changed; or all those of a history.
func (r *benchRound) job(t turn, o op) job {
	j := job{place: t.place, op: o, data: r.data(), number: r.set.backups}
	switch o {
	case opFirst:
		j.number = 1
	case opUnchanged:
		j.number = 2
	case opDelete:
		j.doomed = r.set.doomed(r.set.backups)
	case opInit, opChanged, opHistory, opCollect, opRestore, opCheck:
	}
	return j
}

// measure lets a tool do one operation, and writes down what it cost.
func (r *benchRound) measure(ctx context.Context, t turn, o op) error {
	r.state.Running = t.chain
	if err := r.state.save(); err != nil {
		return err
	}
	j := r.job(t, o)
	cmds, err := t.tool.commands(ctx, j)
	if err != nil {
		return err
	}
	if len(cmds) == 0 {
		return r.pass(t, nil)
	}
	key, err := keyCPU(ctx, t.tool, j)
	if err != nil {
		return fmt.Errorf("key derivation: %w", err)
	}
	before, err := size(j.repo())
	if err != nil {
		return err
	}
	if err := r.present(ctx, j); err != nil {
		return err
	}
	stop, err := r.meanwhile(ctx, t, j)
	if err != nil {
		return fmt.Errorf("a backup meanwhile: %w", err)
	}
	var u usage
	for _, cmd := range cmds {
		more, err := execute(ctx, cmd)
		if err != nil {
			_, err2 := stop()
			return errors.Join(err, err2)
		}
		u = u.plus(more)
	}
	meanwhile, err := stop()
	if err != nil {
		return fmt.Errorf("a backup meanwhile: %w", err)
	}
	after, err := size(j.repo())
	if err != nil {
		return err
	}
	m := r.result(t, o, u, key*float64(len(cmds)))
	m.Repository, m.Added, m.Meanwhile = after, after-before, meanwhile
	if o == opRestore {
		if err := compare(ctx, t.tool, j); err != nil {
			return fmt.Errorf("something else came back: %w", err)
		}
	}
	return r.pass(t, &m)
}

// present makes memory present for an operation, but not where so little is
// measured that it does not matter.
func (r *benchRound) present(ctx context.Context, j job) error {
	if r.opts.scale < fewFiles {
		return nil
	}
	data, err := size(j.data)
	if err != nil {
		return err
	}
	return present(ctx, r.dir, data)
}

// compare compares what a tool restored with the source.
func compare(ctx context.Context, t tool, j job) error {
	precision := time.Duration(0)
	switch t.(type) {
	case kernels:
		return nil // they have no files
	case duplicacy:
		precision = time.Second
		// It leaves a directory of its own in what it restores.
		if err := removeAll(filepath.Join(j.restored(), ".duplicacy")); err != nil {
			return err
		}
	}
	return sameTrees(ctx, j.data, j.restored(), precision)
}

// result returns what an operation cost.
func (r *benchRound) result(t turn, o op, u usage, key float64) result {
	return result{
		Set: r.set.name, Tool: t.tool.name(), Op: o, Round: r.round + 1,
		Wall: u.wall.Seconds(), CPU: max(0, u.cpu()-key), User: u.user.Seconds(), System: u.system.Seconds(), Key: key,
		Peak: u.peak, Requests: requests(u.out),
	}
}

// pass writes down that an operation is behind a tool, and what it cost if the
// tool has such an operation.
func (r *benchRound) pass(t turn, m *result) error {
	if m != nil {
		r.state.Results = append(r.state.Results, *m)
		r.say("%s %d: %-9s %-9s %7.2f s CPU %7.2f s wall %5d MiB", m.Set, m.Round, m.Tool, m.Op, m.CPU, m.Wall, m.Peak>>20)
	}
	p := r.state.Chains[t.chain]
	p.Ops++
	r.state.Chains[t.chain] = p
	r.state.Running = ""
	return r.state.save()
}

// history lets the tools make all backups of a history but the first, and
// writes down the sum. No memory is made present: each is small. An interruption ends with the data of no use, and so
// with all of it anew.
func (r *benchRound) history(ctx context.Context, turns []turn) error {
	sums, keys := make([]usage, len(turns)), make([]float64, len(turns))
	before := make([]int64, len(turns))
	for i, t := range turns {
		j := r.job(t, opHistory)
		var err, err2 error
		keys[i], err = keyCPU(ctx, t.tool, j)
		before[i], err2 = size(j.repo())
		if err := errors.Join(err, err2); err != nil {
			return fmt.Errorf("%s: %w", t.tool.name(), err)
		}
	}
	for number := 2; number <= r.set.backups; number++ {
		if err := r.change(ctx); err != nil {
			return err
		}
		for i, t := range turns {
			j := r.job(t, opHistory)
			j.number = number
			cmds, err := t.tool.commands(ctx, j)
			if err != nil {
				return fmt.Errorf("%s: %w", t.tool.name(), err)
			}
			for _, cmd := range cmds {
				u, err := execute(ctx, cmd)
				if err != nil {
					return fmt.Errorf("%s: backup %d: %w", t.tool.name(), number, err)
				}
				sums[i] = sums[i].plus(u)
			}
		}
		if number%10 == 0 {
			r.say("%s: %d of %d backups", r.set.name, number, r.set.backups)
		}
	}
	if err := r.state.save(); err != nil {
		return err
	}
	for i, t := range turns {
		after, err := size(t.place.repo())
		if err != nil {
			return err
		}
		m := r.result(t, opHistory, sums[i], keys[i]*float64(r.set.backups-1))
		m.Repository, m.Added, m.Requests = after, after-before[i], nil
		if err := r.pass(t, &m); err != nil {
			return err
		}
	}
	return nil
}

// meanwhile lets a tool that can make backups while it collects a history do
// so, from another process, until stop is called, which returns how many of
// them were published.
func (r *benchRound) meanwhile(ctx context.Context, t turn, j job) (stop func() (int, error), err error) {
	w, ok := t.tool.(meanwhiler)
	if !ok || j.op != opCollect || r.set.steps == 1 {
		return func() (int, error) { return 0, nil }, nil
	}
	j.data = filepath.Join(j.dir, "beside")
	random := newRandom("beside", r.round)
	backUp := func() error {
		err := writeFile(ctx, filepath.Join(j.data, "file"), 1<<20, random.Bytes)
		if err == nil {
			_, err = execute(ctx, w.meanwhile(j))
		}
		return err
	}
	// The first one has an index to build.
	if err := errors.Join(os.MkdirAll(j.data, 0o700), backUp()); err != nil {
		return nil, err
	}
	done := make(chan struct{})
	var published int
	var failed error
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			if failed = backUp(); failed != nil {
				return
			}
			published++
			select {
			case <-done:
				return
			default:
			}
		}
	})
	return func() (int, error) {
		close(done)
		wg.Wait()
		return published, failed
	}, nil
}

// keyRuns is how often the key derivation is measured beside each operation.
const keyRuns = 3

// keyCPU returns the CPU seconds of a command that are those of its key
// derivation: what a command that does little else takes more than one that does
// nothing but start, both the median of some runs. That the former reads some
// small files is taken off as well.
func keyCPU(ctx context.Context, t tool, j job) (float64, error) {
	if j.op == opInit || t.keyCommand(j) == nil {
		return 0, nil // an init may try how expensive it may be, which is its own choice
	}
	var key, start []float64
	for range keyRuns {
		k, err := execute(ctx, t.keyCommand(j))
		if err != nil {
			return 0, err
		}
		s, err := execute(ctx, t.startCommand(j))
		if err != nil {
			return 0, err
		}
		key, start = append(key, k.cpu()), append(start, s.cpu())
	}
	return max(0, median(key)-median(start)), nil
}

// requests returns how often the store was asked, as Cairn reports it in the
// last line of what it prints; nil for who does not.
func requests(out []byte) *int64 {
	out = bytes.TrimRight(out, "\n")
	out = out[bytes.LastIndexByte(out, '\n')+1:]
	var doc struct{ Requests json.RawMessage }
	if json.Unmarshal(out, &doc) != nil || len(doc.Requests) == 0 {
		return nil
	}
	var total int64
	if json.Unmarshal(doc.Requests, &total) == nil {
		return &total
	}
	var kinds map[string]int64
	if json.Unmarshal(doc.Requests, &kinds) != nil {
		return nil
	}
	for _, n := range kinds {
		total += n
	}
	return &total
}

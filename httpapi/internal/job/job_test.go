package job

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cairn-backup/cairn/engine/progress"
)

func open(t *testing.T, opts Options) *Table {
	t.Helper()
	opts.Logger = slog.New(slog.DiscardHandler)
	table, err := Open(opts)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func start(t *testing.T, table *Table, kind Kind, id string, run Run) *Job {
	t.Helper()
	j, err := table.Start(t.Context(), Status{Kind: kind, ID: id}, run)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// TestEnds holds the final state that each way to end leads to.
func TestEnds(t *testing.T) {
	for name, c := range map[string]struct {
		run    Run
		cancel bool
		want   State
		err    string
	}{
		"done":   {run: func(context.Context, *Job) error { return nil }, want: Completed},
		"failed": {run: func(context.Context, *Job) error { return errors.New("no") }, want: Failed, err: "no"},
		"panic":  {run: func(context.Context, *Job) error { panic("ouch") }, want: Failed, err: "internal error: ouch"},
		"canceled": {run: func(ctx context.Context, _ *Job) error {
			<-ctx.Done()
			return fmt.Errorf("backup: %w", ctx.Err())
		}, cancel: true, want: Canceled, err: "canceled"},
		"canceled, and failed otherwise": {run: func(ctx context.Context, _ *Job) error {
			<-ctx.Done()
			return errors.New("the disk is full")
		}, cancel: true, want: Failed, err: "the disk is full"},
		"canceled too late": {run: func(ctx context.Context, _ *Job) error {
			<-ctx.Done()
			return nil
		}, cancel: true, want: Completed},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				table := open(t, Options{Dir: filepath.Join(t.TempDir(), "state")})
				j := start(t, table, Creation, "1.0.0_1", c.run)
				if c.cancel {
					err := table.Cancel(t.Context(), Creation, "1.0.0_1")
					if (c.want == Canceled) != (err == nil) || err != nil && !errors.Is(err, ErrTooLate) {
						t.Errorf("Cancel = %v", err)
					}
				}
				st, _ := j.Wait(t.Context())
				if st.State != c.want || st.Error != c.err || (st.Percent == 100) != (c.want == Completed) {
					t.Errorf("%+v", st)
				}
				if err := table.Cancel(t.Context(), Creation, "1.0.0_1"); !errors.Is(err, ErrIdle) {
					t.Errorf("Cancel of what is over = %v", err)
				}
				again := open(t, Options{Dir: table.opts.Dir})
				if j, ok := again.Find(Creation, "1.0.0_1"); !ok || j.Status().State != c.want {
					t.Errorf("after a restart: %v", ok)
				}
			})
		})
	}
}

// TestWatch holds that a listener gets at most ten reports in any second, that
// progress never falls, and that the last one is not lost.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := open(t, Options{})
		j := start(t, table, Creation, "1.0.0_1", func(_ context.Context, j *Job) error {
			for i := range 10_000 {
				time.Sleep(500 * time.Microsecond)
				tick := progress.Tick{Bytes: progress.Count{Done: int64(i)}}
				if i == 5000 {
					j.SetTotals(5000, 0) // it grew beyond what was counted
				}
				if i%1000 == 999 {
					tick.Bytes.Done = 0 // as in the next round
				}
				j.Progress(tick)
			}
			return nil
		})
		all := make(chan [][]Status, 1)
		go func() {
			var seen [][]Status
			for s := range table.Watch(t.Context(), time.Minute) {
				seen = append(seen, s)
			}
			all <- seen
		}()
		var times []time.Time
		var seen []Status
		for st := range j.Watch(t.Context(), time.Minute) {
			times = append(times, time.Now())
			seen = append(seen, st)
		}
		for i := range times {
			if i >= 10 && times[i].Sub(times[i-10]) < time.Second {
				t.Errorf("11 reports in %v", times[i].Sub(times[i-10]))
			}
			if i > 0 && seen[i].Percent < seen[i-1].Percent {
				t.Errorf("%d after %d percent", seen[i].Percent, seen[i-1].Percent)
			}
		}
		n := len(seen)
		if n < 30 || seen[0].State != Initialized || seen[1].State != Running || seen[n-2].Percent != 99 || seen[n-1].State != Completed || seen[n-1].Percent != 100 {
			t.Errorf("%d reports, the last %+v", n, seen[n-2:])
		}
		if err := table.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		overview := slices.Concat(<-all...)
		final := slices.DeleteFunc(overview, func(s Status) bool { return !s.State.Final() })
		if len(final) != 1 {
			t.Errorf("the end was told %d times", len(final))
		}
	})
}

// TestQuick holds that a job which is over at once has all its states, and that
// one of which nothing is heard is repeated.
func TestQuick(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := open(t, Options{})
		j := start(t, table, Creation, "1.0.0_1", func(context.Context, *Job) error { return nil })
		synctest.Wait()
		var states []State
		for st := range j.Watch(t.Context(), time.Minute) {
			states = append(states, st.State)
		}
		if !slices.Equal(states, []State{Initialized, Running, Completed}) {
			t.Errorf("%v", states)
		}
		slow := start(t, table, Creation, "1.0.0_2", func(context.Context, *Job) error {
			time.Sleep(time.Minute)
			return nil
		})
		n := 0
		for range slow.Watch(t.Context(), 5*time.Second) {
			n++
		}
		if n < 12 || n > 15 {
			t.Errorf("%d reports in a minute", n)
		}
		start(t, table, Creation, "1.0.0_3", func(context.Context, *Job) error {
			time.Sleep(time.Minute)
			return nil
		})
		waits, n := start(t, table, Restoration, "1.0.0_3", func(context.Context, *Job) error { return nil }), 0
		for st := range waits.Watch(t.Context(), 5*time.Second) {
			if st.State == Initialized {
				n++
			}
		}
		if n < 12 || n > 15 {
			t.Errorf("%d reports in a minute that it waits", n)
		}
	})
}

// TestBusy holds what may run beside what.
func TestBusy(t *testing.T) {
	table := open(t, Options{MaxCreations: 2})
	release := make(chan struct{})
	wait := func(context.Context, *Job) error { <-release; return nil }
	none := func(context.Context, *Job) error { return nil }
	first, second := start(t, table, Creation, "1.0.0_1", wait), start(t, table, Creation, "1.0.0_2", wait)
	if _, err := table.Start(t.Context(), Status{Kind: Creation, ID: "1.0.0_3"}, none); !errors.Is(err, ErrBusy) {
		t.Errorf("beside two creations = %v", err)
	}
	ran := make(chan struct{}, 1)
	behind := func(context.Context, *Job) error { ran <- struct{}{}; return nil }
	canceled := start(t, table, Restoration, "1.0.0_1", behind)
	if st := canceled.Status(); st.State != Initialized {
		t.Errorf("behind two creations: %s", st.State)
	}
	if err := table.Cancel(t.Context(), Restoration, "1.0.0_1"); err != nil || len(ran) > 0 {
		t.Errorf("Cancel of what waits = %v, ran %d", err, len(ran))
	}
	restoration := start(t, table, Restoration, "1.0.0_1", behind)
	for _, kind := range []Kind{Creation, Restoration} {
		if _, err := table.Start(t.Context(), Status{Kind: kind, ID: "1.0.0_3"}, none); !errors.Is(err, ErrBusy) {
			t.Errorf("%s behind a restoration that waits = %v", kind, err)
		}
	}
	if len(ran) > 0 {
		t.Error("it ran beside creations")
	}
	close(release)
	for _, j := range []*Job{first, second, restoration} {
		if _, err := j.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	release = make(chan struct{})
	j := start(t, table, Restoration, "1.0.0_1", wait)
	for _, kind := range []Kind{Creation, Restoration} {
		if _, err := table.Start(t.Context(), Status{Kind: kind, ID: "1.0.0_3"}, none); !errors.Is(err, ErrBusy) {
			t.Errorf("%s beside a restoration = %v", kind, err)
		}
	}
	close(release)
	if _, err := j.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := table.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := table.Start(t.Context(), Status{Kind: Creation, ID: "1.0.0_4"}, none); !errors.Is(err, ErrClosed) {
		t.Errorf("Start after Close = %v", err)
	}
}

// TestNextMS holds that identifiers rise over clock steps and restarts.
func TestNextMS(t *testing.T) {
	dir := t.TempDir()
	future := time.Now().Add(time.Hour).UnixMilli()
	table := open(t, Options{Dir: dir})
	if got := table.NextMS(future); got != future+1 {
		t.Errorf("%d after %d", got, future)
	}
	if got := table.NextMS(0); got != future+2 {
		t.Errorf("%d after %d", got, future+1)
	}
	j := start(t, table, Creation, fmt.Sprintf("1.0.0_%d", future+2), func(context.Context, *Job) error { return errors.New("no") })
	_, _ = j.Wait(t.Context())
	if got := open(t, Options{Dir: dir}).NextMS(0); got != future+3 { // the clock is behind
		t.Errorf("%d after a restart", got)
	}
}

// TestState holds that what a crash left is known, and that damage is harmless.
func TestState(t *testing.T) {
	dir := t.TempDir()
	table := open(t, Options{Dir: dir})
	release := make(chan struct{})
	j := start(t, table, Restoration, "1.0.0_1", func(context.Context, *Job) error { <-release; return nil })
	for name, content := range map[string]string{
		"creation-1.0.0_5.json": "{", "creation-1.0.0_6.json": `{"kind":"creation","id":"1.0.0_7"}`, "x.tmp": "half",
		"creation-1.0.0_8.json": `{"kind":"dance","id":"1.0.0_8"}`, "creation-1.0.0_9.json": strings.Repeat(" ", maxState+1),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "directory"), 0o700); err != nil {
		t.Fatal(err)
	}
	again := open(t, Options{Dir: dir})
	cut := again.CutOff()
	if len(cut) != 1 || cut[0].ID != "1.0.0_1" || cut[0].Token == "" || cut[0].State != CutOff {
		t.Fatalf("%+v", cut)
	}
	if err := again.Cancel(t.Context(), Restoration, "1.0.0_1"); !errors.Is(err, ErrIdle) {
		t.Errorf("Cancel of what was cut off = %v", err)
	}
	cut[0].State = Completed
	again.Settle(cut[0])
	again.Settle(Status{Kind: Restoration, ID: "1.0.0_1", State: Failed}) // no more
	if got, ok := open(t, Options{Dir: dir}).Find(Restoration, "1.0.0_1"); !ok || got.Status().State != Completed {
		t.Errorf("settled: %v", ok)
	}
	if _, err := os.Stat(filepath.Join(dir, "x.tmp")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("half a file is left: %v", err)
	}
	close(release)
	_, _ = j.Wait(t.Context())
}

// TestKeep holds that memory and files are bounded.
func TestKeep(t *testing.T) {
	dir := t.TempDir()
	var ended []string
	table := open(t, Options{Dir: dir, Keep: 3, Ended: func(s Status) { ended = append(ended, s.ID) }})
	for i := range 10 {
		j := start(t, table, Creation, fmt.Sprintf("1.0.0_%d", i), func(context.Context, *Job) error { return nil })
		_, _ = j.Wait(t.Context())
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 3 || len(table.jobs) != 3 || len(table.history) != 3 || len(ended) != 10 {
		t.Errorf("%d files, %d jobs, %d past, %d ended: %v", len(entries), len(table.jobs), len(table.history), len(ended), err)
	}
	table.Forget(Creation, "1.0.0_9")
	if _, ok := table.Find(Creation, "1.0.0_9"); ok || len(table.history) != 2 {
		t.Error("it was not forgotten")
	}
	fi, err := os.Stat(filepath.Join(dir, "creation-1.0.0_8.json"))
	if err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", fi, err)
	}
}

// TestCloseTimeout holds that Close does not wait for ever.
func TestCloseTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := open(t, Options{})
		release := make(chan struct{})
		j := start(t, table, Creation, "1.0.0_1", func(context.Context, *Job) error { <-release; return nil })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := table.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Close = %v", err)
		}
		close(release)
		_, _ = j.Wait(t.Context())
	})
}

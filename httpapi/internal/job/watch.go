package job

import (
	"context"
	"iter"
	"time"
)

// Watch yields the job from its beginning: Initialized, Running with rising
// percentages, and last, unless ctx ends before, its final state. What is yielded
// comes again after idle without a change, so that a listener knows that the
// other side lives.
func (j *Job) Watch(ctx context.Context, idle time.Duration) iter.Seq[Status] {
	return func(yield func(Status) bool) {
		first := j.Status()
		first.State, first.Percent, first.Error = Initialized, 0, ""
		if !yield(first) {
			return
		}
		for shown, waited := false, false; ; {
			j.mu.Lock()
			s, changed := j.status, j.changed
			j.mu.Unlock()
			if s.State.Final() && !shown {
				running := first
				running.State = Running
				if !yield(running) {
					return
				}
			}
			shown = shown || s.State == Running
			if (s.State != Initialized || waited) && !yield(s) || s.State.Final() {
				return
			}
			waited = true
			if !j.table.pace(ctx, idle, j.done, changed) {
				return
			}
		}
	}
}

// pace waits until something changed or idle has passed, and at least for the
// interval; not for that once urgent is closed. It reports false when ctx ended.
func (t *Table) pace(ctx context.Context, idle time.Duration, urgent, changed <-chan struct{}) bool {
	timer := time.NewTimer(t.opts.Interval)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-urgent:
		return true
	case <-ctx.Done():
		return false
	}
	timer.Reset(idle)
	select {
	case <-changed:
		return true
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// Watch yields all jobs that run, now and after each change. Those that ended
// are there once more, in their final state. It comes again after idle. It ends
// with ctx, and after Close when nothing runs any more.
func (t *Table) Watch(ctx context.Context, idle time.Duration) iter.Seq[[]Status] {
	return func(yield func([]Status) bool) {
		t.mu.Lock()
		seen := t.endSeq
		t.mu.Unlock()
		for {
			all, over, changed := t.since(&seen)
			if !yield(all) || over || !t.pace(ctx, idle, nil, changed) {
				return
			}
		}
	}
}

// since returns the jobs that run and those that ended after number seen, which
// it sets to the last such number; whether there will be no more; and a channel
// that is closed by the next change.
func (t *Table) since(seen *uint64) (all []Status, over bool, changed <-chan struct{}) {
	t.mu.Lock()
	jobs := make([]*Job, 0, len(t.jobs))
	for _, p := range t.history {
		if p.job.endSeq > *seen {
			jobs = append(jobs, p.job)
		}
	}
	for _, j := range t.jobs {
		if j.endSeq == 0 {
			jobs = append(jobs, j)
		}
	}
	*seen, changed = t.endSeq, t.changed
	over = t.closed && t.creations == 0 && t.restoring == ""
	t.mu.Unlock()
	for _, j := range jobs {
		all = append(all, j.Status())
	}
	return all, over, changed
}

// notify wakes those who watch all jobs.
func (t *Table) notify() {
	t.mu.Lock()
	defer t.mu.Unlock()
	close(t.changed)
	t.changed = make(chan struct{})
}

package job

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// Options says how a Table works.
type Options struct {
	// Dir is where the states of jobs are kept, in small files. Default: they
	// end with the process.
	Dir string

	// MaxCreations is how many creations run at once. Default: 4.
	MaxCreations int

	// Interval is the least time between two reports to one who watches, apart
	// from the first and the last. Default: 125 ms, so that together with these
	// there are never more than ten in a second.
	Interval time.Duration

	// Keep is how many jobs that ended are remembered. Default: 1000.
	Keep int

	// Ended is told of every job that ended, from any goroutine. Default: nobody.
	Ended func(Status)

	Logger *slog.Logger // required
}

func (o Options) withDefaults() Options {
	if o.MaxCreations == 0 {
		o.MaxCreations = 4
	}
	if o.Interval == 0 {
		o.Interval = 125 * time.Millisecond
	}
	if o.Keep == 0 {
		o.Keep = 1000
	}
	if o.Ended == nil {
		o.Ended = func(Status) {}
	}
	return o
}

// A key names a job: the last one of its kind for a backup.
type key struct {
	kind Kind
	id   string
}

// A past is a job that ended.
type past struct {
	key key
	job *Job
}

// A Table holds the jobs of one set of data. It is safe for concurrent use.
type Table struct {
	opts Options
	wait sync.WaitGroup // the jobs that run

	mu        sync.Mutex // guards what follows; taken after a job's, never before
	jobs      map[key]*Job
	history   []past // those that ended, oldest first; each is in jobs
	endSeq    uint64
	creations int
	restoring string // the ID that is being restored, or ""
	lastMS    int64  // of the last identifier
	closed    bool
	changed   chan struct{} // closed and replaced by each change
}

// Open returns a table that knows the jobs of Options.Dir, which is made with
// mode 0700 if it is not there. Those that were cut off are in state CutOff.
func Open(opts Options) (*Table, error) {
	t := &Table{opts: opts.withDefaults(), jobs: make(map[key]*Job), changed: make(chan struct{})}
	if err := t.load(); err != nil {
		return nil, fmt.Errorf("job states: %w", err)
	}
	return t, nil
}

// NextMS returns a moment for a new identifier, in milliseconds: now, or what
// comes after the last one and after floor if the clock is behind them.
func (t *Table) NextMS(floor int64) int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lastMS = max(time.Now().UnixMilli(), t.lastMS+1, floor+1)
	return t.lastMS
}

// Start starts a job and returns it in state Initialized or later, which is that
// of a restoration until the creations that run have ended; none begins behind
// it. The error is ErrBusy or ErrClosed, and then nothing was started. The job goes on when ctx
// ends: only Cancel and Close end it.
func (t *Table) Start(ctx context.Context, s Status, run Run) (*Job, error) {
	var token [8]byte
	_, _ = rand.Read(token[:]) // never returns an error, by its contract since Go 1.24
	s.State, s.Percent, s.Token, s.Started = Initialized, 0, hex.EncodeToString(token[:]), time.Now()
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	j := &Job{table: t, cancel: cancel, done: make(chan struct{}), status: s, changed: make(chan struct{})}
	if err := t.enter(j, s); err != nil {
		cancel()
		return nil, err
	}
	t.write(s)
	go func() {
		defer t.wait.Done()
		defer cancel()
		j.run(ctx, run)
	}()
	return j, nil
}

// enter adds a job that is about to run.
func (t *Table) enter(j *Job, s Status) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.closed:
		return ErrClosed
	case t.restoring != "":
		return fmt.Errorf("%w: backup %s is being restored", ErrBusy, t.restoring)
	case s.Kind == Creation && t.creations >= t.opts.MaxCreations:
		return fmt.Errorf("%w: %d backups are being created already", ErrBusy, t.creations)
	}
	if s.Kind == Creation {
		t.creations++
	} else {
		t.restoring = s.ID
	}
	t.drop(key{s.Kind, s.ID}) // an earlier restore of the same backup
	t.jobs[key{s.Kind, s.ID}] = j
	t.wait.Add(1)
	return nil
}

// alone waits until no creation runs.
func (t *Table) alone(ctx context.Context) error {
	for {
		t.mu.Lock()
		creations, changed := t.creations, t.changed
		t.mu.Unlock()
		if creations == 0 {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// ended notes that a job has ended with status s, and returns the oldest, which
// it forgets.
func (t *Table) ended(j *Job, s Status) (forgotten []key) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s.Kind == Creation {
		t.creations--
	} else {
		t.restoring = ""
	}
	return t.remember(j, key{s.Kind, s.ID})
}

// remember adds a job that is over to the history, and returns the oldest, which
// it forgets. The caller holds mu.
func (t *Table) remember(j *Job, k key) (forgotten []key) {
	t.endSeq++
	j.endSeq = t.endSeq
	t.history = append(t.history, past{k, j})
	for len(t.history) > t.opts.Keep {
		old := t.history[0]
		t.history = t.history[1:]
		delete(t.jobs, old.key)
		forgotten = append(forgotten, old.key)
	}
	return forgotten
}

// drop forgets a job that has ended. The caller holds mu.
func (t *Table) drop(k key) {
	j, ok := t.jobs[k]
	if !ok {
		return
	}
	delete(t.jobs, k)
	t.history = slices.DeleteFunc(t.history, func(p past) bool { return p.job == j })
}

// Find returns the last job of that kind for a backup.
func (t *Table) Find(kind Kind, id string) (*Job, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	j, ok := t.jobs[key{kind, id}]
	return j, ok
}

// Forget forgets a job that is not running.
func (t *Table) Forget(kind Kind, id string) {
	k := key{kind, id}
	t.mu.Lock()
	j, ok := t.jobs[k]
	ok = ok && j.endSeq != 0
	if ok {
		t.drop(k)
	}
	t.mu.Unlock()
	if ok {
		t.remove(k)
	}
}

// CutOff returns the jobs of processes before this one whose end is not known.
func (t *Table) CutOff() []Status {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []Status
	for _, j := range t.jobs {
		if j.cutOff {
			all = append(all, j.status) // nobody writes it
		}
	}
	return all
}

// Settle says what became of a job that was cut off, or was started by a process
// of which no state is left. A job of this process is left alone.
func (t *Table) Settle(s Status) {
	k := key{s.Kind, s.ID}
	j := &Job{table: t, cancel: func() {}, done: make(chan struct{}), status: s, changed: make(chan struct{})}
	close(j.done)
	t.mu.Lock()
	if old, ok := t.jobs[k]; ok && !old.cutOff {
		t.mu.Unlock()
		return
	}
	t.drop(k)
	t.jobs[k] = j
	forgotten := t.remember(j, k)
	t.mu.Unlock()
	t.remove(forgotten...)
	t.write(s)
}

// Cancel cancels a job and returns when everything it did is taken back:
// ErrIdle if there was nothing to cancel, ErrTooLate if it ended otherwise.
func (t *Table) Cancel(ctx context.Context, kind Kind, id string) error {
	j, ok := t.Find(kind, id)
	if !ok || j.cutOff || j.Status().State.Final() {
		return ErrIdle
	}
	j.cancel()
	s, err := j.Wait(ctx)
	switch {
	case !s.State.Final():
		return err
	case s.State != Canceled:
		return fmt.Errorf("%w: it is %s", ErrTooLate, s.State)
	}
	return nil
}

// Running returns how many jobs of each kind run.
func (t *Table) Running() (creations, restorations int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.restoring != "" {
		restorations = 1
	}
	return t.creations, restorations
}

// Close takes no more jobs, cancels those that run and waits until they are
// over, or until ctx is done.
func (t *Table) Close(ctx context.Context) error {
	t.mu.Lock()
	t.closed = true
	running := make([]*Job, 0, len(t.jobs))
	for _, j := range t.jobs {
		if j.endSeq == 0 {
			running = append(running, j)
		}
	}
	t.mu.Unlock()
	for _, j := range running {
		j.cancel()
	}
	t.notify()
	over := make(chan struct{})
	go func() { // ends with the last job
		t.wait.Wait()
		close(over)
	}()
	select {
	case <-over:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("jobs still run: %w", ctx.Err())
	}
}

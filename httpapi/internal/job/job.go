// Package job runs backups and restores as jobs: each has an identifier from its
// start, progress that only rises, exactly one last state, and can be cancelled.
// What was started survives a restart in a directory of small files.
package job

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"github.com/cairn-backup/cairn/engine/progress"
)

// A Kind says what a job does.
type Kind string

// The kinds of jobs.
const (
	Creation    Kind = "creation"    // takes a backup; any number at once
	Restoration Kind = "restoration" // replaces the data; alone on it, so it waits for creations
)

// A State says how far a job is. The texts are those of the HTTP API.
type State string

// The states of a job. The last three are final.
const (
	Initialized State = "INITIALIZED"
	Running     State = "IN-PROGRESS"
	Completed   State = "COMPLETED"
	Failed      State = "FAILED"
	Canceled    State = "CANCELED"

	// CutOff is the state of a job that a process before this one started and
	// did not end. Whoever knows what became of it says so: see Table.Settle.
	CutOff State = "UNKNOWN"
)

// Final reports whether a job in this state is over.
func (s State) Final() bool { return s == Completed || s == Failed || s == Canceled }

// Errors of this package.
var (
	// ErrBusy says that a job may not run now: its text says beside which.
	ErrBusy = errors.New("busy")

	// ErrIdle says that no such job is in progress.
	ErrIdle = errors.New("not in progress")

	// ErrTooLate says that a job had ended otherwise before it was cancelled.
	ErrTooLate = errors.New("too late to cancel")

	// ErrClosed says that the table takes no more jobs.
	ErrClosed = errors.New("shutting down")
)

// A Subject is what is known of the backup that a job makes or restores.
type Subject struct {
	Device   string `json:"device,omitempty"`   // the machine it is of
	Platform string `json:"platform,omitempty"` // GOOS/GOARCH of it
	Bytes    int64  `json:"bytes"`              // that a restore of it writes; of a creation, read so far
}

// A Status is a job at one moment.
type Status struct {
	Kind    Kind      `json:"kind"`
	ID      string    `json:"id"` // of the backup
	State   State     `json:"state"`
	Percent int       `json:"percent"` // 0 to 99; 100 only with Completed
	Subject Subject   `json:"subject"`
	Token   string    `json:"token"`           // random: tells this job from others of its ID
	Error   string    `json:"error,omitempty"` // why it failed
	Started time.Time `json:"started"`
	Ended   time.Time `json:"ended,omitzero"`
}

// A Run does the work of a job. It ends soon after ctx, and everything that it
// did is taken back when it returns an error.
type Run func(ctx context.Context, j *Job) error

// A Job is one run, from its start for as long as it is remembered. It is safe
// for concurrent use.
type Job struct {
	table  *Table
	cancel context.CancelFunc
	done   chan struct{} // closed after the final state is set
	cutOff bool          // it is of a process before this one, and nobody knows its end
	endSeq uint64        // order among the jobs that ended, 0: it runs; guarded by table.mu

	mu          sync.Mutex // guards what follows
	status      Status
	err         error // of the run
	totalBytes  int64
	totalFiles  int64
	totalsKnown bool
	changed     chan struct{} // closed and replaced by each change
}

// Status returns the job as it is now.
func (j *Job) Status() Status {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.status
}

// Wait waits until the job has ended and returns its last status and the error
// of its run, or ctx's.
func (j *Job) Wait(ctx context.Context) (Status, error) {
	select {
	case <-j.done:
	case <-ctx.Done():
		return j.Status(), ctx.Err()
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.status, j.err
}

// SetTotals says how much there is to do; until then the percentage stays 0,
// unless the events of Progress tell.
func (j *Job) SetTotals(bytes, files int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.totalBytes, j.totalFiles, j.totalsKnown = bytes, files, true
}

// SetBytes says how many bytes the backup has.
func (j *Job) SetBytes(n int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.status.Subject.Bytes = n
}

// fileCost is how many bytes of content an entry counts for in the percentage.
const fileCost = 4 << 10

// Progress takes the events of the engine; it is a progress.Func.
func (j *Job) Progress(e progress.Event) {
	t, ok := e.(progress.Tick)
	if !ok {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.status.State.Final() {
		return
	}
	bytes, files := j.totalBytes, j.totalFiles
	if !j.totalsKnown {
		bytes, files = t.Bytes.Total, t.Files.Total
	}
	if j.status.Kind == Creation {
		j.status.Subject.Bytes = max(j.status.Subject.Bytes, t.Bytes.Done)
	}
	if total := float64(bytes) + fileCost*float64(files); total > 0 {
		done := float64(t.Bytes.Done) + fileCost*float64(t.Files.Done)
		j.status.Percent = max(j.status.Percent, min(99, int(99*done/total)))
	}
	j.notify()
}

// notify wakes those who watch. The caller holds mu.
func (j *Job) notify() {
	close(j.changed)
	j.changed = make(chan struct{})
	j.table.notify()
}

// run does the work and sets the final state.
func (j *Job) run(ctx context.Context, run Run) {
	if j.status.Kind == Restoration { // which never changes
		if err := j.table.alone(ctx); err != nil {
			j.end(err, true)
			return
		}
	}
	j.mu.Lock()
	j.status.State = Running
	j.notify()
	j.mu.Unlock()
	err := j.contain(ctx, run)
	j.end(err, ctx.Err() != nil && errors.Is(err, context.Canceled))
}

// contain runs run; a panic of it is an error.
func (j *Job) contain(ctx context.Context, run Run) (err error) {
	defer func() {
		if p := recover(); p != nil {
			j.table.opts.Logger.ErrorContext(ctx, "a job panicked",
				slog.String("id", j.status.ID), slog.Any("panic", p), slog.String("stack", string(debug.Stack())))
			err = fmt.Errorf("internal error: %v", p)
		}
	}()
	return run(ctx, j)
}

// end sets the final state and makes it durable before anyone sees it.
func (j *Job) end(err error, canceled bool) {
	s := j.Status()
	s.Ended = time.Now()
	switch {
	case err == nil:
		s.State, s.Percent = Completed, 100
	case canceled:
		s.State, s.Error = Canceled, "canceled"
	default:
		s.State, s.Error = Failed, err.Error()
	}
	j.table.write(s)
	j.mu.Lock()
	j.status, j.err = s, err
	forgotten := j.table.ended(j, s)
	j.notify()
	j.mu.Unlock()
	j.table.remove(forgotten...)
	j.table.opts.Ended(s)
	close(j.done)
}

// Done is closed when the job has ended.
func (j *Job) Done() <-chan struct{} { return j.done }

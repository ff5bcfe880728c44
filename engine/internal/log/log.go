// Package log is the repository's commit log: numbered, immutable, signed
// records, each created only if absent, whose fold is the only source of truth
// about what the repository holds. The rules, by the names that docs/design.md
// gives them:
//
//   - R1, append: record m+1 is written only by a Log that fetched record m
//     itself, found the chain unbroken, and checked that every effect holds in
//     the state at m. If m+1 is taken it is read, folded in, and everything is
//     checked again.
//   - R2, rely: what a snapshot or session needs is live at m, or added by the
//     same record and named by no Doom that this Log has read.
//   - R5, settle: a record that was sent is settled before anyone is told,
//     whatever happens to the caller's context.
//   - R6, whole: a store that was rolled back, a hole, a broken chain and a
//     damaged record are typed errors, and make the log read-only at the last
//     good state.
//
// No lock is taken in the store and no clock is trusted for safety.
package log

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/chunk/pack"
	"github.com/cairn-backup/cairn/chunk/seal"
	"github.com/cairn-backup/cairn/engine/internal/layout"
)

// Options says how a log is opened.
type Options struct {
	Backend    backend.Backend
	Repository [16]byte
	Meta       seal.Key
	Genesis    Hash // of the config object, which is record 0
	Keys       Keys // public signing keys from the config

	// Signer signs what is written. Nil: read only.
	Signer *Signer
	// Writer names host and program in records, for people.
	Writer string
	// Dir is an existing directory for the local state: a hint by which the
	// next Open is faster and knows a store that was rolled back. "": none.
	Dir string
	// ReadOnly writes nothing, neither to the store nor to Dir.
	ReadOnly bool
	// Features are those that the program knows, beyond format 1.
	Features []string

	// Now tells the time that records carry. It serves policy, never safety.
	// Default: time.Now.
	Now func() time.Time
	// Settle is for how long the outcome of a record that was sent is sought.
	// Default: 2 minutes, several times what the retries of a backend take.
	Settle time.Duration
	// Relist is after how long a machine that opens from its local state lists
	// the store around the head again before it appends: a record that was taken
	// away with later ones behind it shows in no other way. Default: a day.
	Relist time.Duration
	// Look was begun at the same store, and is used by an Open without local state.
	// Nil: it begins one.
	Look *Look
}

func (o Options) withDefaults() Options {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Settle <= 0 {
		o.Settle = 2 * time.Minute
	}
	if o.Relist <= 0 {
		o.Relist = 24 * time.Hour
	}
	return o
}

// checkpointEvery is how many records lie between two checkpoints, and how
// many an Open reads before it writes one itself.
const checkpointEvery = 256

// A Log is an open commit log. It is safe for concurrent use; appends and
// refreshes of one Log wait for each other.
type Log struct {
	opts Options

	// op is held by whoever reads or appends records. A channel, so that
	// waiting for it ends with the context.
	op chan struct{}
	// confirmed is the record that this Log has fetched from the store, by the
	// operation under way or by the session that it belongs to, and listed whether
	// the store need not be listed around the head any more. Both belong to the
	// holder of op, and so does openedAt: when Open ended, until something else is
	// done.
	confirmed Position
	listed    bool
	openedAt  time.Time
	evidence  []layout.CheckpointName // checkpoints of records that are not there
	saved     Position                // of the local state

	mu      sync.RWMutex // guards what follows
	state   *State
	problem error
	ignored []IgnoredError
	doomed  map[backend.Key]struct{} // packs and segments that a Doom names which this Log has read
	passed  map[uint64]Hash          // of the records that the state went through here; some of them
	closed  bool
	readAt  time.Time // when the log was read to its end

	warm bool // opened from the local state, and found whole
}

// Open reads the log: from the local state or the newest checkpoint on, or
// from the first record.
//
// A log with which something is wrong is opened too, read-only at its last
// good state: see Problem. Errors are those of the backend, and
// seal.ErrNewerFormat.
func Open(ctx context.Context, opts Options) (*Log, error) {
	look := opts.Look
	opts.Look = nil // what it saw is old when the log is opened again
	l := newLog(opts.withDefaults())
	from, err := l.open(ctx, look)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	if head := l.Head(); l.problem == nil && head.N-from > checkpointEvery && l.writable() == nil {
		_ = l.writeCheckpoint(ctx) // a hint: the next to append may write it
	}
	l.openedAt = time.Now()
	l.readAt = l.openedAt
	return l, nil
}

// Warm reports whether the log was opened from the local state, and what it
// says was found in the store.
func (l *Log) Warm() bool { return l.warm }

func newLog(opts Options) *Log {
	return &Log{opts: opts, op: make(chan struct{}, 1), state: NewState(opts.Genesis, opts.Keys), doomed: make(map[backend.Key]struct{}), passed: make(map[uint64]Hash)}
}

// open sets state and problem, and returns the record from which it read on.
func (l *Log) open(ctx context.Context, look *Look) (from uint64, err error) {
	known := l.loadLocal()
	if known != nil {
		l.state = known
		from = known.pos.N
		l.pass(known.pos)
		err = l.advance(ctx)
		if err == nil || !isProblem(err) {
			l.warm = err == nil && from > 0
			l.listed = l.warm && l.listedLately()
			return from, err
		}
		known = l.state
	}
	// No local state, or one that does not lead to the head of the store.
	problem := err
	if from, err = l.openCold(ctx, look); err != nil {
		return from, err
	}
	var back *RolledBackError
	switch {
	case errors.As(problem, &back):
		// What lies in the store is whole in itself, but known to be old.
		back.Found = l.state.pos
		l.problem = back
	case known != nil && l.state.pos.N < known.pos.N:
		l.state, l.problem = known, problem
	}
	return from, nil
}

// openCold sets state and problem from the store alone, of which look, if there is
// one, has read a part.
func (l *Log) openCold(ctx context.Context, look *Look) (from uint64, err error) {
	l.confirmed, l.listed = Position{}, false
	clear(l.passed)
	if look == nil {
		look = LookAt(ctx, l.opts.Backend)
		defer look.Stop()
	}
	l.state, err = l.newestCheckpoint(ctx, look)
	if err != nil {
		return 0, err
	}
	from = l.state.pos.N
	known, err := look.listing.wait()
	if newest, _ := look.newest(); newest.N != from {
		known, err = list(ctx, l.opts.Backend, from+1)
	}
	if err != nil {
		return from, err
	}
	err = l.advanceTo(ctx, known.top)
	if err == nil {
		err = l.checkWhole(ctx, known)
	}
	if err != nil && !isProblem(err) {
		return from, err
	}
	l.problem = err
	return from, nil
}

// isProblem reports whether err is about the log itself.
func isProblem(err error) bool {
	return errors.Is(err, ErrRolledBack) || errors.Is(err, ErrLogHole) || errors.Is(err, ErrLogDamaged)
}

// lock waits for the right to read or append records.
func (l *Log) lock(ctx context.Context) error {
	if err := backend.Ended(ctx); err != nil {
		return err
	}
	select {
	case l.op <- struct{}{}:
	case <-ctx.Done():
		return backend.Ended(ctx)
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.closed {
		<-l.op
		return ErrClosed
	}
	return nil
}

// lockAnew is as lock for an operation of its own: what was fetched before does
// not count.
func (l *Log) lockAnew(ctx context.Context) error {
	if err := l.lock(ctx); err != nil {
		return err
	}
	l.confirmed, l.openedAt = Position{}, time.Time{}
	return nil
}

func (l *Log) unlock() { <-l.op }

// Refresh reads every record behind the head known so far. If it finds that
// something is wrong with the log it returns the Problem, and the State stays
// at the last good record. Right after Open it does not fetch the head's record
// again, since Open did: it asks for the one behind it.
func (l *Log) Refresh(ctx context.Context) error {
	if err := l.lock(ctx); err != nil {
		return err
	}
	defer l.unlock()
	if l.openedAt.IsZero() || time.Since(l.openedAt) >= justOpened {
		l.confirmed = Position{}
	}
	l.openedAt = time.Time{}
	if err := l.Problem(); err != nil {
		return err
	}
	return l.refresh(ctx)
}

// justOpened is for how long the first session takes the word of Open.
const justOpened = 5 * time.Second

// Begin is as Refresh, at the begin of a session that goes on with Continue.
// Right after Open it asks the store nothing: Open did, and a record that came
// since is found by the first Continue, which tries to create that very record.
func (l *Log) Begin(ctx context.Context) error {
	if err := l.lock(ctx); err != nil {
		return err
	}
	fresh := !l.openedAt.IsZero() && time.Since(l.openedAt) < justOpened && l.Problem() == nil
	l.openedAt = time.Time{}
	l.unlock()
	if fresh {
		return nil
	}
	return l.Refresh(ctx)
}

// Recent reports whether the log was read to its end a moment ago.
func (l *Log) Recent() bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return !l.readAt.IsZero() && time.Since(l.readAt) < justOpened
}

func (l *Log) refresh(ctx context.Context) error {
	err := l.advance(ctx)
	if isProblem(err) {
		l.setProblem(err)
	}
	if err == nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.readAt = time.Now()
	}
	return err
}

func (l *Log) setProblem(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.problem = err
}

// View calls f with the current State, which does not change meanwhile. f must
// neither keep nor change it, and be quick. View returns f's error.
func (l *Log) View(f func(s *State) error) error {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return f(l.state)
}

// Head returns the last record that was read.
func (l *Log) Head() Position {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.state.pos
}

// HashAt returns the hash of record n of this log: of one that led to the head
// here, else of the object that is there in the store; backend.ErrNotExist if
// there is none.
func (l *Log) HashAt(ctx context.Context, n uint64) (Hash, error) {
	if head := l.Head(); n == head.N {
		return head.Hash, nil
	}
	if n == 0 {
		return l.opts.Genesis, nil
	}
	l.mu.RLock()
	hash, ok := l.passed[n]
	l.mu.RUnlock()
	if ok {
		return hash, nil
	}
	object, err := l.get(ctx, n)
	if err != nil {
		return Hash{}, err
	}
	return HashOf(object), nil
}

// Problem returns what is wrong with the log: an error that errors.Is finds to
// be ErrRolledBack, ErrLogHole or ErrLogDamaged, or nil. While there is one
// nothing is appended, and the State is that of the last good record. Once
// found it stays until a Repair has run or the log is opened anew.
func (l *Log) Problem() error {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.problem
}

// DoomedSince reports whether a Doom that this Log has read since it was
// opened names that pack, by its number or by its key. Such a pack may be gone
// although no record added it.
func (l *Log) DoomedSince(id pack.ID) bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	_, ok := l.doomed[layout.Pack(id)]
	return ok
}

// Ignored returns the effects that were left out of the records this Log has
// read, at most the last 1,000.
func (l *Log) Ignored() []IgnoredError {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return slices.Clone(l.ignored)
}

const maxIgnored = 1000

// writable returns nil if records may be appended.
func (l *Log) writable() error {
	switch problem := l.Problem(); {
	case problem != nil:
		return fmt.Errorf("%w: %w", ErrReadOnlyLog, problem)
	case l.opts.ReadOnly:
		return fmt.Errorf("%w: it was opened read-only", ErrReadOnlyLog)
	case l.opts.Signer == nil:
		return fmt.Errorf("%w: there is no signing key", ErrReadOnlyLog)
	}
	return nil
}

// Close saves the local state, unless the log has a problem, and releases the
// Log. It waits for operations under way. A second Close returns ErrClosed.
func (l *Log) Close() error {
	l.op <- struct{}{}
	defer l.unlock()
	l.mu.Lock()
	again := l.closed
	l.closed = true
	l.mu.Unlock()
	if again {
		return ErrClosed
	}
	return l.saveLocal()
}

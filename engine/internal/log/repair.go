package log

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/engine/internal/layout"
	"github.com/cairn-backup/cairn/manifest"
)

// A Repair is the plan for a log with a problem. PlanRepair reads and fills it
// in, Run carries it out.
//
// No record can be replaced or deleted, and an object that cannot be read may
// be readable to someone else, so a log is mended by going on behind what is
// broken. Let k be the highest record that the store has. The repair folds
// what is known into one state: the last good state of this machine, and above
// it every record that opens, in order, whether or not it follows the one
// before. It stores that state as a repaired checkpoint
// (checkpoints/<k>-<hash>-repaired), where hash is that of the object at
// log/<k> as it is stored now, readable or not, and writes record k+1 with the
// effect Repaired, which names the checkpoint by the hash of its body. Both are
// signed by the admin key of the config. From then on:
//
//   - Opening without a local state starts at the newest checkpoint, so it
//     never reads what is broken below.
//   - Whoever comes to record k+1 another way, because it can still read what
//     others could not, takes the state of the repaired checkpoint too: all
//     have one state behind record k+1.
//   - If record k+1 is not there yet, the next append completes the repair. If
//     it is there and does not name the checkpoint, someone who saw no damage
//     was faster, and the checkpoint counts for nothing.
//   - Checkpoints of records above k that are gone are named in the repaired
//     one as void, so they are no evidence of a hole any more.
//
// In the fold of a repair needs may be dead: a snapshot whose packs were added
// by a lost record stays visible, and reading it finds out what is missing.
// No pack gets a number that a lost record may have given away: for each one
// MaxPacks numbers are left out.
//
// A store that was rolled back, but is whole in itself, is accepted by
// forgetting this machine's local state; nothing is stored then.
type Repair struct {
	Problem error    // what keeps the log from being used; nil if nothing does
	Base    Position // up to here everything is known
	Head    uint64   // the highest record in the store

	Lost   Ranges // records above Base that are missing or do not open: their effects are gone
	Broken Ranges // records above Base that open but do not follow the one before
	// Covered are records at or below Base that are missing or damaged. What
	// they said is known, so nothing is lost with them.
	Covered Ranges

	Snapshots []manifest.ID // that need packs of which no readable record tells
	Gone      []manifest.ID // seen before, or known from a checkpoint, and not in the repaired state

	Write  bool // a repaired checkpoint and a record are to be written
	Forget bool // the local state of this machine is to be forgotten

	log   *Log
	state *State // after the repair, at record Head
}

// String describes the plan in a few lines.
func (r *Repair) String() string {
	var s strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&s, format+"\n", args...) }
	if r.Problem == nil {
		line("The log can be used up to its head, record %d.", r.Head)
	} else {
		line("%v.", r.Problem)
		line("Everything is known up to record %d; the store has records up to %d.", r.Base.N, r.Head)
	}
	for _, g := range []struct {
		what    string
		records Ranges
	}{
		{"Lost with all they said", r.Lost},
		{"Not in one chain with those before, but used", r.Broken},
		{"Damaged or missing, but what they said is known", r.Covered},
	} {
		if len(g.records) > 0 {
			line("%s: records %v.", g.what, g.records)
		}
	}
	for _, id := range r.Snapshots {
		line("Snapshot %v needs packs that no readable record names.", id)
	}
	for _, id := range r.Gone {
		line("Snapshot %v is known, but the record that holds it is gone.", id)
	}
	switch {
	case r.Write:
		line("The log goes on behind record %d from a repaired checkpoint.", r.Head)
	case r.Forget:
		line("The store is accepted as it is; the local state is forgotten.")
	default:
		line("There is nothing to repair.")
	}
	return s.String()
}

// PlanRepair finds out what is wrong with the log and what can be done. It
// reads every record and changes nothing.
func (l *Log) PlanRepair(ctx context.Context) (*Repair, error) {
	if err := l.lockAnew(ctx); err != nil {
		return nil, err
	}
	defer l.unlock()
	r, err := l.planRepair(ctx)
	if err != nil {
		return nil, fmt.Errorf("plan repair of the log: %w", err)
	}
	return r, nil
}

func (l *Log) planRepair(ctx context.Context) (*Repair, error) {
	cold, err := l.again(ctx)
	if err != nil {
		return nil, err
	}
	r := &Repair{Problem: l.Problem(), log: l}
	base := l.state
	if r.Forget = errors.Is(r.Problem, ErrRolledBack); r.Forget || cold.state.pos.N > base.pos.N {
		base = cold.state
	}
	r.Base, r.state = base.pos, base.Clone()
	if r.Head, err = l.top(ctx); err != nil {
		return nil, err
	}
	if err := l.salvage(ctx, r); err != nil {
		return nil, err
	}
	void := slices.DeleteFunc(slices.Clone(cold.evidence), func(c layout.CheckpointName) bool { return c.N <= r.Head || cold.void(c) })
	r.Write = len(r.Lost)+len(r.Broken)+len(void) > 0 || r.Problem != nil && !r.Forget
	next, err := l.missed(ctx, r, void)
	if err != nil {
		return nil, err
	}
	if r.Write {
		gone := r.Head // and records above it that were there once
		for _, c := range void {
			gone = max(gone, c.N)
		}
		gone += r.Lost.Count() - r.Head
		r.state.next = min(max(r.state.next, next)+min(gone, maxPackNumber/MaxPacks)*MaxPacks, maxPackNumber)
		r.state.repair = &repairMark{n: r.Head, void: void}
	}
	r.state.lenient = false
	if r.state.pos.Hash.IsZero() {
		return nil, fmt.Errorf("record %d: %w", r.Head, backend.ErrTooLarge)
	}
	return r, nil
}

// again opens the same log without local state. The caller holds op.
func (l *Log) again(ctx context.Context) (*Log, error) {
	cold := newLog(l.opts)
	_, err := cold.openCold(ctx, nil)
	return cold, err
}

// top returns the highest record of the store, 0 if it has none.
func (l *Log) top(ctx context.Context) (uint64, error) {
	var top uint64
	for info, err := range l.opts.Backend.List(ctx, layout.Records) {
		if err != nil {
			return 0, err
		}
		if n, err := layout.ParseRecord(info.Key); err == nil {
			top = max(top, n)
		}
	}
	return top, nil
}

// salvage reads all records up to r.Head and folds those above r.Base into
// r.state, as far as they can be read.
func (l *Log) salvage(ctx context.Context, r *Repair) error {
	var lost, broken, covered []uint64
	var last Hash // of the record before; zero if that cannot be told
	r.state.lenient = true
	err := l.scan(ctx, r.Head, func(n uint64, f fetched) error {
		if errors.Is(f.err, errNewerEffect) {
			return f.err
		}
		// Where the base is known, the chain goes by what the record was.
		if n == r.Base.N+1 {
			last = r.Base.Hash
		}
		unreadable := f.missing || f.err != nil || r.state.Roles(f.rec.Signer) == 0
		switch {
		case n <= r.Base.N && (f.missing || f.err != nil || n == r.Base.N && f.hash != r.Base.Hash):
			covered = append(covered, n)
		case n <= r.Base.N:
		case unreadable:
			lost = append(lost, n)
		default:
			if !last.IsZero() && f.rec.Prev != last {
				broken = append(broken, n)
			}
			r.state.fold(f.rec)
		}
		if last = f.hash; unreadable {
			last = Hash{}
		}
		if n == r.Head {
			r.state.pos = Position{N: n, Hash: f.hash}
		}
		return nil
	})
	r.Lost, r.Broken, r.Covered = RangesOf(lost), RangesOf(broken), RangesOf(covered)
	for info := range r.state.Snapshots() {
		if len(r.state.Dead(info.Needs)) > 0 {
			r.Snapshots = append(r.Snapshots, info.Summary.ID)
		}
	}
	return err
}

// missed finds snapshots that were known and are not in r.state, and the
// highest number of a next pack that was known.
func (l *Log) missed(ctx context.Context, r *Repair, void []layout.CheckpointName) (next uint64, err error) {
	others := []*State{l.state}
	if known := l.loadLocal(); known != nil {
		others = append(others, known)
	}
	for _, c := range void {
		s, err := l.checkpoint(ctx, c)
		if err != nil {
			return 0, err
		}
		if s != nil {
			others = append(others, s)
		}
	}
	seen := make(map[manifest.ID]bool)
	for _, s := range others {
		// An older state of the same history has nothing to tell.
		if s.pos.N <= r.Base.N && !r.Forget {
			continue
		}
		for info := range s.Snapshots() {
			id := info.Summary.ID
			if known, _ := r.state.snapOf.get(id); known == nil && !seen[id] {
				seen[id] = true
				r.Gone = append(r.Gone, id)
			}
		}
		next = max(next, s.next)
	}
	return next, nil
}

// scan fetches records 1 to last and calls f for each, in order.
func (l *Log) scan(ctx context.Context, last uint64, f func(n uint64, found fetched) error) error {
	for first := uint64(1); first <= last; first += maxAhead {
		found, err := l.fetchMany(ctx, first, int(min(maxAhead, last-first+1))) //nolint:gosec // small
		if err != nil {
			return err
		}
		for i := range found {
			if err := f(first+uint64(i), found[i]); err != nil { //nolint:gosec // an index
				return err
			}
		}
	}
	return nil
}

// Run carries the plan out: afterwards the log has no Problem and takes
// records. It takes the admin key of the config. If the store has changed
// since the plan was made, it is ErrConflict and nothing is written.
func (r *Repair) Run(ctx context.Context) error {
	l := r.log
	if err := l.lockAnew(ctx); err != nil {
		return err
	}
	defer l.unlock()
	if err := r.run(ctx); err != nil {
		return fmt.Errorf("repair log: %w", err)
	}
	return nil
}

func (r *Repair) run(ctx context.Context) error {
	l := r.log
	switch top, err := l.top(ctx); {
	case err != nil:
		return err
	case top != r.Head:
		return conflict("the log has grown to record %d since the plan was made", top)
	case !r.Write && r.Problem == nil && len(r.Covered) == 0:
		return nil
	case r.Forget && !r.Write:
		return r.accept()
	case l.opts.ReadOnly || l.opts.Signer == nil:
		return fmt.Errorf("%w: a repair writes to the store", ErrReadOnlyLog)
	case !r.Write:
		// Others should not need the damaged records either.
		return l.writeCheckpoint(ctx)
	case l.opts.Signer.Public() != l.opts.Keys.Admin || l.opts.Signer.roles&Admin == 0:
		return fmt.Errorf("%w: it takes the admin key of the config", ErrRole)
	}
	if err := r.putCheckpoint(ctx); err != nil {
		return err
	}
	if err := r.accept(); err != nil {
		return err
	}
	// The record that goes on from the checkpoint; append adds its effect.
	_, err := l.append(ctx, func(*State) ([]Effect, error) { return nil, nil })
	return err
}

// accept makes the planned state the log's.
func (r *Repair) accept() error {
	l := r.log
	if !l.opts.ReadOnly {
		if err := l.forgetLocal(); err != nil {
			return err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.state, l.problem = r.state, nil
	l.confirmed, l.listed = r.state.pos, true // this repair has read and listed all there is
	return nil
}

// putCheckpoint stores the repaired checkpoint.
func (r *Repair) putCheckpoint(ctx context.Context) error {
	l := r.log
	body, err := marshalState(r.state)
	if err != nil {
		return err
	}
	object, err := sealCheckpoint(l.opts.Meta, l.opts.Repository, l.opts.Signer, r.Head, body)
	if err != nil {
		return err
	}
	name := layout.CheckpointName{N: r.Head, Hash: [16]byte(r.state.pos.Hash[:16]), Repaired: true}
	err = l.opts.Backend.Put(ctx, name.Key(), object)
	if errors.Is(err, backend.ErrExist) {
		if body, err = r.replaceDamaged(ctx, name, object, body); err != nil {
			return err
		}
		err = nil
	}
	r.state.repair.body = HashOf(body)
	return err
}

// replaceDamaged removes a repaired checkpoint that does not open, which is no
// copy of anything, and stores ours. One that opens was made meanwhile.
func (r *Repair) replaceDamaged(ctx context.Context, name layout.CheckpointName, object, body []byte) ([]byte, error) {
	l := r.log
	switch s, err := l.checkpoint(ctx, name); {
	case err != nil:
		return nil, err
	case s != nil && s.repair.body == HashOf(body):
		return body, nil // put by an earlier run of this plan
	case s != nil:
		return nil, conflict("the log was repaired meanwhile")
	}
	if err := l.opts.Backend.Delete(ctx, name.Key()); err != nil {
		return nil, err
	}
	return body, l.opts.Backend.Put(ctx, name.Key(), object)
}

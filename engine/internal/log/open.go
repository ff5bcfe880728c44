package log

import (
	"context"
	"errors"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/chunk/seal"
	"github.com/cairn-backup/cairn/engine/internal/layout"
)

// newestCheckpoint returns the state in the newest checkpoint that can be
// trusted and whose record is in the store, or the state before the first
// record. The checkpoints of records that are not there go to l.evidence.
func (l *Log) newestCheckpoint(ctx context.Context, look *Look) (*State, error) {
	l.evidence = nil
	names, err := look.names.wait()
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		s, err := l.lookedAt(ctx, look, name)
		if err != nil {
			return nil, err
		}
		if s == nil {
			continue // damaged, forged or of another history: there are others
		}
		at := fetched{hash: l.opts.Genesis}
		switch {
		case name.N == 0:
		case look.is(name):
			object, err2 := look.record.wait()
			at, err = l.opened(name.N, object, err2)
		default:
			at, err = l.fetch(ctx, name.N)
		}
		switch {
		case err != nil:
			return nil, err
		case at.missing:
			l.evidence = append(l.evidence, name)
			continue
		case at.hash != s.pos.Hash:
			continue
		}
		if name.Repaired {
			if holds, err := l.repairHolds(ctx, s); err != nil {
				return nil, err
			} else if !holds {
				continue
			}
		}
		l.confirmed = s.pos
		return s, l.knownFeatures(s)
	}
	return NewState(l.opts.Genesis, l.opts.Keys), nil
}

// checkpoint returns the state in one checkpoint, or nil if it is not there,
// does not open, or is not signed by a key of the config; a repaired one, not
// by its admin key. The error is that of the store, or says that the format is
// newer.
func (l *Log) checkpoint(ctx context.Context, name layout.CheckpointName) (*State, error) {
	object, err := backend.ReadAll(ctx, l.opts.Backend, name.Key(), maxCheckpoint)
	return l.openedCheckpoint(name, object, err)
}

// lookedAt is checkpoint, of what look has read if it is that one.
func (l *Log) lookedAt(ctx context.Context, look *Look, name layout.CheckpointName) (*State, error) {
	if !look.is(name) {
		return l.checkpoint(ctx, name)
	}
	object, err := look.checkpoint.wait()
	return l.openedCheckpoint(name, object, err)
}

// openedCheckpoint opens what reading a checkpoint returned.
func (l *Log) openedCheckpoint(name layout.CheckpointName, object []byte, err error) (*State, error) {
	if errors.Is(err, backend.ErrNotExist) || errors.Is(err, backend.ErrTooLarge) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	signer, body, err := openCheckpoint(l.opts.Meta, l.opts.Repository, name, object)
	if err != nil || !l.opts.Keys.has(signer) || name.Repaired && signer != l.opts.Keys.Admin {
		return nil, nil //nolint:nilerr // a checkpoint is a hint: one that cannot be used is passed over
	}
	s, err := stateOf(name, body)
	if errors.Is(err, seal.ErrNewerFormat) {
		return nil, err
	}
	if err != nil {
		return nil, nil //nolint:nilerr // as above
	}
	return s, nil
}

// repairHolds reports whether the record behind a repaired checkpoint names
// it, or there is none yet. Someone who did not see the damage may have been
// faster; then the log goes on without that repair.
func (l *Log) repairHolds(ctx context.Context, s *State) (bool, error) {
	next, err := l.fetch(ctx, s.pos.N+1)
	if err != nil {
		return false, err
	}
	return next.missing || next.err == nil && namesRepair(next.rec, s.repair), nil
}

// namesRepair reports whether rec is the record that goes on from the repaired
// checkpoint of that mark.
func namesRepair(rec Record, mark *repairMark) bool {
	r, ok := repairOf(rec)
	return ok && rec.N == mark.n+1 && r.N == mark.n && r.Body == mark.body
}

func repairOf(rec Record) (Repaired, bool) {
	for _, e := range rec.Effects {
		if r, ok := e.(Repaired); ok {
			return r, true
		}
	}
	return Repaired{}, false
}

// rebase puts the state of a repaired checkpoint in the place of ours if rec
// goes on from it and we came here by another way: from records that others
// could not read.
func (l *Log) rebase(ctx context.Context, rec Record) error {
	r, ok := repairOf(rec)
	s := l.state
	if !ok || r.N+1 != rec.N || s.Roles(rec.Signer)&Admin == 0 || s.repair != nil && namesRepair(rec, s.repair) {
		return nil
	}
	name := layout.CheckpointName{N: r.N, Hash: [16]byte(rec.Prev[:16]), Repaired: true}
	base, err := l.checkpoint(ctx, name)
	if err != nil {
		return err
	}
	if base == nil || base.pos.Hash != rec.Prev || !namesRepair(rec, base.repair) {
		return &DamagedError{N: rec.N, Err: errors.New("the repaired checkpoint that it names is not there")}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.state = base
	clear(l.passed)
	return nil
}

// writeCheckpoint stores the state as a checkpoint. It is a hint, and others
// may write the same one at the same time. Those of keys that the config does
// not name would be passed over.
func (l *Log) writeCheckpoint(ctx context.Context) error {
	if !l.opts.Keys.has(l.opts.Signer.Public()) {
		return nil
	}
	var body []byte
	err := l.View(func(s *State) (err error) {
		body, err = marshalState(s)
		return err
	})
	if err != nil {
		return err
	}
	head := l.Head()
	object, err := sealCheckpoint(l.opts.Meta, l.opts.Repository, l.opts.Signer, head.N, body)
	if err != nil {
		return err
	}
	err = l.opts.Backend.Put(ctx, layout.Checkpoint(head.N, head.Hash), object)
	if errors.Is(err, backend.ErrExist) {
		return nil
	}
	return err
}

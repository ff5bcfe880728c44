package log

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/engine/internal/layout"
)

// ErrCheckpoint is wrapped by findings about checkpoints: one does not open, is
// signed by no key of the config, or does not say what the records say.
var ErrCheckpoint = errors.New("checkpoint is damaged or wrong")

// A Finding is an object of the log that is not as it should be.
type Finding struct {
	Key backend.Key
	Err error // errors.Is finds ErrLogDamaged, ErrLogHole or ErrCheckpoint
	// Mended says that it is a record behind which the log was repaired: what it
	// says, as far as it was known, is in the repaired checkpoint.
	Mended bool
}

// Verify reads every record from the first on and computes every checkpoint
// again. It changes nothing, and the Log stays usable meanwhile. Records that
// were covered by a checkpoint or a repair long ago are reported as well; only
// Problem says whether the log can be used. The error is that of the store.
func (l *Log) Verify(ctx context.Context) ([]Finding, error) {
	head := l.Head()
	v := &verifier{log: newLog(l.opts)}
	names, err := checkpointNames(ctx, v.log.opts.Backend)
	if err != nil {
		return nil, fmt.Errorf("verify log: %w", err)
	}
	slices.Reverse(names)                   // oldest first, and at one record a repaired one last
	for len(names) > 0 && names[0].N == 0 { // a repair of a log that lost all its records
		if err := v.checkpoint(ctx, names[0], l.opts.Genesis); err != nil {
			return nil, fmt.Errorf("verify log: %w", err)
		}
		names = names[1:]
	}
	v.names = names
	err = v.log.scan(ctx, head.N, func(n uint64, f fetched) error { return v.record(ctx, n, f) })
	if err != nil {
		return nil, fmt.Errorf("verify log: %w", err)
	}
	for _, name := range v.names {
		if v.log.void(name) {
			continue
		}
		f, err := v.log.fetch(ctx, name.N) // it may be newer than our head
		if err != nil {
			return nil, fmt.Errorf("verify log: %w", err)
		}
		if f.missing {
			v.find(name.Key(), fmt.Errorf("%w: there is no record %d", ErrCheckpoint, name.N))
		}
	}
	return v.findings, nil
}

type verifier struct {
	log      *Log                    // replays from the first record
	names    []layout.CheckpointName // not looked at yet
	lost     bool                    // the state is not known since a damaged record
	findings []Finding
}

func (v *verifier) find(key backend.Key, err error) {
	v.findings = append(v.findings, Finding{Key: key, Err: err})
}

// mended marks what was found of records, all of which are below a repair.
func (v *verifier) mended() {
	for i := range v.findings {
		if _, err := layout.ParseRecord(v.findings[i].Key); err == nil {
			v.findings[i].Mended = true
		}
	}
}

// record takes record n and the checkpoints after it.
func (v *verifier) record(ctx context.Context, n uint64, f fetched) error {
	l := v.log
	var err error
	switch {
	case f.missing:
		err = &HoleError{N: n, Above: n + 1}
	case f.err != nil:
		err = &DamagedError{N: n, Err: f.err}
	default:
		if repaired, ok := repairOf(f.rec); ok && repaired.N+1 == n {
			err = l.rebase(ctx, f.rec)
			v.lost = v.lost && err != nil
			if err == nil && l.state.repair != nil && namesRepair(f.rec, l.state.repair) {
				v.mended()
			}
		}
		if err == nil && !v.lost {
			_, err = l.state.Apply(f.rec)
		}
	}
	if err != nil {
		if !isProblem(err) {
			return err
		}
		v.find(layout.Record(n), err)
		v.lost = true
	}
	for len(v.names) > 0 && v.names[0].N <= n {
		name := v.names[0]
		v.names = v.names[1:]
		if err := v.checkpoint(ctx, name, f.hash); err != nil {
			return err
		}
	}
	return nil
}

// checkpoint compares one checkpoint with the state after its record, whose
// object has that hash.
func (v *verifier) checkpoint(ctx context.Context, name layout.CheckpointName, at Hash) error {
	s, err := v.log.checkpoint(ctx, name)
	switch {
	case err != nil:
		return err
	case s == nil:
		_, err := v.log.opts.Backend.Stat(ctx, name.Key())
		if errors.Is(err, backend.ErrNotExist) {
			return nil // a collection deletes old ones
		}
		if err == nil {
			v.find(name.Key(), fmt.Errorf("%w: it does not open", ErrCheckpoint))
		}
		return err
	case s.pos.Hash != at:
		v.find(name.Key(), fmt.Errorf("%w: it is of another history", ErrCheckpoint))
		return nil
	case name.Repaired:
		return nil // what it stands for could not be read; record N+1 vouches for it
	case v.lost:
		// It cannot be computed; those that follow can be, from here on.
		v.log.state, v.lost = s, false
		return nil
	}
	got, err := marshalState(s)
	want, werr := marshalState(v.log.state)
	if err != nil || werr != nil || !bytes.Equal(got, want) {
		v.find(name.Key(), fmt.Errorf("%w: it does not say what the records say", ErrCheckpoint))
	}
	return nil
}

package log

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"time"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/engine/internal/layout"
	"github.com/cairn-backup/cairn/engine/internal/rule"
)

// Append adds one record with the effects that build returns. build is called
// with the State after the newest record known, and again, even after an error,
// whenever another writer was faster; it must derive the effects from that State each time,
// must not keep or change it, and must be quick. Without effects nothing is
// written and the head is returned.
//
// Append returns the position of the record. With any error but
// ErrUnknownOutcome nothing is visible:
//
//   - ErrConflict or ErrRole, in an EffectError: the effect does not hold;
//   - ErrReadOnlyLog: nothing may be written, or the log has a Problem, found
//     before or just now, which errors.Is finds as well;
//   - ErrTooLarge; an error of build, as it is; errors of the backend;
//   - context.Canceled, if ctx ended before the record was sent. Once it was
//     sent, its outcome is found out whatever becomes of ctx.
//
// ErrUnknownOutcome says that it could not be found out within
// Options.Settle; the next Append or Refresh may see the record.
func (l *Log) Append(ctx context.Context, build func(s *State) ([]Effect, error)) (Position, error) {
	if err := l.lockAnew(ctx); err != nil {
		return Position{}, err
	}
	defer l.unlock()
	return l.appendOrSay(ctx, build)
}

// Continue is as Append for a session that began by Begin: it does not fetch the
// head's record again if this Log has fetched or written it since (R1).
func (l *Log) Continue(ctx context.Context, build func(s *State) ([]Effect, error)) (Position, error) {
	if err := l.lock(ctx); err != nil {
		return Position{}, err
	}
	defer l.unlock()
	l.openedAt = time.Time{}
	return l.appendOrSay(ctx, build)
}

// appendOrSay appends, and remembers a problem that it found.
func (l *Log) appendOrSay(ctx context.Context, build func(s *State) ([]Effect, error)) (Position, error) {
	if err := l.writable(); err != nil {
		return Position{}, err
	}
	pos, err := l.append(ctx, build)
	if isProblem(err) {
		l.setProblem(err)
		err = fmt.Errorf("%w: %w", ErrReadOnlyLog, err)
	}
	if err != nil {
		return Position{}, fmt.Errorf("append record: %w", err)
	}
	return pos, nil
}

func (l *Log) append(ctx context.Context, build func(s *State) ([]Effect, error)) (Position, error) {
	var nonce [16]byte
	_, _ = rand.Read(nonce[:]) // never returns an error, by its contract since Go 1.24
	if !l.listed {
		if err := l.checkWhole(ctx, listing{}); err != nil {
			return Position{}, err
		}
	}
	if rule.Off(rule.Derive) {
		build = once(build)
	}
	for lost := 0; ; lost++ {
		if damaged, err := l.confirm(ctx); err != nil || damaged != nil {
			return Position{}, errors.Join(damaged, err)
		}
		a, err := l.prepare(nonce, build)
		if err != nil {
			// It may be true only of a state that is not the newest.
			head := l.Head()
			if aerr := l.advance(ctx); aerr != nil {
				return Position{}, aerr
			}
			if l.Head() != head {
				continue
			}
		}
		if err != nil || a == nil {
			return l.Head(), err
		}
		// The last moment to turn back.
		if err := backend.Ended(ctx); err != nil {
			return Position{}, err
		}
		other, err := l.settle(ctx, a)
		if err != nil {
			return Position{}, err
		}
		if other == nil {
			l.adopt(a)
			if a.rec.N%checkpointEvery == 0 {
				_ = l.writeCheckpoint(ctx) // a hint: its absence costs the next Open time
			}
			return a.after.pos, nil
		}
		if err := l.take(ctx, *other); err != nil {
			return Position{}, err
		}
		if err := l.advance(ctx); err != nil {
			return Position{}, err
		}
		if err := pause(ctx, lost); err != nil {
			return Position{}, err
		}
	}
}

// once returns what build returned first, whatever came since: only with a rule
// switched off.
func once(build func(s *State) ([]Effect, error)) func(s *State) ([]Effect, error) {
	var effects []Effect
	return func(s *State) (_ []Effect, err error) {
		if effects == nil {
			effects, err = build(s)
		}
		return effects, err
	}
}

// An attempt is one record, sealed for one place in the log.
type attempt struct {
	key    backend.Key
	rec    Record
	object []byte
	after  *State // with the record applied
}

// prepare builds, checks and seals a record behind the head. It returns nil if
// there is nothing to append.
func (l *Log) prepare(nonce [16]byte, build func(s *State) ([]Effect, error)) (*attempt, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	s := l.state
	effects, err := build(s)
	if err != nil {
		return nil, err
	}
	pending := s.repair != nil && s.repair.n == s.pos.N
	if len(effects) == 0 && !pending {
		return nil, nil
	}
	if pending {
		// A repair whose own record was never written is completed first.
		effects = append([]Effect{Repaired{N: s.repair.n, Body: s.repair.body}}, effects...)
	}
	effects, err = l.checkEffects(s, effects)
	if err != nil {
		return nil, err
	}
	rec := Record{
		N: s.pos.N + 1, Prev: s.pos.Hash, Nonce: nonce, Writer: l.opts.Writer, Time: l.opts.Now().UTC(), Effects: effects,
	}
	a := &attempt{key: layout.Record(rec.N)}
	if a.object, err = sealRecord(l.opts.Meta, l.opts.Repository, l.opts.Signer, rec); err != nil {
		return nil, err
	}
	// What counts is what readers will make of the stored bytes.
	if a.rec, err = openRecord(l.opts.Meta, l.opts.Repository, rec.N, a.object); err != nil {
		return nil, fmt.Errorf("the record does not open again: %w", err)
	}
	a.after = s.Clone()
	ignored, err := a.after.Apply(a.rec)
	if err != nil {
		return nil, err
	}
	if len(ignored) > 0 && !rule.Off(rule.Derive) {
		return nil, &ignored[0].EffectError
	}
	return a, nil
}

// checkEffects checks what Apply cannot know: the roles the signer was given
// here, and the Dooms that this Log has read (R2). It fills in the numbers of
// added packs.
func (l *Log) checkEffects(s *State, effects []Effect) ([]Effect, error) {
	if len(effects) > maxEffects {
		return nil, fmt.Errorf("%w: %d effects", ErrTooLarge, len(effects))
	}
	out := make([]Effect, len(effects))
	next := s.next
	for i, e := range effects {
		refuse := func(err error) error { return &EffectError{Index: i, Effect: e.effect().String(), Err: err} }
		if need := e.effect().roles(); !l.opts.Signer.roles.any(need) {
			return nil, refuse(fmt.Errorf("%w: it takes %v, the signer is %v", ErrRole, need, l.opts.Signer.roles))
		}
		if add, ok := e.(Add); ok {
			if len(add.Packs) > MaxPacks {
				return nil, fmt.Errorf("%w: %d packs", ErrTooLarge, len(add.Packs))
			}
			for _, p := range add.Packs {
				if p.ID != p.Header().Name() {
					return nil, refuse(conflict("pack %v has another salt", p.ID))
				}
				if _, doomed := l.doomed[layout.Pack(p.ID)]; doomed && !rule.Off(rule.Own) {
					return nil, refuse(conflict("pack %v was doomed meanwhile", p.ID))
				}
			}
			for _, g := range add.Segments {
				if _, doomed := l.doomed[layout.Segment(g.ID)]; doomed && !rule.Off(rule.Own) {
					return nil, refuse(conflict("index segment %x was doomed meanwhile", g.ID))
				}
			}
			add.First = next
			next += uint64(len(add.Packs))
			e = add
		}
		out[i] = e
	}
	return out, nil
}

// adopt makes a durable record the head.
func (l *Log) adopt(a *attempt) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.noteDooms(a.rec)
	l.pass(a.after.pos)
	l.state = a.after
	l.confirmed = a.after.pos
}

// pause waits a little after a race was lost, so that many writers do not
// fetch and seal in step: nothing at first, then up to 64 ms at random.
func pause(ctx context.Context, lost int) error {
	if lost < 3 {
		return nil
	}
	return wait(ctx, time.Duration(mathrand.Int64N(int64(time.Millisecond<<min(lost-2, 6)))))
}

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return backend.Ended(ctx)
	}
}

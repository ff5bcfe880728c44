package log

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cairn-backup/cairn/backend"
)

// settle puts the record of a and finds out what became of it (R5). It returns
// nil if the record is stored, the record of another writer if that one has
// its place, and else an error: ErrUnknownOutcome, or one after which the
// record is not stored and never will be.
//
// The end of ctx is no answer, so it does not end the search; only Options.Settle
// does, and a disk that has lost what was written. But if every answer so far says
// that nothing was stored, there is nothing to find out, and the end of ctx counts.
func (l *Log) settle(ctx context.Context, a *attempt) (*fetched, error) {
	deadline, cancel := context.WithTimeout(context.WithoutCancel(ctx), l.opts.Settle)
	defer cancel()
	sent := false // an earlier Put may still take effect
	for tries := 0; ; tries++ {
		err := l.putOnce(deadline, a)
		if err == nil {
			return nil, nil
		}
		// ErrExist with a record of ours is an answer that was lost. One of ours
		// that is only seen may not be durable yet: to put it again tells.
		other, known, gerr := l.whose(deadline, a)
		if known && (other != nil || errors.Is(err, backend.ErrExist)) {
			return other, nil
		}
		if gerr != nil && isProblem(gerr) {
			return nil, gerr
		}
		sent = sent || known || !harmless(err)
		// Taken, but not to be read: it may be ours.
		nothing := !sent && !errors.Is(err, backend.ErrExist)
		switch {
		case nothing && (final(err) || ctx.Err() != nil):
			return nil, errors.Join(err, backend.Ended(ctx))
		case !nothing && undurable(err):
			return nil, fmt.Errorf("put %s: %w: %w", a.key, ErrUnknownOutcome, err)
		}
		if wait(deadline, backoff(tries)) != nil {
			if nothing {
				return nil, err
			}
			return nil, fmt.Errorf("put %s: %w after %v: %w", a.key, ErrUnknownOutcome, l.opts.Settle, err)
		}
	}
}

// putOnce sends the record. One attempt may take a quarter of the time there
// is, so that an answer that never comes leaves time for others.
func (l *Log) putOnce(deadline context.Context, a *attempt) error {
	ctx, cancel := context.WithTimeout(deadline, l.opts.Settle/4)
	defer cancel()
	return l.opts.Backend.Put(ctx, a.key, a.object)
}

// whose reads what is at the place of a: known is true if a record is there,
// and other is nil if it is ours, by its nonce. The error is that of the store,
// or a DamagedError.
func (l *Log) whose(deadline context.Context, a *attempt) (other *fetched, known bool, err error) {
	ctx, cancel := context.WithTimeout(deadline, l.opts.Settle/4)
	defer cancel()
	f, err := l.fetch(ctx, a.rec.N)
	switch {
	case err != nil || f.missing:
		return nil, false, err
	case f.err != nil && !errors.Is(f.err, errNewerEffect):
		return nil, false, &DamagedError{N: a.rec.N, Err: f.err}
	case f.err == nil && f.rec.Nonce == a.rec.Nonce:
		return nil, true, nil
	}
	return &f, true, nil
}

// harmless reports whether a Put with that error has stored nothing, now or
// later.
func harmless(err error) bool {
	return final(err) || errors.Is(err, backend.ErrExist) ||
		errors.Is(err, backend.ErrUnavailable) && !errors.Is(err, backend.ErrUnknownOutcome)
}

// final reports whether trying again is pointless and nothing was stored.
func final(err error) bool {
	if errors.Is(err, backend.ErrUnknownOutcome) {
		return false
	}
	if undurable(err) {
		return true
	}
	for _, kind := range []error{
		backend.ErrNoSpace, backend.ErrReadOnly, backend.ErrUnauthorized, backend.ErrInvalidKey, backend.ErrUnsupported,
	} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}

// undurable reports whether the disk has lost what was written (V13). It stays so
// for this process, so that to wait finds out nothing: the record may be seen, and
// whether a power cut takes it away only the next one to read the log can tell.
func undurable(err error) bool {
	trouble, ok := errors.AsType[*backend.TroubleError](err)
	return ok && trouble.Cause == backend.Undurable
}

// backoff grows from 50 ms to 5 s.
func backoff(tries int) time.Duration {
	return min(50*time.Millisecond<<min(tries, 10), 5*time.Second)
}

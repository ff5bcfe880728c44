package log

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/chunk/seal"
	"github.com/cairn-backup/cairn/engine/internal/layout"
	"github.com/cairn-backup/cairn/engine/internal/rule"
)

// maxAhead is how many records are fetched at a time when the head is far.
const maxAhead = 32

// fetched is what was found at one place of the log.
type fetched struct {
	missing bool
	hash    Hash
	rec     Record
	err     error // why the object is no record; nil if it is one
}

// get returns the object of record n.
func (l *Log) get(ctx context.Context, n uint64) ([]byte, error) {
	return backend.ReadAll(ctx, l.opts.Backend, layout.Record(n), maxRecord)
}

// fetch reads and opens record n. The error is that of the store.
func (l *Log) fetch(ctx context.Context, n uint64) (fetched, error) {
	object, err := l.get(ctx, n)
	return l.opened(n, object, err)
}

// opened opens what get returned of record n.
func (l *Log) opened(n uint64, object []byte, err error) (fetched, error) {
	switch {
	case errors.Is(err, backend.ErrNotExist):
		return fetched{missing: true}, nil
	case errors.Is(err, backend.ErrTooLarge):
		return fetched{err: err}, nil
	case err != nil:
		return fetched{}, err
	}
	rec, err := openRecord(l.opts.Meta, l.opts.Repository, n, object)
	return fetched{hash: HashOf(object), rec: rec, err: err}, nil
}

// fetchMany fetches count records from first on, all at a time.
func (l *Log) fetchMany(ctx context.Context, first uint64, count int) ([]fetched, error) {
	out := make([]fetched, count)
	g, ctx := errgroup.WithContext(ctx)
	for i := range out {
		g.Go(func() (err error) {
			out[i], err = l.fetch(ctx, first+uint64(i)) //nolint:gosec // an index
			return err
		})
	}
	return out, g.Wait()
}

// advance reads from the head on until there is no record any more, and
// folds what it finds. At first it fetches the head's own record again: only
// then is "no such object" behind it the end of the log (R6), and only then
// may something be appended (R1).
func (l *Log) advance(ctx context.Context) error { return l.advanceTo(ctx, 0) }

// advanceTo is as advance, where the store has listed records up to listed: it
// asks for those and the one behind them, and guesses only beyond that.
func (l *Log) advanceTo(ctx context.Context, listed uint64) error {
	damaged, err := l.confirm(ctx)
	if err != nil {
		return err
	}
	for width := 1; ; {
		head := l.Head()
		count := width
		if head.N < listed {
			count = int(min(listed-head.N+1, maxAhead)) //nolint:gosec // at most maxAhead
		} else {
			width = min(2*width, maxAhead)
		}
		found, err := l.fetchMany(ctx, head.N+1, count)
		if err != nil {
			return err
		}
		for i, f := range found {
			if f.missing {
				again, err := l.atEnd(ctx, found[i:])
				if err == nil && !again {
					return damaged
				}
				if err != nil {
					return err
				}
				break
			}
			if err := l.take(ctx, f); err != nil {
				if damaged != nil && isProblem(err) {
					return damaged
				}
				return err
			}
			// A record that follows the hash we know shows that the one
			// before was as we know it.
			damaged = nil
		}
	}
}

// atEnd looks closer where the first of found is missing: it may just have
// been written, or be a hole.
func (l *Log) atEnd(ctx context.Context, found []fetched) (again bool, err error) {
	above := slices.IndexFunc(found, func(f fetched) bool { return !f.missing })
	if above < 0 {
		return false, nil
	}
	n := l.Head().N + 1
	f, err := l.fetch(ctx, n)
	if err != nil {
		return false, err
	}
	if f.missing {
		return false, &HoleError{N: n, Above: n + uint64(above)} //nolint:gosec // an index
	}
	return true, nil
}

// confirm fetches the head's record unless the operation under way has read or
// written it. It returns a RolledBackError if another record is there or none;
// one that cannot be read at all is damaged, which is no harm if others follow
// it.
func (l *Log) confirm(ctx context.Context) (damaged, err error) {
	head := l.Head()
	if head.N == 0 || l.confirmed == head || rule.Off(rule.Confirm) {
		return nil, nil
	}
	object, err := l.get(ctx, head.N)
	if err == nil && HashOf(object) == head.Hash { // which opened before
		l.confirmed = head
		return nil, nil
	}
	f, err := l.opened(head.N, object, err)
	switch {
	case err != nil:
		return nil, err
	case f.missing:
		return nil, &RolledBackError{Known: head}
	case f.err == nil:
		return nil, &RolledBackError{Known: head, Found: Position{N: head.N, Hash: f.hash}}
	}
	return &DamagedError{N: head.N, Err: f.err}, nil
}

// take folds one fetched record into the state.
func (l *Log) take(ctx context.Context, f fetched) error {
	n := l.Head().N + 1
	if errors.Is(f.err, errNewerEffect) {
		return fmt.Errorf("record %d: %w", n, f.err)
	}
	if f.err != nil {
		return &DamagedError{N: n, Err: f.err}
	}
	if err := l.rebase(ctx, f.rec); err != nil {
		return err
	}
	if err := l.fold(f.rec); err != nil {
		return err
	}
	l.confirmed = l.Head()
	return l.knownFeatures(l.state)
}

// fold applies a record to the state.
func (l *Log) fold(rec Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.noteDooms(rec)
	ignored, err := l.state.Apply(rec)
	if err == nil {
		l.pass(l.state.pos)
	}
	l.ignored = append(l.ignored, ignored...)
	if n := len(l.ignored); n > maxIgnored {
		l.ignored = slices.Clone(l.ignored[n-maxIgnored:])
	}
	return err
}

// maxPassed bounds the hashes that are kept of records.
const maxPassed = 4096

// pass notes a position that the state went through. The caller holds mu, or
// nobody else has l yet.
func (l *Log) pass(pos Position) {
	if len(l.passed) >= maxPassed {
		clear(l.passed)
	}
	l.passed[pos.N] = pos.Hash
}

// noteDooms remembers the packs and segments that rec dooms, whether the Doom takes hold or
// not: someone may delete by it. The caller holds mu; rec is not applied yet.
func (l *Log) noteDooms(rec Record) {
	for _, e := range rec.Effects {
		d, ok := e.(Doom)
		if !ok {
			continue
		}
		for _, p := range l.state.packs {
			if d.Packs.Contains(p.number) {
				l.doomed[layout.Pack(p.info.ID)] = struct{}{}
			}
		}
		for _, id := range d.Segments {
			l.doomed[layout.Segment(id)] = struct{}{}
		}
		for _, key := range d.Objects {
			l.doomed[key] = struct{}{}
		}
	}
}

// knownFeatures refuses a repository that needs features this program does not
// have.
func (l *Log) knownFeatures(s *State) error {
	for _, name := range s.features {
		if !slices.Contains(l.opts.Features, name) {
			return fmt.Errorf("the repository needs the feature %q: %w", name, seal.ErrNewerFormat)
		}
	}
	return nil
}

// checkWhole looks whether anything lies above the head, by what the store lists
// around it, and takes the word of checkpoints of later records (R6). known is a
// listing that was made before the log was read, if there is one: whoever appends
// has read the record before his own, so that what came since then lies behind
// what was read, and what was listed must have been met on the way.
func (l *Log) checkWhole(ctx context.Context, known listing) error {
	for {
		head := l.Head()
		if around := aroundOf(head.N + 1); known.first > head.N+1 || known.end < around.end {
			var err error
			if known, err = list(ctx, l.opts.Backend, head.N+1); err != nil {
				return err
			}
		}
		if known.top <= head.N {
			break
		}
		if err := l.advance(ctx); err != nil {
			return err
		}
		if l.Head() == head {
			return &HoleError{N: head.N + 1, Above: known.top}
		}
	}
	l.listed = true
	l.noteListed()
	head := l.Head()
	for _, c := range l.evidence {
		if c.N > head.N && !l.void(c) {
			return &HoleError{N: head.N + 1, Above: c.N}
		}
	}
	return nil
}

// A listing is what the store lists of a part of the log: the records from first
// on and before end. top is the highest one that is there, 0 if there is none.
type listing struct{ first, end, top uint64 }

// aroundOf returns the part of the log that is listed to see what lies around n,
// and above it: the thousand around n and the next one at least.
func aroundOf(n uint64) listing {
	first := n - n%1000
	return listing{first: first, end: first + 2000}
}

// list lists the log around n. Where a thousand or less lie below n in its ten
// thousand, all of that is listed: by one request mostly, since a thousand keys
// are what S3 answers at a time, and what is listed above n is not there if all
// is well.
func list(ctx context.Context, b backend.Backend, n uint64) (listing, error) {
	around := aroundOf(n)
	prefixes := []backend.Key{layout.RecordBlock(n, 3), layout.RecordBlock(n+1000, 3)}
	if n%10_000 < 1000 {
		around.end = around.first + 10_000
		prefixes = []backend.Key{layout.RecordBlock(n, 4)}
	}
	for _, prefix := range prefixes {
		for info, err := range b.List(ctx, prefix) {
			if err != nil {
				return listing{}, err
			}
			// What is no record's key is not ours to judge.
			if m, err := layout.ParseRecord(info.Key); err == nil {
				around.top = max(around.top, m)
			}
		}
	}
	return around, nil
}

// void reports whether a repair has declared that checkpoint void.
func (l *Log) void(c layout.CheckpointName) bool {
	mark := l.state.repair
	return mark != nil && slices.Contains(mark.void, c)
}

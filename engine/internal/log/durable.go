package log

import (
	"context"
	"errors"
	"fmt"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/engine/internal/layout"
	"github.com/cairn-backup/cairn/engine/internal/rule"
)

// Durable makes sure that record n, which this Log has read, lasts, and that it
// is still the one that was read: it puts the record again, since a store may
// say that an object exists only once that is durable, and reads it back. So it
// is before anything is deleted that record n dooms (R4): a record that was
// only seen may be lost in a power failure of the store, and the deletion not.
func (l *Log) Durable(ctx context.Context, n uint64) error {
	if rule.Off(rule.Durable) {
		return nil
	}
	if err := l.durable(ctx, n); err != nil {
		return fmt.Errorf("make record %d durable: %w", n, err)
	}
	return nil
}

func (l *Log) durable(ctx context.Context, n uint64) error {
	head := l.Head()
	if n == 0 || n > head.N {
		return fmt.Errorf("the head is record %d", head.N)
	}
	object, err := l.get(ctx, n)
	if err != nil {
		return err
	}
	if err := l.known(ctx, n, HashOf(object)); err != nil {
		return err
	}
	if err := l.opts.Backend.Put(ctx, layout.Record(n), object); err != nil && !errors.Is(err, backend.ErrExist) {
		return err
	}
	again, err := l.get(ctx, n)
	if err != nil {
		return err
	}
	if HashOf(again) != HashOf(object) {
		return &RolledBackError{Known: Position{N: n, Hash: HashOf(object)}, Found: Position{N: n, Hash: HashOf(again)}}
	}
	return nil
}

// known checks that the record n with that hash is the one that the State is
// made of: the next record says so, or the head.
func (l *Log) known(ctx context.Context, n uint64, hash Hash) error {
	head := l.Head()
	if n == head.N {
		if hash != head.Hash {
			return &RolledBackError{Known: head, Found: Position{N: n, Hash: hash}}
		}
		return nil
	}
	next, err := l.fetch(ctx, n+1)
	switch {
	case err != nil:
		return err
	case next.missing:
		return &HoleError{N: n + 1, Above: head.N}
	case next.err != nil:
		return &DamagedError{N: n + 1, Err: next.err}
	case next.rec.Prev != hash:
		return &DamagedError{N: n + 1, Err: fmt.Errorf("broken chain: it follows %s, record %d is %s", next.rec.Prev.short(), n, hash.short())}
	}
	return nil
}

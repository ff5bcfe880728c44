package engine

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/engine/internal/keys"
	"github.com/cairn-backup/cairn/engine/internal/layout"
)

// ErrLastKey says that a key slot is the only one, and so not removed.
var ErrLastKey = errors.New("it is the only key slot; add another first")

// Keys lists the key slots.
func (r *Repository) Keys(ctx context.Context) iter.Seq2[KeySlot, error] {
	return func(yield func(KeySlot, error) bool) {
		slots, err := r.sortedSlots(ctx)
		if err != nil {
			yield(KeySlot{}, fmt.Errorf("keys: %w", err))
			return
		}
		for _, s := range slots {
			if !yield(s, nil) {
				return
			}
		}
	}
}

// AddKey makes a slot by which s opens the repository as well, and returns its
// ID. It is durable when AddKey returns, and was tried, unless s is a PublicKey:
// then only who has the private key can tell whether it opens.
func (r *Repository) AddKey(ctx context.Context, s Secret, label string) (string, error) {
	if s == nil {
		return "", fmt.Errorf("add key: %w", ErrNoSecret)
	}
	if err := r.writable(); err != nil {
		return "", fmt.Errorf("add key: %w", err)
	}
	secret, err := s.secret(ctx)
	if err != nil {
		return "", fmt.Errorf("add key: %w", err)
	}
	name, object, err := keys.SealSlot(r.keys.Root(), r.id, secret, label)
	if err != nil {
		return "", fmt.Errorf("add key: %w", err)
	}
	// What was made must open before anyone relies on it.
	if secret.CanOpen() == nil {
		if root, err := keys.OpenSlot(object, r.id, secret); err != nil || root != r.keys.Root() {
			return "", errors.Join(errors.New("add key: the new slot does not open"), err)
		}
	}
	if err := putOwn(ctx, r.meter, layout.Slot(name), object); err != nil {
		return "", fmt.Errorf("add key: %w", err)
	}
	return newSlotName(name), nil
}

// RemoveKey deletes a slot, named by its ID or a prefix that only it has. The
// last one that is left is not removed: ErrLastKey. Whoever had the repository's
// key keeps it: removing a slot takes nothing back from one who copied it.
func (r *Repository) RemoveKey(ctx context.Context, id string) error {
	if err := r.writable(); err != nil {
		return fmt.Errorf("remove key: %w", err)
	}
	slots, err := r.sortedSlots(ctx)
	if err != nil {
		return fmt.Errorf("remove key: %w", err)
	}
	var match []KeySlot
	for _, s := range slots {
		if id != "" && strings.HasPrefix(s.ID, id) {
			match = append(match, s)
		}
	}
	switch {
	case len(match) == 0:
		return fmt.Errorf("remove key: no key slot begins with %q", id)
	case len(match) > 1:
		return fmt.Errorf("remove key: %d key slots begin with %q", len(match), id)
	case len(slots) == 1:
		return fmt.Errorf("remove key: %w", ErrLastKey)
	}
	r.forgetKnown() // what it kept may be this slot
	if err := r.removeSlot(ctx, layout.Slots+backend.Key(match[0].ID)); err != nil {
		return fmt.Errorf("remove key: %w", err)
	}
	return nil
}

// removeSlot deletes a slot. If others removed all the others meanwhile it puts
// it back: nobody could open the repository any more.
func (r *Repository) removeSlot(ctx context.Context, key backend.Key) error {
	object, err := backend.ReadAll(ctx, r.meter, key, maxConfig)
	if err != nil {
		return err
	}
	if err := r.meter.Delete(ctx, key); err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	if left, err := r.sortedSlots(ctx); err != nil || len(left) > 0 {
		return nil //nolint:nilerr // the slot is gone, as was asked for
	}
	return errors.Join(ErrLastKey, putOwn(ctx, r.meter, key, object))
}

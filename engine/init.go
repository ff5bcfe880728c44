package engine

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"sort"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/backend/retry"
	"github.com/cairn-backup/cairn/chunk/seal"
	"github.com/cairn-backup/cairn/engine/internal/keys"
	"github.com/cairn-backup/cairn/engine/internal/layout"
	"github.com/cairn-backup/cairn/engine/internal/store"
)

// InitOptions says how a repository is made. The zero value works.
type InitOptions struct {
	Label string // of the first key slot, at most 255 bytes. Default: "first"

	// SingleWriter notes in the repository that its store cannot create an
	// object only if it is absent: one process at a time may write to it.
	SingleWriter bool

	Retry retry.Policy // as in Options
}

const (
	// maxConfig bounds the config object, in bytes.
	maxConfig = 1 << 20
	// maxSlots bounds how many key slots are tried.
	maxSlots = 1000
)

// Init makes a repository on b that s opens. Of two at once one wins, and the
// other gets ErrExists. What a crash leaves behind is no repository, and a
// second Init succeeds.
func Init(ctx context.Context, b backend.Backend, s Secret, opts InitOptions) error {
	if s == nil {
		return fmt.Errorf("init: %w", keys.ErrNoSecret)
	}
	secret, err := s.secret(ctx)
	if err != nil {
		return fmt.Errorf("init: %w", err)
	}
	if err := secret.CanOpen(); err != nil {
		return fmt.Errorf("init: %w", err) // or nobody has tried what opens it
	}
	if opts.Label == "" {
		opts.Label = "first"
	}
	if err := initialise(ctx, newLine(b, opts.Retry), secret, opts); err != nil {
		return fmt.Errorf("init: %w", err)
	}
	return nil
}

func initialise(ctx context.Context, b backend.Backend, secret keys.Secret, opts InitOptions) error {
	root, err := keys.NewRoot()
	if err != nil {
		return err
	}
	var id keys.RepositoryID
	if _, err := rand.Read(id[:]); err != nil {
		return err
	}
	name, slot, err := keys.SealSlot(root, id, secret, opts.Label)
	if err != nil {
		return err
	}
	if err := backend.Init(ctx, b); err != nil {
		return err
	}
	switch object, err := readConfig(ctx, b); {
	case err == nil:
		if _, err := keys.ConfigID(object); err != nil {
			return explainForeign(object, err)
		}
		return ErrExists
	case !errors.Is(err, ErrNoRepository):
		return err
	}
	set := keys.Derive(root)
	fields := keys.NewConfig(set, time.Now().Unix())
	fields.SingleWriter = opts.SingleWriter
	config, err := fields.Seal(set.Meta, id)
	if err != nil {
		return err
	}
	// The slot first: a config whose key nobody has would be a repository lost.
	if err := b.Put(ctx, layout.Slot(name), slot); err != nil {
		return err
	}
	if err := putOwn(ctx, b, layout.Config, config); err != nil {
		if !errors.Is(err, ErrUnknownOutcome) {
			// Ours opens nothing; left behind it would only cost attempts.
			_ = b.Delete(context.WithoutCancel(ctx), layout.Slot(name))
		}
		return err
	}
	return nil
}

// putOwn creates an object. After an error it looks whether its own object is
// there, since a reply may have been lost; if so it is put again, since one that
// is only seen may not be durable. ErrExists says that another object is there.
func putOwn(ctx context.Context, b backend.Backend, key backend.Key, object []byte) error {
	err := b.Put(ctx, key, object)
	if err == nil {
		return nil
	}
	ctx = context.WithoutCancel(ctx)
	got, readErr := backend.ReadAll(ctx, b, key, maxConfig)
	switch {
	case readErr == nil && !bytes.Equal(got, object):
		return ErrExists
	case readErr == nil:
		if again := b.Put(ctx, key, object); again == nil || errors.Is(again, backend.ErrExist) {
			return nil
		}
	case errors.Is(readErr, backend.ErrNotExist):
		return err
	}
	return errors.Join(fmt.Errorf("%s: %w", key, ErrUnknownOutcome), err)
}

// OpenOrInit opens the repository on b, or makes it if there is none. If two do
// so at once one makes it, and both open it.
func OpenOrInit(ctx context.Context, b backend.Backend, s Secret, opts Options) (*Repository, error) {
	r, err := Open(ctx, b, s, opts)
	if !errors.Is(err, ErrNoRepository) || opts.ReadOnly {
		return r, err
	}
	if err := Init(ctx, b, s, InitOptions{Retry: opts.Retry}); err != nil && !errors.Is(err, ErrExists) {
		return nil, err
	}
	return Open(ctx, b, s, opts)
}

// readConfig returns the config object, or ErrNoRepository.
func readConfig(ctx context.Context, b backend.Backend) ([]byte, error) {
	object, err := backend.ReadAll(ctx, b, layout.Config, maxConfig)
	if !errors.Is(err, backend.ErrNotExist) {
		return object, err
	}
	if _, ok := errors.AsType[*backend.TroubleError](err); ok { // there is no store, either
		return nil, fmt.Errorf("%w: %w", ErrNoRepository, err)
	}
	// A log without a config is a repository that lost it, and nothing to init over.
	for info, err := range b.List(ctx, layout.Records) {
		if err != nil {
			if errors.Is(err, backend.ErrNotExist) {
				break
			}
			return nil, err
		}
		return nil, &store.CorruptError{Object: string(layout.Config), Offset: -1, Err: fmt.Errorf("it is missing, while %s is there", info.Key)}
	}
	return nil, ErrNoRepository
}

// explainForeign says what an object in the config's place is, if not ours.
func explainForeign(object []byte, err error) error {
	switch {
	case errors.Is(err, seal.ErrNewerFormat):
		return err
	case bytes.HasPrefix(object, []byte("[repository]")):
		return fmt.Errorf("this is a borg repository: %w", ErrNoRepository)
	case errors.Is(err, seal.ErrNotCairn) && len(object) < 4096 && len(object) > 0 && !utf8.Valid(object):
		// restic keeps an object of that name as well, encrypted without a header.
		return fmt.Errorf("the object %q is no Cairn config (a restic repository has one, too): %w", layout.Config, ErrNoRepository)
	case errors.Is(err, seal.ErrNotCairn):
		return fmt.Errorf("the object %q is no Cairn config: %w", layout.Config, ErrNoRepository)
	}
	return corruptObject(layout.Config, err)
}

// openSlots unwraps the repository key by the first of the listed slots that the
// secret fits, and returns that slot, too.
// A slot that is damaged or cannot be read does not keep the others from being
// tried; the secret is called wrong only if every slot could be read.
func openSlots(ctx context.Context, b backend.Backend, slots iter.Seq2[backend.Info, error], id keys.RepositoryID, secret keys.Secret) (keys.Root, []byte, error) {
	var unread, damaged []error
	tried, refused := 0, 0
	for info, err := range slots {
		if err != nil {
			return keys.Root{}, nil, err
		}
		if tried++; tried > maxSlots {
			break
		}
		object, err := backend.ReadAll(ctx, b, info.Key, maxConfig)
		switch {
		case err == nil:
		case errors.Is(err, backend.ErrNotExist):
			tried-- // removed just now
			continue
		case ctx.Err() != nil:
			return keys.Root{}, nil, err
		case errors.Is(err, backend.ErrTooLarge):
			damaged = append(damaged, corruptObject(info.Key, err))
			continue
		default:
			unread = append(unread, err)
			continue
		}
		root, err := openSlot(object, id, secret)
		switch {
		case err == nil:
			return root, object, nil
		case errors.Is(err, ErrWrongKey):
			refused++ // another Init's, or opened by something else
		case errors.Is(err, ErrExpensiveSlot):
			damaged = append(damaged, err)
		default:
			damaged = append(damaged, corruptObject(info.Key, err))
		}
	}
	switch {
	case len(unread) > 0:
		return keys.Root{}, nil, errors.Join(append(unread, damaged...)...)
	case tried == 0:
		return keys.Root{}, nil, &store.CorruptError{Object: string(layout.Slots), Offset: -1, Err: errors.New("every key slot is missing")}
	case refused == 0:
		return keys.Root{}, nil, errors.Join(damaged...)
	}
	return keys.Root{}, nil, errors.Join(append([]error{ErrWrongKey}, damaged...)...)
}

// listAhead begins to list what lies under prefix, at most so many objects. What it
// returns waits for that, and is ranged over once. stop ends it, and waits.
func listAhead(ctx context.Context, b backend.Backend, prefix backend.Key, most int) (all iter.Seq2[backend.Info, error], stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	type item struct {
		info backend.Info
		err  error
	}
	items := make(chan item, most)
	go func() {
		defer close(items)
		for info, err := range b.List(ctx, prefix) {
			items <- item{info, err}
			if most--; most == 0 || err != nil {
				return
			}
		}
	}()
	all = func(yield func(backend.Info, error) bool) {
		for i := range items {
			if !yield(i.info, i.err) {
				return
			}
		}
	}
	return all, func() {
		cancel()
		for range items { // until it is closed
		}
	}
}

// openSlot opens one slot, if it is of this repository and of the secret's type.
func openSlot(object []byte, id keys.RepositoryID, secret keys.Secret) (keys.Root, error) {
	slot, _, err := keys.ReadSlot(object)
	if err != nil {
		return keys.Root{}, err
	}
	if slot.Repository != id || !secret.Fits(slot.Type) {
		return keys.Root{}, ErrWrongKey
	}
	return keys.OpenSlot(object, id, secret)
}

// slotName returns the part of a slot's key that names it.
func slotName(key backend.Key) string { return strings.TrimPrefix(string(key), string(layout.Slots)) }

// sortedSlots reads the clear parts of every slot of this repository.
func (r *Repository) sortedSlots(ctx context.Context) ([]KeySlot, error) {
	var slots []KeySlot
	for info, err := range r.meter.List(ctx, layout.Slots) {
		if err != nil {
			return nil, err
		}
		object, err := backend.ReadAll(ctx, r.meter, info.Key, maxConfig)
		if errors.Is(err, backend.ErrNotExist) {
			continue // removed just now
		}
		if err != nil {
			return nil, err
		}
		slot, _, err := keys.ReadSlot(object)
		if err != nil || slot.Repository != r.id {
			continue // check reports it
		}
		slots = append(slots, KeySlot{ID: slotName(info.Key), Label: slot.Label, Type: slot.Type})
	}
	sort.Slice(slots, func(i, j int) bool { return slots[i].ID < slots[j].ID })
	return slots, nil
}

func newSlotName(name [16]byte) string { return hex.EncodeToString(name[:]) }

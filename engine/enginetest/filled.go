package enginetest

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/chunk"
	"github.com/cairn-backup/cairn/engine/internal/generated"
	"github.com/cairn-backup/cairn/engine/internal/index"
	"github.com/cairn-backup/cairn/engine/internal/keys"
	"github.com/cairn-backup/cairn/engine/internal/layout"
	"github.com/cairn-backup/cairn/engine/internal/log"
	"github.com/cairn-backup/cairn/engine/internal/store"
)

// Fill adds at least so many chunks of 40,000 bytes to the repository on b that
// the age identity in keyFile opens, and returns how many. Nobody stored
// them: the log and the index segments list them as a backup of as much data
// and a collection would leave it, 400 to a pack, and their packs are missing.
// So what the number of chunks costs can be measured without the data. A check
// of such a repository finds every pack damaged, and no snapshot.
func Fill(ctx context.Context, b backend.Backend, keyFile string, chunks uint64) (added uint64, err error) {
	object, err := backend.ReadAll(ctx, b, layout.Config, maxObject)
	if err != nil {
		return 0, err
	}
	id, err := keys.ConfigID(object)
	if err != nil {
		return 0, err
	}
	set, err := openKeys(ctx, b, id, keyFile)
	if err != nil {
		return 0, err
	}
	config, err := keys.OpenConfig(set.Meta, object)
	if err != nil {
		return 0, err
	}
	l, err := log.Open(ctx, log.Options{
		Backend: b, Repository: id, Meta: set.Meta, Genesis: log.HashOf(object),
		Keys:   log.Keys{Admin: config.Admin, Keeper: config.Keeper, Writer: config.Writer},
		Signer: log.NewSigner(set.Admin(), log.Admin|log.Keeper|log.Writer), Writer: "enginetest",
	})
	if err != nil {
		return 0, err
	}
	packs := (chunks + generated.Chunks - 1) / generated.Chunks
	s := store.New(store.Options{Backend: b, Repository: id, Keys: set, Log: l, Workers: 1})
	err = generated.Fill(ctx, l, s, packs)
	return packs * generated.Chunks, errors.Join(err, l.Close())
}

func openKeys(ctx context.Context, b backend.Backend, id keys.RepositoryID, keyFile string) (*keys.Set, error) {
	secret, err := keys.File(keyFile)
	if err != nil {
		return nil, err
	}
	for info, err := range b.List(ctx, layout.Slots) {
		if err != nil {
			return nil, err
		}
		slot, err := backend.ReadAll(ctx, b, info.Key, maxObject)
		if err != nil {
			return nil, err
		}
		if root, err := keys.OpenSlot(slot, id, secret); err == nil {
			return keys.Derive(root), nil
		}
	}
	return nil, fmt.Errorf("%s opens no slot of the repository", keyFile)
}

// A FilledIndex is the local index of a repository that Fill has filled. It is
// safe for concurrent use.
type FilledIndex struct{ index *index.Index }

// OpenFilledIndex opens the index in the cache directory of the repository
// with that ID, which no other process may have open. The caller closes it.
func OpenFilledIndex(cacheDir, repository string) (*FilledIndex, error) {
	o := index.Options{Dir: filepath.Join(cacheDir, repository, "index")}
	raw, err := hex.DecodeString(repository)
	if err != nil || copy(o.Repository[:], raw) != len(raw) {
		return nil, fmt.Errorf("no ID of a repository: %q", repository)
	}
	x, err := index.Open(o)
	if err != nil {
		return nil, err
	}
	if x.Rebuilt() {
		return nil, errors.Join(errors.New("the index could not be used, and is empty now"), x.Close())
	}
	return &FilledIndex{x}, nil
}

// Find looks up generated chunks by their numbers, from 0, in one call, and
// returns how many the index has.
func (x *FilledIndex) Find(numbers ...uint64) (found int, err error) {
	ids, places, has := make([]chunk.ID, len(numbers)), make([]index.Place, len(numbers)), make([]bool, len(numbers))
	for i, n := range numbers {
		ids[i] = generated.ID(n)
	}
	if err := x.index.LookupMany(ids, places, has); err != nil {
		return 0, err
	}
	for _, ok := range has {
		if ok {
			found++
		}
	}
	return found, nil
}

// Close closes the index.
func (x *FilledIndex) Close() error { return x.index.Close() }

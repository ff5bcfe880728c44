package store

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/backend/mem"
	"github.com/cairn-backup/cairn/chunk"
	"github.com/cairn-backup/cairn/engine/internal/index"
	"github.com/cairn-backup/cairn/engine/internal/keys"
	"github.com/cairn-backup/cairn/engine/internal/log"
	"github.com/cairn-backup/cairn/manifest"
)

// A rig is a repository without slots and config.
type rig struct {
	mem  *mem.Backend
	id   keys.RepositoryID
	keys *keys.Set
	// settle is how long the outcome of a record may take to be known: short for
	// the tests of what happens then.
	settle time.Duration
}

func newRig() *rig {
	return &rig{mem: mem.New(), id: keys.RepositoryID{1}, keys: keys.Derive(keys.Root{2}), settle: 200 * time.Millisecond}
}

func (r *rig) openLog(t *testing.T, b backend.Backend) *log.Log {
	t.Helper()
	l, err := log.Open(t.Context(), log.Options{
		Backend: b, Repository: r.id, Meta: r.keys.Meta, Genesis: log.HashOf([]byte("config")), Settle: r.settle,
		Keys:   log.Keys{Admin: r.keys.Admin().Public(), Keeper: r.keys.Keeper().Public(), Writer: r.keys.Writer().Public()},
		Signer: log.NewSigner(r.keys.Admin(), log.Admin|log.Keeper|log.Writer), Writer: "test",
	})
	if err != nil {
		t.Fatalf("log.Open: %v", err)
	}
	return l
}

// open returns a store with an empty index in memory.
func (r *rig) open(t *testing.T, b backend.Backend, change ...func(*Options)) *Store {
	t.Helper()
	x, err := index.Open(index.Options{Repository: r.id})
	if err != nil {
		t.Fatalf("index.Open: %v", err)
	}
	t.Cleanup(func() { _ = x.Close() })
	o := Options{
		Backend: b, Repository: r.id, Keys: r.keys, Log: r.openLog(t, b), Index: x, Workers: 2,
		Logger: slog.New(slog.DiscardHandler), Limits: Limits{Publish: 1 << 10, Block: 4 << 10, Pack: 8 << 10},
	}
	for _, f := range change {
		f(&o)
	}
	return New(o)
}

func random(seed uint64, n int) []byte {
	rng := rand.New(rand.NewPCG(seed, 7))
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(rng.Uint32())
	}
	return p
}

// commit ends the session with a snapshot.
func commit(ctx context.Context, ss *Session, over ...[16]byte) (log.Position, error) {
	return ss.Commit(ctx, over, func(log.Ranges, Written) (log.Snapshot, error) {
		return log.Snapshot{
			Summary: manifest.Summary{ID: manifest.NewID(), Kind: manifest.KindFiles, Name: "data", Host: "host"},
			Body:    []byte("sealed"),
		}, nil
	})
}

// put stores chunks in a session of their own.
func (r *rig) put(t *testing.T, s *Store, chunks ...[]byte) []chunk.ID {
	t.Helper()
	ss, err := s.Begin(t.Context(), SessionOptions{})
	if err != nil {
		t.Fatalf("Begin: %v", err)
	}
	defer ss.Abort(t.Context())
	w := ss.Writer()
	var ids []chunk.ID
	for _, c := range chunks {
		id, _, err := w.Put(t.Context(), c)
		if err != nil {
			t.Fatalf("Put: %v", err)
		}
		ids = append(ids, id)
	}
	err = errors.Join(w.Flush(t.Context()), ss.Drain(t.Context()))
	if err == nil {
		_, err = commit(t.Context(), ss)
	}
	if err != nil {
		t.Fatalf("commit: %v", err)
	}
	return ids
}

package store

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/backend/mem"
	"github.com/cairn-backup/cairn/chunk"
	"github.com/cairn-backup/cairn/engine/internal/index"
)

// TestAgainFindsTheThird: of three copies of a chunk two cannot be read. Whichever
// is asked for first, the third is found, and none is offered twice.
func TestAgainFindsTheThird(t *testing.T) {
	r := newRig()
	chunks := [][]byte{random(1, 600), random(2, 600)}
	// All begin before one has stored anything, so that nobody knows of another.
	var sessions []*Session
	for range 3 {
		ss, err := r.open(t, r.mem).Begin(t.Context(), SessionOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer ss.Abort(t.Context())
		sessions = append(sessions, ss)
	}
	for _, ss := range sessions {
		w := ss.Writer()
		for _, c := range chunks {
			if _, _, err := w.Put(t.Context(), c); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(w.Flush(t.Context()), ss.Drain(t.Context())); err != nil {
			t.Fatal(err)
		}
		if _, err := commit(t.Context(), ss); err != nil {
			t.Fatal(err)
		}
	}
	s := r.open(t, r.mem)
	if err := s.LoadAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	id := chunk.NewHasher(r.keys.Chunk).Sum(chunks[0])
	p, found, err := s.index().Lookup(id)
	seen := map[uint64]bool{p.Pack: true}
	for len(seen) < 3 {
		if err != nil || !found {
			t.Fatalf("behind packs %v: found %v, %v", seen, found, err)
		}
		var places []index.Place
		var there []bool
		if places, there, err = s.Again(t.Context(), []chunk.ID{id}, []index.Place{p}); err != nil {
			t.Fatal(err)
		}
		p, found = places[0], there[0]
		if found && seen[p.Pack] {
			t.Fatalf("pack %d is offered again, of which nothing could be read", p.Pack)
		}
		seen[p.Pack] = found
	}
	if _, there, err := s.Again(t.Context(), []chunk.ID{id}, []index.Place{p}); err != nil || there[0] {
		t.Errorf("behind the last copy: found %v, %v", there[0], err)
	}
}

// stopping is a store that does not know what its first Put did, and whose second
// one ends because of what another call met.
type stopping struct {
	backend.Backend
	stop func(error)
	puts int
}

func (s *stopping) Put(ctx context.Context, key backend.Key, _ []byte) error {
	if s.puts++; s.puts == 1 {
		return &backend.OpError{Op: "put", Key: key, Kind: backend.ErrUnknownOutcome}
	}
	s.stop(&backend.OpError{Op: "put", Key: "another", Kind: backend.ErrExist})
	return fmt.Errorf("put %s: %w", key, backend.Ended(ctx))
}

// TestPutOfAnother: what another Put was told is no answer to this one, although
// it is the cause of the end of both.
func TestPutOfAnother(t *testing.T) {
	ctx, stop := context.WithCancelCause(t.Context())
	s := newRig().open(t, mem.New())
	s.opts.Backend = &stopping{Backend: s.opts.Backend, stop: stop}
	if err := s.put(ctx, "packs/aa/aa", []byte("pack")); !errors.Is(err, context.Canceled) {
		t.Errorf("put = %v, and nothing was stored", err)
	}
}

package store

import (
	"context"
	"encoding/binary"
	"errors"
	"maps"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/backend/fault"
	"github.com/cairn-backup/cairn/chunk"
	"github.com/cairn-backup/cairn/engine/internal/layout"
	"github.com/cairn-backup/cairn/engine/internal/log"
)

// recordHook calls f after each record that was put.
type recordHook struct {
	backend.Backend
	f func()
}

func (h recordHook) Put(ctx context.Context, key backend.Key, data []byte) error {
	err := h.Backend.Put(ctx, key, data)
	if _, perr := layout.ParseRecord(key); err == nil && perr == nil {
		h.f()
	}
	return err
}

// TestPartialIsWhole says that whatever was put before a partial tree was made
// is in the packs that its record needs, though it was put by several
// goroutines that store the same chunks at once.
func TestPartialIsWhole(t *testing.T) {
	ctx := t.Context()
	r := newRig()
	var mu sync.Mutex
	var done []chunk.ID   // whose Put has returned
	var partials [][]byte // as recorded
	hook := recordHook{Backend: r.mem, f: func() {
		l := r.openLog(t, r.mem)
		defer l.Close()
		_ = l.View(func(st *log.State) error {
			for s := range st.Sessions() {
				if len(s.Partial) > 0 {
					mu.Lock()
					defer mu.Unlock()
					partials = append(partials, append(append([]byte(nil), s.Partial...), encode(s.Needs)...))
				}
			}
			return nil
		})
	}}
	s := r.open(t, hook, func(o *Options) { o.Limits.Partial = 1; o.Workers = 4 })
	ss, err := s.Begin(ctx, SessionOptions{Partial: func(context.Context) ([]byte, error) {
		mu.Lock()
		defer mu.Unlock()
		return binary.LittleEndian.AppendUint64(nil, uint64(len(done))), nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer ss.Abort(ctx)
	var g errgroup.Group
	for range 4 {
		g.Go(func() error {
			w := ss.Writer()
			for i := range uint64(1000) {
				id, _, err := w.Put(ctx, random(i, 1000))
				if err != nil {
					return err
				}
				page, err := ss.PutChunk(ctx, random(i+10000, 500))
				if err != nil {
					return err
				}
				mu.Lock()
				done = append(done, id, page)
				mu.Unlock()
			}
			return w.Flush(ctx)
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if err := ss.Drain(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := commit(ctx, ss); err != nil {
		t.Fatal(err)
	}
	if len(partials) < 5 {
		t.Fatalf("%d partial trees were recorded, want more", len(partials))
	}
	held := r.holders(t, s)
	for i, p := range partials {
		count := binary.LittleEndian.Uint64(p)
		needs := decode(p[8:])
		for j, id := range done[:count] {
			if !needs.Contains(held[id]) {
				t.Fatalf("partial tree %d of %d: chunk %d of %d is in pack %d, which the record does not need", i, len(partials), j, count, held[id])
			}
		}
	}
}

// TestLostBlock: a block that could not be handed over ends the session. No
// barrier waits for it, and no record has a partial tree that may rely on it.
func TestLostBlock(t *testing.T) {
	r := newRig()
	gate := fault.NewGate()
	slow := fault.New(r.mem, fault.Rule{Op: fault.Put, Prefix: layout.Packs, Gate: gate})
	s := r.open(t, slow, func(o *Options) { o.Limits.Partial = 1; o.Workers = 1 })
	ss, err := s.Begin(t.Context(), SessionOptions{Partial: func(context.Context) ([]byte, error) { return []byte("partial"), nil }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error)
	go func() {
		w := ss.Writer()
		for i := uint64(0); ; i++ {
			if _, _, err := w.Put(ctx, random(i, 3000)); err != nil {
				failed <- err
				return
			}
		}
	}()
	for range uploads {
		<-gate.Arrived()
	}
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Errorf("Put = %v, want context.Canceled", err)
	}
	gate.Release()
	w := ss.Writer()
	done := make(chan error)
	go func() { done <- errors.Join(w.Flush(t.Context()), ss.Drain(t.Context())) }()
	select {
	case err := <-done:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("Drain = %v, want context.Canceled", err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("Drain waits for a block that was lost")
	}
	ss.Abort(t.Context())
	_ = s.opts.Log.View(func(st *log.State) error {
		for s := range st.Sessions() {
			if len(s.Partial) > 0 {
				t.Error("a partial tree was recorded")
			}
		}
		return nil
	})
}

// holders returns which pack holds each chunk.
func (r *rig) holders(t *testing.T, s *Store) map[chunk.ID]uint64 {
	t.Helper()
	packs := make(map[uint64]log.PackInfo)
	_ = s.opts.Log.View(func(st *log.State) error {
		maps.Insert(packs, st.Packs())
		return nil
	})
	held := make(map[chunk.ID]uint64)
	for n, info := range packs {
		table, err := s.ReadTable(t.Context(), info)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range table.Blocks {
			for _, c := range b.Chunks {
				held[c.ID] = n
			}
		}
	}
	return held
}

func encode(needs log.Ranges) (p []byte) {
	for n := range needs.All() {
		p = binary.LittleEndian.AppendUint64(p, n)
	}
	return p
}

func decode(p []byte) log.Ranges {
	var numbers []uint64
	for ; len(p) > 0; p = p[8:] {
		numbers = append(numbers, binary.LittleEndian.Uint64(p))
	}
	return log.RangesOf(numbers)
}

package store

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/engine/internal/index"
)

// A hangUp calls cancel once so many index segments have been read.
type hangUp struct {
	backend.Backend
	left   atomic.Int32
	cancel func()
}

func (h *hangUp) Get(ctx context.Context, key backend.Key, off, n int64) (io.ReadCloser, error) {
	r, err := h.Backend.Get(ctx, key, off, n)
	if err != nil || !strings.HasPrefix(string(key), "index/") {
		return r, err
	}
	all, err := io.ReadAll(r)
	if h.left.Add(-1) == 0 {
		h.cancel()
	}
	return io.NopCloser(bytes.NewReader(all)), errors.Join(err, r.Close())
}

// TestFillCancelledLast: who wants no more when all has been read, and nothing is in
// the index yet, is not told that it was loaded.
func TestFillCancelledLast(t *testing.T) {
	t.Parallel()
	r := newRig()
	s := r.open(t, r.mem)
	b := &hangUp{Backend: r.mem}
	segments := 0
	for i := range uint64(3) {
		r.put(t, s, random(i, 3000), random(i+100, 3000))
	}
	for range r.mem.List(t.Context(), "index/") {
		segments++
		b.left.Add(1)
	}
	x, err := index.Open(index.Options{Repository: r.id, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = x.Close() })
	ctx, cancel := context.WithCancel(t.Context())
	b.cancel = cancel
	s = r.open(t, b, func(o *Options) { o.Index, o.Limits.Fill = x, 1 })
	if err := s.LoadAll(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("LoadAll = %v, want context.Canceled", err)
	}
	if _, ok := x.Tag(); ok {
		t.Error("the index is tagged")
	}
	if err := s.LoadAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	if loaded, err := x.Loaded(); len(loaded) != segments || err != nil {
		t.Errorf("%d of %d segments are loaded, %v", len(loaded), segments, err)
	}
}

// A crowd counts who reads objects below a prefix, all and at the same time.
type crowd struct {
	backend.Backend
	prefix         string
	all, now, most atomic.Int32
}

func (c *crowd) Get(ctx context.Context, key backend.Key, off, n int64) (io.ReadCloser, error) {
	if strings.HasPrefix(string(key), c.prefix) && ctx.Err() == nil {
		c.all.Add(1)
		now := c.now.Add(1)
		defer c.now.Add(-1)
		for most := c.most.Load(); now > most && !c.most.CompareAndSwap(most, now); most = c.most.Load() {
		}
		time.Sleep(10 * time.Millisecond)
	}
	return c.Backend.Get(ctx, key, off, n)
}

// TestSegmentsAtOnce: segments are read several at a time, however small they are not
// too many.
func TestSegmentsAtOnce(t *testing.T) {
	t.Parallel()
	r := newRig()
	s := r.open(t, r.mem)
	for i := range uint64(segmentReads + 20) {
		r.put(t, s, random(i, 300))
	}
	b := &crowd{Backend: r.mem, prefix: "index/"}
	if err := r.open(t, b).LoadAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := b.most.Load(); n < 2 || n > segmentReads {
		t.Errorf("%d segments were read at once, want 2 to %d", n, segmentReads)
	}
}

package store

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/chunk"
	"github.com/cairn-backup/cairn/engine/internal/index"
	"github.com/cairn-backup/cairn/engine/internal/layout"
	"github.com/cairn-backup/cairn/engine/internal/log"
)

// slowSegments delays whoever reads an index segment.
type slowSegments struct{ backend.Backend }

func (b slowSegments) Get(ctx context.Context, key backend.Key, off, n int64) (io.ReadCloser, error) {
	if _, err := layout.ParseSegment(key); err == nil {
		time.Sleep(time.Millisecond)
	}
	return b.Backend.Get(ctx, key, off, n)
}

// A meeting is a log handler that holds the first who is about to rebuild the
// index until a second one is, and lets that one go a little later.
type meeting struct {
	slog.Handler
	come   atomic.Int64
	second chan struct{}
}

func (m *meeting) Enabled(context.Context, slog.Level) bool { return true }

func (m *meeting) Handle(context.Context, slog.Record) error {
	switch m.come.Add(1) {
	case 1:
		select {
		case <-m.second:
		case <-time.After(100 * time.Millisecond):
		}
	case 2:
		close(m.second)
		time.Sleep(5 * time.Millisecond)
	}
	return nil
}

// TestFindersDoNotUndoEachOther loses the entries of an index that counts as
// loaded. Of two who miss chunks at once each must find them.
func TestFindersDoNotUndoEachOther(t *testing.T) {
	r, m := newRig(), &meeting{Handler: slog.DiscardHandler, second: make(chan struct{})}
	s := r.open(t, slowSegments{r.mem})
	ids := store(t, s, 300, func(i int) []byte { return random(uint64(i), 1000) }) //nolint:gosec // an index
	if err := s.index().Reset(); err != nil {
		t.Fatal(err)
	}
	_ = s.opts.Log.View(func(st *log.State) error {
		for seg := range st.Segments() {
			if err := s.index().MarkLoaded(index.SegmentID(seg.ID)); err != nil {
				t.Fatal(err)
			}
		}
		return nil
	})
	s.opts.Logger = slog.New(m)
	var g errgroup.Group
	for range 2 {
		g.Go(func() error {
			_, err := s.Find(t.Context(), ids)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
}

// store commits n chunks and returns their names.
func store(t *testing.T, s *Store, n int, data func(i int) []byte) []chunk.ID {
	t.Helper()
	ss, err := s.Begin(t.Context(), SessionOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer ss.Abort(t.Context())
	w := ss.Writer()
	ids := make([]chunk.ID, n)
	for i := range ids {
		if ids[i], _, err = w.Put(t.Context(), data(i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Flush(t.Context()), ss.Drain(t.Context())); err != nil {
		t.Fatal(err)
	}
	if _, err := commit(t.Context(), ss); err != nil {
		t.Fatal(err)
	}
	return ids
}

// TestFullTable stores so many small chunks that the table of a pack is full
// before the pack is.
func TestFullTable(t *testing.T) {
	r := newRig()
	s := r.open(t, r.mem, func(o *Options) { o.Workers, o.Limits = 1, Limits{Pack: 128 << 20, Block: 2 << 20} })
	ids := store(t, s, 520_000, func(i int) []byte {
		return binary.LittleEndian.AppendUint64(make([]byte, 32, 40), uint64(i)) //nolint:gosec // an index
	})
	if _, err := s.Find(t.Context(), ids[:1000]); err != nil {
		t.Error(err)
	}
}

// TestAbortReleasesTheContext says that a session that was committed leaves
// nothing behind that lives as long as its caller's context.
func TestAbortReleasesTheContext(t *testing.T) {
	s := newRig()
	ss, err := s.open(t, s.mem).Begin(t.Context(), SessionOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := ss.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	released := false
	inner := ss.stop
	ss.stop = func(cause error) { released = true; inner(cause) }
	if _, err := commit(t.Context(), ss); err != nil {
		t.Fatal(err)
	}
	if ss.Abort(t.Context()); !released {
		t.Error("the context of the session is not released")
	}
}

package store

import (
	"testing"

	"github.com/cairn-backup/cairn/engine/internal/index"
)

// TestNoAllocationPerKnownChunk puts chunks that are stored already: what a
// backup that reads everything again does most of the time.
func TestNoAllocationPerKnownChunk(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector empties pools at random")
	}
	r := newRig()
	x, err := index.Open(index.Options{Repository: r.id, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = x.Close() })
	s := r.open(t, r.mem, func(o *Options) { o.Index = x })
	var chunks [][]byte
	for i := range 20 {
		chunks = append(chunks, random(uint64(i), 3000))
	}
	r.put(t, s, chunks...)
	ss, err := s.Begin(t.Context(), SessionOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer ss.Abort(t.Context())
	w := ss.Writer()
	n := testing.AllocsPerRun(10, func() {
		for _, c := range chunks {
			if _, isNew, err := w.Put(t.Context(), c); isNew || err != nil {
				t.Fatalf("Put = %v, %v, want a known chunk", isNew, err)
			}
		}
	})
	if n > 0 {
		t.Errorf("%v allocations for %d known chunks, want none", n, len(chunks))
	}
}

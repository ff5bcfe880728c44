package store

import (
	"testing"

	"github.com/cairn-backup/cairn/backend/mem"
)

// TestSpareBuffers counts the buffers that a session of many packs leaves: they
// are most of the memory that a backup takes.
func TestSpareBuffers(t *testing.T) {
	const workers = 4
	s := newRig().open(t, new(mem.Backend), func(o *Options) {
		o.Workers, o.Limits = workers, Limits{Block: 16 << 10, Pack: 64 << 10}
	})
	ss, err := s.Begin(t.Context(), SessionOptions{})
	if err != nil {
		t.Fatal(err)
	}
	w := ss.Writer()
	for i := range uint64(400) {
		if _, _, err := w.Put(t.Context(), random(i, 10<<10)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := ss.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := commit(t.Context(), ss); err != nil {
		t.Fatal(err)
	}
	if n, most := len(ss.spare[0]), workers/2+uploads; n == 0 || n > most {
		t.Errorf("%d buffers were in use, want 1 to %d", n, most)
	}
	if n := len(ss.infos) + len(ss.needs); n < 40 {
		t.Errorf("%d packs, too few for this test", n)
	}
}

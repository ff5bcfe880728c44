package engine

import (
	"encoding/binary"
	"testing"

	"github.com/zeebo/blake3"

	"github.com/cairn-backup/cairn/chunk"
)

func filterID(n uint64) chunk.ID {
	return blake3.Sum256(binary.LittleEndian.AppendUint64(nil, n))
}

// TestFilter: what was added is found, always; what was not is found rarely.
func TestFilter(t *testing.T) {
	t.Parallel()
	const n = 200_000
	for _, c := range []struct {
		name         string
		perID, limit uint64
		wrong        float64 // share of wrong answers, at most
	}{
		{"marks", markBits, markLimit, 1.0 / 10_000},
		{"seen", seenBits, seenLimit, 1.0 / 500},
		{"too small", markBits, n, 0.1}, // 8 bits for each, as with 270 million chunks
	} {
		f := newFilter(n, c.perID, c.limit)
		for i := range uint64(n) {
			f.add(filterID(i))
		}
		wrong := 0
		for i := range uint64(n) {
			if !f.has(filterID(i)) {
				t.Fatalf("%s: ID %d is not found", c.name, i)
			}
			if f.has(filterID(n + i)) {
				wrong++
			}
		}
		if share := float64(wrong) / n; share > c.wrong {
			t.Errorf("%s: %.6f of the answers are wrong, want at most %.6f", c.name, share, c.wrong)
		} else {
			t.Logf("%s: %.6f wrong, %d bytes", c.name, share, len(f.lines)*64)
		}
	}
	if f := newFilter(0, markBits, markLimit); f.has(filterID(1)) {
		t.Error("an empty filter holds something")
	}
}

func BenchmarkFilter(b *testing.B) {
	f := newFilter(1_000_000, markBits, markLimit)
	ids := make([]chunk.ID, 1<<16)
	for i := range ids {
		ids[i] = filterID(uint64(i)) //nolint:gosec // an index
	}
	for b.Loop() {
		for _, id := range ids {
			f.add(id)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(ids)), "ns/chunk")
}

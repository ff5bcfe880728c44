package engine

import (
	"cmp"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/cairn-backup/cairn/engine/internal/index"
)

// TestReads: reads of neighbouring blocks are joined, each within one pack and
// no longer than asked for unless one block is, and together they cover every
// reference once, in order.
func TestReads(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var refs []ref
		offset := uint32(72)
		for range rapid.IntRange(0, 60).Draw(t, "blocks") {
			stored := rapid.Uint32Range(1, 2*nearRead).Draw(t, "stored")
			pack := rapid.Uint64Range(1, 3).Draw(t, "pack")
			for range rapid.IntRange(1, 3).Draw(t, "chunks") {
				refs = append(refs, ref{place: index.Place{Pack: pack, Offset: offset, Stored: stored}})
			}
			offset += stored + rapid.SampledFrom([]uint32{0, 1, readGap, readGap + 1, 1 << 20}).Draw(t, "gap")
		}
		slices.SortStableFunc(refs, func(a, b ref) int {
			return cmp.Or(cmp.Compare(a.place.Pack, b.place.Pack), cmp.Compare(a.place.Offset, b.place.Offset))
		})
		at := 0
		for i, j := range reads(refs, nearRead) {
			if len(j.refs) == 0 || &j.refs[0] != &refs[at] {
				t.Fatalf("read %d does not go on where the last one ended", i)
			}
			blocks := make(map[uint32]bool)
			end := j.off
			for _, r := range j.refs {
				p := r.place
				blocks[p.Offset] = true
				if p.Pack != j.refs[0].place.Pack || int64(p.Offset) < j.off || int64(p.Offset)+int64(p.Stored) > j.end {
					t.Fatalf("read %d of [%d, %d) does not hold %+v", i, j.off, j.end, p)
				}
				if int64(p.Offset) > end+readGap {
					t.Fatalf("read %d skips %d bytes", i, int64(p.Offset)-end)
				}
				end = max(end, int64(p.Offset)+int64(p.Stored))
			}
			if end != j.end || j.end-j.off > nearRead && len(blocks) > 1 {
				t.Fatalf("read %d is of %d bytes and %d blocks, which end at %d", i, j.end-j.off, len(blocks), end)
			}
			at += len(j.refs)
		}
		if at != len(refs) {
			t.Fatalf("%d of %d references are read", at, len(refs))
		}
	})
}

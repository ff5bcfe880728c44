package log

import (
	"errors"
	"maps"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/cairn-backup/cairn/chunk/wire"
)

type set map[uint64]bool

func setOf(nums []uint64) set {
	s := make(set)
	for _, n := range nums {
		s[n] = true
	}
	return s
}

func (s set) ranges() Ranges { return RangesOf(slices.Collect(maps.Keys(s))) }

// valid fails unless r is sorted, disjoint and merged, and holds what s does.
func valid(t *rapid.T, what string, r Ranges, s set) {
	t.Helper()
	for i, g := range r {
		if g.Last < g.First || i > 0 && g.First < r[i-1].Last+2 {
			t.Fatalf("%s: %v is not canonical", what, []Range(r))
		}
	}
	if got := slices.Collect(r.All()); !slices.Equal(got, slices.Sorted(maps.Keys(s))) || r.Count() != uint64(len(s)) {
		t.Fatalf("%s: got %v, want %v", what, got, slices.Sorted(maps.Keys(s)))
	}
}

func TestRanges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		// A small universe makes ranges touch and overlap; the offset puts it
		// at both ends of the numbers.
		offset := rapid.SampledFrom([]uint64{0, 1, 1 << 40, math.MaxUint64 - 40}).Draw(t, "offset")
		number := rapid.Map(rapid.Uint64Range(0, 40), func(n uint64) uint64 { return offset + n })
		an, bn := rapid.SliceOf(number).Draw(t, "a"), rapid.SliceOf(number).Draw(t, "b")
		as, bs := setOf(an), setOf(bn)
		a, b := RangesOf(an), RangesOf(bn)
		a0, b0 := slices.Clone(a), slices.Clone(b)
		valid(t, "of", a, as)

		union, minus, both := maps.Clone(as), make(set), make(set)
		maps.Copy(union, bs)
		for n := range as {
			if bs[n] {
				both[n] = true
			} else {
				minus[n] = true
			}
		}
		valid(t, "union", a.Union(b), union)
		valid(t, "subtract", a.Subtract(b), minus)
		valid(t, "intersect", a.Intersect(b), both)
		if a.Intersects(b) != (len(both) > 0) {
			t.Fatalf("%v intersects %v: %v", a, b, a.Intersects(b))
		}
		for n := offset; ; n++ {
			if a.Contains(n) != as[n] {
				t.Fatalf("%v contains %d: %v", a, n, a.Contains(n))
			}
			if n == offset+40 {
				break
			}
		}
		if !a.Equal(as.ranges()) || !a.Equal(a0) || !b.Equal(b0) {
			t.Fatalf("%v or %v was changed", a, b)
		}
		p, err := wire.Marshal(a)
		if err != nil {
			t.Fatal(err)
		}
		var back Ranges
		if err := wire.Unmarshal(p, &back); err != nil || !back.Equal(a) {
			t.Fatalf("%v came back as %v: %v", a, back, err)
		}
	})
}

func TestRangesWhole(t *testing.T) {
	all := Ranges{{0, math.MaxUint64}}
	if all.Count() != math.MaxUint64 || len(all.Subtract(all)) != 0 || !all.Contains(math.MaxUint64) {
		t.Errorf("the set of all numbers: %v", all)
	}
	if got := all.Subtract(Ranges{{5, 6}}); !got.Equal(Ranges{{0, 4}, {7, math.MaxUint64}}) {
		t.Errorf("all but 5 and 6: %v", got)
	}
	if got := (Ranges{{1, 4}, {7, 7}}).String(); got != "1-4 7" {
		t.Errorf("String: %q", got)
	}
}

func TestRangesDecodeRefuses(t *testing.T) {
	for name, flat := range map[string][]uint64{
		"odd": {1}, "touching": {1, 0, 1, 0}, "overlapping": {1, 5, 0, 2},
		"overflowing": {2, math.MaxUint64}, "overflowing later": {1, 1, math.MaxUint64, 0},
	} {
		p, err := wire.Marshal(flat)
		if err != nil {
			t.Fatal(err)
		}
		var r Ranges
		if err := wire.Unmarshal(p, &r); !errors.Is(err, wire.ErrMalformed) {
			t.Errorf("%s %v: %v, %v", name, flat, r, err)
		}
	}
	if _, err := wire.Marshal(Ranges{{5, 6}, {7, 8}}); err == nil {
		t.Error("ranges that touch were encoded")
	}
}

package log

import (
	"cmp"
	"fmt"
	"iter"
	"math"
	"slices"
	"strings"

	"github.com/cairn-backup/cairn/chunk/wire"
)

// A Range is the numbers from First to Last, both in it.
type Range struct{ First, Last uint64 }

// Ranges is a set of numbers: ranges in rising order that neither overlap nor
// touch. The zero value is the empty set. Methods never change a Ranges, so
// values may be shared.
//
// As CBOR it is one flat array of integers: for each range how far its first
// number lies behind the last one of the range before (or 0), then how far its
// last lies behind its first.
type Ranges []Range

// RangesOf returns the set of nums, which may be in any order and repeat. It
// does not retain nums.
func RangesOf(nums []uint64) Ranges {
	var r Ranges
	for _, n := range slices.Sorted(slices.Values(nums)) {
		r = r.extend(Range{n, n})
	}
	return r
}

// extend appends g, whose First is no smaller than that of any range of r.
func (r Ranges) extend(g Range) Ranges {
	if k := len(r) - 1; k >= 0 && (g.First <= r[k].Last || g.First-1 == r[k].Last) {
		r[k].Last = max(r[k].Last, g.Last)
		return r
	}
	return append(r, g)
}

// Contains reports whether n is in the set.
func (r Ranges) Contains(n uint64) bool {
	i, found := slices.BinarySearchFunc(r, n, func(g Range, n uint64) int { return cmp.Compare(g.First, n) })
	return found || i > 0 && n <= r[i-1].Last
}

// Union returns the numbers that are in r or in o.
func (r Ranges) Union(o Ranges) Ranges {
	if len(r) == 0 || len(o) == 0 {
		return slices.Concat(r, o)
	}
	out := make(Ranges, 0, len(r)+len(o))
	for len(r) > 0 || len(o) > 0 {
		if len(o) == 0 || len(r) > 0 && r[0].First <= o[0].First {
			out, r = out.extend(r[0]), r[1:]
		} else {
			out, o = out.extend(o[0]), o[1:]
		}
	}
	return out
}

// Subtract returns the numbers of r that are not in o.
func (r Ranges) Subtract(o Ranges) Ranges {
	var out Ranges
	for _, g := range r {
		for len(o) > 0 && o[0].Last < g.First {
			o = o[1:]
		}
		whole := true
		for i := 0; i < len(o) && o[i].First <= g.Last; i++ {
			if o[i].First > g.First {
				out = append(out, Range{g.First, o[i].First - 1})
			}
			if o[i].Last >= g.Last {
				whole = false
				break
			}
			g.First = o[i].Last + 1
		}
		if whole {
			out = append(out, g)
		}
	}
	return out
}

// Intersect returns the numbers that are in both r and o.
func (r Ranges) Intersect(o Ranges) Ranges {
	var out Ranges
	for len(r) > 0 && len(o) > 0 {
		first, last := max(r[0].First, o[0].First), min(r[0].Last, o[0].Last)
		if first <= last {
			out = append(out, Range{first, last})
		}
		if r[0].Last <= o[0].Last {
			r = r[1:]
		} else {
			o = o[1:]
		}
	}
	return out
}

// Intersects reports whether any number is in both r and o.
func (r Ranges) Intersects(o Ranges) bool {
	for len(r) > 0 && len(o) > 0 {
		if max(r[0].First, o[0].First) <= min(r[0].Last, o[0].Last) {
			return true
		}
		if r[0].Last <= o[0].Last {
			r = r[1:]
		} else {
			o = o[1:]
		}
	}
	return false
}

// Count returns how many numbers are in the set; at most math.MaxUint64.
func (r Ranges) Count() uint64 {
	var n uint64
	for _, g := range r {
		if g.Last-g.First == math.MaxUint64 {
			return math.MaxUint64
		}
		n += g.Last - g.First + 1
	}
	return n
}

// All yields the numbers in rising order.
func (r Ranges) All() iter.Seq[uint64] {
	return func(yield func(uint64) bool) {
		for _, g := range r {
			for n := g.First; ; n++ {
				if !yield(n) {
					return
				}
				if n == g.Last {
					break
				}
			}
		}
	}
}

// Equal reports whether r and o are the same set.
func (r Ranges) Equal(o Ranges) bool { return slices.Equal(r, o) }

// String returns the set as "1-4 7 9-12".
func (r Ranges) String() string {
	var s strings.Builder
	for i, g := range r {
		if i > 0 {
			s.WriteByte(' ')
		}
		if g.First == g.Last {
			fmt.Fprintf(&s, "%d", g.First)
		} else {
			fmt.Fprintf(&s, "%d-%d", g.First, g.Last)
		}
	}
	return s.String()
}

// MarshalCBOR returns the flat array that Ranges describes.
func (r Ranges) MarshalCBOR() ([]byte, error) {
	flat := make([]uint64, 0, 2*len(r))
	var last uint64
	for i, g := range r {
		if g.Last < g.First || i > 0 && (g.First <= last || g.First-last < 2) {
			return nil, fmt.Errorf("ranges %v are not in order", []Range(r))
		}
		flat = append(flat, g.First-last, g.Last-g.First)
		last = g.Last
	}
	return wire.Marshal(flat)
}

// UnmarshalCBOR reads what MarshalCBOR wrote. Ranges that overlap, touch or
// pass the largest number are refused with wire.ErrMalformed.
func (r *Ranges) UnmarshalCBOR(p []byte) error {
	var flat []uint64
	if err := wire.Unmarshal(p, &flat); err != nil {
		return err
	}
	if len(flat)%2 != 0 {
		return fmt.Errorf("ranges: %w: an odd number of integers", wire.ErrMalformed)
	}
	*r = nil
	if len(flat) > 0 {
		*r = make(Ranges, 0, len(flat)/2)
	}
	var last uint64
	for i := 0; i < len(flat); i += 2 {
		first := last + flat[i]
		if first < last || first+flat[i+1] < first || i > 0 && flat[i] < 2 {
			return fmt.Errorf("ranges: %w: not in order", wire.ErrMalformed)
		}
		last = first + flat[i+1]
		*r = append(*r, Range{first, last})
	}
	return nil
}

package manifest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/cairn-backup/cairn/chunk"
)

func writeContent(t tester, p Putter, extents []Extent) Content {
	t.Helper()
	w := NewContentWriter(p)
	for _, e := range extents {
		if err := w.Add(context.Background(), e); err != nil {
			t.Fatalf("Add(%+v): %v", e, err)
		}
	}
	c, err := w.Finish(context.Background())
	if err != nil {
		t.Fatalf("Finish: %v", err)
	}
	return c
}

func readExtents(t tester, g Getter, c Content, from uint64) []Placed {
	t.Helper()
	var list []Placed
	for p, err := range Extents(context.Background(), g, c, from) {
		if err != nil {
			t.Fatalf("Extents(%d): %v", from, err)
		}
		list = append(list, p)
	}
	return list
}

// A piece is a byte range of the linear model: which byte of which chunk a file
// holds at an offset. The zero chunk is a hole.
type piece struct {
	offset uint64
	chunk  chunk.ID
	length uint64
}

// pieces unrolls extents that have been placed.
func pieces(list []Placed) []piece {
	var all []piece
	for _, p := range list {
		for i := range p.times() {
			all = append(all, piece{offset: p.Offset + i*p.chunkLength(), chunk: p.ID, length: p.chunkLength()})
		}
	}
	return all
}

// model places extents one after the other, with adjacent holes joined.
func model(extents []Extent) []piece {
	var all []piece
	var at uint64
	for _, e := range extents {
		if n := len(all); e.Kind == Hole && n > 0 && all[n-1].chunk.IsZero() {
			all[n-1].length += e.Length
		} else {
			for i := range e.times() {
				all = append(all, piece{offset: at + i*e.chunkLength(), chunk: e.ID, length: e.chunkLength()})
			}
		}
		at += e.Length
	}
	return all
}

func TestExtentsModel(t *testing.T) {
	fewerChecks(t)
	rapid.Check(t, func(t *rapid.T) {
		m := newMemory()
		extents := rapid.SliceOfN(extentGen, 0, 12).Draw(t, "extents")
		for i := range rapid.SampledFrom([]int{0, 0, 100, 1000}).Draw(t, "more") {
			extents = append(extents, Extent{Kind: Data, Length: uint64(i%999) + 1, ID: testID("more", i)})
		}
		var size uint64
		for _, e := range extents {
			size += e.Length
		}
		c := writeContent(t, m, extents)
		want := model(extents)
		all := readExtents(t, m, c, 0)
		if got := pieces(all); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("Extents = %v, want %v", got, want)
		}
		for i := 1; i < len(all); i++ {
			if _, ok := join(all[i-1].Extent, all[i].Extent); ok {
				t.Fatalf("extents %d and %d should be one: %v", i-1, i, all)
			}
		}
		if got, want := c.List.IsZero(), len(all) <= MaxExtents; got != want {
			t.Fatalf("%d extents in the node: %t, want %t", len(all), got, want)
		}
		if n := (Node{Name: "f", Kind: File, Size: size, Content: c}); n.Validate() != nil {
			t.Fatalf("Validate: %v", n.Validate())
		}
		for range 5 {
			from := rapid.Uint64Range(0, size+1).Draw(t, "from")
			i := 0
			for i < len(all) && all[i].Offset+all[i].Length <= from {
				i++
			}
			if got := readExtents(t, m, c, from); fmt.Sprint(got) != fmt.Sprint(all[i:]) {
				t.Fatalf("Extents(%d) begins %v, want %v", from, got, all[i:])
			}
		}
		var again []Extent
		for _, p := range all {
			again = append(again, p.Extent)
		}
		if got := writeContent(t, m, again); fmt.Sprint(got) != fmt.Sprint(c) {
			t.Fatalf("extents read and written again are %v, want %v", got, c)
		}
	})
}

func TestExtentsCost(t *testing.T) {
	m := newMemory()
	var extents []Extent
	for i := range 200_000 {
		extents = append(extents, Extent{Kind: Data, Length: 65_536, ID: testID(i)})
	}
	c := writeContent(t, m, extents)
	full := len(m.chunks)
	m.gets = 0
	for p, err := range Extents(t.Context(), m, c, 123_456*65_536+17) {
		if err != nil || p.ID != testID(123_456) || p.Offset != 123_456*65_536 {
			t.Errorf("Extents = %+v, %v", p, err)
		}
		break
	}
	if m.gets > 4 {
		t.Errorf("the first extent costs %d pages, want one a level", m.gets)
	}
	worst := 0
	for i := range scale(3, 5) {
		before := len(m.chunks)
		at := i * 39_999
		changed := append(append(append([]Extent(nil), extents[:at]...), Extent{Kind: Data, Length: 7, ID: testID("new", i)}), extents[at:]...)
		writeContent(t, m, changed)
		worst = max(worst, len(m.chunks)-before)
	}
	t.Logf("%d pages; at most %d new ones after an insertion", full, worst)
	if worst > 8 {
		t.Errorf("an insertion makes %d new pages, want at most 8", worst)
	}
}

// An ender is a Putter that gives every page an ID whose hash ends a page.
type ender struct {
	*memory
	next int
}

// id returns the next ID of that sort.
func (e *ender) id() chunk.ID {
	w := newListWriter(nil, pageContent, contentBits)
	for {
		e.next++
		if id := testID("ender", e.next); w.ends(id[:]) {
			return id
		}
	}
}

func (e *ender) PutChunk(_ context.Context, data []byte) (chunk.ID, error) {
	id := e.id()
	e.chunks[id] = slices.Clone(data)
	return id, nil
}

// Hashes that end a page after every item must not make a list of endless levels.
func TestContentLevels(t *testing.T) {
	e := &ender{memory: newMemory()}
	var extents []Extent
	for range 300 {
		extents = append(extents, Extent{Kind: Data, Length: 10, ID: e.id()})
	}
	c := writeContent(t, e, extents)
	if got := readExtents(t, e, c, 0); len(got) != len(extents) || c.Size != 3000 {
		t.Errorf("%d extents of %d bytes, want %d of 3000", len(got), c.Size, len(extents))
	}
	if got := len(e.chunks); got < 500 || got > 620 {
		t.Errorf("%d pages, want 300 of level 0 and about as many above", got)
	}
}

func TestPatches(t *testing.T) {
	m := newMemory()
	var extents, data []Extent
	for i := range 1000 {
		e := Extent{Kind: Data, Length: 65_536, ID: testID(i)}
		data = append(data, e)
		extents = append(extents, e)
		for j := range i % 5 {
			extents = append(extents, Extent{
				Kind: Patch, First: uint64(3 * j), Count: 2, Length: 8192, ID: testID("patch", i, j),
			})
		}
	}
	c := writeContent(t, m, extents)
	if c.Size != 1000*65_536 {
		t.Fatalf("Size = %d, want %d: patches add nothing", c.Size, 1000*65_536)
	}
	got := readExtents(t, m, c, 0)
	if len(got) != len(extents) {
		t.Fatalf("%d extents, want %d", len(got), len(extents))
	}
	base := uint64(0)
	for i, p := range got {
		if p.Extent != extents[i] {
			t.Fatalf("extent %d = %+v, want %+v", i, p.Extent, extents[i])
		}
		want := base
		if p.Kind == Patch {
			want = base - 65_536 + p.First*4096
		} else {
			base += p.Length
		}
		if p.Offset != want {
			t.Fatalf("extent %d at %d, want %d", i, p.Offset, want)
		}
	}
	from := readExtents(t, m, c, 4*65_536+1)
	if len(from) == 0 || from[0].ID != data[4].ID || from[1].Kind != Patch {
		t.Errorf("Extents inside a patched extent begins %+v", from[:2])
	}
	for _, from := range []uint64{0, 65_536, 65_535 + 4*65_536, c.Size - 1, c.Size} {
		patchedExtents(t, m, c, from)
	}
	for i, p := range m.chunks {
		if len(p) > pageLimit {
			t.Errorf("page %s of %d bytes", i, len(p))
		}
	}
}

// patchedExtents compares PatchedExtents with Extents, also where a caller wants
// no more after n of them.
func patchedExtents(t *testing.T, g Getter, c Content, from uint64) {
	t.Helper()
	want := readExtents(t, g, c, from)
	for _, stop := range []int{1, 2, 1 << 30} {
		var got []Placed
		n, bases := 0, 0
		for p, err := range PatchedExtents(t.Context(), g, c, from) {
			if err != nil {
				t.Fatalf("PatchedExtents(%d): %v", from, err)
			}
			got = append(append(got, p.Placed), p.Patches...)
			if n++; n == stop {
				break
			}
		}
		end := 0
		for ; end < len(want) && (want[end].Kind == Patch || bases < n); end++ {
			if want[end].Kind != Patch {
				bases++
			}
		}
		if n < min(stop, 1) && len(want) > 0 || fmt.Sprint(got) != fmt.Sprint(want[:end]) || stop == 1<<30 && end != len(want) {
			t.Fatalf("PatchedExtents(%d), %d of them: %v, want %v", from, stop, got, want[:end])
		}
	}
}

// TestPatchedExtentsError yields what is whole, and then the error.
func TestPatchedExtentsError(t *testing.T) {
	id := testID("a")
	c := Content{Extents: []Extent{
		{Kind: Data, Length: 8192, ID: id},
		{Kind: Patch, First: 1, Count: 1, Length: 4096, ID: testID("b")},
		{Kind: Patch, First: 1, Count: 1, Length: 4096, ID: testID("c")},
	}}
	n := 0
	for p, err := range PatchedExtents(t.Context(), newMemory(), c, 0) {
		if n++; n == 1 && (err != nil || len(p.Patches) != 1) || n == 2 && !errors.Is(err, ErrMalformed) {
			t.Errorf("item %d: %+v, %v", n, p, err)
		}
	}
	if n != 2 {
		t.Errorf("%d items, want an extent and an error", n)
	}
}

func TestExtentInvalid(t *testing.T) {
	id, other := testID(1), testID(2)
	data := Extent{Kind: Data, Length: 16384, ID: id}
	tests := []struct {
		name    string
		extents []Extent
	}{
		{"kind 0", []Extent{{Length: 1, ID: id}}},
		{"kind 5", []Extent{{Kind: 5, Length: 1, ID: id}}},
		{"empty data", []Extent{{Kind: Data, ID: id}}},
		{"large chunk", []Extent{{Kind: Data, Length: MaxChunk + 1, ID: id}}},
		{"counted data", []Extent{{Kind: Data, Length: 1, Count: 1, ID: id}}},
		{"no chunk", []Extent{{Kind: Data, Length: 1}}},
		{"empty hole", []Extent{{Kind: Hole}}},
		{"hole with chunk", []Extent{{Kind: Hole, Length: 1, ID: id}}},
		{"repeat once", []Extent{{Kind: Repeat, Length: 5, Count: 1, ID: id}}},
		{"uneven repeat", []Extent{{Kind: Repeat, Length: 5, Count: 2, ID: id}}},
		{"large repeat", []Extent{{Kind: Repeat, Length: 2 * (MaxChunk + 1), Count: 2, ID: id}}},
		{"too large", []Extent{{Kind: Hole, Length: maxSize}, {Kind: Data, Length: 1, ID: id}}},
		{"holes too large", []Extent{{Kind: Hole, Length: maxSize}, {Kind: Hole, Length: 1}}},
		{"patch first", []Extent{{Kind: Patch, Count: 1, Length: 1, ID: id}}},
		{"patch of a hole", []Extent{{Kind: Hole, Length: 9}, {Kind: Patch, Count: 1, Length: 1, ID: id}}},
		{"patch beyond", []Extent{data, {Kind: Patch, First: 4, Count: 1, Length: 4096, ID: other}}},
		{"patches overlap", []Extent{
			data, {Kind: Patch, First: 0, Count: 2, Length: 8192, ID: other}, {Kind: Patch, First: 1, Count: 1, Length: 4096, ID: other},
		}},
		{"uneven patch", []Extent{data, {Kind: Patch, Count: 2, Length: 3, ID: other}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := NewContentWriter(newMemory())
			for _, e := range tt.extents {
				_ = w.Add(t.Context(), e) // the error sticks
			}
			if c, err := w.Finish(t.Context()); !errors.Is(err, ErrInvalid) {
				t.Errorf("Finish = %+v, %v, want ErrInvalid", c, err)
			}
			var err error
			for _, err = range Extents(t.Context(), newMemory(), Content{Extents: tt.extents}, 0) {
			}
			if !errors.Is(err, ErrMalformed) {
				t.Errorf("Extents: %v, want ErrMalformed", err)
			}
		})
	}
}

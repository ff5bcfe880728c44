package manifest

import (
	"errors"
	"slices"
	"testing"

	"github.com/cairn-backup/cairn/chunk"
	"github.com/cairn-backup/cairn/chunk/wire"
)

// page returns a page with these items.
func page(kind, level uint64, items ...[]byte) []byte {
	p := wire.AppendUvarint(nil, kind)
	p = wire.AppendUvarint(p, level)
	p = wire.AppendUvarint(p, uint64(len(items)))
	return append(p, slices.Concat(items...)...)
}

func dirEntry(first string, id chunk.ID, weight uint64) []byte {
	p := append(wire.AppendText(nil, first), id[:]...)
	return wire.AppendUvarint(p, weight)
}

func contentEntry(id chunk.ID, weight, leaves uint64) []byte {
	p := wire.AppendUvarint(slices.Clone(id[:]), weight)
	return wire.AppendUvarint(p, leaves)
}

func nodeOf(name string) []byte {
	n := Node{Name: name, Kind: FIFO}
	return n.Append(nil)
}

func extentOf(length uint64, id chunk.ID) []byte {
	return Extent{Kind: Data, Length: length, ID: id}.append(nil)
}

// Each root is a list that no writer makes. Reading it to the end, looking up
// any name, comparing it and following its references must refuse it.
func TestDirMalformed(t *testing.T) {
	m := newMemory()
	a := m.put(t, page(pageDir, 0, nodeOf("a"), nodeOf("b")))
	c := m.put(t, page(pageDir, 0, nodeOf("c")))
	ac := m.put(t, page(pageDir, 1, dirEntry("a", a, 2), dirEntry("c", c, 1)))
	empty := m.put(t, page(pageDir, 0))
	content := m.put(t, page(pageContent, 0, extentOf(1, a)))
	ba := m.put(t, page(pageDir, 0, nodeOf("b"), nodeOf("a")))
	large := page(pageDir, 0, nodeOf("a"), make([]byte, pageLimit))

	if got := readDir(t, m, ac); len(got) != 3 {
		t.Fatalf("the well-formed list has %d nodes, want 3", len(got))
	}
	tests := []struct {
		name string
		page []byte
	}{
		{"nothing", nil},
		{"only a kind", []byte{pageDir}},
		{"kind of a content list", page(pageContent, 0, nodeOf("a"))},
		{"unknown kind", page(9, 0, nodeOf("a"))},
		{"level too high", page(pageDir, maxLevel+1, dirEntry("a", a, 2), dirEntry("c", c, 1))},
		{"count too large", append([]byte{pageDir, 0, 200}, nodeOf("a")...)},
		{"count of 2^63", append([]byte{pageDir, 0, 255, 255, 255, 255, 255, 255, 255, 255, 127}, nodeOf("a")...)},
		{"left over", append(page(pageDir, 0, nodeOf("a")), 0)},
		{"too large", large},
		{"names fall", page(pageDir, 0, nodeOf("b"), nodeOf("a"))},
		{"name twice", page(pageDir, 0, nodeOf("a"), nodeOf("a"))},
		{"empty upper page", page(pageDir, 1)},
		{"upper page over one page", page(pageDir, 1, dirEntry("a", a, 2))},
		{"upper names fall", page(pageDir, 1, dirEntry("c", c, 1), dirEntry("a", a, 2))},
		{"upper name bad", page(pageDir, 1, dirEntry("..", a, 2), dirEntry("c", c, 1))},
		{"level skips", page(pageDir, 2, dirEntry("a", a, 2), dirEntry("c", c, 1))},
		{"level does not fall", page(pageDir, 1, dirEntry("a", ac, 3), dirEntry("d", c, 1))},
		{"first name wrong", page(pageDir, 1, dirEntry("0", a, 2), dirEntry("c", c, 1))},
		{"first name wrong above", page(pageDir, 2, dirEntry("0", ac, 3), dirEntry("c", ac, 3))},
		{"weight too small", page(pageDir, 1, dirEntry("a", a, 1), dirEntry("c", c, 1))},
		{"weight too large", page(pageDir, 1, dirEntry("a", a, 3), dirEntry("c", c, 1))},
		{"weight wrong above", page(pageDir, 2, dirEntry("a", ac, 4), dirEntry("c", ac, 3))},
		{"weight 0", page(pageDir, 1, dirEntry("a", empty, 0), dirEntry("c", c, 1))},
		{"empty page below", page(pageDir, 1, dirEntry("a", empty, 1), dirEntry("c", c, 1))},
		{"zero id below", page(pageDir, 1, dirEntry("a", chunk.ID{}, 1), dirEntry("c", c, 1))},
		{"content below", page(pageDir, 1, dirEntry("a", content, 1), dirEntry("c", c, 1))},
		{"names fall below", page(pageDir, 1, dirEntry("b", ba, 2), dirEntry("c", c, 1))},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			root := m.put(t, tt.page)
			var err error
			for _, err = range ReadDir(t.Context(), m, root) {
			}
			if !errors.Is(err, ErrMalformed) {
				t.Errorf("ReadDir: %v, want ErrMalformed", err)
			}
			for _, err = range Diff(t.Context(), m, root, chunk.ID{}) {
			}
			if !errors.Is(err, ErrMalformed) {
				t.Errorf("Diff: %v, want ErrMalformed", err)
			}
			err = References(t.Context(), m, root, func(Reference) (bool, error) { return true, nil })
			if !errors.Is(err, ErrMalformed) {
				t.Errorf("References: %v, want ErrMalformed", err)
			}
		})
	}
	t.Run("names overlap", func(t *testing.T) {
		wide := m.put(t, page(pageDir, 0, nodeOf("a"), nodeOf("x")))
		root := m.put(t, page(pageDir, 1, dirEntry("a", wide, 2), dirEntry("c", c, 1)))
		var err error
		for _, err = range ReadDir(t.Context(), m, root) {
		}
		if !errors.Is(err, ErrMalformed) {
			t.Errorf("ReadDir: %v, want ErrMalformed", err)
		}
	})
}

func TestContentMalformed(t *testing.T) {
	m := newMemory()
	one, two, three := testID(1), testID(2), testID(3)
	a := m.put(t, page(pageContent, 0, extentOf(10, one), extentOf(5, two)))
	c := m.put(t, page(pageContent, 0, extentOf(7, three)))
	ac := m.put(t, page(pageContent, 1, contentEntry(a, 15, 2), contentEntry(c, 7, 1)))
	patch := Extent{Kind: Patch, Count: 1, Length: 1, ID: one}.append(nil)
	patched := m.put(t, page(pageContent, 0, patch))
	dir := m.put(t, page(pageDir, 0, nodeOf("a")))

	if got := readExtents(t, m, Content{List: ac, Size: 22}, 0); len(got) != 3 {
		t.Fatalf("the well-formed list has %d extents, want 3", len(got))
	}
	tests := []struct {
		name string
		size uint64
		page []byte
	}{
		{"nothing", 22, nil},
		{"empty", 22, page(pageContent, 0)},
		{"a directory", 22, m.chunks[dir]},
		{"size of the node", 21, m.chunks[ac]},
		{"size of the node, one page", 14, m.chunks[a]},
		{"neighbours not joined", 20, page(pageContent, 0, extentOf(10, one), extentOf(10, one))},
		{"unknown extent", 10, page(pageContent, 0, []byte{5, 10})},
		{"weight wrong", 22, page(pageContent, 1, contentEntry(a, 14, 2), contentEntry(c, 8, 1))},
		{"count wrong", 22, page(pageContent, 1, contentEntry(a, 15, 3), contentEntry(c, 7, 1))},
		{"weight overflows", 22, page(pageContent, 1, contentEntry(a, maxSize, 2), contentEntry(c, maxSize, 1))},
		{"weight 0", 22, page(pageContent, 1, contentEntry(a, 22, 2), contentEntry(c, 0, 1))},
		{"level skips", 22, page(pageContent, 2, contentEntry(a, 15, 2), contentEntry(c, 7, 1))},
		{"patch first", 7, page(pageContent, 1, contentEntry(c, 7, 1), contentEntry(patched, 1, 1))},
		{"count wrong above", 44, page(pageContent, 2, contentEntry(ac, 22, 3), contentEntry(ac, 22, 4))},
		{"left over", 10, append(page(pageContent, 0, extentOf(10, one)), 1)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			content := Content{List: m.put(t, tt.page), Size: tt.size}
			var err error
			for _, err = range Extents(t.Context(), m, content, 0) {
			}
			if !errors.Is(err, ErrMalformed) {
				t.Errorf("Extents: %v, want ErrMalformed", err)
			}
		})
	}
}

func TestXattrsMalformed(t *testing.T) {
	m := newMemory()
	good := []Xattr{{Name: "user.a", Value: make([]byte, 2000)}}
	root := writeDir(t, m, []Node{{Name: "f", Kind: FIFO, Xattrs: good}})
	n, err := Lookup(t.Context(), m, root, "f")
	if err != nil || n.XattrChunk.IsZero() || len(n.Xattrs) != 1 || len(n.Xattrs[0].Value) != 2000 {
		t.Fatalf("Lookup = %+v, %v, want the attributes", n, err)
	}
	id := n.XattrChunk
	p := m.chunks[id]
	tests := []struct {
		name string
		p    []byte
	}{
		{"empty", nil},
		{"cut", p[:len(p)-1]},
		{"left over", append(slices.Clone(p), 0)},
		{"kind", append([]byte{pageDir}, p[1:]...)},
		{"small enough for the node", encodeXattrs([]Xattr{{Name: "user.a"}})},
		{"out of order", encodeXattrs([]Xattr{{Name: "b", Value: make([]byte, 2000)}, {Name: "a"}})},
		{"too large", encodeXattrs([]Xattr{{Name: "b", Value: make([]byte, MaxXattrs)}})},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m.chunks[id] = tt.p
			if n, err := Lookup(t.Context(), m, root, "f"); !errors.Is(err, ErrMalformed) {
				t.Errorf("Lookup = %+v, %v, want ErrMalformed", n, err)
			}
		})
	}
	// A node that was read without its attributes keeps them when it is written.
	n.Xattrs = nil
	if got := writeDir(t, m, []Node{n}); got != root {
		t.Error("a node with XattrChunk alone is stored differently")
	}
}

package manifest

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/cairn-backup/cairn/chunk"
)

// What decodes must encode to the same bytes, and what does not must say so.

func FuzzDecodeNode(f *testing.F) {
	for _, v := range nodeVectors() {
		if v.node.XattrChunk.IsZero() {
			f.Add(v.node.Append(nil))
		}
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		n, err := DecodeNode(p)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatalf("DecodeNode: %v, want ErrMalformed", err)
			}
			return
		}
		if err := n.Validate(); err != nil {
			t.Fatalf("a decoded node does not validate: %v", err)
		}
		if got := n.Append(nil); !bytes.Equal(got, p) {
			t.Fatalf("DecodeNode(%x) encodes to %x", p, got)
		}
	})
}

func FuzzDirPage(f *testing.F) {
	m := newMemory()
	writeDir(f, m, testFiles(500))
	for _, p := range m.chunks {
		f.Add(p[:min(len(p), 2000)])
		f.Add(p)
	}
	id := testID("page")
	f.Add(page(pageDir, 1, dirEntry("a", id, 2), dirEntry("c", id, 1)))
	f.Fuzz(func(t *testing.T, data []byte) {
		// Pages that name themselves must come to an end as well.
		g := &memory{chunks: map[chunk.ID][]byte{id: data, {}: data}, hinted: make(map[chunk.ID]bool)}
		var nodes []Node
		var failed error
		for n, err := range ReadDir(t.Context(), g, id) {
			failed = err
			nodes = append(nodes, n)
		}
		_, lookup := Lookup(context.Background(), g, id, "file-000001.go")
		if failed == nil {
			if got := writeDir(t, newMemory(), nodes); len(nodes) < 2 && got != chunk.ID(testSum(data)) {
				t.Fatalf("page %x is not what its %d nodes are written as", data, len(nodes))
			}
			if errors.Is(lookup, ErrMalformed) {
				t.Fatalf("ReadDir reads what Lookup refuses: %v", lookup)
			}
		}
		r := ref{id: id, root: true}
		p, err := parsePage(data, pageDir, r)
		if err != nil {
			return
		}
		var again [][]byte
		if p.level > 0 {
			refs, err := p.refs(pageDir, r)
			if err != nil {
				return
			}
			for _, e := range refs {
				again = append(again, dirEntry(e.first, e.id, e.weight))
			}
		} else if p.nodes(r, func(n *Node) error { again = append(again, n.Append(nil)); return nil }) != nil {
			return
		}
		if got := page(pageDir, p.level, again...); !bytes.Equal(got, data) {
			t.Fatalf("page %x encodes to %x", data, got)
		}
	})
}

func FuzzContentPage(f *testing.F) {
	m := newMemory()
	id := testID("page")
	var extents []Extent
	for i := range 300 {
		extents = append(extents, Extent{Kind: Data, Length: uint64(i) + 1, ID: testID(i)})
	}
	extents = append(extents, Extent{Kind: Patch, Count: 2, Length: 2, ID: id}, Extent{Kind: Hole, Length: 1 << 40},
		Extent{Kind: Repeat, Length: 30, Count: 3, ID: id})
	writeContent(f, m, extents)
	for _, p := range m.chunks {
		f.Add(p, uint64(0))
	}
	f.Add(page(pageContent, 1, contentEntry(id, 2, 1), contentEntry(id, 1, 1)), uint64(3))
	f.Fuzz(func(t *testing.T, data []byte, from uint64) {
		g := &memory{chunks: map[chunk.ID][]byte{id: data}, hinted: make(map[chunk.ID]bool)}
		end := uint64(0)
		for p, err := range Extents(t.Context(), g, Content{List: id}, from) {
			if err != nil {
				break
			}
			if p.Kind != Patch && (p.Offset+p.Length <= from || p.Offset < end || p.Length > maxSize-p.Offset) {
				t.Fatalf("Extents(%d) yields %+v after %d", from, p, end)
			}
			end = p.Offset + p.covers()
		}
		r := ref{id: id, root: true}
		p, err := parsePage(data, pageContent, r)
		if err != nil {
			return
		}
		var again [][]byte
		if p.level > 0 {
			refs, err := p.refs(pageContent, r)
			if err != nil {
				return
			}
			for _, e := range refs {
				again = append(again, contentEntry(e.id, e.weight, e.leaves))
			}
		} else {
			placed, err := p.extentsOfPage(nil, r)
			if err != nil {
				return
			}
			for _, e := range placed {
				again = append(again, e.append(nil))
			}
		}
		if got := page(pageContent, p.level, again...); !bytes.Equal(got, data) {
			t.Fatalf("page %x encodes to %x", data, got)
		}
	})
}

func FuzzXattrs(f *testing.F) {
	f.Add(encodeXattrs([]Xattr{{Name: "a", Value: make([]byte, 1100)}, {Name: "b"}}))
	f.Fuzz(func(t *testing.T, p []byte) {
		xattrs, err := decodeXattrs(p)
		if err != nil {
			return
		}
		if got := encodeXattrs(xattrs); !bytes.Equal(got, p) {
			t.Fatalf("attributes %x encode to %x", p, got)
		}
	})
}

func FuzzDecodeSummary(f *testing.F) {
	p, err := EncodeSummary(testSummary())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(p)
	f.Fuzz(func(t *testing.T, p []byte) {
		s, err := DecodeSummary(p)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatalf("DecodeSummary: %v, want ErrMalformed", err)
			}
			return
		}
		if got, err := EncodeSummary(s); err != nil || !bytes.Equal(got, p) {
			t.Fatalf("DecodeSummary(%x) encodes to %x, %v", p, got, err)
		}
	})
}

func FuzzDecodeBody(f *testing.F) {
	s := testSnapshot()
	p, err := EncodeBody(s)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(p)
	f.Fuzz(func(t *testing.T, p []byte) {
		got, err := DecodeBody(s.Summary, p)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatalf("DecodeBody: %v, want ErrMalformed", err)
			}
			return
		}
		if again, err := EncodeBody(got); err != nil || !bytes.Equal(again, p) {
			t.Fatalf("DecodeBody(%x) encodes to %x, %v", p, again, err)
		}
	})
}

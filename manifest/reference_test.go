package manifest

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"github.com/zeebo/blake3"
	"pgregory.net/rapid"

	"github.com/cairn-backup/cairn/chunk"
)

// referenceList stores a list the plain way, level by level from the text of
// the format description, with all items in memory. It shares no code with
// listWriter.
func referenceList(t tester, m *memory, kind byte, items []item) chunk.ID {
	zeros := map[byte]uint64{1: 1<<6 - 1, 2: 1<<7 - 1}[kind]
	for level := uint64(0); ; level++ {
		var pages [][]item
		size, ends := 0, true
		for _, it := range items {
			n := len(pages)
			if !it.glued && (ends || n > 0 && size+len(it.encoded) > 16384) {
				pages = append(pages, nil)
				n, size = n+1, 0
			}
			pages[n-1] = append(pages[n-1], it)
			size += len(it.encoded)
			if !it.glued {
				hash := blake3.Sum256(it.key)
				ends = binary.LittleEndian.Uint64(hash[:])&zeros == 0 && (level == 0 || len(pages[n-1]) > 1)
			}
		}
		var above []item
		for _, p := range pages {
			up := item{first: p[0].first}
			data := binary.AppendUvarint([]byte{kind, byte(level)}, uint64(len(p)))
			for _, it := range p {
				data = append(data, it.encoded...)
				up.weight += it.weight
				up.leaves += it.leaves
			}
			id := m.put(t, data)
			up.key = id[:]
			if kind == 1 {
				up.encoded = append(binary.AppendUvarint(nil, uint64(len(up.first))), up.first...)
			}
			up.encoded = binary.AppendUvarint(append(up.encoded, id[:]...), up.weight)
			if kind == 2 {
				up.encoded = binary.AppendUvarint(up.encoded, up.leaves)
			}
			above = append(above, up)
		}
		if len(above) == 1 {
			return chunk.ID(above[0].key)
		}
		items = above
	}
}

func TestDirReference(t *testing.T) {
	fewerChecks(t)
	rapid.Check(t, func(t *rapid.T) {
		nodes := testFiles(rapid.IntRange(1, 5000).Draw(t, "n"))
		long := strings.Repeat("x", rapid.SampledFrom([]int{0, 0, 500, 4000}).Draw(t, "long"))
		var items []item
		for i := range nodes {
			nodes[i].Name += long
			items = append(items, item{
				encoded: nodes[i].Append(nil), key: []byte(nodes[i].Name), first: nodes[i].Name, weight: 1,
			})
		}
		want := referenceList(t, newMemory(), 1, items)
		if got := writeDir(t, newMemory(), nodes); got != want {
			t.Fatalf("%d nodes: root %s, want %s", len(nodes), got, want)
		}
	})
}

func TestContentReference(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seed := rapid.Int().Draw(t, "seed")
		var extents []Extent
		var items []item
		add := func(e Extent, key []byte) {
			it := item{encoded: e.append(nil), weight: e.Length, leaves: 1, key: key, glued: e.Kind == Patch}
			if it.glued {
				it.weight = 0
			}
			extents, items = append(extents, e), append(items, it)
		}
		for i := range rapid.IntRange(9, 5000).Draw(t, "n") {
			id := testID(seed, i)
			switch id[0] % 4 {
			case 0:
				e := Extent{Kind: Hole, Length: uint64(i%7) + 1}
				add(e, e.append(nil))
				fallthrough
			case 1:
				add(Extent{Kind: Repeat, Length: 30, Count: 3, ID: id}, id[:])
			default:
				add(Extent{Kind: Data, Length: 65_536, ID: id}, id[:])
				for j := range id[1] % 8 {
					patch := testID("patch", seed, i, j)
					add(Extent{Kind: Patch, First: uint64(2 * j), Count: 1, Length: 4096, ID: patch}, nil)
				}
			}
		}
		if len(extents) <= MaxExtents {
			t.Skip("no list")
		}
		want := referenceList(t, newMemory(), 2, items)
		if got := writeContent(t, newMemory(), extents); got.List != want {
			t.Fatalf("%d extents: root %s, want %s", len(extents), got.List, fmt.Sprint(want))
		}
	})
}

package manifest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/cairn-backup/cairn/chunk"
)

// A tree is a directory tree in memory: names to nodes, and what is in those
// that are directories.
type tree map[string]*branch

type branch struct {
	node Node
	in   tree // of a directory
}

func (tr tree) store(t tester, p Putter) chunk.ID {
	t.Helper()
	var nodes []Node
	for _, b := range tr {
		if b.node.Kind == Dir {
			b.node.Tree = b.in.store(t, p)
		}
		nodes = append(nodes, b.node)
	}
	return writeDir(t, p, nodes)
}

func (tr tree) names() []string {
	var list []string
	for name := range tr {
		list = append(list, name)
	}
	slices.Sort(list)
	return list
}

func treeGen(depth int) *rapid.Generator[tree] {
	return rapid.Custom(func(t *rapid.T) tree {
		tr := make(tree)
		for _, n := range rapid.SliceOfNDistinct(nodeGen, 0, 6, func(n Node) string { return n.Name }).Draw(t, "nodes") {
			b := &branch{node: n}
			if n.Kind == Dir {
				b.in = tree{}
				if depth > 0 {
					b.in = treeGen(depth-1).Draw(t, "in")
				}
			}
			tr[n.Name] = b
		}
		return tr
	})
}

// mutate returns a copy of tr with a few changes.
func (tr tree) mutate(t *rapid.T) tree {
	out := make(tree)
	for _, name := range tr.names() {
		b := *tr[name]
		switch rapid.IntRange(0, 9).Draw(t, "fate of "+name) {
		case 0:
			continue
		case 1:
			b.node.Mode ^= 0o100
		case 2:
			b.node.Look.Ino++ // not a change
		case 3:
			if b.node.Kind == Symlink {
				b.node.Target += "x"
			}
		case 4:
			other := nodeGen.Draw(t, "replacement")
			other.Name = name
			b = branch{node: other}
			if other.Kind == Dir {
				b.in = treeGen(1).Draw(t, "new dir")
			}
		default:
			if b.in != nil {
				b.in = b.in.mutate(t)
			}
		}
		out[name] = &b
	}
	for _, n := range rapid.SliceOfN(nodeGen, 0, 2).Draw(t, "added") {
		if out[n.Name] == nil {
			out[n.Name] = &branch{node: n}
			if n.Kind == Dir {
				out[n.Name].in = tree{}
			}
		}
	}
	return out
}

// naive compares trees entry by entry.
func naive(a, b tree, prefix string) []string {
	var list []string
	names := append(a.names(), b.names()...)
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		old, cur := a[name], b[name]
		var in [2]tree
		if old != nil {
			in[0] = old.in
		}
		if cur != nil {
			in[1] = cur.in
		}
		kind := ChangeKind(0)
		switch {
		case old == nil:
			kind = Added
		case cur == nil:
			kind = Removed
		default:
			x, y := old.node, cur.node
			x.Look, y.Look, x.Tree, y.Tree = Look{}, Look{}, chunk.ID{}, chunk.ID{}
			x.Link, y.Link = min(x.Link, 1), min(y.Link, 1)
			same := equalNodes(x, y)
			for _, n := range []*Node{&x, &y} { // leave what is data
				*n = Node{Kind: n.Kind, Size: n.Size, Content: n.Content, Target: n.Target, Device: n.Device}
			}
			if !equalNodes(x, y) {
				kind = Modified
			} else if !same {
				kind = MetadataOnly
			}
		}
		if kind != 0 {
			list = append(list, fmt.Sprintf("%s %q", kind, prefix+name))
		}
		list = append(list, naive(in[0], in[1], prefix+name+"/")...)
	}
	return list
}

func diff(t tester, g Getter, a, b chunk.ID) []string {
	t.Helper()
	var list []string
	for c, err := range Diff(context.Background(), g, a, b) {
		if err != nil {
			t.Fatalf("Diff: %v", err)
		}
		if (c.Old == nil) != (c.Kind == Added) || (c.New == nil) != (c.Kind == Removed) {
			t.Fatalf("Diff: %s of %q with nodes %v and %v", c.Kind, c.Path, c.Old, c.New)
		}
		for _, n := range []*Node{c.Old, c.New} {
			if n != nil && !strings.HasSuffix("/"+c.Path, "/"+n.Name) {
				t.Fatalf("Diff: node %q at path %q", n.Name, c.Path)
			}
			if n != nil && !n.XattrChunk.IsZero() && len(n.Xattrs) == 0 {
				t.Fatalf("Diff: attributes of %q not loaded", c.Path)
			}
		}
		list = append(list, fmt.Sprintf("%s %q", c.Kind, c.Path))
	}
	return list
}

func TestDiffNaive(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newMemory()
		a := treeGen(2).Draw(t, "a")
		b := a.mutate(t)
		rootA, rootB := a.store(t, m), b.store(t, m)
		if got, want := diff(t, m, rootA, rootB), naive(a, b, ""); !slices.Equal(got, want) {
			t.Fatalf("Diff = %v\nwant %v", got, want)
		}
		if got, want := diff(t, m, rootB, rootA), naive(b, a, ""); !slices.Equal(got, want) {
			t.Fatalf("Diff back = %v\nwant %v", got, want)
		}
		if got := diff(t, m, rootB, rootB); len(got) > 0 {
			t.Fatalf("Diff with itself = %v", got)
		}
		if got, want := diff(t, m, chunk.ID{}, rootB), naive(tree{}, b, ""); !slices.Equal(got, want) {
			t.Fatalf("Diff with nothing = %v\nwant %v", got, want)
		}
	})
}

// Lists of several levels, of different heights, and with ranges that only one
// of them has.
func TestDiffLarge(t *testing.T) {
	fewerChecks(t)
	rapid.Check(t, func(t *rapid.T) {
		m := newMemory()
		all := testFiles(2000)
		pick := func(label string) tree {
			tr := make(tree)
			from := rapid.IntRange(0, len(all)).Draw(t, label+" from")
			to := rapid.IntRange(from, len(all)).Draw(t, label+" to")
			for _, n := range all[from:to] {
				tr[n.Name] = &branch{node: n}
			}
			for range rapid.IntRange(0, 5).Draw(t, label+" changes") {
				n := all[rapid.IntRange(0, len(all)-1).Draw(t, label+" which")]
				switch rapid.IntRange(0, 2).Draw(t, label+" how") {
				case 0:
					delete(tr, n.Name)
				case 1:
					n.UID++
					tr[n.Name] = &branch{node: n}
				case 2:
					n.Name += "-new"
					tr[n.Name] = &branch{node: n}
				}
			}
			return tr
		}
		a, b := pick("a"), pick("b")
		if got, want := diff(t, m, a.store(t, m), b.store(t, m)), naive(a, b, ""); !slices.Equal(got, want) {
			t.Fatalf("Diff: %d changes, want %d", len(got), len(want))
		}
	})
}

// The cost goes with the change: of two trees of 100,000 entries that differ in
// 10, fewer than 100 pages are read.
func TestDiffCost(t *testing.T) {
	build := func(m *memory, change func(dir, file int, n *Node)) chunk.ID {
		var dirs []Node
		for d := range 10 {
			files := testFiles(10_000)
			for f := range files {
				change(d, f, &files[f])
			}
			dirs = append(dirs, Node{Name: fmt.Sprintf("dir%d", d), Kind: Dir, Tree: writeDir(t, m, files)})
		}
		return writeDir(t, m, dirs)
	}
	changed := func(d, f int, n *Node) {
		if f == d*977 {
			n.MTime.Sec++
		}
	}
	flat := func(m *memory, change func(dir, file int, n *Node)) chunk.ID {
		files := testFiles(100_000)
		for f := range files {
			change(f/10_000, f%10_000, &files[f])
		}
		return writeDir(t, m, files)
	}
	for name, build := range map[string]func(*memory, func(int, int, *Node)) chunk.ID{"ten directories": build, "one directory": flat} {
		t.Run(name, func(t *testing.T) {
			m := newMemory()
			a, b := build(m, func(int, int, *Node) {}), build(m, changed)
			m.gets = 0
			if got := diff(t, m, a, b); len(got) != 10 {
				t.Errorf("Diff = %v, want 10 changes", got)
			}
			t.Logf("%d pages read of %d", m.gets, len(m.chunks))
			if m.gets >= 100 {
				t.Errorf("Diff reads %d pages, want fewer than 100", m.gets)
			}
		})
	}
}

func TestDiffStop(t *testing.T) {
	m := newMemory()
	root := writeDir(t, m, testFiles(10))
	n := 0
	for range Diff(t.Context(), m, chunk.ID{}, root) {
		if n++; n == 3 {
			break
		}
	}
	if n != 3 {
		t.Errorf("%d changes, want 3", n)
	}
}

func TestReferences(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newMemory()
		tr := treeGen(2).Draw(t, "tree")
		big := &branch{node: Node{Name: "big", Kind: File}}
		var extents []Extent
		for i := range rapid.IntRange(1, 1000).Draw(t, "extents") {
			extents = append(extents, Extent{Kind: Data, Length: 9, ID: testID("big", i)})
		}
		big.node.Size = uint64(9 * len(extents))
		big.node.Content = writeContent(t, m, extents)
		for _, b := range tr {
			b.dropLists()
		}
		tr["big"] = big
		root := tr.store(t, m)

		want := make(map[chunk.ID]bool) // all that was put, and the content
		for id := range m.chunks {
			want[id] = true
		}
		tr.contents(want)
		for _, e := range extents {
			want[e.ID] = true
		}
		got := make(map[chunk.ID]bool)
		err := References(context.Background(), m, root, func(r Reference) (bool, error) {
			if (r.Length > 0) != (r.Role == RoleContent) {
				t.Fatalf("reference %+v", r)
			}
			again := got[r.ID]
			got[r.ID] = true
			return !again, nil
		})
		if err != nil {
			t.Fatalf("References: %v", err)
		}
		if len(got) != len(want) {
			t.Fatalf("%d references, want %d", len(got), len(want))
		}
		for id := range want {
			if !got[id] {
				t.Fatalf("no reference to %s", id)
			}
		}
	})
}

// dropLists replaces content lists that are not stored.
func (b *branch) dropLists() {
	if !b.node.Content.List.IsZero() {
		b.node.Content, b.node.Size = Content{}, 0
	}
	for _, in := range b.in {
		in.dropLists()
	}
}

// contents collects the chunks that the nodes themselves name.
func (tr tree) contents(into map[chunk.ID]bool) {
	for _, b := range tr {
		for _, e := range b.node.Content.Extents {
			if e.Kind != Hole {
				into[e.ID] = true
			}
		}
		b.in.contents(into)
	}
}

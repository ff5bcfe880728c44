package manifest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/cairn-backup/cairn/chunk"
)

// manyNodes draws nodes with distinct names, sorted, sometimes enough for
// several levels.
func manyNodes(t *rapid.T) []Node {
	nodes := rapid.SliceOfNDistinct(nodeGen, 0, 20, func(n Node) string { return n.Name }).Draw(t, "nodes")
	have := make(map[string]bool)
	for _, n := range nodes {
		have[n.Name] = true
	}
	long := strings.Repeat("l", rapid.SampledFrom([]int{0, 0, 100, 4000}).Draw(t, "long"))
	for i := range rapid.SampledFrom([]int{0, 10, 500}).Draw(t, "more") {
		n := testFile(fmt.Sprintf("%x%s", testID(i).Short(), long), i)
		if !have[n.Name] {
			nodes = append(nodes, n)
		}
	}
	slices.SortFunc(nodes, func(a, b Node) int { return strings.Compare(a.Name, b.Name) })
	return nodes
}

func TestDirRoundTrip(t *testing.T) {
	fewerChecks(t)
	rapid.Check(t, func(t *rapid.T) {
		m := newMemory()
		want := manyNodes(t)
		root := writeDir(t, m, want)
		got := readDir(t, m, root)
		if len(got) != len(want) {
			t.Fatalf("ReadDir: %d nodes, want %d", len(got), len(want))
		}
		for i := range got {
			got[i].XattrChunk = chunk.ID{} // the writer's own choice
			if !equalNodes(got[i], want[i]) {
				t.Fatalf("node %d = %+v, want %+v", i, got[i], want[i])
			}
		}
		for range min(len(want), 10) {
			n := want[rapid.IntRange(0, len(want)-1).Draw(t, "looked up")]
			found, err := Lookup(context.Background(), m, root, n.Name)
			found.XattrChunk = chunk.ID{}
			if err != nil || !equalNodes(found, n) {
				t.Fatalf("Lookup(%q) = %+v, %v, want %+v", n.Name, found, err, n)
			}
			for _, absent := range []string{n.Name + "\x01\x01", n.Name[:len(n.Name)-1], "", "zzz"} {
				if slices.ContainsFunc(want, func(n Node) bool { return n.Name == absent }) {
					continue
				}
				if got, err := Lookup(context.Background(), m, root, absent); !errors.Is(err, fs.ErrNotExist) {
					t.Fatalf("Lookup(%q) = %+v, %v, want ErrNotExist", absent, got, err)
				}
			}
		}
		if again := writeDir(t, m, got); again != root {
			t.Fatalf("nodes read and written again have another root")
		}
	})
}

// Pages depend on the nodes alone: a list that nodes were added to and removed
// from is the list of what is left.
func TestDirHistory(t *testing.T) {
	fewerChecks(t)
	rapid.Check(t, func(t *rapid.T) {
		m := newMemory()
		all := testFiles(rapid.IntRange(1, 1000).Draw(t, "n"))
		root := writeDir(t, m, all[:rapid.IntRange(0, len(all)).Draw(t, "at first")])
		kept := make(map[string]Node)
		for range rapid.IntRange(1, 5).Draw(t, "steps") {
			for _, n := range readDir(t, m, root) {
				kept[n.Name] = n
			}
			for range rapid.IntRange(1, 100).Draw(t, "changes") {
				n := all[rapid.IntRange(0, len(all)-1).Draw(t, "which")]
				if rapid.Bool().Draw(t, "remove") {
					delete(kept, n.Name)
				} else {
					kept[n.Name] = n
				}
			}
			root = writeDir(t, m, values(kept))
		}
		if fresh := writeDir(t, newMemory(), values(kept)); fresh != root {
			t.Fatalf("root %s after changes, %s from nothing", root, fresh)
		}
	})
}

func values(m map[string]Node) []Node {
	var list []Node
	for _, n := range m {
		list = append(list, n)
	}
	return list
}

// One node more, less or changed makes a few new pages, not one a page behind.
func TestDirLocality(t *testing.T) {
	m := newMemory()
	nodes := testFiles(100_000)
	writeDir(t, m, nodes)
	full := len(m.chunks)
	if full < 1000 || full > 4000 {
		t.Errorf("100,000 nodes in %d pages, want about 1,800", full)
	}
	worst := 0
	n := scale(3, 9)
	for i := range n {
		before := len(m.chunks)
		at := i * (len(nodes) - 1) / n
		changed := slices.Clone(nodes)
		switch i % 3 {
		case 0:
			changed = slices.Delete(changed, at, at+1)
		case 1:
			changed = slices.Insert(changed, at+1, testFile(nodes[at].Name+"x", i))
		case 2:
			changed[at].Mode = 0o600
		}
		writeDir(t, m, changed)
		worst = max(worst, len(m.chunks)-before)
	}
	t.Logf("%d pages; at most %d new ones after one change", full, worst)
	if worst > 8 {
		t.Errorf("one change makes %d new pages, want at most 8", worst)
	}
}

func TestDirPages(t *testing.T) {
	tests := []struct {
		name  string
		nodes []Node
	}{
		{"typical", testFiles(20_000)},
		{"long names", func() []Node {
			nodes := testFiles(300)
			for i := range nodes {
				nodes[i].Name += strings.Repeat("n", MaxName-len(nodes[i].Name))
			}
			return nodes
		}()},
		{"longest nodes", func() []Node {
			var nodes []Node
			for i := range 20 {
				nodes = append(nodes, Node{
					Name: fmt.Sprintf("%0*d", MaxName, i), Kind: Symlink, Target: strings.Repeat("t", MaxTarget),
					Owner: strings.Repeat("o", MaxOwner), Group: strings.Repeat("g", MaxOwner),
					Xattrs: []Xattr{{Name: strings.Repeat("x", MaxXattr), Value: make([]byte, maxXattrsHere-MaxXattr-10)}},
				})
			}
			return nodes
		}()},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := newMemory()
			root := writeDir(t, m, tt.nodes)
			total := 0
			for _, p := range m.chunks {
				total += len(p)
				if len(p) > pageLimit {
					t.Errorf("page of %d bytes, limit %d", len(p), pageLimit)
				}
				if len(p) > pageFull+8 && tt.name != "longest nodes" {
					t.Errorf("page of %d bytes, want at most %d", len(p), pageFull)
				}
			}
			t.Logf("%d pages of %d bytes on average", len(m.chunks), total/len(m.chunks))
			if got := readDir(t, m, root); len(got) != len(tt.nodes) {
				t.Errorf("ReadDir: %d nodes, want %d", len(got), len(tt.nodes))
			}
		})
	}
}

func TestDirEmpty(t *testing.T) {
	m := newMemory()
	root := writeDir(t, m, nil)
	if got, want := fmt.Sprintf("%x", m.chunks[root]), "010000"; got != want {
		t.Errorf("empty list = %s, want %s", got, want)
	}
	if got := readDir(t, m, root); len(got) != 0 {
		t.Errorf("ReadDir of an empty list = %v", got)
	}
	for _, err := range ReadDir(t.Context(), m, chunk.ID{}) {
		if err == nil {
			t.Error("ReadDir of no list = nil error: a tree that is not there must not look empty")
		}
	}
}

func TestDirWriterErrors(t *testing.T) {
	w := NewDirWriter(newMemory())
	if err := w.Add(t.Context(), testFile("b", 1)); err != nil {
		t.Fatal(err)
	}
	first := w.Add(t.Context(), testFile("a", 1))
	if !errors.Is(first, ErrInvalid) {
		t.Fatalf("Add out of order = %v, want ErrInvalid", first)
	}
	if err := w.Add(t.Context(), testFile("c", 1)); err != first { //nolint:errorlint // the very same
		t.Errorf("Add after an error = %v, want the same", err)
	}
	if _, err := w.Finish(t.Context()); err != first { //nolint:errorlint // the very same
		t.Errorf("Finish after an error = %v, want the same", err)
	}
	w = NewDirWriter(newMemory())
	if _, err := w.Finish(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := w.Add(t.Context(), testFile("c", 1)); !errors.Is(err, ErrInvalid) {
		t.Errorf("Add after Finish = %v, want ErrInvalid", err)
	}
}

func TestReadDirCost(t *testing.T) {
	m := newMemory()
	root := writeDir(t, m, testFiles(100_000))
	pages := m.puts
	m.gets = 0
	if _, err := Lookup(t.Context(), m, root, "file-050000.go"); err != nil {
		t.Fatal(err)
	}
	if m.gets > 4 {
		t.Errorf("Lookup reads %d pages, want one a level", m.gets)
	}
	m.gets = 0
	for range ReadDir(t.Context(), m, root) {
		break
	}
	if m.gets > 4 {
		t.Errorf("the first node costs %d pages, want one a level", m.gets)
	}
	m.gets = 0
	readDir(t, m, root)
	if m.gets != pages || len(m.hinted) != pages-1 {
		t.Errorf("ReadDir reads %d pages and announces %d, want %d and %d", m.gets, len(m.hinted), pages, pages-1)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, err := range ReadDir(ctx, m, root) {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("ReadDir of a cancelled context = %v", err)
		}
	}
}

func TestWalk(t *testing.T) {
	m := newMemory()
	sub := writeDir(t, m, testFiles(3))
	dir := func(name string, tree chunk.ID) Node { return Node{Name: name, Kind: Dir, Mode: 0o755, Tree: tree} }
	deep := writeDir(t, m, []Node{dir("sub", sub), testFile("z", 1)})
	root := writeDir(t, m, []Node{dir("a", deep), testFile("a.txt", 1), dir("b", sub)})
	skip := map[string]error{}
	walk := func() string {
		var paths []string
		err := Walk(t.Context(), m, root, func(path string, _ Node) error {
			paths = append(paths, path)
			return skip[path]
		})
		return fmt.Sprint(strings.ReplaceAll(strings.Join(paths, " "), "file-00000", "f"), " ", err)
	}
	all := "a a/sub a/sub/f0.go a/sub/f1.go a/sub/f2.go a/z a.txt b b/f0.go b/f1.go b/f2.go <nil>"
	tests := []struct {
		at   string
		err  error
		want string
	}{
		{"", nil, all},
		{"a", fs.SkipDir, "a a.txt b b/f0.go b/f1.go b/f2.go <nil>"},
		{"a/sub/file-000001.go", fs.SkipDir, "a a/sub a/sub/f0.go a/sub/f1.go a/z a.txt b b/f0.go b/f1.go b/f2.go <nil>"},
		{"a/z", fs.SkipAll, "a a/sub a/sub/f0.go a/sub/f1.go a/sub/f2.go a/z <nil>"},
		{"a/z", fs.ErrClosed, "a a/sub a/sub/f0.go a/sub/f1.go a/sub/f2.go a/z " + fs.ErrClosed.Error()},
	}
	for _, tt := range tests {
		skip = map[string]error{tt.at: tt.err}
		if got := walk(); got != tt.want {
			t.Errorf("Walk with %v at %q:\ngot  %s\nwant %s", tt.err, tt.at, got, tt.want)
		}
	}
}

// A Getter that does not check hashes may hold a directory that contains itself.
func TestWalkCycle(t *testing.T) {
	m := newMemory()
	id := testID("cycle")
	w := newListWriter(m, pageDir, dirBits)
	n := Node{Name: "d", Kind: Dir, Tree: id}
	if err := w.add(t.Context(), 0, item{encoded: n.Append(nil), key: []byte("d"), first: "d", weight: 1}); err != nil {
		t.Fatal(err)
	}
	root, err := w.finish(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	m.chunks[id] = m.chunks[root]
	if err := Walk(t.Context(), m, id, func(string, Node) error { return nil }); !errors.Is(err, ErrMalformed) {
		t.Errorf("Walk = %v, want ErrMalformed", err)
	}
	for _, err = range Diff(t.Context(), m, chunk.ID{}, id) {
	}
	if !errors.Is(err, ErrMalformed) {
		t.Errorf("Diff = %v, want ErrMalformed", err)
	}
	err = References(t.Context(), m, id, func(Reference) (bool, error) { return true, nil })
	if !errors.Is(err, ErrMalformed) {
		t.Errorf("References = %v, want ErrMalformed", err)
	}
}

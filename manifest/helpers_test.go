package manifest

import (
	"context"
	"flag"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/zeebo/blake3"
	"pgregory.net/rapid"

	"github.com/cairn-backup/cairn/chunk"
)

// A memory is a Getter, Putter and Prefetcher that counts.
type memory struct {
	mu         sync.Mutex // guards all below
	chunks     map[chunk.ID][]byte
	gets, puts int
	hinted     map[chunk.ID]bool
}

func newMemory() *memory {
	return &memory{chunks: make(map[chunk.ID][]byte), hinted: make(map[chunk.ID]bool)}
}

func (m *memory) PutChunk(_ context.Context, data []byte) (chunk.ID, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	id := chunk.ID(blake3.Sum256(data))
	m.puts++
	m.chunks[id] = slices.Clone(data)
	return id, nil
}

func (m *memory) Chunk(_ context.Context, id chunk.ID) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.gets++
	data, ok := m.chunks[id]
	if !ok {
		return nil, fmt.Errorf("no chunk %s", id)
	}
	return data, nil
}

func (m *memory) Prefetch(_ context.Context, ids []chunk.ID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, id := range ids {
		m.hinted[id] = true
	}
}

// A tester is what *testing.T, *testing.B and *rapid.T have in common.
type tester interface {
	Helper()
	Fatalf(format string, args ...any)
}

// put stores page and returns its name.
func (m *memory) put(t tester, page []byte) chunk.ID {
	t.Helper()
	id, err := m.PutChunk(context.Background(), page)
	if err != nil {
		t.Fatalf("PutChunk: %v", err)
	}
	return id
}

// writeDir stores nodes, sorted by name first, as a directory list.
func writeDir(t tester, p Putter, nodes []Node) chunk.ID {
	t.Helper()
	nodes = slices.Clone(nodes)
	slices.SortFunc(nodes, func(a, b Node) int { return strings.Compare(a.Name, b.Name) })
	w := NewDirWriter(p)
	for _, n := range nodes {
		if err := w.Add(context.Background(), n); err != nil {
			t.Fatalf("Add(%q): %v", n.Name, err)
		}
	}
	id, err := w.Finish(context.Background())
	if err != nil {
		t.Fatalf("Finish: %v", err)
	}
	return id
}

// readDir returns the nodes of a list.
func readDir(t tester, g Getter, root chunk.ID) []Node {
	t.Helper()
	var nodes []Node
	for n, err := range ReadDir(context.Background(), g, root) {
		if err != nil {
			t.Fatalf("ReadDir: %v", err)
		}
		nodes = append(nodes, n)
	}
	return nodes
}

// testID returns an ID that depends on v alone.
func testID(v ...any) chunk.ID {
	return chunk.ID(blake3.Sum256([]byte(fmt.Sprint(v...))))
}

// testFile returns a typical small file.
func testFile(name string, v int) Node {
	size := uint64(1000 + v%50_000)
	return Node{
		Name: name, Kind: File, Mode: 0o644, UID: 1000, GID: 1000, Owner: "user", Group: "users",
		MTime: Time{Sec: 1_700_000_000 + int64(v), Nsec: 123_456_789}, Size: size,
		Look:    Look{Dev: 66306, Ino: 1_000_000 + uint64(v), CTime: Time{Sec: 1_700_000_000 + int64(v), Nsec: 123_456_789}},
		Content: Content{Extents: []Extent{{Kind: Data, Length: size, ID: testID(v)}}},
	}
}

func testFiles(n int) []Node {
	nodes := make([]Node, n)
	for i := range nodes {
		nodes[i] = testFile(fmt.Sprintf("file-%06d.go", i), i)
	}
	return nodes
}

func TestFileSize(t *testing.T) {
	n := testFile("some-file.go", 4711)
	if got := len(n.Append(nil)); got < 70 || got > 95 {
		t.Errorf("a typical node takes %d bytes, want 70 to 95", got)
	}
}

// Generators. Names are short and from few letters, so that trees share some.

var nameGen = rapid.Custom(func(t *rapid.T) string {
	s := rapid.StringOfN(rapid.RuneFrom([]rune("abc.\x01é")), 1, 4, -1).Draw(t, "name")
	if rapid.IntRange(0, 9).Draw(t, "odd") == 0 {
		s += "\xff\xfe"
	}
	if checkName(s) != nil {
		return "x" + s
	}
	return s
})

var timeGen = rapid.Custom(func(t *rapid.T) Time {
	return Time{Sec: rapid.Int64().Draw(t, "sec"), Nsec: rapid.Uint32Range(0, 999_999_999).Draw(t, "nsec")}
})

var idGen = rapid.Custom(func(t *rapid.T) chunk.ID { return testID(rapid.IntRange(0, 5).Draw(t, "id")) })

// extentGen draws one valid extent but no Patch. The length of a chunk depends
// on its ID, as it does in a repository.
var extentGen = rapid.Custom(func(t *rapid.T) Extent {
	id := idGen.Draw(t, "chunk")
	length := uint64(id[0])<<8 + 1
	switch rapid.IntRange(0, 4).Draw(t, "kind") {
	case 0:
		return Extent{Kind: Hole, Length: rapid.Uint64Range(1, 1<<30).Draw(t, "hole")}
	case 1:
		count := rapid.Uint64Range(2, 1000).Draw(t, "count")
		return Extent{Kind: Repeat, Length: length * count, Count: count, ID: id}
	default:
		return Extent{Kind: Data, Length: length, ID: id}
	}
})

var xattrsGen = rapid.Custom(func(t *rapid.T) []Xattr {
	values := rapid.MapOfN(nameGen, rapid.SliceOfN(rapid.Byte(), 0, 40), 0, 3).Draw(t, "xattrs")
	var xattrs []Xattr
	for name, value := range values {
		if rapid.IntRange(0, 9).Draw(t, "large") == 0 {
			value = make([]byte, 3000)
		}
		xattrs = append(xattrs, Xattr{Name: name, Value: value})
	}
	slices.SortFunc(xattrs, func(a, b Xattr) int { return strings.Compare(a.Name, b.Name) })
	return xattrs
})

// nodeGen draws a valid node of any kind.
var nodeGen = rapid.Custom(func(t *rapid.T) Node {
	n := Node{
		Name: nameGen.Draw(t, "name"), Mode: rapid.Uint32Range(0, maxMode).Draw(t, "mode"),
		UID: rapid.Uint32().Draw(t, "uid"), GID: rapid.Uint32().Draw(t, "gid"),
		MTime: timeGen.Draw(t, "mtime"), Xattrs: xattrsGen.Draw(t, "xattrs"),
		Kind: rapid.SampledFrom([]NodeKind{File, File, File, Dir, Symlink, FIFO, CharDevice, BlockDevice}).Draw(t, "kind"),
	}
	if rapid.Bool().Draw(t, "owner") {
		n.Owner, n.Group = nameGen.Draw(t, "owner"), nameGen.Draw(t, "group")
	}
	if rapid.Bool().Draw(t, "look") {
		n.Look = Look{Dev: rapid.Uint64().Draw(t, "dev"), Ino: rapid.Uint64().Draw(t, "ino"), CTime: n.MTime}
		if rapid.Bool().Draw(t, "chmod") {
			n.Look.CTime = timeGen.Draw(t, "ctime")
		}
	}
	if rapid.Bool().Draw(t, "linked") {
		n.Link = rapid.Uint64Range(1, 9).Draw(t, "link")
	}
	switch n.Kind {
	case File:
		drawContent(t, &n)
	case Dir:
		n.Tree = idGen.Draw(t, "tree")
	case Symlink:
		n.Target = "../" + nameGen.Draw(t, "target")
	case CharDevice, BlockDevice:
		n.Device = rapid.Uint64().Draw(t, "rdev")
	case FIFO, Socket:
	}
	return n
})

func drawContent(t *rapid.T, n *Node) {
	if rapid.Bool().Draw(t, "changed") {
		n.Flags = Changed
	}
	switch rapid.IntRange(0, 3).Draw(t, "form") {
	case 0:
	case 1:
		n.Content.Inline = rapid.SliceOfN(rapid.Byte(), 1, 64).Draw(t, "inline")
		n.Size = uint64(len(n.Content.Inline))
	case 2:
		w := NewContentWriter(newMemory())
		for range rapid.IntRange(1, MaxExtents).Draw(t, "extents") {
			if err := w.Add(context.Background(), extentGen.Draw(t, "extent")); err != nil {
				t.Fatalf("Add: %v", err)
			}
		}
		c, err := w.Finish(context.Background())
		if err != nil {
			t.Fatalf("Finish: %v", err)
		}
		n.Content = c
		n.Size, _ = sizeOf(c.Extents)
	case 3:
		n.Content.List = idGen.Draw(t, "list")
		n.Size = rapid.Uint64Range(1, maxSize).Draw(t, "size")
		n.Content.Size = n.Size
	}
}

// scale returns the second of its arguments when everything is to be proven at
// full length, as .ci/prove does, else the first.
func scale(normal, full int) int {
	if os.Getenv("CAIRN_PROVE") != "" {
		return full
	}
	return normal
}

// fewerChecks makes 20 the default of the flag rapid.checks for a test of long
// lists, unless everything is to be proven.
func fewerChecks(t *testing.T) {
	t.Helper()
	f := flag.Lookup("rapid.checks")
	if f == nil || f.Value.String() != f.DefValue {
		return
	}
	if err := f.Value.Set(strconv.Itoa(scale(20, 100))); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Value.Set(f.DefValue) })
}

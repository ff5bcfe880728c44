package manifest

import (
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"testing"

	"github.com/zeebo/blake3"
)

// The vectors are frozen with the format: a new case may be added with
//
//	go test ./manifest -run TestVectors -add-vectors
//
// which leaves the cases that are there as they are.
var addVectors = flag.Bool("add-vectors", false, "write vectors that testdata/vectors/manifest.json does not have")

const vectorsFile = "../testdata/vectors/manifest.json"

func testSum(p []byte) [32]byte { return blake3.Sum256(p) }

type nodeVector struct {
	name string
	node Node
}

func nodeVectors() []nodeVector {
	mtime := Time{Sec: 1_770_000_000, Nsec: 123_456_789}
	id := testID("chunk")
	return []nodeVector{
		{"empty file", Node{Name: "empty", Kind: File, Mode: 0o644, MTime: mtime}},
		{"typical file", testFile("main.go", 42)},
		{"inline file", Node{
			Name: "inline", Kind: File, Mode: 0o600, UID: 1000, GID: 100, MTime: mtime, Size: 3, Content: Content{Inline: []byte("abc")},
			Look: Look{Dev: 1, Ino: 2, CTime: Time{Sec: mtime.Sec + 5, Nsec: 7}},
		}},
		{"extents", Node{
			Name: "disk.img", Kind: File, Mode: 0o640, MTime: Time{Sec: -1, Nsec: 1}, Size: 1<<40 + 65_536 + 4*1000,
			Flags: Changed, Link: 3,
			Content: Content{Extents: []Extent{
				{Kind: Data, Length: 65_536, ID: id},
				{Kind: Patch, First: 2, Count: 1, Length: 4096, ID: testID("patch")},
				{Kind: Hole, Length: 1 << 40},
				{Kind: Repeat, Length: 4000, Count: 4, ID: id},
			}},
		}},
		{"list", Node{Name: "large", Kind: File, MTime: mtime, Size: 1 << 33, Content: Content{List: id, Size: 1 << 33}}},
		{"directory", Node{
			Name: "dir\xff", Kind: Dir, Mode: 0o1777, Owner: "root", Group: "wheel", MTime: mtime, Tree: testID("tree"),
			Xattrs: []Xattr{{Name: "user.a", Value: []byte{0, 1}}, {Name: "user.b"}},
		}},
		{"large attributes", Node{Name: "x", Kind: FIFO, MTime: mtime, XattrChunk: testID("xattrs")}},
		{"symlink", Node{Name: "link", Kind: Symlink, Mode: 0o777, MTime: mtime, Target: "../target"}},
		{"fifo", Node{Name: "fifo", Kind: FIFO, MTime: mtime}},
		{"char device", Node{Name: "null", Kind: CharDevice, Mode: 0o666, MTime: mtime, Device: 1<<32 | 3}},
		{"block device", Node{Name: "sda", Kind: BlockDevice, Mode: 0o660, GID: 6, MTime: Time{Sec: -1 << 63}, Device: 8 << 32}},
	}
}

// encodings returns what the vectors are of: hexadecimal, but the lists, which
// are given by the BLAKE3-256 of their root page, as the chunk ID of their
// pages is in this test.
func encodings(t *testing.T) map[string]string {
	t.Helper()
	got := make(map[string]string)
	for _, v := range nodeVectors() {
		got["node: "+v.name] = hex.EncodeToString(v.node.Append(nil))
	}
	summary, err := EncodeSummary(testSummary())
	if err != nil {
		t.Fatal(err)
	}
	got["summary"] = hex.EncodeToString(summary)
	body, err := EncodeBody(testSnapshot())
	if err != nil {
		t.Fatal(err)
	}
	got["body"] = hex.EncodeToString(body)
	got["attributes, BLAKE3-256 of the chunk"] = fmt.Sprintf("%x",
		testSum(encodeXattrs([]Xattr{{Name: "user.a", Value: make([]byte, 5000)}})))
	for _, n := range []int{0, 1, 100, 10_000} {
		name := fmt.Sprintf("directory list of %d test files, BLAKE3-256 of the root page", n)
		got[name] = writeDir(t, newMemory(), testFiles(n)).String()
	}
	for _, n := range []int{9, 1000, 50_000} {
		var extents []Extent
		for i := range n {
			extents = append(extents, Extent{Kind: Data, Length: uint64(i) + 1, ID: testID(i)})
			if i%10 == 0 {
				extents = append(extents, Extent{Kind: Hole, Length: 65_536 * uint64(i+1)})
			}
		}
		name := fmt.Sprintf("content list of %d test chunks, BLAKE3-256 of the root page", n)
		got[name] = writeContent(t, newMemory(), extents).List.String()
	}
	for _, n := range []int{9, 1000} {
		var extents []Extent
		for i := range n { // groups of 64 KiB, a sixth of them with four patches and a sixth with two
			extents = append(extents, Extent{Kind: Data, Length: 65_536, ID: testID(i)})
			for j := range i % 3 * (i % 2) * 2 {
				extents = append(extents, Extent{Kind: Patch, First: uint64(7 * j), Count: uint64(1 + j), Length: uint64(1+j) * 1024, ID: testID([2]int{i, j})})
			}
		}
		name := fmt.Sprintf("content list of %d test groups with patches, BLAKE3-256 of the root page", n)
		got[name] = writeContent(t, newMemory(), extents).List.String()
	}
	return got
}

func TestVectors(t *testing.T) {
	want := make(map[string]string)
	p, err := os.ReadFile(vectorsFile)
	if err == nil {
		err = json.Unmarshal(p, &want)
	}
	if err != nil && !*addVectors {
		t.Fatal(err)
	}
	got := encodings(t)
	for name := range got {
		if _, ok := want[name]; !ok && *addVectors {
			want[name] = got[name]
		}
		if got[name] != want[name] {
			t.Errorf("%s:\ngot  %s\nwant %s", name, got[name], want[name])
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d vectors in the file, %d in the test", len(want), len(got))
	}
	if !*addVectors {
		return
	}
	if p, err = json.MarshalIndent(want, "", "  "); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(vectorsFile, append(p, '\n'), 0o600); err != nil {
		t.Fatal(err)
	}
}

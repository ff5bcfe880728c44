package manifest

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestNodeRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := nodeGen.Draw(t, "node")
		if xattrsSize(n.Xattrs) > maxXattrsHere {
			n.Xattrs, n.XattrChunk = nil, testID("xattrs")
		}
		if err := n.Validate(); err != nil {
			t.Fatalf("Validate: %v", err)
		}
		p := n.Append([]byte("before"))[len("before"):]
		got, err := DecodeNode(p)
		if err != nil {
			t.Fatalf("DecodeNode: %v", err)
		}
		if !equalNodes(got, n) {
			t.Fatalf("DecodeNode = %+v, want %+v", got, n)
		}
		if len(p) < minNode {
			t.Fatalf("node of %d bytes, minNode is %d", len(p), minNode)
		}
		if _, err := DecodeNode(p[:len(p)-1]); !errors.Is(err, ErrMalformed) {
			t.Fatalf("DecodeNode of a cut node: %v, want ErrMalformed", err)
		}
		if _, err := DecodeNode(append(p, 0)); !errors.Is(err, ErrMalformed) {
			t.Fatalf("DecodeNode with a byte too many: %v, want ErrMalformed", err)
		}
	})
}

// equalNodes compares nodes; nil and empty slices are the same.
func equalNodes(a, b Node) bool {
	for _, n := range []*Node{&a, &b} {
		for i := range n.Xattrs {
			n.Xattrs = append([]Xattr(nil), n.Xattrs...)
			n.Xattrs[i].Value = append([]byte(nil), n.Xattrs[i].Value...)
		}
		if len(n.Xattrs) == 0 {
			n.Xattrs = nil
		}
		if len(n.Content.Inline) == 0 {
			n.Content.Inline = nil
		}
		if len(n.Content.Extents) == 0 {
			n.Content.Extents = nil
		}
	}
	return reflect.DeepEqual(a, b)
}

func TestNodeSmallest(t *testing.T) {
	n := Node{Name: "a", Kind: FIFO}
	if got := len(n.Append(nil)); got != minNode {
		t.Errorf("smallest node takes %d bytes, minNode is %d: pages of them would be refused", got, minNode)
	}
}

// with returns a valid file, changed.
func with(change func(*Node)) Node {
	n := testFile("file", 1)
	change(&n)
	return n
}

func TestNodeInvalid(t *testing.T) {
	id := testID("x")
	tests := []struct {
		name string
		node Node
		lost bool // what is wrong is not in the encoding
	}{
		{name: "no name", node: with(func(n *Node) { n.Name = "" })},
		{name: "dot", node: with(func(n *Node) { n.Name = "." })},
		{name: "dot dot", node: with(func(n *Node) { n.Name = ".." })},
		{name: "slash", node: with(func(n *Node) { n.Name = "../etc/passwd" })},
		{name: "NUL", node: with(func(n *Node) { n.Name = "a\x00b" })},
		{name: "long name", node: with(func(n *Node) { n.Name = strings.Repeat("n", MaxName+1) })},
		{name: "mode", node: with(func(n *Node) { n.Mode = 0o10000 })},
		{name: "nanoseconds", node: with(func(n *Node) { n.MTime.Nsec = 1e9 })},
		{name: "ctime nanoseconds", node: with(func(n *Node) { n.Look.CTime.Nsec = 1e9 })},
		{name: "kind 0", node: with(func(n *Node) { n.Kind = 0 })},
		{name: "kind 8", node: with(func(n *Node) { n.Kind = 8 })},
		{name: "socket", node: Node{Name: "s", Kind: Socket}},
		{name: "flags", node: with(func(n *Node) { n.Flags = 2 }), lost: true},
		{name: "size", node: with(func(n *Node) { n.Size++ })},
		{name: "no content", node: with(func(n *Node) { n.Content = Content{} })},
		{name: "two contents", node: with(func(n *Node) { n.Content.Inline = make([]byte, n.Size) }), lost: true},
		{name: "large inline", node: with(func(n *Node) {
			n.Content, n.Size = Content{Inline: make([]byte, MaxInline+1)}, MaxInline+1
		})},
		{name: "many extents", node: with(func(n *Node) {
			n.Content, n.Size = Content{}, 0
			for i := range MaxExtents + 1 {
				n.Content.Extents = append(n.Content.Extents, Extent{Kind: Data, Length: 1, ID: testID(i)})
				n.Size++
			}
		})},
		{name: "extent without chunk", node: with(func(n *Node) { n.Content.Extents[0].ID = [32]byte{} })},
		{name: "neighbours not joined", node: with(func(n *Node) {
			n.Content.Extents = append(n.Content.Extents, n.Content.Extents[0])
			n.Size *= 2
		})},
		{name: "list size", node: with(func(n *Node) { n.Content = Content{List: id, Size: 5} }), lost: true},
		{name: "dir without tree", node: Node{Name: "d", Kind: Dir}},
		{name: "dir with size", node: Node{Name: "d", Kind: Dir, Tree: id, Size: 4096}, lost: true},
		{name: "file with tree", node: with(func(n *Node) { n.Tree = id }), lost: true},
		{name: "file with target", node: with(func(n *Node) { n.Target = "x" }), lost: true},
		{name: "file with device", node: with(func(n *Node) { n.Device = 1 }), lost: true},
		{name: "link without target", node: Node{Name: "l", Kind: Symlink}},
		{name: "link with NUL", node: Node{Name: "l", Kind: Symlink, Target: "a\x00"}},
		{name: "long target", node: Node{Name: "l", Kind: Symlink, Target: strings.Repeat("t", MaxTarget+1)}},
		{name: "long owner", node: with(func(n *Node) { n.Owner = strings.Repeat("o", MaxOwner+1) })},
		{name: "attributes out of order", node: with(func(n *Node) { n.Xattrs = []Xattr{{Name: "b"}, {Name: "a"}} })},
		{name: "attribute twice", node: with(func(n *Node) { n.Xattrs = []Xattr{{Name: "a"}, {Name: "a"}} })},
		{name: "attribute without name", node: with(func(n *Node) { n.Xattrs = []Xattr{{}} })},
		{name: "attributes too large", node: with(func(n *Node) {
			n.Xattrs = []Xattr{{Name: "a", Value: make([]byte, MaxXattrs)}}
		})},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := tt.node.Validate(); !errors.Is(err, ErrInvalid) {
				t.Errorf("Validate = %v, want ErrInvalid", err)
			}
			if err := NewDirWriter(newMemory()).Add(t.Context(), tt.node); !errors.Is(err, ErrInvalid) {
				t.Errorf("Add = %v, want ErrInvalid", err)
			}
			if tt.lost {
				return
			}
			if got, err := DecodeNode(tt.node.Append(nil)); !errors.Is(err, ErrMalformed) {
				t.Errorf("DecodeNode = %+v, %v, want ErrMalformed", got, err)
			}
		})
	}
}

// A node must have one encoding only: each of these decodes to a valid node but
// for its form.
func TestNodeShortestForm(t *testing.T) {
	n := Node{Name: "a", Kind: FIFO, MTime: Time{Sec: 1}}
	plain := n.Append(nil) // flags, 01 61, mode, uid, gid, 02, 00000000
	rest := plain[1:]
	same := Node{Name: "a", Kind: FIFO, MTime: Time{Sec: 1}, Look: Look{Dev: 1, Ino: 1, CTime: Time{Sec: 1}}}
	encoded := same.Append(nil)
	tests := []struct {
		name string
		p    []byte
	}{
		{"empty owner and group", bytes.Join([][]byte{{4 | nodeOwner}, rest[:5], {0, 0}, rest[5:]}, nil)},
		{"link 0", bytes.Join([][]byte{{0x84, 2}, rest, {0}}, nil)},
		{"zero look", bytes.Join([][]byte{{4 | nodeLook}, rest, {0, 0, 1, 0, 0, 0, 0}}, nil)},
		{"same time not marked", bytes.Join([][]byte{{4 | nodeLook}, encoded[1:], {0, 0, 0, 0, 0}}, nil)},
		{"same without look", bytes.Join([][]byte{{4 | nodeSame}, rest}, nil)},
		{"no attributes", bytes.Join([][]byte{{4 | nodeXattrs}, rest, {0}}, nil)},
		{"unknown flag", bytes.Join([][]byte{{0x84, 0x20}, rest}, nil)},
		{"content of a fifo", bytes.Join([][]byte{{0x84, 0x08}, rest}, nil)},
		{"long flags", bytes.Join([][]byte{{0x84, 0}, rest}, nil)},
	}
	if _, err := DecodeNode(plain); err != nil {
		t.Fatalf("DecodeNode: %v", err)
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got, err := DecodeNode(tt.p); !errors.Is(err, ErrMalformed) {
				t.Errorf("DecodeNode(%x) = %+v, %v, want ErrMalformed", tt.p, got, err)
			}
		})
	}
}

package pack_test

import (
	"bytes"
	"testing"

	"github.com/cairn-backup/cairn/chunk/pack"
	"github.com/cairn-backup/cairn/chunk/seal"
)

// TestBuffer makes a pack in the memory of another one.
func TestBuffer(t *testing.T) {
	first := newWriter(t)
	add(t, first, 1, 100_000, 200_000)
	old := finish(t, first)

	c := config(seal.KindDataPack)
	c.Buffer = old.Object
	w, err := pack.NewWriter(c)
	if err != nil {
		t.Fatal(err)
	}
	want := add(t, w, 2, 50_000)
	p := finish(t, w)
	_, blocks, err := openAll(p.Object)
	if err != nil {
		t.Fatal(err)
	}
	if len(blocks) != 1 || !bytes.Equal(blocks[0], want) {
		t.Errorf("the pack holds %d blocks, want the one that was added", len(blocks))
	}
	if &p.Object[0] != &old.Object[0] {
		t.Error("the buffer was not used")
	}
}

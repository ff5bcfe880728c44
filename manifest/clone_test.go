package manifest

import (
	"context"
	"fmt"
	"testing"

	"github.com/cairn-backup/cairn/chunk"
)

// pages is a Putter and a Getter in memory.
type pages map[chunk.ID][]byte

func (p pages) PutChunk(_ context.Context, data []byte) (chunk.ID, error) {
	id := chunk.NewHasher(chunk.Key{}).Sum(data)
	p[id] = append([]byte(nil), data...)
	return id, nil
}

func (p pages) Chunk(_ context.Context, id chunk.ID) ([]byte, error) { return p[id], nil }

// TestCloneLeavesTheWriterAlone finishes a clone after every node: the clone
// lists the nodes so far, and the list of the writer is that of one that was
// never cloned.
func TestCloneLeavesTheWriterAlone(t *testing.T) {
	ctx := t.Context()
	store := make(pages)
	plain, cloned := NewDirWriter(store), NewDirWriter(store)
	for i := range 3000 {
		n := Node{Name: fmt.Sprintf("file-%05d", i), Kind: File}
		if err := plain.Add(ctx, n); err != nil {
			t.Fatal(err)
		}
		if err := cloned.Add(ctx, n); err != nil {
			t.Fatal(err)
		}
		if i%97 != 0 {
			continue
		}
		root, err := cloned.Clone().Finish(ctx)
		if err != nil {
			t.Fatal(err)
		}
		count := 0
		for n, err := range ReadDir(ctx, store, root) {
			if err != nil {
				t.Fatal(err)
			}
			if want := fmt.Sprintf("file-%05d", count); n.Name != want {
				t.Fatalf("clone after %d nodes lists %q, want %q", i+1, n.Name, want)
			}
			count++
		}
		if count != i+1 {
			t.Fatalf("clone after %d nodes lists %d", i+1, count)
		}
	}
	want, err := plain.Finish(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := cloned.Finish(ctx); err != nil || got != want {
		t.Fatalf("Finish of the cloned writer = %v, %v, want %v", got, err, want)
	}
}

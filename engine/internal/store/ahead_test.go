package store

import (
	"bytes"
	"context"
	"slices"
	"testing"

	"github.com/cairn-backup/cairn/chunk"
	"github.com/cairn-backup/cairn/chunk/pack"
	"github.com/cairn-backup/cairn/engine/internal/index"
)

// TestAhead: a part of a pack is read from its second block on, or from its first
// by who walks a tree, and once: one that was dropped since is not read again.
func TestAhead(t *testing.T) {
	s := new(Store)
	at := func(n byte) aheadRead { return aheadRead{pack: pack.ID{n}} }
	block := index.Place{Offset: 100, Stored: 50}
	aheadOf := func(part aheadRead, p index.Place, tree bool) (found []byte, read bool) {
		found, wait, read := s.aheadOf(&part, p, tree)
		if wait != nil {
			t.Errorf("pack %d is being read by nobody", part.pack[0])
		}
		if read {
			s.ahead = s.ahead[:len(s.ahead)-1]
		}
		return found, read
	}
	if _, read := aheadOf(at(0), block, false); read {
		t.Error("the first block of a pack has all of it read")
	}
	if _, read := aheadOf(at(0), block, false); !read {
		t.Error("the second block of a pack does not have it read")
	}
	const packs = 6 // two more than are kept
	for n := range byte(packs) {
		part := at(n)
		if _, read := aheadOf(part, block, true); !read {
			t.Errorf("pack %d is not read ahead for who walks a tree", n)
		}
		part.data = make([]byte, aheadSize+aheadMore)
		part.data[100] = n
		s.keepAhead(part)
	}
	kept := 0
	for n := range byte(packs) {
		found, read := aheadOf(at(n), block, true)
		if read {
			t.Errorf("pack %d is read again", n)
		}
		if found == nil {
			continue
		}
		if kept++; len(found) != 50 || found[0] != n {
			t.Errorf("the block of pack %d is %d bytes that begin with %d", n, len(found), found[0])
		}
	}
	if kept != aheadBytes/(aheadSize+aheadMore) {
		t.Errorf("%d of %d reads are kept", kept, packs)
	}
	if _, read := aheadOf(aheadRead{pack: pack.ID{0}, off: aheadSize}, index.Place{Offset: aheadSize + 5, Stored: 50}, false); !read {
		t.Error("another part of a pack is not read")
	}
	for range 2 * aheadParts {
		s.keepAhead(at(9))
	}
	if len(s.ahead) > aheadParts {
		t.Errorf("%d parts are remembered", len(s.ahead))
	}
}

// A farCrowd is a crowd of a store that is far.
type farCrowd struct{ *crowd }

func (farCrowd) Concurrency() int { return 8 }

// pages stores tree pages, two in a pack, and returns their contents by name and
// their names in order.
func (r *rig) pages(t *testing.T, packs int) (map[chunk.ID][]byte, []chunk.ID) {
	t.Helper()
	s := r.open(t, r.mem)
	content := make(map[chunk.ID][]byte)
	var ids []chunk.ID
	for i := range packs {
		ss, err := s.Begin(t.Context(), SessionOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for n := range 2 {
			page := random(uint64(2*i+n), 40<<10) //nolint:gosec // an index
			id, err := ss.PutChunk(t.Context(), page)
			if err != nil {
				t.Fatal(err)
			}
			content[id] = page
			ids = append(ids, id)
		}
		if err := ss.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := commit(t.Context(), ss); err != nil {
			t.Fatal(err)
		}
	}
	return content, ids
}

// TestList: the parts of packs in which the pages of a list lie are read several
// at a time, and each once, also by those who ask while they are being read.
func TestList(t *testing.T) {
	t.Parallel()
	const packs = listAtOnce + 8
	r := newRig()
	content, ids := r.pages(t, packs)
	for _, tt := range []struct {
		name   string
		ended  bool // the context of Prefetch
		reads  int32
		atOnce int32
	}{
		{"goes on", false, packs, listAtOnce},
		{"is given up", true, packs, 1},
	} {
		b := &crowd{Backend: r.mem, prefix: "packs/"}
		s := r.open(t, farCrowd{b})
		if err := s.LoadAll(t.Context()); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		if tt.ended {
			cancel()
		}
		l := s.Walk().List()
		l.Prefetch(ctx, ids)
		for half := range slices.Chunk(ids, len(ids)/2) {
			for _, id := range half {
				if got, err := l.Chunk(t.Context(), id); err != nil || !bytes.Equal(got, content[id]) {
					t.Errorf("%s: Chunk = %d bytes, %v", tt.name, len(got), err)
				}
			}
			l.Prefetch(ctx, ids)
		}
		cancel()
		l.Wait()
		if n := b.all.Load(); n != tt.reads {
			t.Errorf("%s: %d packs were read by %d requests", tt.name, packs, n)
		}
		if n := b.most.Load(); n > tt.atOnce || tt.atOnce > 1 && n < 2 {
			t.Errorf("%s: %d parts were read at once, want up to %d", tt.name, n, tt.atOnce)
		}
		if len(l.parts()) > 0 {
			t.Errorf("%s: parts are being read for ever", tt.name)
		}
	}
}

// parts returns those that are being read.
func (l *List) parts() []aheadRead {
	l.store.mu.Lock()
	defer l.store.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(l.store.ahead), func(a aheadRead) bool { return a.done == nil })
}

package store

import (
	"testing"

	"github.com/cairn-backup/cairn/chunk/pack"
	"github.com/cairn-backup/cairn/engine/internal/index"
)

// TestAhead: a part of a pack is read from its second block on, or from its first
// by who walks a tree, and once: one that was dropped since is not read again.
func TestAhead(t *testing.T) {
	s := new(Store)
	at := func(n byte) aheadRead { return aheadRead{pack: pack.ID{n}} }
	block := index.Place{Offset: 100, Stored: 50}
	if _, read := s.aheadOf(at(0), block, false); read {
		t.Error("the first block of a pack has all of it read")
	}
	if _, read := s.aheadOf(at(0), block, false); !read {
		t.Error("the second block of a pack does not have it read")
	}
	const packs = 6 // two more than are kept
	for n := range byte(packs) {
		part := at(n)
		if _, read := s.aheadOf(part, block, true); !read {
			t.Errorf("pack %d is not read ahead for who walks a tree", n)
		}
		part.data = make([]byte, aheadSize+aheadMore)
		part.data[100] = n
		s.keepAhead(part)
	}
	kept := 0
	for n := range byte(packs) {
		found, read := s.aheadOf(at(n), block, true)
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
	if _, read := s.aheadOf(aheadRead{pack: pack.ID{0}, off: aheadSize}, index.Place{Offset: aheadSize + 5, Stored: 50}, false); !read {
		t.Error("another part of a pack is not read")
	}
	for range 2 * aheadParts {
		s.keepAhead(at(9))
	}
	if len(s.ahead) > aheadParts {
		t.Errorf("%d parts are remembered", len(s.ahead))
	}
}

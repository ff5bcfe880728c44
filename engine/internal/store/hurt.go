package store

import (
	"github.com/cairn-backup/cairn/chunk"
	"github.com/cairn-backup/cairn/engine/internal/index"
	"github.com/cairn-backup/cairn/engine/internal/log"
)

// hurtPacks are the live packs in which a block is recorded as damaged.
//
// A backup relies on nothing in such a pack: what it has of it is stored again.
// That is more than the damaged blocks, a pack at most, and has two reasons. A
// disk that lost one block may lose the next. And the snapshot's needs then are
// free of the pack, by which the next backup sees that it may take over
// unchanged files again; see parents in package engine.
//
// Of chunks that have several copies the index names one in another pack, if it
// is filled in the knowledge of the damage. A restore that finds a block damaged
// looks for another copy in any case, see Again.
type hurtPacks map[uint64]bool

func (s *Store) hurtPacks() hurtPacks {
	var hurt hurtPacks
	_ = s.opts.Log.View(func(st *log.State) error { // the function returns nil
		for d := range st.Damage() {
			if hurt == nil {
				hurt = make(hurtPacks)
			}
			hurt[d.Pack] = true
		}
		return nil
	})
	return hurt
}

// in reports whether one of packs is hurt.
func (h hurtPacks) in(packs log.Ranges) bool {
	for number := range h {
		if packs.Contains(number) {
			return true
		}
	}
	return false
}

// lacking returns those of entries, which are of a hurt pack, for whose chunks
// the index has no place in a live pack.
func (s *Store) lacking(entries []index.Entry) ([]index.Entry, error) {
	ids := make([]chunk.ID, len(entries))
	for i := range entries {
		ids[i] = entries[i].ID
	}
	_, found, err := s.Places(ids)
	if err != nil {
		return nil, err
	}
	left := entries[:0]
	for i, e := range entries {
		if !found[i] {
			left = append(left, e)
		}
	}
	return left, nil
}

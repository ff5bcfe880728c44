package store

import (
	"context"

	"github.com/cairn-backup/cairn/chunk"
	"github.com/cairn-backup/cairn/engine/internal/index"
	"github.com/cairn-backup/cairn/engine/internal/log"
)

// stored asks whether a new snapshot may rely on a stored copy of the chunk, and
// says in which pack. Chunks that lie together are asked for together, most of the
// time, and one lookup then answers for a run of them: see index.Near.
func (s *Store) stored(ctx context.Context, id chunk.ID) (number uint64, found bool, err error) {
	if h, near := s.index().Near(id); near && s.mayRely(h) {
		return h.Pack, true, nil
	}
	return s.lookupStored(ctx, id)
}

// mayRely reports whether a pack that the index names is the one that the log
// knows by that number, and in which no damage is known, see hurtPacks.
func (s *Store) mayRely(h index.Holder) (ok bool) {
	_ = s.opts.Log.View(func(st *log.State) error { // the function returns nil
		info, live := st.Pack(h.Pack)
		ok = live && info.ID.Check() == h.Check && len(st.DamagedBlocks(h.Pack)) == 0
		return nil
	})
	return ok
}

// lookupStored is stored without what lies together.
func (s *Store) lookupStored(ctx context.Context, id chunk.ID) (number uint64, found bool, err error) {
	seen := s.resets.Load()
	p, found, err := s.index().Lookup(id)
	if err != nil {
		if err := s.rebuild(ctx, seen, err); err != nil {
			return 0, false, err
		}
		if err := s.LoadAll(ctx); err != nil {
			return 0, false, err
		}
		if p, found, err = s.index().Lookup(id); err != nil {
			return 0, false, err
		}
	}
	if !found {
		return 0, false, nil
	}
	_ = s.opts.Log.View(func(st *log.State) error { // the function returns nil
		found = placeHolds(st, p) && len(st.DamagedBlocks(p.Pack)) == 0 // see hurtPacks
		return nil
	})
	if found {
		s.index().Gather(p)
	}
	return p.Pack, found, nil
}

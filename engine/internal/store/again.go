package store

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"

	"github.com/cairn-backup/cairn/chunk"
	"github.com/cairn-backup/cairn/engine/internal/index"
	"github.com/cairn-backup/cairn/engine/internal/log"
)

// maxTries bounds at how many places a chunk is sought. Packs may be doomed
// again and again while someone reads, each time with successors.
const maxTries = 4

// maxOthers bounds for how many chunks other copies are sought at once.
const maxOthers = 1 << 18

// Again says where else chunks may be read, of which failed are the places that
// held nothing right. The log is replayed first: a pack that was doomed
// meanwhile has successors. Else another live copy is looked for in every index
// segment, once for each pack. Found is false where there is none: then the
// caller's own error stands.
//
// Places that it returns may hold nothing right either: a caller asks at most
// maxTries times.
func (s *Store) Again(ctx context.Context, ids []chunk.ID, failed []index.Place) (places []index.Place, found []bool, err error) {
	places, found = make([]index.Place, len(ids)), make([]bool, len(ids))
	if s.opts.Strict {
		return places, found, nil
	}
	if err := s.opts.Log.Refresh(ctx); err != nil && s.opts.Log.Problem() == nil {
		return nil, nil, err
	}
	if err := s.LoadAll(ctx); err != nil {
		return nil, nil, err
	}
	left := func() (ids2 []chunk.ID, places2 []index.Place, err error) {
		if err := s.lookup(ids, places, found); err != nil {
			return nil, nil, err
		}
		for i, p := range failed {
			if found[i] = found[i] && !sameBlock(places[i], p); !found[i] {
				ids2, places2 = append(ids2, ids[i]), append(places2, p)
			}
		}
		return ids2, places2, nil
	}
	missing, tried, err := left()
	if err != nil || len(missing) == 0 {
		return places, found, err
	}
	if err := s.seekCopies(ctx, missing, tried); err != nil {
		return nil, nil, err
	}
	_, _, err = left()
	return places, found, err
}

// MayTryAgain reports whether a read that failed with err may succeed at
// another place, after so many tries.
func MayTryAgain(err error, tries int) bool {
	return errors.Is(err, ErrCorrupt) && tries < maxTries
}

func sameBlock(a, b index.Place) bool {
	return a.Pack == b.Pack && a.Check == b.Check && a.Offset == b.Offset
}

// Seeks remembers, for one head of the log, of which packs the chunks were
// sought elsewhere: else each chunk of a lost pack would cost every segment.
type seeks struct {
	head  log.Position
	packs map[uint64]bool
	bad   map[badBlock]bool // what held nothing right, of chunks with several copies
}

// A badBlock is a block that could not be read.
type badBlock struct {
	pack   uint64
	offset uint32
}

func blockOf(p index.Place) badBlock { return badBlock{p.Pack, p.Offset} }

// seekCopies reads every segment for other copies of chunks whose places failed,
// and of the others in the same packs, and puts what it finds into the index.
func (s *Store) seekCopies(ctx context.Context, ids []chunk.ID, failed []index.Place) error {
	s.loadMu.Lock()
	defer s.loadMu.Unlock()
	head := s.opts.Log.Head()
	if s.sought.head != head {
		s.sought = seeks{head: head, packs: make(map[uint64]bool), bad: make(map[badBlock]bool)}
	}
	c := copies{
		failed: make(map[chunk.ID]index.Place, len(ids)), packs: make(map[uint64]bool), places: make(map[chunk.ID]index.Place),
		bad: s.sought.bad,
	}
	for i, p := range failed {
		c.bad[blockOf(p)] = true
		if !s.sought.packs[p.Pack] {
			c.packs[p.Pack] = true
			c.failed[ids[i]] = p
		}
	}
	if len(c.packs) == 0 {
		return nil
	}
	var segments []log.SegmentInfo
	_ = s.opts.Log.View(func(st *log.State) error { // the function returns nil
		segments = slices.Collect(st.Segments())
		return nil
	})
	// What lies in the packs that failed is known first, then where else it is.
	for _, seek := range []func(*log.State, PackTable){c.wanted, c.elsewhere} {
		for _, seg := range segments {
			tables, err := s.ReadSegment(ctx, seg)
			if errors.Is(err, ErrCorrupt) {
				s.opts.Logger.WarnContext(ctx, "an index segment cannot be searched for other copies", slog.Any("error", err))
				continue
			}
			if err != nil {
				return err
			}
			_ = s.opts.Log.View(func(st *log.State) error { // the function returns nil
				for _, t := range tables {
					seek(st, t)
				}
				return nil
			})
		}
	}
	for number := range c.packs {
		s.sought.packs[number] = true
	}
	entries := make([]index.Entry, 0, len(c.places))
	for id, p := range c.places {
		entries = append(entries, index.Entry{ID: id, Place: p})
	}
	err := s.index().Insert(entries)
	if err == nil {
		// No backup may go on to rely on them where the index names others now.
		err = s.index().DropLists(slices.Collect(maps.Keys(c.packs))...)
	}
	return err
}

// copies are other places of chunks.
type copies struct {
	failed map[chunk.ID]index.Place // where they are not
	packs  map[uint64]bool          // in which something failed
	places map[chunk.ID]index.Place // where else they are
	bad    map[badBlock]bool        // where nothing is, as an earlier seek was told, too
}

// wanted notes the other chunks of a pack in which something failed.
func (c *copies) wanted(st *log.State, t PackTable) {
	number, ok := st.PackNumber(t.Pack)
	if !ok || !c.packs[number] {
		return
	}
	for _, e := range Entries(number, t) {
		if _, known := c.failed[e.ID]; !known && len(c.failed) < maxOthers {
			c.failed[e.ID] = e.Place
		}
	}
}

// elsewhere notes places in other packs, or in other blocks.
func (c *copies) elsewhere(st *log.State, t PackTable) {
	number, ok := st.PackNumber(t.Pack)
	if !ok {
		return
	}
	for _, e := range Entries(number, t) {
		failed, wanted := c.failed[e.ID]
		if !wanted || sameBlock(failed, e.Place) || c.bad[blockOf(e.Place)] || !placeHolds(st, e.Place) {
			continue
		}
		// Whoever reads verifies: what is said to be damaged is better than nothing.
		if _, known := c.places[e.ID]; !known || !st.Damaged(number, e.Place.Block) {
			c.places[e.ID] = e.Place
		}
	}
}

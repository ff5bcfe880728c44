package log

import (
	"cmp"
	"slices"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/engine/internal/layout"
	"github.com/cairn-backup/cairn/engine/internal/rule"
)

// doom applies a Doom, which must keep rule R3: what a visible snapshot needs
// has successors, and these are live.
func (s *State) doom(rec Record, e Doom) error {
	if e.Deleted >= rec.N {
		return conflict("nothing of record %d is deleted yet", e.Deleted)
	}
	if e.Purged >= rec.N {
		return conflict("nothing is forgotten by record %d yet", e.Purged)
	}
	succeeded, err := s.checkSuccessors(e)
	if err != nil {
		return err
	}
	bare := e.Packs.Subtract(succeeded)
	for _, info := range s.snaps {
		if hit := info.Needs.Intersect(bare); len(hit) > 0 && !rule.Off(rule.Needed) && !rule.Off(rule.Succeed) {
			return conflict("snapshot %v needs packs %v", info.Summary.ID, hit)
		}
	}
	keys, err := s.doomedKeys(e)
	if err != nil {
		return err
	}
	s.purge(e.Purged)
	s.more = e.More
	s.mapNeeds(e, bare)
	s.packs = filter(s.packs, func(p livePack) bool { return !e.Packs.Contains(p.number) })
	s.damage = filter(s.damage, func(d Damage) bool { return !e.Packs.Contains(d.Pack) })
	if len(e.Segments) > 0 {
		s.segments = filter(s.segments, func(g SegmentInfo) bool { return !slices.Contains(e.Segments, g.ID) })
	}
	if e.Deleted > 0 {
		s.doomed = filter(s.doomed, func(d Doomed) bool { return d.N > e.Deleted })
	}
	for _, key := range keys {
		s.doomed = append(s.doomed, Doomed{N: rec.N, Key: key})
	}
	return nil
}

// checkSuccessors returns the packs of which successors are named.
func (s *State) checkSuccessors(e Doom) (Ranges, error) {
	var succeeded Ranges
	for i, u := range e.Successors {
		switch dead := s.Dead(u.By); {
		case i > 0 && u.Pack <= e.Successors[i-1].Pack:
			return nil, conflict("successors are not in order")
		case !e.Packs.Contains(u.Pack):
			return nil, conflict("pack %d has successors but is not doomed", u.Pack)
		case len(dead) > 0 || u.By.Intersects(e.Packs):
			return nil, conflict("successors %v of pack %d are not all live", u.By, u.Pack)
		}
		succeeded = succeeded.extend(Range{u.Pack, u.Pack})
	}
	if dead := s.Dead(e.Packs); len(dead) > 0 {
		var lost Ranges
		for _, info := range s.snaps {
			lost = lost.Union(info.Needs.Intersect(dead))
		}
		for _, g := range dead.Subtract(lost.Intersect(succeeded)) {
			return nil, conflict("pack %d is not live", g.First)
		}
	}
	return succeeded, nil
}

// doomedKeys returns the keys of all that e dooms and that may not be waiting
// for its deletion already.
func (s *State) doomedKeys(e Doom) ([]backend.Key, error) {
	var keys []backend.Key
	for _, p := range s.packs {
		if e.Packs.Contains(p.number) {
			keys = append(keys, layout.Pack(p.info.ID))
		}
	}
	for i, id := range e.Segments {
		if _, ok := s.Segment(id); !ok || slices.Contains(e.Segments[:i], id) {
			return nil, conflict("index segment %x is not live", id)
		}
		keys = append(keys, layout.Segment(id))
	}
	known := make(map[backend.Key]bool, len(s.doomed))
	for _, d := range s.doomed {
		known[d.Key] = d.N > e.Deleted
	}
	for _, key := range e.Objects {
		if live, err := s.names(key); err != nil || live {
			return nil, conflict("object %q is live, or neither a pack nor a segment", key)
		}
		if !known[key] { // two collectors may come upon the same orphan
			keys = append(keys, key)
			known[key] = true
		}
	}
	return keys, nil
}

// names reports whether key is that of a live pack or segment. It returns an
// error for keys of anything else.
func (s *State) names(key backend.Key) (bool, error) {
	if id, err := layout.ParsePack(key); err == nil {
		_, live := s.PackNumber(id)
		return live, nil
	}
	id, err := layout.ParseSegment(key)
	if err != nil {
		return false, err
	}
	_, live := s.Segment(id)
	return live, nil
}

// purge drops the snapshots that were forgotten by records up to n.
func (s *State) purge(n uint64) {
	if n == 0 {
		return
	}
	s.forgotten = filter(s.forgotten, func(info *SnapshotInfo) bool {
		if info.Forgotten <= n {
			s.snapOf.set(info.Summary.ID, nil)
		}
		return info.Forgotten > n
	})
}

// mapNeeds puts successors in the place of doomed packs, and drops forgotten
// snapshots that lose one of bare, which have none.
func (s *State) mapNeeds(e Doom, bare Ranges) {
	s.snaps = slices.Clone(s.snaps)
	for i, info := range s.snaps {
		if needs, changed := successors(info.Needs, e); changed {
			c := *info
			c.Needs = needs
			s.snaps[i] = &c
			s.snapOf.set(c.Summary.ID, &c)
		}
	}
	s.forgotten = slices.Clone(s.forgotten)
	for i, info := range s.forgotten {
		if info.Needs.Intersects(bare) {
			s.snapOf.set(info.Summary.ID, nil)
			s.forgotten[i] = nil
		} else if needs, changed := successors(info.Needs, e); changed {
			c := *info
			c.Needs = needs
			s.forgotten[i] = &c
			s.snapOf.set(c.Summary.ID, &c)
		}
	}
	s.forgotten = slices.DeleteFunc(s.forgotten, func(info *SnapshotInfo) bool { return info == nil })
	s.sessions = slices.Clone(s.sessions)
	for i, o := range s.sessions {
		if needs, changed := successors(o.Needs, e); changed {
			c := *o
			c.Needs = needs
			s.sessions[i] = &c
		}
	}
}

// successors returns needs with the successors that e names in the place of
// the packs they succeed, and whether that is any different.
func successors(needs Ranges, e Doom) (Ranges, bool) {
	if !needs.Intersects(e.Packs) {
		return needs, false
	}
	var gone, by Ranges
	for _, g := range needs.Intersect(e.Packs) {
		i, _ := slices.BinarySearchFunc(e.Successors, g.First, func(u Successor, n uint64) int { return cmp.Compare(u.Pack, n) })
		for ; i < len(e.Successors) && e.Successors[i].Pack <= g.Last; i++ {
			gone = gone.extend(Range{e.Successors[i].Pack, e.Successors[i].Pack})
			by = by.Union(e.Successors[i].By)
		}
	}
	return needs.Subtract(gone).Union(by), len(gone) > 0
}

package engine

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"slices"

	"github.com/cairn-backup/cairn/engine/internal/layout"
	"github.com/cairn-backup/cairn/engine/internal/log"
	"github.com/cairn-backup/cairn/engine/progress"
)

const (
	// foldAt is how many segments of about one size are folded into one. Each
	// entry is so rewritten once for each factor of eight by which the index
	// grows, and a repository has a few dozen segments for each factor of four.
	foldAt = 8
	// foldMax bounds a folded segment, in bytes: half a million chunks.
	foldMax = 16 << 20
)

// foldable returns groups of segments of about one size that are to become one
// segment each. Those in gone are left out.
func foldable(st *log.State, gone map[[16]byte]bool) [][]log.SegmentInfo {
	live := st.Live()
	tiers := make(map[int][]log.SegmentInfo)
	size := make(map[int]uint64)
	for seg := range st.Segments() {
		listed, alive := seg.Packs.Count(), seg.Packs.Intersect(live).Count()
		if gone[seg.ID] || alive == 0 {
			continue
		}
		bytes := uint64(seg.Size) * alive / listed
		tier := bits.Len64(bytes>>14) / 2 // from 16 KiB on, by factors of four
		if size[tier]+bytes <= foldMax {
			tiers[tier] = append(tiers[tier], seg)
			size[tier] += bytes
		}
	}
	var groups [][]log.SegmentInfo
	for _, tier := range sortedTiers(tiers) {
		if len(tiers[tier]) >= foldAt {
			groups = append(groups, tiers[tier])
		}
	}
	return groups
}

func sortedTiers(tiers map[int][]log.SegmentInfo) []int {
	var out []int
	for tier := range tiers {
		out = append(out, tier)
	}
	slices.Sort(out)
	return out
}

// planFold counts the segments that are folded or list nothing that is live.
func (g *gcPlan) planFold(st *log.State, plan *GCPlan) {
	gone := make(map[[16]byte]bool)
	going := g.bare.Union(g.dead).Union(g.partly)
	for _, id := range emptied(st, going) {
		seg, _ := st.Segment(id)
		gone[id] = true
		count(&plan.Folded, uint64(seg.Size))
	}
	for _, group := range foldable(st, gone) {
		g.folds = true
		for _, seg := range group {
			count(&plan.Folded, uint64(seg.Size))
			plan.Index.Bytes += uint64(seg.Size)
			plan.BytesRead += uint64(seg.Size)
			plan.Requests.Get++
		}
		plan.Index.Objects++
	}
}

// fold folds segments until there are no more groups of them; also such as the
// run itself has made.
func (x *gcRun) fold(ctx context.Context) error {
	if !x.folds && !x.did {
		return nil
	}
	x.meter.SetPhase(progress.Copy)
	for {
		groups := foldable(x.state(), nil)
		if len(groups) == 0 {
			return nil
		}
		landed, err := x.foldGroup(ctx, groups[0])
		if err != nil || !landed {
			return err
		}
		if err := x.deleteDoomed(ctx); err != nil {
			return err
		}
	}
}

// foldGroup puts one segment in the place of several, in one record. It reports
// whether they were as they should still be.
func (x *gcRun) foldGroup(ctx context.Context, group []log.SegmentInfo) (landed bool, err error) {
	folded, err := x.repo.store.Fold(ctx, group)
	if err != nil {
		return false, err
	}
	_, err = x.append(ctx, func(st *log.State) ([]log.Effect, error) {
		landed = false
		live := st.Live()
		doom := log.Doom{More: st.Uncollected()}
		for _, seg := range group {
			if _, there := st.Segment(seg.ID); !there {
				return nil, nil // another collector was faster
			}
			// V14: what is live in it must be in the new one.
			if lost := seg.Packs.Intersect(live).Subtract(folded.Packs); len(lost) > 0 {
				continue
			}
			doom.Segments = append(doom.Segments, seg.ID)
			key := layout.Segment(seg.ID)
			x.sizes[key], x.why[key] = uint64(seg.Size), isFolded
		}
		if len(doom.Segments) < 2 {
			return nil, nil
		}
		landed = true
		next := folded
		next.Packs = folded.Packs.Intersect(live)
		if len(next.Packs) == 0 {
			return []log.Effect{doom}, nil
		}
		return []log.Effect{log.Add{Segments: []log.SegmentInfo{next}}, doom}, nil
	})
	if errors.Is(err, ErrConflict) { // another collector has swept what was just stored
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("fold index segments: %w", err)
	}
	if landed && len(folded.Packs) > 0 {
		count(&x.report.Index, uint64(folded.Size))
	}
	return landed, nil
}

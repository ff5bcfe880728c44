package engine_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/cairn-backup/cairn/chunk"
	"github.com/cairn-backup/cairn/chunk/pack"
	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/manifest"
)

const (
	// simGrain is the size of a page, bytes: the least there may be, so that a
	// group of many pages is small.
	simGrain = 512
	// simGroup is the size of a group that is not the last of its file, bytes.
	simGroup = 64 << 10
)

// simPage is what pages hold: so few that unrelated files share patches. One is
// zeros.
var simPage = sync1(func() [][]byte {
	all := [][]byte{make([]byte, simGrain)}
	for i := range 20 {
		all = append(all, random(uint64(7000+i), simGrain))
	}
	return all
})

// simNew makes a file of pages: few different ones, so that unrelated files share
// groups. Most have one group, which is short since the file ends: so short that
// it shares its pack with others, and the pack is rewritten when these are dead.
func simNew(rng *rand.Rand) []byte {
	size := simGrain * []int{5, 5, 8}[rng.IntN(3)]
	if rng.IntN(5) == 0 {
		size += simGroup
	}
	var p []byte
	for i := rng.IntN(3); len(p) < size; i++ {
		p = append(p, simPage[1+i%(len(simPage)-1)]...)
	}
	return p
}

// simChange returns old as it is after a change, or something new: mostly a few
// pages, which a backup stores as patches; sometimes more than half of a group.
func simChange(rng *rand.Rand, old []byte) []byte {
	if old == nil || rng.IntN(20) == 0 {
		return simNew(rng)
	}
	p := bytes.Clone(old)
	last := len(p) / simGroup * simGroup // where the last group begins
	size := (len(p) - last) / simGrain   // of it, in pages
	pages := 1 + rng.IntN(size/4)
	switch rng.IntN(12) {
	case 0:
		pages = size
	case 1: // a hole, if it is long enough for one
		clear(p[last:])
		return p
	}
	begin := last
	if rng.IntN(2) == 0 {
		begin = 0
	}
	for range pages {
		copy(p[begin+simGrain*rng.IntN(size):], simPage[rng.IntN(len(simPage))])
	}
	return p
}

// A simPaged is an open file of pages.
type simPaged struct{ *bytes.Reader }

// Grain implements source.Paged.
func (simPaged) Grain() (int, error) { return simGrain, nil }

// Close implements io.Closer.
func (simPaged) Close() error { return nil }

// paged reports whether one of the files consists of pages.
func (t simTree) paged() bool {
	for _, f := range t {
		if f.pages != nil {
			return true
		}
	}
	return false
}

// simPages is what the model knows of files of pages. It decides nothing, and
// counts what happened.
type simPages struct {
	patched map[chunk.ID][]chunk.ID    // the patches that a group was last seen with
	patches map[chunk.ID]bool          // chunks that are patches
	last    map[string]manifest.Placed // the extent of each group of a data set, as last seen with patches
}

func newSimPages() simPages {
	return simPages{patched: make(map[chunk.ID][]chunk.ID), patches: make(map[chunk.ID]bool), last: make(map[string]manifest.Placed)}
}

// readFile puts the content of one file together: what stands in front of a
// patch is changed by it.
func (m *simModel) readFile(g simGetter, s *simSnap, at string, c manifest.Content) (data []byte, err error) {
	data = append(data, c.Inline...)
	var groups []manifest.Patched
	for e, err := range manifest.Extents(m.ctx, g, c, 0) {
		if err != nil {
			return nil, err
		}
		if e.Kind == manifest.Hole {
			data = append(data, make([]byte, e.Length)...)
			continue
		}
		piece, err := g.Chunk(m.ctx, e.ID)
		if err != nil {
			return nil, err
		}
		switch e.Kind {
		case manifest.Data:
			data = append(data, piece...)
			groups = append(groups, manifest.Patched{Placed: e})
		case manifest.Repeat:
			data = append(data, bytes.Repeat(piece, int(e.Count))...) //nolint:gosec // few
		case manifest.Patch:
			if len(groups) == 0 {
				return nil, fmt.Errorf("%s: a patch of nothing", at)
			}
			group := &groups[len(groups)-1]
			// By page, and not by the offset that the iterator tells.
			begin := group.Offset + e.First*(uint64(len(piece))/e.Count)
			if begin+uint64(len(piece)) > group.Offset+group.Length {
				return nil, fmt.Errorf("%s: a patch beyond its group", at)
			}
			copy(data[begin:], piece)
			group.Patches = append(group.Patches, e)
		default:
			return nil, fmt.Errorf("%s: an extent of kind %d", at, e.Kind)
		}
	}
	m.countPages(s, at, groups)
	return data, nil
}

// countPages notes the groups of a file that has just become visible.
func (m *simModel) countPages(s *simSnap, at string, groups []manifest.Patched) {
	_, below, _ := strings.Cut(at, "/")
	if s.backup.tree[below].pages == nil {
		return
	}
	m.w.stats["files of pages"]++
	for _, g := range groups {
		where := fmt.Sprint(at, "@", g.Offset)
		if len(g.Patches) == 0 {
			if before, ok := m.pages.last[where]; ok && before.ID != g.ID {
				m.w.stats["patched groups written whole"]++
			}
			delete(m.pages.last, where)
			continue
		}
		m.pages.last[where] = g.Placed
		s.paged = append(s.paged, at)
		m.w.stats["patches"] += len(g.Patches)
		ids := make([]chunk.ID, len(g.Patches))
		for i, p := range g.Patches {
			ids[i] = p.ID
			m.pages.patches[p.ID] = true
		}
		if before := m.pages.patched[g.ID]; before != nil && !slices.Equal(before, ids) {
			m.w.stats["groups patched again"]++
		}
		m.pages.patched[g.ID] = ids
	}
}

// storedAgain counts the chunks of patched groups that a collector stores anew.
func (m *simModel) storedAgain(by *simProc, id chunk.ID) {
	if !strings.HasPrefix(by.name, "collector") {
		return
	}
	if m.pages.patched[id] != nil || m.pages.patches[id] {
		m.w.stats["groups and patches repacked"]++
	}
}

// holdsPatched reports whether a pack holds a group that has patches somewhere.
func (m *simModel) holdsPatched(id pack.ID) bool {
	for c := range m.packs[id].chunks {
		if m.pages.patched[c] != nil {
			return true
		}
	}
	return false
}

// collected counts the chunks of patched groups in a pack that was deleted.
func (m *simModel) collected(p *simPack) {
	for id := range p.chunks {
		if m.pages.patched[id] != nil {
			m.w.stats["groups collected"]++
		}
		if m.pages.patches[id] {
			m.w.stats["patches collected"]++
		}
	}
}

// dropUnmended deletes the snapshots that are still hurt after everything was
// stored again, and collects what only they needed. They may lack nothing but
// files with patches, and directories that name such files.
func (m *simModel) dropUnmended(ctx context.Context, r *engine.Repository) error {
	report, err := r.Check(ctx, engine.CheckOptions{})
	if err != nil {
		return fmt.Errorf("check of what was mended: %w", err)
	}
	var beyond []manifest.ID
	for _, f := range report.Findings {
		for _, item := range f.Items {
			s := m.snaps[item.Snapshot]
			above := func(at string) bool {
				return item.Path == "" || at == item.Path || strings.HasPrefix(at, item.Path+"/")
			}
			if s == nil || !slices.ContainsFunc(s.paged, above) {
				return fmt.Errorf("%q of %v is not mended: %s: %s", item.Path, item.Snapshot.Short(), f.Object, f.Detail)
			}
		}
		beyond = append(beyond, f.Snapshots...)
	}
	if len(beyond) == 0 {
		return nil
	}
	slices.SortFunc(beyond, func(a, b manifest.ID) int { return bytes.Compare(a[:], b[:]) })
	beyond = slices.Compact(beyond)
	for _, id := range beyond {
		m.w.stats["snapshots beyond mending"]++
		delete(m.snaps, id)
	}
	if err := r.Delete(ctx, beyond...); err != nil {
		return err
	}
	plan, err := r.PlanGC(ctx, atOnce)
	if err != nil {
		return err
	}
	_, err = plan.Run(ctx)
	return err
}

package engine_test

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/chunk"
	"github.com/cairn-backup/cairn/chunk/pack"
	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/engine/enginetest"
	"github.com/cairn-backup/cairn/engine/internal/layout"
	"github.com/cairn-backup/cairn/engine/internal/log"
	"github.com/cairn-backup/cairn/manifest"
)

// simHarm is what the model knows of damage. A chunk is open while a copy of it
// is damaged that no record tells of: whoever collects meanwhile takes that copy
// for a good one. From when the last copy was damaged until all damage of it is
// recorded and there is a good copy, snapshots may lack it, and not any longer.
//
// Blocks that a collection has copied keep their numbers, by which damage is
// recorded, so two blocks of one pack may share one: the good one is told to be
// damaged with the other, and no record tells of it when it goes bad later.
type simHarm struct {
	events int
	bad    map[chunk.ID]bool // of which a copy was ever damaged
	hurt   map[chunk.ID]bool // that snapshots may lack now
	open   map[chunk.ID]int  // until which step it was
	lacked map[chunk.ID]int  // until which step there was no good copy
}

// simStill stands for a step that has not come yet.
const simStill = 1 << 30

func newSimHarm() simHarm {
	return simHarm{
		bad: make(map[chunk.ID]bool), hurt: make(map[chunk.ID]bool), open: make(map[chunk.ID]int), lacked: make(map[chunk.ID]int),
	}
}

// good reports whether the pack has a good copy of the chunk.
func (p *simPack) good(id chunk.ID) bool {
	_, bad := p.bad[id]
	return p.there && p.chunks[id] && !bad
}

// damage lets one pack that no record dooms go bad: a block of it, or its last
// bytes, or all of it. It returns false if there is none.
func (m *simModel) damage(rng *rand.Rand) bool {
	var ids []pack.ID
	for id, p := range m.packs {
		if p.there && m.doomed[layout.Pack(id)] == "" {
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		return false
	}
	if patched := slices.DeleteFunc(slices.Clone(ids), func(id pack.ID) bool { return !m.holdsPatched(id) }); len(patched) > 0 && rng.IntN(2) == 0 {
		ids = patched // there are few, and the patches stand in other packs
	}
	slices.SortFunc(ids, func(a, b pack.ID) int { return m.packs[a].order - m.packs[b].order })
	id := ids[rng.IntN(len(ids))]
	key, p := layout.Pack(id), m.packs[id]
	o := m.w.objects[key]
	o.data = bytes.Clone(o.data)
	blocks := p.table.Blocks
	what := "loses its end"
	switch rng.IntN(4) {
	case 0:
		what = "is lost"
		delete(m.w.objects, key)
		p.there = false
	case 1:
		o.data = o.data[:len(o.data)-1-rng.IntN(len(o.data)/2)]
		m.w.objects[key] = o
	default:
		n := rng.IntN(len(blocks))
		what, blocks = fmt.Sprintf("has a bad block %d", n), blocks[n:n+1]
		if _, again := p.bad[blocks[0].Chunks[0].ID]; again {
			return true
		}
		o.data[blocks[0].Offset+blocks[0].Stored/2] ^= 1 << rng.IntN(8)
		m.w.objects[key] = o
	}
	m.w.note("damage: %s %s", m.w.label(key), what)
	m.w.stats["damaged packs"]++
	m.harm.events++
	for _, b := range blocks {
		for _, c := range b.Chunks {
			if m.pages.patched[c.ID] != nil {
				m.w.stats["patched groups hurt by damage"]++
			}
			p.bad[c.ID] = b.Number
			m.harm.bad[c.ID], m.harm.hurt[c.ID] = true, true // until there is a good copy, if there is none
		}
	}
	m.check()
	return true
}

// reviseHarm finds out which chunks snapshots may lack now, and returns those of
// which there is a good copy in a live pack that is listed.
func (m *simModel) reviseHarm(st *log.State, listed map[pack.ID]bool) (good map[chunk.ID]bool) {
	good = make(map[chunk.ID]bool)
	open := make(map[chunk.ID]bool)
	for id, p := range m.packs {
		number, live := st.PackNumber(id)
		for c := range m.harm.bad {
			if !p.chunks[c] {
				continue
			}
			block, bad := p.bad[c]
			good[c] = good[c] || live && listed[id] && p.good(c)
			told := live && st.Damaged(number, block)
			open[c] = open[c] || bad && !told && (live || m.doomed[layout.Pack(id)] == "")
		}
	}
	for c := range m.harm.bad {
		m.during(m.harm.lacked, c, !good[c])
		m.during(m.harm.open, c, open[c])
		switch {
		case open[c]:
			m.harm.hurt[c] = true
		case good[c]:
			delete(m.harm.hurt, c)
		}
	}
	return good
}

// during keeps until which step something was so.
func (m *simModel) during(until map[chunk.ID]int, c chunk.ID, now bool) {
	switch {
	case now:
		until[c] = simStill
	case until[c] == simStill:
		until[c] = m.w.step
	}
}

// bornHurt notes what a snapshot may lack that has just become visible: its
// backup relied on what was found to be damaged only later, or it was brought
// back after others had been told that nobody needs it.
func (m *simModel) bornHurt(s *simSnap, back bool) {
	for _, c := range s.chunks {
		if m.harm.bad[c] && (back || s.backup.began <= m.harm.open[c]) {
			m.harm.hurt[c] = true
		}
	}
}

// lacks notes whether a snapshot lacks something now.
func (m *simModel) lacks(s *simSnap, something bool) {
	if something && !s.lacks {
		m.w.stats["snapshots hurt by damage"]++
	}
	if !something && s.lacks {
		m.w.stats["snapshots mended"]++
	}
	s.lacks = something
}

// mayFail reports whether damage explains that a snapshot could not be read: one
// of its chunks had no good copy at some moment since a step.
func (m *simModel) mayFail(s *simSnap, since int) bool {
	return slices.ContainsFunc(s.chunks, func(c chunk.ID) bool {
		at, ever := m.harm.lacked[c]
		return ever && at >= since
	})
}

// explains reports whether damage explains what a check found: the object is
// damaged, or else the snapshots that it hurts hold what was.
func (m *simModel) explains(f engine.Finding) bool {
	if id, err := layout.ParsePack(backend.Key(f.Object)); err == nil && m.packs[id] != nil {
		return len(m.packs[id].bad) > 0
	}
	return f.Object == "" && !slices.ContainsFunc(f.Snapshots, func(id manifest.ID) bool {
		s := m.snaps[id]
		return s != nil && !slices.ContainsFunc(s.chunks, func(c chunk.ID) bool { return m.harm.bad[c] })
	})
}

// untold lists the damaged packs of which the log does not tell all.
func (m *simModel) untold() map[pack.ID]bool {
	untold := make(map[pack.ID]bool)
	st := m.state()
	for id, p := range m.packs {
		number, live := st.PackNumber(id)
		for _, block := range p.bad {
			if live && !st.Damaged(number, block) {
				untold[id] = true
			}
		}
	}
	return untold
}

// simDamager is the wear of the disk, and a checker who looks for it and tells
// the log.
func simDamager(ctx context.Context, a *simActor, i int) {
	m := a.w.model
	if i%2 == 0 {
		a.w.baton.Lock()
		defer a.w.baton.Unlock()
		m.damage(a.rng)
		return
	}
	a.w.baton.Lock()
	before := m.untold()
	a.w.baton.Unlock()
	report, err := a.repo.Check(ctx, engine.CheckOptions{Depth: engine.DepthData, Record: true})
	a.harmless("check", err)
	a.w.baton.Lock()
	defer a.w.baton.Unlock()
	a.w.say("%s: check of every byte = %v, %d findings, %d recorded, %q", a.proc.name, err, len(report.Findings), report.Recorded, report.Notes)
	a.findings(report, err)
	if report.Recorded > 0 {
		a.w.stats["checks that recorded damage"]++
	}
	cannot := slices.ContainsFunc(report.Notes, func(s string) bool { return strings.Contains(s, "could not be recorded") })
	if err != nil || cannot || a.proc.isDead() {
		return
	}
	for id := range m.untold() {
		if before[id] {
			a.w.fail("%s checked every byte, and did not tell that %s is damaged", a.proc.name, a.w.label(layout.Pack(id)))
		}
	}
}

// mend checks that damage comes to an end: after a check that records it and
// backups of what was backed up before, every snapshot is whole again, by the
// names of the chunks. Left out are patched groups, of which a backup after
// damage stores neither the chunk nor the patches again.
func (m *simModel) mend(ctx context.Context, r *engine.Repository) error {
	report, err := r.Check(ctx, engine.CheckOptions{Depth: engine.DepthData, Record: true})
	if err != nil {
		return fmt.Errorf("check: %w", err)
	}
	hurt := make(map[manifest.ID]bool)
	for _, f := range report.Findings {
		if !m.explains(f) {
			return fmt.Errorf("check finds what was not damaged: %s: %s", f.Object, f.Detail)
		}
		for _, id := range f.Snapshots {
			hurt[id] = true
		}
	}
	for _, id := range slices.SortedFunc(maps.Keys(m.snaps), func(a, b manifest.ID) int {
		return strings.Compare(m.snaps[a].backup.tag, m.snaps[b].backup.tag)
	}) {
		b := m.snaps[id].backup
		if !hurt[id] {
			var out simTarget
			if _, err := r.Restore(ctx, id, &out, engine.RestoreOptions{}); err != nil {
				return fmt.Errorf("restore of %s, of which the check found nothing: %w", b.tag, err)
			}
			continue
		}
		opts := engine.BackupOptions{Host: "h", User: "u", Tags: []string{"mend"}}
		// Or a group would be stored as patches of one that was mended just now.
		opts.Reread = b.tree.paged()
		_, err := r.Backup(ctx, &simSource{name: b.source, tree: b.tree}, opts)
		if err != nil {
			return fmt.Errorf("backup of what %s has: %w", b.tag, err)
		}
		m.w.stats["snapshots mended in the end"]++
	}
	if err := m.dropUnmended(ctx, r); err != nil {
		return err
	}
	return enginetest.Whole(ctx, r)
}

package log

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/chunk/pack"
	"github.com/cairn-backup/cairn/engine/internal/layout"
	"github.com/cairn-backup/cairn/manifest"
)

// naive is the State as plain maps and sets, without roles.
type naive struct {
	next      uint64
	live      map[uint64]pack.ID
	snaps     []naiveSnap // in commit order
	forgotten map[manifest.ID]bool
	sessions  map[[16]byte]set
	doomed    map[backend.Key]uint64
	damage    map[uint64]set
}

type naiveSnap struct {
	n     uint64
	id    manifest.ID
	needs set
	tags  []string
	pin   bool
}

func (m *naive) clone() *naive {
	c := *m
	c.live, c.forgotten = maps.Clone(m.live), maps.Clone(m.forgotten)
	c.doomed, c.damage = maps.Clone(m.doomed), maps.Clone(m.damage)
	c.snaps = slices.Clone(m.snaps)
	c.sessions = maps.Clone(m.sessions)
	return &c
}

func (m *naive) alive(needs set) bool {
	for n := range needs {
		if _, ok := m.live[n]; !ok {
			return false
		}
	}
	return true
}

func (m *naive) find(id manifest.ID) int {
	return slices.IndexFunc(m.snaps, func(s naiveSnap) bool { return s.id == id })
}

// apply returns whether the effect holds.
func (m *naive) apply(n uint64, e Effect) bool {
	switch e := e.(type) {
	case Add:
		m.next = e.First + uint64(len(e.Packs))
		for i, p := range e.Packs {
			m.live[e.First+uint64(i)] = p.ID
		}
		return true
	case Snapshot:
		needs := setOf(slices.Collect(e.Needs.All()))
		if !m.alive(needs) || m.find(e.Summary.ID) >= 0 {
			return false
		}
		m.snaps = append(m.snaps, naiveSnap{n: n, id: e.Summary.ID, needs: needs, tags: e.Summary.Tags})
		slices.SortFunc(m.snaps, func(a, b naiveSnap) int { return cmp.Or(cmp.Compare(a.n, b.n), slices.Compare(a.id[:], b.id[:])) })
		delete(m.sessions, e.Session)
		return true
	case Session:
		needs := setOf(slices.Collect(e.Needs.All()))
		if !m.alive(needs) {
			return false
		}
		m.sessions[e.ID] = needs
		return true
	case End:
		delete(m.sessions, e.Session)
		return true
	case Forget:
		return m.move(e.IDs, false, true)
	case Undelete:
		return m.move(e.IDs, true, false)
	case Damage:
		if _, ok := m.live[e.Pack]; !ok {
			return false
		}
		blocks := maps.Clone(m.damage[e.Pack])
		if blocks == nil {
			blocks = make(set)
		}
		for b := range e.Blocks.All() {
			blocks[b] = true
		}
		m.damage[e.Pack] = blocks
		return true
	case Annotate:
		i := m.find(e.ID)
		if i < 0 || m.forgotten[e.ID] {
			return false
		}
		s := &m.snaps[i]
		if e.Pin != nil {
			s.pin = *e.Pin
		}
		s.tags = slices.DeleteFunc(slices.Clone(s.tags), func(x string) bool { return slices.Contains(e.RemoveTags, x) })
		for _, tag := range e.AddTags {
			if !slices.Contains(s.tags, tag) {
				s.tags = append(s.tags, tag)
			}
		}
		return true
	case Doom:
		return m.doom(n, e)
	}
	panic(fmt.Sprintf("%T", e))
}

func (m *naive) move(ids []manifest.ID, from, to bool) bool {
	for i, id := range ids {
		if m.find(id) < 0 || m.forgotten[id] != from || slices.Contains(ids[:i], id) {
			return false
		}
	}
	for _, id := range ids {
		m.forgotten[id] = to
	}
	return true
}

func (m *naive) doom(n uint64, e Doom) bool {
	gone := setOf(slices.Collect(e.Packs.All()))
	by := make(map[uint64]set)
	for _, u := range e.Successors {
		by[u.Pack] = setOf(slices.Collect(u.By.All()))
		for p := range by[u.Pack] {
			if _, ok := m.live[p]; !ok || gone[p] {
				return false
			}
		}
		if !gone[u.Pack] {
			return false
		}
	}
	if !m.alive(gone) || e.Deleted >= n {
		return false
	}
	for _, s := range m.snaps {
		for p := range s.needs {
			if gone[p] && by[p] == nil && !m.forgotten[s.id] {
				return false
			}
		}
	}
	replace := func(needs set) (set, bool) {
		out, whole := make(set), true
		for p := range needs {
			switch {
			case gone[p] && by[p] != nil:
				maps.Copy(out, by[p])
			case gone[p]:
				out[p], whole = true, false
			default:
				out[p] = true
			}
		}
		return out, whole
	}
	m.snaps = slices.DeleteFunc(m.snaps, func(s naiveSnap) bool {
		_, whole := replace(s.needs)
		return m.forgotten[s.id] && !whole
	})
	for i := range m.snaps {
		m.snaps[i].needs, _ = replace(m.snaps[i].needs)
	}
	for id, needs := range m.sessions {
		m.sessions[id], _ = replace(needs)
	}
	for key, at := range m.doomed {
		if at <= e.Deleted {
			delete(m.doomed, key)
		}
	}
	for p := range gone {
		m.doomed[layout.Pack(m.live[p])] = n
		delete(m.live, p)
		delete(m.damage, p)
	}
	return true
}

// draw makes up effects that mostly make sense.
func (m *naive) draw(t *rapid.T) Effect {
	number := rapid.Uint64Range(1, m.next+1)
	packs := func(name string) Ranges { return RangesOf(rapid.SliceOfN(number, 0, 5).Draw(t, name)) }
	alive := func(name string) Ranges {
		if len(m.live) == 0 {
			return nil
		}
		return RangesOf(rapid.SliceOfN(rapid.SampledFrom(slices.Sorted(maps.Keys(m.live))), 0, 5).Draw(t, name))
	}
	ids := func() []manifest.ID {
		all := []manifest.ID{{1}}
		for _, s := range m.snaps {
			all = append(all, s.id)
		}
		return rapid.SliceOfN(rapid.SampledFrom(all), 1, 2).Draw(t, "ids")
	}
	session := [16]byte{rapid.ByteRange(1, 4).Draw(t, "session")}
	switch rapid.IntRange(0, 11).Draw(t, "kind") {
	case 0, 1:
		a := Add{First: m.next}
		for range rapid.IntRange(1, 4).Draw(t, "packs") {
			a.Packs = append(a.Packs, newPack())
		}
		return a
	case 2, 3:
		return Snapshot{Summary: newSnapshot().Summary, Needs: alive("needs"), Session: session}
	case 4:
		return Snapshot{Summary: newSnapshot().Summary, Needs: packs("any needs")}
	case 5:
		return Session{ID: session, Needs: alive("needs")}
	case 6:
		return End{Session: session}
	case 7:
		return Forget{IDs: ids()}
	case 8:
		return Undelete{IDs: ids()}
	case 9:
		return Damage{Pack: number.Draw(t, "pack"), Blocks: packs("blocks")}
	case 10:
		pin := rapid.Bool().Draw(t, "pin")
		return Annotate{ID: ids()[0], Pin: &pin, RemoveTags: []string{"a"}, AddTags: []string{fmt.Sprint(m.next, len(m.snaps), pin, len(m.live), rapid.Uint32().Draw(t, "tag"))}}
	}
	d := Doom{Packs: alive("dooms")}
	if rapid.Bool().Draw(t, "sloppy") {
		d.Packs = packs("dooms")
	}
	for n := range d.Packs.All() {
		if by := alive("by").Subtract(d.Packs); len(by) > 0 && rapid.Bool().Draw(t, "succeeded") {
			d.Successors = append(d.Successors, Successor{Pack: n, By: by})
		}
	}
	d.Deleted = rapid.Uint64Range(0, 3).Draw(t, "deleted")
	return d
}

func (m *naive) check(t *rapid.T, s *State) {
	t.Helper()
	if got := slices.Sorted(maps.Keys(m.live)); !s.Live().Equal(RangesOf(got)) || s.NextPack() != m.next {
		t.Fatalf("live %v next %d, want %v next %d", s.Live(), s.NextPack(), got, m.next)
	}
	for n, id := range m.live {
		if got, ok := s.PackNumber(id); got != n || !ok {
			t.Fatalf("PackNumber(%v) = %d, %v, want %d", id, got, ok, n)
		}
		if info, ok := s.Pack(n); !ok || info.ID != id || !s.DamagedBlocks(n).Equal(m.damage[n].ranges()) {
			t.Fatalf("Pack(%d) = %v, %v", n, info, ok)
		}
	}
	visible, gone := slices.Collect(s.Snapshots()), slices.Collect(s.Forgotten())
	for _, want := range m.snaps {
		list, find := &visible, s.Snapshot
		if m.forgotten[want.id] {
			list, find = &gone, s.ForgottenSnapshot
		}
		got, ok := find(want.id)
		if !ok || len(*list) == 0 || (*list)[0] != got {
			t.Fatalf("snapshot %v is not where it should be: %v, %v", want.id, ok, got)
		}
		*list = (*list)[1:]
		if !got.Needs.Equal(want.needs.ranges()) || !slices.Equal(got.Summary.Tags, want.tags) || got.Summary.Pinned != want.pin {
			t.Fatalf("snapshot %v: %+v, want %+v", want.id, got, want)
		}
		if dead := s.Dead(got.Needs); len(dead) > 0 {
			t.Fatalf("snapshot %v needs dead packs %v", want.id, dead)
		}
	}
	if len(visible)+len(gone) > 0 {
		t.Fatalf("%d snapshots too many", len(visible)+len(gone))
	}
	sessions := maps.Clone(m.sessions)
	for o := range s.Sessions() {
		if want, ok := sessions[o.ID]; !ok || !o.Needs.Equal(want.ranges()) {
			t.Fatalf("session %x: %v, want %v", o.ID, o.Needs, want)
		}
		delete(sessions, o.ID)
	}
	doomed := make(map[backend.Key]uint64)
	for d := range s.Doomed() {
		doomed[d.Key] = d.N
	}
	if len(sessions) > 0 || !maps.Equal(doomed, m.doomed) {
		t.Fatalf("sessions %v missing, doomed %v, want %v", sessions, doomed, m.doomed)
	}
}

func TestStateAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		admin := NewSigner([32]byte{1}, allRoles)
		s := NewState(Hash{1}, Keys{Admin: admin.Public(), Keeper: [32]byte{2}, Writer: [32]byte{3}})
		m := &naive{
			next: 1, live: make(map[uint64]pack.ID), forgotten: make(map[manifest.ID]bool), sessions: make(map[[16]byte]set),
			doomed: make(map[backend.Key]uint64), damage: make(map[uint64]set),
		}
		old, model := s.Clone(), m.clone()
		for range rapid.IntRange(1, 40).Draw(t, "records") {
			rec := Record{N: s.pos.N + 1, Prev: s.pos.Hash, Signer: admin.Public(), Time: time.Unix(9, 0), Hash: Hash{byte(s.pos.N + 2), 9}}
			var holds []bool
			before := m.clone()
			for range rapid.IntRange(1, 3).Draw(t, "effects") {
				e := m.draw(t)
				rec.Effects = append(rec.Effects, e)
				holds = append(holds, m.apply(rec.N, e))
			}
			// A clone that goes another way leaves s alone, and s the clone.
			branch, other := s.Clone(), before.clone()
			if rapid.Bool().Draw(t, "branch") {
				e := other.draw(t)
				other.apply(rec.N, e)
				if _, err := branch.Apply(Record{N: rec.N, Prev: rec.Prev, Signer: rec.Signer, Effects: []Effect{e}}); err != nil {
					t.Fatal(err)
				}
				before.check(t, s)
			}
			if rapid.IntRange(0, 9).Draw(t, "keep") == 0 {
				old, model = s.Clone(), before
			}
			ignored, err := s.Apply(rec)
			if err != nil {
				t.Fatal(err)
			}
			for i, ok := range holds {
				if got := !slices.ContainsFunc(ignored, func(g IgnoredError) bool { return g.Index == i }); got != ok {
					t.Fatalf("%T %+v holds %v, want %v: %v", rec.Effects[i], rec.Effects[i], got, ok, ignored)
				}
			}
			m.check(t, s)
			other.check(t, branch)
		}
		model.check(t, old)
		body, err := marshalState(s)
		if err != nil {
			t.Fatal(err)
		}
		back, err := unmarshalState(body)
		if err != nil {
			t.Fatal(err)
		}
		m.check(t, back)
		if again, err := marshalState(back); err != nil || string(again) != string(body) {
			t.Fatalf("state is not encoded as before: %v", err)
		}
	})
}

func TestApplyRefuses(t *testing.T) {
	r, at := filled(t, 3)
	l := r.open(t)
	object := read(t, r, layout.Record(3))
	rec, err := openRecord(r.opts.Meta, r.opts.Repository, 3, object)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Record){
		"again":   func(*Record) {},
		"later":   func(rec *Record) { rec.N = 5 },
		"chain":   func(rec *Record) { rec.N = 4 },
		"unknown": func(rec *Record) { rec.N, rec.Prev, rec.Signer = 4, at[3].Hash, [32]byte{1} },
	} {
		bad := rec
		change(&bad)
		before := encoded(t, l)
		if _, err := l.state.Apply(bad); err == nil || encoded(t, l) != before {
			t.Errorf("%s: Apply = %v", name, err)
		}
	}
}

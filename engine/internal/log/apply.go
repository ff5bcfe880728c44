package log

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/chunk/pack"
	"github.com/cairn-backup/cairn/chunk/seal"
	"github.com/cairn-backup/cairn/engine/internal/layout"
	"github.com/cairn-backup/cairn/engine/internal/rule"
	"github.com/cairn-backup/cairn/manifest"
)

// Apply changes s by the record that follows it. It is the one place where
// records take effect, and depends on nothing but s and rec.
//
// Effects that are beyond the signer's role, or do not hold in the state
// before them, are left out and returned. A record that does not follow s, or
// whose signer is not known, is a DamagedError and changes nothing. Apply takes
// ownership of rec's effects.
func (s *State) Apply(rec Record) ([]IgnoredError, error) {
	if err := s.follows(rec); err != nil {
		return nil, err
	}
	return s.fold(rec), nil
}

// follows checks that rec may come next.
func (s *State) follows(rec Record) error {
	switch {
	case rec.N != s.pos.N+1:
		return &DamagedError{N: rec.N, Err: fmt.Errorf("it follows record %d", s.pos.N)}
	case rec.Prev != s.pos.Hash:
		return &DamagedError{N: rec.N, Err: fmt.Errorf("broken chain: it follows %s, record %d is %s", rec.Prev.short(), s.pos.N, s.pos.Hash.short())}
	case s.Roles(rec.Signer) == 0:
		return &DamagedError{N: rec.N, Err: fmt.Errorf("signed by the unknown key %x", rec.Signer[:4])}
	case s.repair != nil && s.repair.n == s.pos.N && !namesRepair(rec, s.repair):
		return &DamagedError{N: rec.N, Err: errors.New("it does not name the repaired checkpoint before it")}
	}
	return nil
}

// fold applies the effects of rec and makes it the last record.
func (s *State) fold(rec Record) []IgnoredError {
	var ignored []IgnoredError
	for i, e := range rec.Effects {
		if err := s.apply(rec, e); err != nil {
			ignored = append(ignored, IgnoredError{N: rec.N, Writer: rec.Writer, EffectError: EffectError{Index: i, Effect: e.effect().String(), Err: err}})
		}
	}
	s.pos = Position{N: rec.N, Hash: rec.Hash}
	return ignored
}

// apply applies one effect, or returns why it does not hold and changes
// nothing but the numbers that packs get.
func (s *State) apply(rec Record, e Effect) error {
	roles := s.Roles(rec.Signer)
	if need := e.effect().roles(); !roles.any(need) {
		if add, ok := e.(Add); ok {
			s.number(add)
		}
		return fmt.Errorf("%w: it takes %v, the signer is %v", ErrRole, need, roles)
	}
	switch e := e.(type) {
	case Add:
		return s.add(e)
	case Doom:
		return s.doom(rec, e)
	case Snapshot:
		return s.commit(rec, e)
	case Forget:
		return s.forget(rec, e)
	case Undelete:
		return s.undelete(e)
	case Annotate:
		return s.annotate(e)
	case Session:
		return s.session(rec, e)
	case End:
		return s.end(rec, e)
	case Key:
		return s.key(e)
	case Feature:
		return s.feature(e)
	case Damage:
		return s.addDamage(e)
	case Repaired:
		return s.repaired(rec, e)
	}
	return conflict("effect %T is not known", e)
}

// roles returns the roles of which one is enough; admin may do all.
func (t effectType) roles() Role {
	switch t {
	case typeAdd, typeSnapshot, typeSession, typeDamage:
		return Writer
	case typeDoom, typeForget, typeUndelete:
		return Keeper
	case typeAnnotate, typeEnd:
		return Writer | Keeper
	case typeKey, typeFeature, typeRepaired:
		return Admin
	}
	return Admin
}

// maxPackNumber bounds the numbers of packs: the index keeps 40 bits.
const maxPackNumber = 1<<40 - 1 - MaxPacks

// number advances the number of the next pack past those of a. It does so
// whether or not a takes hold: the writer counted on its numbers, and nobody
// else's packs may ever get them.
func (s *State) number(a Add) {
	if end := a.First + uint64(len(a.Packs)); a.First >= s.next && a.First <= maxPackNumber {
		s.next = end
	}
}

func (s *State) add(a Add) error {
	first := s.next
	s.number(a)
	// A number above the next one is left by a repair that some did not see.
	if a.First < first || a.First > maxPackNumber {
		return conflict("the packs begin at number %d, the next one is %d", a.First, first)
	}
	waiting := s.waiting(a)
	fresh := make(map[pack.ID]bool, len(a.Packs))
	for _, p := range a.Packs {
		switch _, live := s.PackNumber(p.ID); {
		case live || fresh[p.ID]:
			return conflict("pack %v is there already", p.ID)
		case waiting[layout.Pack(p.ID)]:
			return conflict("pack %v is doomed", p.ID)
		case p.Kind != seal.KindDataPack && p.Kind != seal.KindMetaPack:
			return conflict("pack %v is of kind %v", p.ID, p.Kind)
		}
		fresh[p.ID] = true
	}
	own := Ranges{}
	if len(a.Packs) > 0 {
		own = Ranges{{a.First, s.next - 1}}
	}
	for i, g := range a.Segments {
		_, live := s.Segment(g.ID)
		twice := slices.ContainsFunc(a.Segments[:i], func(o SegmentInfo) bool { return o.ID == g.ID })
		switch {
		case live || twice:
			return conflict("index segment %x is there already", g.ID)
		case waiting[layout.Segment(g.ID)]:
			return conflict("index segment %x is doomed", g.ID)
		}
		if dead := s.Dead(g.Packs).Subtract(own); len(dead) > 0 {
			return conflict("index segment %x lists packs %v, which are not live", g.ID, dead)
		}
	}
	for i, p := range a.Packs {
		s.packs = append(s.packs, livePack{a.First + uint64(i), &p}) //nolint:gosec // an index
		s.packOf.set(p.ID, a.First+uint64(i))                        //nolint:gosec // an index
	}
	s.segments = append(s.segments, a.Segments...)
	return nil
}

// waiting returns the keys of a's objects that are doomed and may not be
// deleted yet.
func (s *State) waiting(a Add) map[backend.Key]bool {
	if len(s.doomed) == 0 || rule.Off(rule.Own) {
		return nil
	}
	own := make(map[backend.Key]bool, len(a.Packs)+len(a.Segments))
	for _, p := range a.Packs {
		own[layout.Pack(p.ID)] = true
	}
	for _, g := range a.Segments {
		own[layout.Segment(g.ID)] = true
	}
	waiting := make(map[backend.Key]bool)
	for _, d := range s.doomed {
		if own[d.Key] {
			waiting[d.Key] = true
		}
	}
	return waiting
}

// rely checks R2: what a snapshot or session needs must be live.
func (s *State) rely(needs Ranges) error {
	if s.lenient || rule.Off(rule.Rely) || rule.Off(rule.Live) && len(s.doomed) == 0 {
		return nil
	}
	if dead := s.Dead(needs); len(dead) > 0 {
		return conflict("packs %v are not live", dead)
	}
	return nil
}

func (s *State) commit(rec Record, e Snapshot) error {
	id := e.Summary.ID
	if id.IsZero() {
		return conflict("the snapshot has no id")
	}
	if info, ok := s.snapOf.get(id); ok && info != nil {
		return conflict("snapshot %v is there already", id)
	}
	if err := s.rely(e.Needs); err != nil {
		return err
	}
	info := &SnapshotInfo{Summary: e.Summary, N: rec.N, Needs: e.Needs, Session: e.Session, Body: e.Body}
	if n := len(s.snaps); n == 0 || s.snaps[n-1].N < rec.N {
		s.snaps = append(s.snaps, info)
	} else {
		s.snaps = insertSnapshot(s.snaps, info)
	}
	s.snapOf.set(id, info)
	if i, ok := s.findSession(e.Session); ok && s.owns(rec, s.sessions[i]) {
		s.sessions = without(s.sessions, i)
	}
	return nil
}

func (s *State) forget(rec Record, e Forget) error {
	if err := s.distinct(e.IDs, s.Snapshot); err != nil {
		return err
	}
	gone := make(map[manifest.ID]bool, len(e.IDs))
	for _, id := range e.IDs {
		info, _ := s.Snapshot(id)
		c := *info
		c.Forgotten = rec.N
		s.snapOf.set(id, &c)
		s.forgotten = insertSnapshot(s.forgotten, &c)
		gone[id] = true
	}
	s.snaps = filter(s.snaps, func(info *SnapshotInfo) bool { return !gone[info.Summary.ID] })
	return nil
}

func (s *State) undelete(e Undelete) error {
	if err := s.distinct(e.IDs, s.ForgottenSnapshot); err != nil {
		return err
	}
	for _, id := range e.IDs {
		info, _ := s.ForgottenSnapshot(id)
		if err := s.rely(info.Needs); err != nil {
			return err
		}
	}
	back := make(map[manifest.ID]bool, len(e.IDs))
	for _, id := range e.IDs {
		info, _ := s.ForgottenSnapshot(id)
		c := *info
		c.Forgotten = 0
		s.snapOf.set(id, &c)
		s.snaps = insertSnapshot(s.snaps, &c)
		back[id] = true
	}
	s.forgotten = filter(s.forgotten, func(info *SnapshotInfo) bool { return !back[info.Summary.ID] })
	return nil
}

// distinct checks that find knows all of ids and that none is there twice.
func (s *State) distinct(ids []manifest.ID, find func(manifest.ID) (*SnapshotInfo, bool)) error {
	seen := make(map[manifest.ID]bool, len(ids))
	for _, id := range ids {
		if _, ok := find(id); !ok || seen[id] {
			return conflict("there is no such snapshot as %v, or it is named twice", id)
		}
		seen[id] = true
	}
	return nil
}

func (s *State) annotate(e Annotate) error {
	info, ok := s.Snapshot(e.ID)
	if !ok {
		return conflict("there is no snapshot %v", e.ID)
	}
	a := manifest.Annotation{Add: e.AddTags, Remove: e.RemoveTags, Pin: e.Pin, Note: e.Note}
	if err := a.Validate(); err != nil {
		return conflict("%v", err)
	}
	c := *info
	c.annotated = true
	c.Summary = a.Apply(c.Summary)
	s.replace(&c)
	return nil
}

// replace puts c in the place of the visible snapshot with its ID.
func (s *State) replace(c *SnapshotInfo) {
	i, _ := slices.BinarySearchFunc(s.snaps, c, compareSnapshots)
	s.snaps = slices.Clone(s.snaps)
	s.snaps[i] = c
	s.snapOf.set(c.Summary.ID, c)
}

// owns reports whether the signer of rec may speak for the session.
func (s *State) owns(rec Record, o *SessionInfo) bool {
	return o.Owner == rec.Signer || s.Roles(rec.Signer).any(0)
}

func (s *State) session(rec Record, e Session) error {
	i, found := s.findSession(e.ID)
	if e.ID == [16]byte{} {
		return conflict("the session has no id")
	}
	if found && !s.owns(rec, s.sessions[i]) {
		return fmt.Errorf("%w: the session is another signer's", ErrRole)
	}
	if err := s.rely(e.Needs); err != nil {
		return err
	}
	o := &SessionInfo{
		ID: e.ID, Needs: e.Needs, Group: e.Group, Partial: e.Partial, Started: e.Started, Host: e.Host,
		Owner: rec.Signer, N: rec.N,
	}
	if o.Started.IsZero() {
		o.Started = rec.Time
	}
	s.sessions = slices.Clone(s.sessions)
	if !found {
		s.sessions = slices.Insert(s.sessions, i, o)
		return nil
	}
	if e.Started.IsZero() {
		o.Started = s.sessions[i].Started
	}
	s.sessions[i] = o
	return nil
}

func (s *State) end(rec Record, e End) error {
	i, ok := s.findSession(e.Session)
	if !ok {
		return nil
	}
	if !s.owns(rec, s.sessions[i]) && !s.Roles(rec.Signer).any(Keeper) {
		return fmt.Errorf("%w: the session is another signer's", ErrRole)
	}
	s.sessions = without(s.sessions, i)
	s.more = true
	return nil
}

func (s *State) key(e Key) error {
	if e.Roles&^allRoles != 0 {
		return conflict("roles %#x are not known", uint8(e.Roles))
	}
	if e.Roles&Admin == 0 {
		left := slices.ContainsFunc(s.signers, func(k signerKey) bool { return k.public != e.Public && k.roles&Admin != 0 })
		if !left {
			return conflict("no key would be left that may change keys")
		}
	}
	s.setRoles(e.Public, e.Roles)
	return nil
}

func (s *State) feature(e Feature) error {
	i, ok := slices.BinarySearch(s.features, e.Name)
	if e.Name == "" || len(e.Name) > 255 {
		return conflict("the feature has no name, or one of %d bytes", len(e.Name))
	}
	if !ok {
		s.features = slices.Insert(slices.Clone(s.features), i, strings.Clone(e.Name))
	}
	return nil
}

func (s *State) addDamage(e Damage) error {
	if _, ok := s.findPack(e.Pack); !ok {
		return conflict("pack %d is not live", e.Pack)
	}
	i, found := s.findDamage(e.Pack)
	s.damage = slices.Clone(s.damage)
	if found {
		s.damage[i].Blocks = s.damage[i].Blocks.Union(e.Blocks)
	} else {
		s.damage = slices.Insert(s.damage, i, e)
	}
	return nil
}

// repaired checks what follows has found out; see Repair.
func (s *State) repaired(rec Record, e Repaired) error {
	if s.repair == nil || rec.N != e.N+1 || s.repair.n != e.N || s.repair.body != e.Body {
		return conflict("the state is not built on the repaired checkpoint %d", e.N)
	}
	return nil
}

// without returns list without its element i, in a new slice.
func without[E any](list []E, i int) []E {
	return slices.Concat(list[:i], list[i+1:])
}

// filter returns those of list for which keep holds, in a new slice.
func filter[E any](list []E, keep func(E) bool) []E {
	out := make([]E, 0, len(list))
	for _, e := range list {
		if keep(e) {
			out = append(out, e)
		}
	}
	return out
}

// insertSnapshot returns list, in a new slice, with info at its place: by
// record, and by ID among those of one record.
func insertSnapshot(list []*SnapshotInfo, info *SnapshotInfo) []*SnapshotInfo {
	i, _ := slices.BinarySearchFunc(list, info, compareSnapshots)
	return slices.Concat(list[:i], []*SnapshotInfo{info}, list[i:])
}

func compareSnapshots(a, b *SnapshotInfo) int {
	return cmp.Or(cmp.Compare(a.N, b.N), slices.Compare(a.Summary.ID[:], b.Summary.ID[:]))
}

package log

import (
	"cmp"
	"iter"
	"math"
	"slices"
	"time"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/chunk/pack"
	"github.com/cairn-backup/cairn/engine/internal/layout"
	"github.com/cairn-backup/cairn/manifest"
)

// A State is the fold of the records up to one position: what is live. It is a
// pure function of those records and of the keys in the config.
//
// Everything a State hands out is shared and must not be changed. A State is
// for one goroutine at a time unless none of them changes it.
//
// The slices in it are copied when they change, never changed in place, so
// that a clone costs next to nothing and shares them.
type State struct {
	pos       Position
	next      uint64 // number of the next pack to be added, from 1
	packs     []livePack
	packOf    lookup[pack.ID, uint64] // also holds packs that are not live any more
	segments  []SegmentInfo           // in the order they were added
	snaps     []*SnapshotInfo         // in commit order
	snapOf    lookup[manifest.ID, *SnapshotInfo]
	forgotten []*SnapshotInfo // in commit order
	sessions  []*SessionInfo  // rising by ID
	signers   []signerKey     // rising by key
	features  []string        // rising
	damage    []Damage        // rising by pack
	doomed    []Doomed        // in the order they were doomed
	repair    *repairMark     // of the last repair, nil if there was none
	lenient   bool            // needs may be dead: the fold of a repair
	more      bool            // a collection was not at its end, or a session was ended since
}

type livePack struct {
	number uint64
	info   *PackInfo
}

type signerKey struct {
	public [32]byte
	roles  Role
}

// repairMark says on which repaired checkpoint a State is built.
type repairMark struct {
	n    uint64
	body Hash                    // of its body
	void []layout.CheckpointName // made before the repair, for records that are gone
}

// A SnapshotInfo is a snapshot as the log knows it.
type SnapshotInfo struct {
	// Summary is as it was committed, but with the tags, pin and note of later
	// annotations.
	Summary   manifest.Summary
	N         uint64 // the record that committed it
	Needs     Ranges
	Session   [16]byte // that wrote it; zero if it is not known
	Body      []byte   // the sealed manifest
	Forgotten uint64   // the record that forgot it; 0: visible

	annotated bool // Summary has other tags than the record, a pin or a note
}

// A SessionInfo is an open session as the log knows it.
type SessionInfo struct {
	ID      [16]byte
	Needs   Ranges
	Group   [16]byte
	Partial []byte    // sealed, under the data key
	Started time.Time // UTC; for people
	Host    string
	Owner   [32]byte // public key of its signer
	N       uint64   // the record that last updated it
}

// A Doomed object may be deleted.
type Doomed struct {
	N   uint64      `cbor:"1,keyasint"` // the record that says so
	Key backend.Key `cbor:"2,keyasint"`
}

// NewState returns the state before the first record of a repository, whose
// config hashes to genesis and names keys.
func NewState(genesis Hash, keys Keys) *State {
	s := &State{pos: Position{Hash: genesis}, next: 1}
	s.setRoles(keys.Writer, Writer)
	s.setRoles(keys.Keeper, Keeper)
	s.setRoles(keys.Admin, Admin)
	return s
}

// Clone returns a State that does not change with s.
func (s *State) Clone() *State {
	c := *s
	c.packs = slices.Clip(s.packs)
	c.segments = slices.Clip(s.segments)
	c.snaps = slices.Clip(s.snaps)
	c.doomed = slices.Clip(s.doomed)
	c.packOf = s.packOf.clone()
	c.snapOf = s.snapOf.clone()
	return &c
}

// Position returns the last record in the State.
func (s *State) Position() Position { return s.pos }

// NextPack returns the number that the next pack to be added gets.
func (s *State) NextPack() uint64 { return s.next }

// Pack returns the live pack with that number.
func (s *State) Pack(number uint64) (PackInfo, bool) {
	i, ok := s.findPack(number)
	if !ok {
		return PackInfo{}, false
	}
	return *s.packs[i].info, true
}

func (s *State) findPack(number uint64) (int, bool) {
	return slices.BinarySearchFunc(s.packs, number, func(p livePack, n uint64) int { return cmp.Compare(p.number, n) })
}

// PackNumber returns the number of the live pack with that ID.
func (s *State) PackNumber(id pack.ID) (uint64, bool) {
	number, ok := s.packOf.get(id)
	if !ok {
		return 0, false
	}
	_, ok = s.findPack(number)
	return number, ok
}

// Packs yields the live packs, rising by number.
func (s *State) Packs() iter.Seq2[uint64, PackInfo] {
	return func(yield func(uint64, PackInfo) bool) {
		for _, p := range s.packs {
			if !yield(p.number, *p.info) {
				return
			}
		}
	}
}

// Live returns the numbers of the live packs.
func (s *State) Live() Ranges {
	var r Ranges
	for _, p := range s.packs {
		r = r.extend(Range{p.number, p.number})
	}
	return r
}

// Dead returns those of needs that are not live. It is empty for needs that a
// snapshot may have, the packs of its own record apart.
func (s *State) Dead(needs Ranges) Ranges {
	var dead Ranges
	for _, g := range needs {
		i, _ := s.findPack(g.First)
		j := len(s.packs)
		if g.Last < math.MaxUint64 {
			j, _ = s.findPack(g.Last + 1)
		}
		if uint64(j-i) == g.Last-g.First+1 { //nolint:gosec // i <= j
			continue
		}
		var live Ranges
		for _, p := range s.packs[i:j] {
			live = live.extend(Range{p.number, p.number})
		}
		dead = append(dead, Ranges{g}.Subtract(live)...)
	}
	return dead
}

// Segments yields the live index segments, oldest first.
func (s *State) Segments() iter.Seq[SegmentInfo] { return slices.Values(s.segments) }

// Segment returns the live index segment with that ID.
func (s *State) Segment(id [16]byte) (SegmentInfo, bool) {
	i := slices.IndexFunc(s.segments, func(g SegmentInfo) bool { return g.ID == id })
	if i < 0 {
		return SegmentInfo{}, false
	}
	return s.segments[i], true
}

// Snapshots yields the visible snapshots in the order of their commits; those
// of one record by ID.
func (s *State) Snapshots() iter.Seq[*SnapshotInfo] { return slices.Values(s.snaps) }

// SnapshotCount returns how many snapshots are visible.
func (s *State) SnapshotCount() int { return len(s.snaps) }

// Snapshot returns the visible snapshot with that ID.
func (s *State) Snapshot(id manifest.ID) (*SnapshotInfo, bool) {
	info, ok := s.snapOf.get(id)
	return info, ok && info != nil && info.Forgotten == 0
}

// Forgotten yields the snapshots that can be undeleted, in the order of their
// commits. One is dropped when something it needs is doomed.
func (s *State) Forgotten() iter.Seq[*SnapshotInfo] { return slices.Values(s.forgotten) }

// ForgottenSnapshot returns the snapshot with that ID if it can be undeleted.
func (s *State) ForgottenSnapshot(id manifest.ID) (*SnapshotInfo, bool) {
	info, ok := s.snapOf.get(id)
	return info, ok && info != nil && info.Forgotten != 0
}

// Sessions yields the open sessions, rising by ID.
func (s *State) Sessions() iter.Seq[*SessionInfo] { return slices.Values(s.sessions) }

// Session returns the open session with that ID.
func (s *State) Session(id [16]byte) (*SessionInfo, bool) {
	i, ok := s.findSession(id)
	if !ok {
		return nil, false
	}
	return s.sessions[i], true
}

func (s *State) findSession(id [16]byte) (int, bool) {
	return slices.BinarySearchFunc(s.sessions, id, func(o *SessionInfo, id [16]byte) int { return slices.Compare(o.ID[:], id[:]) })
}

// Roles returns what the key may do; 0 for one that is not known.
func (s *State) Roles(public [32]byte) Role {
	i, ok := s.findSigner(public)
	if !ok {
		return 0
	}
	return s.signers[i].roles
}

func (s *State) findSigner(public [32]byte) (int, bool) {
	return slices.BinarySearchFunc(s.signers, public, func(k signerKey, p [32]byte) int { return slices.Compare(k.public[:], p[:]) })
}

// setRoles adds, changes or, with roles 0, removes a key.
func (s *State) setRoles(public [32]byte, roles Role) {
	i, ok := s.findSigner(public)
	signers := slices.Clone(s.signers)
	switch {
	case ok && roles == 0:
		signers = slices.Delete(signers, i, i+1)
	case ok:
		signers[i].roles = roles
	case roles != 0:
		signers = slices.Insert(signers, i, signerKey{public, roles})
	}
	s.signers = signers
}

// Signers yields the known signing keys and their roles, rising by key.
func (s *State) Signers() iter.Seq2[[32]byte, Role] {
	return func(yield func([32]byte, Role) bool) {
		for _, k := range s.signers {
			if !yield(k.public, k.roles) {
				return
			}
		}
	}
}

// Features yields the features that the repository needs, in byte order.
func (s *State) Features() iter.Seq[string] { return slices.Values(s.features) }

// Damaged reports whether no one may rely on that block of that pack.
func (s *State) Damaged(packNumber uint64, block uint32) bool {
	return s.DamagedBlocks(packNumber).Contains(uint64(block))
}

// DamagedBlocks returns the blocks of that pack on which no one may rely.
func (s *State) DamagedBlocks(packNumber uint64) Ranges {
	i, ok := s.findDamage(packNumber)
	if !ok {
		return nil
	}
	return s.damage[i].Blocks
}

func (s *State) findDamage(number uint64) (int, bool) {
	return slices.BinarySearchFunc(s.damage, number, func(d Damage, n uint64) int { return cmp.Compare(d.Pack, n) })
}

// Damage yields all blocks on which no one may rely, rising by pack.
func (s *State) Damage() iter.Seq[Damage] { return slices.Values(s.damage) }

// Uncollected reports whether a collection that looked at chunks has not come
// to its end, or a session was given up since the last one that has. It is a
// hint.
func (s *State) Uncollected() bool { return s.more }

// Doomed yields the objects that may be deleted and of which no record says
// that they were, in the order they were doomed.
func (s *State) Doomed() iter.Seq[Doomed] { return slices.Values(s.doomed) }

package log

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/cairn-backup/cairn/chunk/pack"
	"github.com/cairn-backup/cairn/chunk/seal"
	"github.com/cairn-backup/cairn/chunk/wire"
	"github.com/cairn-backup/cairn/engine/internal/layout"
	"github.com/cairn-backup/cairn/manifest"
)

// checkpointBody is a State as stored: in checkpoints and in the local state.
// Every list has one order, so that equal states have equal bytes.
type checkpointBody struct {
	N         uint64        `cbor:"1,keyasint"`
	Hash      Hash          `cbor:"2,keyasint"` // of record N, the config for 0
	Next      uint64        `cbor:"3,keyasint"` // number of the next pack
	Live      Ranges        `cbor:"4,keyasint"` // numbers of the live packs
	Packs     []byte        `cbor:"5,keyasint"` // rows; see appendPackRow
	Segments  []SegmentInfo `cbor:"6,keyasint"`
	Snapshots []snapshotRow `cbor:"7,keyasint"` // visible and forgotten, by N and ID
	Sessions  []sessionRow  `cbor:"8,keyasint"`
	Signers   []signerRow   `cbor:"9,keyasint"`
	Features  []string      `cbor:"10,keyasint"`
	Damage    []Damage      `cbor:"11,keyasint"`
	Doomed    []Doomed      `cbor:"12,keyasint"`
	Repair    *repairRow    `cbor:"13,keyasint,omitempty"`
	Repaired  bool          `cbor:"14,keyasint,omitempty"` // made by a repair after record N
	More      bool          `cbor:"15,keyasint,omitempty"` // Uncollected
}

type snapshotRow struct {
	N         uint64   `cbor:"1,keyasint"`
	Summary   []byte   `cbor:"2,keyasint"` // as package manifest defines it; without tags if Annotated
	Needs     Ranges   `cbor:"3,keyasint"`
	Session   [16]byte `cbor:"4,keyasint"`
	Body      []byte   `cbor:"5,keyasint"`
	Forgotten uint64   `cbor:"6,keyasint,omitempty"`
	Annotated bool     `cbor:"7,keyasint,omitempty"`
	Tags      []string `cbor:"8,keyasint,omitempty"` // if Annotated
	Pinned    bool     `cbor:"9,keyasint,omitempty"`
	Note      string   `cbor:"10,keyasint,omitempty"`
}

type sessionRow struct {
	ID      [16]byte `cbor:"1,keyasint"`
	Needs   Ranges   `cbor:"2,keyasint"`
	Group   [16]byte `cbor:"3,keyasint"`
	Partial []byte   `cbor:"4,keyasint,omitempty"`
	Started stamp    `cbor:"5,keyasint"`
	Host    string   `cbor:"6,keyasint,omitempty"`
	Owner   [32]byte `cbor:"7,keyasint"`
	N       uint64   `cbor:"8,keyasint"`
}

type signerRow struct {
	Public [32]byte `cbor:"1,keyasint"`
	Roles  Role     `cbor:"2,keyasint"`
}

type repairRow struct {
	N    uint64    `cbor:"1,keyasint"`
	Body Hash      `cbor:"2,keyasint"` // zero in the repaired checkpoint itself
	Void []voidRow `cbor:"3,keyasint,omitempty"`
}

type voidRow struct {
	N    uint64   `cbor:"1,keyasint"`
	Hash [16]byte `cbor:"2,keyasint"`
}

// marshalState encodes s. Equal states give equal bytes.
func marshalState(s *State) ([]byte, error) {
	body := checkpointBody{
		N: s.pos.N, Hash: s.pos.Hash, Next: s.next, Live: s.Live(), Segments: s.segments,
		Features: s.features, Damage: s.damage, Doomed: s.doomed, More: s.more,
	}
	for _, p := range s.packs {
		body.Packs = appendPackRow(body.Packs, p.info)
	}
	var err error
	if body.Snapshots, err = snapshotRows(s); err != nil {
		return nil, err
	}
	for _, o := range s.sessions {
		body.Sessions = append(body.Sessions, sessionRow{
			ID: o.ID, Needs: o.Needs, Group: o.Group, Partial: o.Partial, Started: stampOf(o.Started), Host: o.Host, Owner: o.Owner, N: o.N,
		})
	}
	for _, k := range s.signers {
		body.Signers = append(body.Signers, signerRow{k.public, k.roles})
	}
	if s.repair != nil {
		body.Repair = &repairRow{N: s.repair.n, Body: s.repair.body}
		for _, c := range s.repair.void {
			body.Repair.Void = append(body.Repair.Void, voidRow{c.N, c.Hash})
		}
		// The hash of a body cannot lie in it.
		if body.Repaired = s.repair.n == s.pos.N; body.Repaired {
			body.Repair.Body = Hash{}
		}
	}
	return wire.Marshal(body)
}

func snapshotRows(s *State) ([]snapshotRow, error) {
	var rows []snapshotRow
	for _, info := range slices.SortedFunc(slices.Values(slices.Concat(s.snaps, s.forgotten)), compareSnapshots) {
		row := snapshotRow{
			N: info.N, Needs: info.Needs, Session: info.Session, Body: info.Body, Forgotten: info.Forgotten,
			Annotated: info.annotated, Pinned: info.Summary.Pinned, Note: info.Summary.Note,
		}
		summary := info.Summary
		if info.annotated {
			row.Tags, summary.Tags = summary.Tags, nil
		}
		var err error
		if row.Summary, err = manifest.EncodeSummary(summary); err != nil {
			return nil, err
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// unmarshalState decodes what marshalState wrote. What does not fit together
// is an error that wraps wire.ErrMalformed.
func unmarshalState(p []byte) (*State, error) {
	var body checkpointBody
	if err := wire.Unmarshal(p, &body); err != nil {
		return nil, err
	}
	s := &State{
		pos: Position{N: body.N, Hash: body.Hash}, next: body.Next, segments: body.Segments,
		features: body.Features, damage: body.Damage, doomed: body.Doomed, more: body.More,
	}
	err := errors.Join(readPackRows(s, body.Live, body.Packs), readSnapshotRows(s, body.Snapshots))
	built := body.Repair != nil && body.Repair.N == body.N
	if built != body.Repaired || built && body.Repair.Body != (Hash{}) {
		err = errors.Join(err, fmt.Errorf("repair: %w: it does not fit record %d", wire.ErrMalformed, body.N))
	}
	for _, r := range body.Sessions {
		if r.Started.Nsec >= 1e9 {
			err = errors.Join(err, fmt.Errorf("session: %w: %d nanoseconds", wire.ErrMalformed, r.Started.Nsec))
		}
		s.sessions = append(s.sessions, &SessionInfo{
			ID: r.ID, Needs: r.Needs, Group: r.Group, Partial: r.Partial, Started: r.Started.utc(), Host: r.Host, Owner: r.Owner, N: r.N,
		})
	}
	for _, r := range body.Signers {
		s.signers = append(s.signers, signerKey{r.Public, r.Roles})
	}
	if r := body.Repair; r != nil {
		s.repair = &repairMark{n: r.N, body: r.Body}
		for _, v := range r.Void {
			s.repair.void = append(s.repair.void, layout.CheckpointName{N: v.N, Hash: v.Hash})
		}
		if body.Repaired {
			s.repair.body = HashOf(p)
		}
	}
	if err := errors.Join(err, s.ordered()); err != nil {
		return nil, err
	}
	return s, nil
}

// ordered checks the orders on which lookups rely.
func (s *State) ordered() error {
	rising := func(name string, ok bool) error {
		if ok {
			return nil
		}
		return fmt.Errorf("state: %w: %s out of order", wire.ErrMalformed, name)
	}
	n := len(s.packs)
	return errors.Join(
		rising("pack numbers", n == 0 || s.packs[0].number > 0 && s.packs[n-1].number < s.next),
		rising("sessions", strictly(s.sessions, func(a, b *SessionInfo) int { return slices.Compare(a.ID[:], b.ID[:]) })),
		rising("signers", strictly(s.signers, func(a, b signerKey) int { return slices.Compare(a.public[:], b.public[:]) })),
		rising("features", strictly(s.features, cmp.Compare)),
		rising("damage", strictly(s.damage, func(a, b Damage) int { return cmp.Compare(a.Pack, b.Pack) })),
	)
}

func strictly[E any](list []E, compare func(a, b E) int) bool {
	for i := 1; i < len(list); i++ {
		if compare(list[i-1], list[i]) >= 0 {
			return false
		}
	}
	return true
}

func readSnapshotRows(s *State, rows []snapshotRow) error {
	s.snapOf.base = make(map[manifest.ID]*SnapshotInfo, len(rows))
	var last *SnapshotInfo
	for i, r := range rows {
		summary, err := manifest.DecodeSummary(r.Summary)
		if err != nil {
			return err
		}
		if r.Annotated {
			summary.Tags = r.Tags
		}
		summary.Pinned, summary.Note = r.Pinned, r.Note
		info := &SnapshotInfo{
			Summary: summary, N: r.N, Needs: r.Needs, Session: r.Session, Body: r.Body, Forgotten: r.Forgotten, annotated: r.Annotated,
		}
		if _, twice := s.snapOf.base[summary.ID]; twice || i > 0 && compareSnapshots(last, info) >= 0 {
			return fmt.Errorf("snapshots: %w: out of order", wire.ErrMalformed)
		}
		s.snapOf.base[summary.ID], last = info, info
		if r.Forgotten == 0 {
			s.snaps = append(s.snaps, info)
		} else {
			s.forgotten = append(s.forgotten, info)
		}
	}
	return nil
}

// appendPackRow appends, in binary, since a large repository has a hundred
// thousand packs:
//
//	1        kind
//	uvarint  generation
//	32       salt
//	uvarint  size, bytes
//	uvarint  chunks
//	uvarint  length of the envelope, then the envelope
func appendPackRow(dst []byte, p *PackInfo) []byte {
	dst = wire.AppendUvarint(append(dst, byte(p.Kind)), uint64(p.Generation))
	dst = wire.AppendUvarint(append(dst, p.Salt[:]...), uint64(p.Size))
	return wire.AppendBytes(wire.AppendUvarint(dst, uint64(p.Chunks)), p.Envelope)
}

const minPackRow = 1 + 1 + 32 + 1 + 1 + 1

func readPackRows(s *State, live Ranges, p []byte) error {
	r := wire.NewReader(p)
	if n := live.Count(); n > uint64(len(p)/minPackRow) { //nolint:gosec // not negative
		return fmt.Errorf("packs: %w: %d packs in %d bytes", wire.ErrMalformed, n, len(p))
	}
	n := int(live.Count()) //nolint:gosec // bounded above
	s.packs = make([]livePack, 0, n)
	s.packOf.base = make(map[pack.ID]uint64, n)
	infos := make([]PackInfo, n)
	for number := range live.All() {
		info := &infos[len(s.packs)]
		info.Kind = seal.Kind(r.Byte())
		info.Generation = uint32(r.Uvarint(1<<32 - 1)) //nolint:gosec // bounded
		copy(info.Salt[:], r.Fixed(32))
		info.Size = uint32(r.Uvarint(1<<32 - 1))   //nolint:gosec // bounded
		info.Chunks = uint32(r.Uvarint(1<<32 - 1)) //nolint:gosec // bounded
		if e := r.Bytes(seal.MaxEnvelope); len(e) > 0 {
			info.Envelope = bytes.Clone(e)
		}
		info.ID = info.Header().Name()
		s.packs = append(s.packs, livePack{number, info})
		s.packOf.base[info.ID] = number
	}
	if err := r.Done(); err != nil {
		return fmt.Errorf("packs: %w", err)
	}
	if len(s.packOf.base) != n {
		return fmt.Errorf("packs: %w: one is there twice", wire.ErrMalformed)
	}
	return nil
}

// sealCheckpoint returns a checkpoint with that body as an object.
func sealCheckpoint(meta seal.Key, repository [16]byte, s *Signer, n uint64, body []byte) ([]byte, error) {
	b := seal.Binding{Repository: repository, Number: n}
	parts := slices.Collect(slices.Chunk(sign(s, checkpointContext, b, body), checkpointCut))
	_, object, err := seal.Object(meta, seal.Template{Kind: seal.KindCheckpoint}, b, parts...)
	return object, err
}

// openCheckpoint opens the checkpoint object of that name and returns its
// signer and body.
func openCheckpoint(meta seal.Key, repository [16]byte, name layout.CheckpointName, object []byte) (signer [32]byte, body []byte, err error) {
	b := seal.Binding{Repository: repository, Number: name.N}
	_, parts, err := seal.OpenObject(meta, seal.KindCheckpoint, b, object)
	if err != nil {
		return signer, nil, err
	}
	return openSigned(bytes.Join(parts, nil), checkpointContext, b)
}

// stateOf decodes the body of the checkpoint of that name.
func stateOf(name layout.CheckpointName, body []byte) (*State, error) {
	s, err := unmarshalState(body)
	if err != nil {
		return nil, err
	}
	built := s.repair != nil && s.repair.n == s.pos.N
	if s.pos.N != name.N || [16]byte(s.pos.Hash[:16]) != name.Hash || built != name.Repaired {
		return nil, fmt.Errorf("state: %w: it is not of the record in its name", wire.ErrMalformed)
	}
	return s, nil
}

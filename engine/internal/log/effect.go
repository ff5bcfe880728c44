package log

import (
	"time"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/chunk/pack"
	"github.com/cairn-backup/cairn/chunk/seal"
	"github.com/cairn-backup/cairn/manifest"
)

// An Effect is one change of the State. The effects of a record are applied in
// their order, each wholly or not at all. An Effect handed to the log belongs
// to it from then on.
//
// Whether an effect takes hold depends on its signer's role and on the state
// before it, as the types say; Append refuses a record of which any effect
// would be ignored.
type Effect interface {
	effect() effectType
}

// effectType is the number that stands for an effect in a record.
type effectType uint64

const (
	typeAdd      effectType = 1
	typeDoom     effectType = 2
	typeSnapshot effectType = 3
	typeForget   effectType = 4
	typeAnnotate effectType = 5
	typeSession  effectType = 6
	typeEnd      effectType = 7
	typeKey      effectType = 8
	typeFeature  effectType = 9
	typeDamage   effectType = 10
	typeUndelete effectType = 11
	typeRepaired effectType = 12
)

func (t effectType) String() string {
	names := [...]string{
		typeAdd: "add", typeDoom: "doom", typeSnapshot: "snapshot", typeForget: "forget", typeAnnotate: "annotate",
		typeSession: "session", typeEnd: "end", typeKey: "key", typeFeature: "feature", typeDamage: "damage",
		typeUndelete: "undelete", typeRepaired: "repaired",
	}
	if t > 0 && int(t) < len(names) { //nolint:gosec // small
		return names[t]
	}
	return "unknown"
}

// Add makes packs and index segments live. Role: writer.
//
// The packs get the next numbers, in their order. Packs and segments must be
// stored durably already; none may be live or waiting for its deletion.
type Add struct {
	// First is the number of the first pack. Append fills it in.
	First    uint64        `cbor:"1,keyasint"`
	Packs    []PackInfo    `cbor:"2,keyasint,omitempty"` // at most MaxPacks
	Segments []SegmentInfo `cbor:"3,keyasint,omitempty"`
}

// MaxPacks is how many packs one record may add.
const MaxPacks = 1 << 16

// A PackInfo is what the log knows of a pack.
type PackInfo struct {
	ID         pack.ID   `cbor:"-"`          // the first half of Salt
	Kind       seal.Kind `cbor:"1,keyasint"` // KindDataPack or KindMetaPack
	Generation uint32    `cbor:"2,keyasint"`
	Salt       [32]byte  `cbor:"3,keyasint"`
	Size       uint32    `cbor:"4,keyasint"` // bytes
	Chunks     uint32    `cbor:"5,keyasint"`
	Envelope   []byte    `cbor:"6,keyasint,omitempty"` // shared: must not be changed
}

// Header returns the clear header of the pack.
func (p PackInfo) Header() seal.Header {
	return seal.Header{Kind: p.Kind, Suite: seal.SuiteAESGCM, Generation: p.Generation, Salt: p.Salt, Envelope: p.Envelope}
}

// A SegmentInfo is what the log knows of an index segment.
type SegmentInfo struct {
	ID    [16]byte `cbor:"1,keyasint"`
	Size  uint32   `cbor:"2,keyasint"` // bytes
	Packs Ranges   `cbor:"3,keyasint"` // whose chunks it lists
}

// Doom says that objects may be deleted, which is to be done only after this
// record is durable. Role: keeper.
//
// A pack that a snapshot needs may be doomed only with its successors named.
// In the needs of snapshots and sessions the successors then take its place.
// Needs of sessions keep a doomed pack that has none, so that whoever inherits
// them finds out.
type Doom struct {
	// Packs are numbers of live packs. Lost ones, which snapshots need but
	// whose record was lost before a Repair, may be named with successors.
	Packs Ranges `cbor:"1,keyasint"`
	// Objects are keys of packs and segments that no record names.
	Objects []backend.Key `cbor:"2,keyasint,omitempty"`
	// Segments are live segments.
	Segments [][16]byte `cbor:"3,keyasint,omitempty"`
	// Successors say where the chunks of doomed packs are now; rising by Pack.
	Successors []Successor `cbor:"4,keyasint,omitempty"`
	// Deleted says that everything doomed by records up to this one has been
	// deleted. 0 says nothing.
	Deleted uint64 `cbor:"5,keyasint,omitempty"`
	// Purged says that snapshots forgotten by records up to this one can not be
	// undeleted any more: they leave the State before anything else is looked
	// at. Who names successors has not looked at their chunks. 0: none.
	Purged uint64 `cbor:"6,keyasint,omitempty"`
	// More says that the collection that wrote this was not at its end.
	More bool `cbor:"7,keyasint,omitempty"`
}

// A Successor says that every chunk of Pack that any snapshot, forgotten ones
// included, or the partial tree of any session uses is in the packs By, which
// are live. By may be empty.
type Successor struct {
	Pack uint64 `cbor:"1,keyasint"`
	By   Ranges `cbor:"2,keyasint"`
}

// Snapshot makes a snapshot visible and ends its session. Role: writer.
//
// All of Needs must be live, counting the packs that the same record adds
// before it, and the ID must be new.
type Snapshot struct {
	Summary manifest.Summary
	Needs   Ranges
	Session [16]byte // zero: none
	Body    []byte   // a sealed object of seal.KindManifest under the data key
}

// Forget makes snapshots invisible. Until something they need is doomed, they
// can be undeleted. Role: keeper. All IDs must be visible snapshots.
type Forget struct {
	IDs []manifest.ID `cbor:"1,keyasint"`
}

// Undelete takes a Forget back. Role: keeper. All IDs must be forgotten
// snapshots that the State still lists.
type Undelete struct {
	IDs []manifest.ID `cbor:"1,keyasint"`
}

// Annotate changes what is said about a snapshot. Role: writer or keeper. The
// snapshot must be visible.
type Annotate struct {
	ID         manifest.ID `cbor:"1,keyasint"`
	AddTags    []string    `cbor:"2,keyasint,omitempty"`
	RemoveTags []string    `cbor:"3,keyasint,omitempty"` // one in both is added
	Pin        *bool       `cbor:"4,keyasint,omitempty"` // nil: as it is
	Note       *string     `cbor:"5,keyasint,omitempty"` // nil: as it is
}

// Session says what a running session relies on so far. A later one with the
// same ID replaces it. Role: writer; the same signer that began it, or admin.
// All of Needs must be live, as in Snapshot.
type Session struct {
	ID      [16]byte  `cbor:"1,keyasint"`
	Needs   Ranges    `cbor:"2,keyasint"`
	Group   [16]byte  `cbor:"3,keyasint"`
	Partial []byte    `cbor:"4,keyasint,omitempty"` // sealed, under the data key
	Started time.Time `cbor:"-"`                    // for people; zero: when the record was written
	Host    string    `cbor:"6,keyasint,omitempty"`
}

// End ends a session that publishes nothing more. Role: writer for a session
// of the same signer, keeper for any. A session that is not open is no error:
// others may end it too.
type End struct {
	Session [16]byte `cbor:"1,keyasint"`
}

// Key gives a signing key its roles, or takes them away with Roles 0. Role:
// admin. One key with the admin role must remain.
type Key struct {
	Public [32]byte `cbor:"1,keyasint"`
	Roles  Role     `cbor:"2,keyasint"`
}

// Feature says that from here on the repository may be used only by programs
// that know the feature. Role: admin.
type Feature struct {
	Name string `cbor:"1,keyasint"`
}

// Damage says that blocks of a pack do not open or hold wrong bytes, so that
// no one may rely on them any more. Role: writer. The pack must be live.
type Damage struct {
	Pack   uint64 `cbor:"1,keyasint"`
	Blocks Ranges `cbor:"2,keyasint"` // their numbers in the pack's table
}

// Repaired names the repaired checkpoint from which the log goes on; see
// [Repair]. Only the log itself writes it. Role: admin.
type Repaired struct {
	N    uint64 `cbor:"1,keyasint"` // of the checkpoint; the record before this one
	Body Hash   `cbor:"2,keyasint"` // of its body, BLAKE3-256
}

func (Add) effect() effectType      { return typeAdd }
func (Doom) effect() effectType     { return typeDoom }
func (Snapshot) effect() effectType { return typeSnapshot }
func (Forget) effect() effectType   { return typeForget }
func (Annotate) effect() effectType { return typeAnnotate }
func (Session) effect() effectType  { return typeSession }
func (End) effect() effectType      { return typeEnd }
func (Key) effect() effectType      { return typeKey }
func (Feature) effect() effectType  { return typeFeature }
func (Damage) effect() effectType   { return typeDamage }
func (Undelete) effect() effectType { return typeUndelete }
func (Repaired) effect() effectType { return typeRepaired }

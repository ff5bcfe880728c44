package manifest

import (
	"github.com/cairn-backup/cairn/chunk"
)

// A Content says where the bytes of a file are: in the node itself (Inline), in
// up to MaxExtents extents that the node lists (Extents), or in extents that a
// list holds (List). At most one of the three is set; an empty file has none.
type Content struct {
	Inline  []byte   // at most MaxInline bytes
	Extents []Extent // at most MaxExtents, in order, without gaps
	List    chunk.ID // the root page of a content list
	Size    uint64   // bytes that List covers; 0 where List is not set
}

// MaxExtents is how many extents a node holds itself.
const MaxExtents = 8

// An ExtentKind says how an extent gives its bytes. The values are stored.
type ExtentKind uint8

// The kinds of extents.
const (
	Data   ExtentKind = 1 // the bytes of one chunk
	Hole   ExtentKind = 2 // zeros that take no space
	Repeat ExtentKind = 3 // the bytes of one chunk, several times

	// Patch replaces pages inside the Data extent before it.
	Patch ExtentKind = 4
)

// String returns the kind as one word: data, hole, repeat or patch.
func (k ExtentKind) String() string {
	switch k {
	case Data:
		return "data"
	case Hole:
		return "hole"
	case Repeat:
		return "repeat"
	case Patch:
		return "patch"
	}
	return "unknown"
}

// An Extent is a run of a file's bytes.
type Extent struct {
	Kind ExtentKind

	// Length is how many bytes the extent covers: of Data the chunk's length, at
	// most MaxChunk; of Repeat Count times the chunk's length. A Patch covers
	// Length bytes of the Data extent before it and adds nothing to the file's
	// size.
	Length uint64

	ID    chunk.ID // of every kind but Hole
	Count uint64   // of Repeat, how many times, at least 2; of Patch, how many pages; else 0
	First uint64   // of Patch: the first page it replaces, counted from the start of the Data extent
}

// MaxChunk is the greatest length of a chunk that an extent may name, in bytes:
// that of a block.
const MaxChunk = 16 << 20

// A Placed is an extent and where in the file it begins.
type Placed struct {
	Offset uint64 // bytes
	Extent
}

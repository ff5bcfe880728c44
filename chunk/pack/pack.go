// Package pack lays out packs: stored objects that hold blocks of chunks and a
// table of what is in them.
//
//	clear header                      as in package seal; E bytes of envelope
//	u32 LE   place of the footer: its offset in the object
//	u32 LE   and its length
//	blocks   sealed parts, back to back
//	padding  random bytes, up to the footer
//	footer   u32 LE number of the last part | sealed last part
//
// The footer ends where the object ends. Its plaintext is
//
//	u32 LE   length n
//	n bytes  the table, encoded as a block is (package codec)
//	zeros    up to a multiple of 256 bytes
//
// A block's plaintext is the encoding of its chunks, one behind the other. A
// block opens under the header and the number it was first sealed with, its
// birth: so it can be moved to another pack as it is, by someone who cannot
// open it, and the table of that pack names the header.
//
// The 8 bytes of the footer's place are not authenticated; where they are
// wrong the footer does not open. Padding brings an object to a size class, see
// Class, so that its length says little about what is in it.
package pack

import (
	"encoding/hex"
	"errors"
	"fmt"
	"math/bits"

	"github.com/cairn-backup/cairn/chunk"
	"github.com/cairn-backup/cairn/chunk/codec"
	"github.com/cairn-backup/cairn/chunk/seal"
)

// Errors of this package.
var (
	// ErrCorrupt is wrapped by every error about a pack's bytes but
	// seal.ErrNotCairn and seal.ErrNewerFormat. Where authentication failed
	// the error wraps seal.ErrDamaged too.
	ErrCorrupt = errors.New("corrupt pack")
	// ErrVerify is returned by Writer.Add for a block that does not give its
	// chunks back.
	ErrVerify = errors.New("block does not decode to its chunks")
	// ErrFull is returned for a block that no longer fits in a pack.
	ErrFull = errors.New("pack is full")
	// ErrInvalid is returned for a block outside of the limits.
	ErrInvalid = errors.New("invalid block")
	// ErrEmpty is returned by Writer.Finish for a pack without blocks.
	ErrEmpty = errors.New("pack is empty")
)

// Limits of format 1.
const (
	// MaxRaw is the most content of one block, in bytes.
	MaxRaw = 16 << 20
	// MaxChunks is the largest number of chunks in a block.
	MaxChunks = 1 << 16
	// MaxSize is the largest pack, in bytes.
	MaxSize = 256 << 20
	// MaxTable is the longest table, in bytes: with what an index segment
	// puts in front of it, it fits in one part.
	MaxTable = 16<<20 - 4096
	// HeadSize is a number of bytes from the start of a pack that is always
	// enough for ReadPlace.
	HeadSize = 4096

	placeSize  = 8
	footerStep = 256
	// maxStored is the longest sealed block.
	maxStored = MaxRaw + codec.MaxOverhead + seal.Overhead
	// minStored is the shortest: an encoding of one byte, sealed.
	minStored = 3 + seal.Overhead
	// maxFooter is the longest footer.
	maxFooter = 4 + seal.Overhead + seal.MaxPart
	// minClass is the size of the smallest pack, in bytes.
	minClass = 512
)

// An ID names a pack: the first half of its header's salt.
type ID [16]byte

// ParseID reads the 32 lower-case hexadecimal digits that String writes.
func ParseID(s string) (ID, error) {
	var id ID
	if len(s) != 2*len(id) {
		return ID{}, fmt.Errorf("parse pack id %q: not 32 digits", s)
	}
	if _, err := hex.Decode(id[:], []byte(s)); err != nil || id.String() != s {
		return ID{}, fmt.Errorf("parse pack id %q: not lower-case hexadecimal", s)
	}
	return id, nil
}

// String returns the ID as 32 lower-case hexadecimal digits.
func (id ID) String() string {
	return hex.EncodeToString(id[:])
}

// A Chunk is one chunk of a block.
type Chunk struct {
	ID     chunk.ID
	Length uint32 // bytes, at least 1
}

// A Block says where a sealed block is and what is in it.
type Block struct {
	Number uint32 // part number under the birth's header
	Birth  uint32 // 0 is the pack's own header, i is Births[i-1] of the table
	Offset uint32 // in the pack, bytes
	Stored uint32 // length in the pack, bytes
	Raw    uint32 // length of the content, bytes; the sum of the chunks' lengths
	Chunks []Chunk
}

// A Pack is a finished pack.
type Pack struct {
	ID     ID
	Header seal.Header
	Object []byte // what is stored; the receiver owns it
	Table  Table
}

// Class returns the size in bytes to which an object of n bytes is padded: the
// smallest multiple of a step that holds n, at least 512. The step is an eighth
// of the largest power of two that is not above n for less than 1 MiB, so
// padding adds under 12.5 %; from there on it is that of Padmé (Nikitin and
// others, 2019): with e = ⌊log2 n⌋ and s = ⌊log2 e⌋+1, 2^(e-s) bytes, so padding
// adds under 3.2 %. Class is monotonic and Class(Class(n)) = Class(n).
func Class(n int) int {
	if n <= minClass {
		return minClass
	}
	e := bits.Len(uint(n)) - 1
	s := 3
	if e >= 20 {
		s = bits.Len(uint(e))
	}
	mask := 1<<(e-s) - 1
	return (n + mask) &^ mask
}

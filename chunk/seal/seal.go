// Package seal is the one construction by which every stored object is
// encrypted and authenticated: a clear header and numbered sealed parts.
//
//	offset size  clear header
//	     0    8  magic 63 61 69 72 6e 0d 0a 1a ("cairn\r\n\x1a")
//	     8    1  format, 1
//	     9    1  kind
//	    10    1  suite, 1 = BLAKE3 and AES-256-GCM
//	    11    1  zero
//	    12    4  key generation, little-endian
//	    16   32  salt
//	    48    2  length E of the envelope, little-endian, at most 4038
//	    50    E  envelope
//
// The key of an object is derived from the key its kind is sealed under and
// from the salt, which a Writer draws. Nonces are the parts' numbers, counted
// by the Writer. Neither can be given by a caller, a number is burnt even when
// its part is thrown away, and what is sealed again is sealed by a new Writer:
// so a nonce repeats under a key only if a random 256-bit salt does.
package seal

import (
	"errors"
	"fmt"

	"github.com/zeebo/blake3"
)

// What is wrong with bytes that should be an object. From the clear header
// alone a reader can tell the first two from damage.
var (
	ErrNotCairn    = errors.New("not a cairn object")
	ErrNewerFormat = errors.New("written in a newer format")
	ErrDamaged     = errors.New("object is damaged")
)

// What is wrong with the use of a Writer.
var (
	// ErrFinished is returned by a Writer that has sealed its last part.
	ErrFinished = errors.New("object is finished")
	// ErrTooLarge is returned for an envelope or a part above its limit.
	ErrTooLarge = errors.New("too large to seal")
	// ErrExhausted is returned by a Writer whose part numbers are used up.
	ErrExhausted = errors.New("no part numbers left")
)

const (
	// MaxPart is the largest plaintext of a part of a framed object, in bytes.
	MaxPart = 16 << 20
	// MaxBlock is the largest plaintext of a part of any object, in bytes:
	// 16 MiB of content with room for the header of its encoding.
	MaxBlock = MaxPart + 64
	// MaxParts is how many parts an object can have: numbers have 32 bits.
	MaxParts = 1 << 32
	// Overhead is how many bytes longer a sealed part is than its plaintext.
	Overhead = 16
)

// A Kind says what an object is. It is bound to the object's parts, so an
// object of one kind cannot pass as one of another.
type Kind uint8

// The kinds of format 1.
const (
	KindConfig     Kind = 1
	KindSlot       Kind = 2 // a key slot; its body is an age file, not sealed here
	KindDataPack   Kind = 3
	KindMetaPack   Kind = 4
	KindSegment    Kind = 5 // index segment
	KindRecord     Kind = 6
	KindCheckpoint Kind = 7
	KindManifest   Kind = 8 // embedded in records
	KindLocal      Kind = 9 // local state: files of the cache
)

// String returns the kind's name in errors.
func (k Kind) String() string {
	names := [...]string{
		KindConfig: "config", KindSlot: "key slot", KindDataPack: "data pack", KindMetaPack: "metadata pack",
		KindSegment: "index segment", KindRecord: "record", KindCheckpoint: "checkpoint",
		KindManifest: "manifest", KindLocal: "local state",
	}
	if k.valid() {
		return names[k]
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

func (k Kind) valid() bool {
	return k >= KindConfig && k <= KindLocal
}

// A Suite names the algorithms an object is sealed with.
type Suite uint8

// SuiteAESGCM derives keys by BLAKE3 and seals by AES-256-GCM.
const SuiteAESGCM Suite = 1

// A Binding is the place an object belongs to. It is authenticated with every
// part but not stored, so an object opens only in its place.
type Binding struct {
	Repository [16]byte
	Number     uint64 // of records and checkpoints: the log number; otherwise 0
}

// Last says whether a part is its object's last one.
type Last bool

// A part is followed by others, or it is the last.
const (
	More  Last = false
	Final Last = true
)

// keyContext separates object keys from all else that is derived by BLAKE3.
const keyContext = "cairn v1 2026 object key"

// objectKey derives the key that seals one object's parts.
func objectKey(key *Key, salt *[32]byte) (out [32]byte) {
	var material [64]byte
	copy(material[:32], key[:])
	copy(material[32:], salt[:])
	blake3.DeriveKey(keyContext, material[:], out[:])
	clear(material[:])
	return out
}

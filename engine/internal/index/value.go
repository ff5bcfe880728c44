package index

import (
	"encoding/binary"
	"sync"

	"github.com/zeebo/blake3"

	"github.com/cairn-backup/cairn/chunk"
)

// Keys and values, integers big-endian:
//
//	chunk     'c'  fold 16                → place 30, check 8
//	segment   's'  segment 16             → check 8
//	tag       't'                         → n 8, hash 32, check 8
//	schema    'v'                         → version 1, repository 16, check 8
//	list      'n'  pack 5, part 2, key 1  → pack check 4, keys 1, fold 16 each, rising, check 8
//
// fold is the first half of the chunk ID xor the second: two chunks of 10^9
// meet in it with a probability below 10^-20, the check then tells them apart,
// and the index is a fifth smaller than with whole IDs.
//
// list is the chunks of one part of a pack, see near.go; an index without lists
// is as good, and slower. place is: flags 1 (bit 0 foreign), pack 5, offset 4, stored 4, block 4,
// start 4, length 4, pack check 4. check is keyed BLAKE3, cut to 8 bytes, over the kind, the
// chunk ID or what else the key says, and the rest of the value.
const (
	kindChunk   = 'c'
	kindSegment = 's'
	kindTag     = 't'
	kindSchema  = 'v'
	kindList    = 'n'

	schemaVersion = 2

	foldSize    = 16
	keySize     = 1 + foldSize
	placeSize   = 30
	checkSize   = 8
	valueSize   = placeSize + checkSize
	flagForeign = 1

	maxPack = 1 << 40
)

// A fold is what the key of a chunk holds of its ID.
type fold [foldSize]byte

func foldOf(id chunk.ID) (f fold) {
	for i := range f {
		f[i] = id[i] ^ id[i+foldSize]
	}
	return f
}

func appendKey(dst []byte, id chunk.ID) []byte {
	f := foldOf(id)
	return append(append(dst, kindChunk), f[:]...)
}

func appendPlace(dst []byte, p Place) []byte {
	var flags byte
	if p.Foreign {
		flags = flagForeign
	}
	dst = append(dst, flags, byte(p.Pack>>32))
	dst = binary.BigEndian.AppendUint32(dst, uint32(p.Pack))
	dst = binary.BigEndian.AppendUint32(dst, p.Offset)
	dst = binary.BigEndian.AppendUint32(dst, p.Stored)
	dst = binary.BigEndian.AppendUint32(dst, p.Block)
	dst = binary.BigEndian.AppendUint32(dst, p.Start)
	dst = binary.BigEndian.AppendUint32(dst, p.Length)
	return binary.BigEndian.AppendUint32(dst, p.Check)
}

// readPlace is the inverse of appendPlace. It reads any placeSize bytes.
func readPlace(b []byte) Place {
	return Place{
		Foreign: b[0]&flagForeign != 0,
		Pack:    uint64(b[1])<<32 | uint64(binary.BigEndian.Uint32(b[2:])),
		Offset:  binary.BigEndian.Uint32(b[6:]),
		Stored:  binary.BigEndian.Uint32(b[10:]),
		Block:   binary.BigEndian.Uint32(b[14:]),
		Start:   binary.BigEndian.Uint32(b[18:]),
		Length:  binary.BigEndian.Uint32(b[22:]),
		Check:   binary.BigEndian.Uint32(b[26:]),
	}
}

// A summer makes and checks the values of one repository. Its methods are safe
// for concurrent use.
type summer struct {
	repository [16]byte
	hashers    sync.Pool // of *hasher
}

// A hasher is the scratch of one sum: 144 ns, no allocation.
type hasher struct {
	h   *blake3.Hasher
	in  []byte
	out []byte
}

func newSummer(repository [16]byte) *summer {
	key := blake3.Sum256(append([]byte("cairn index v1 "), repository[:]...))
	s := &summer{repository: repository}
	s.hashers.New = func() any {
		h, err := blake3.NewKeyed(key[:])
		if err != nil {
			panic("index: BLAKE3 takes keys of 32 bytes: " + err.Error())
		}
		return &hasher{h: h, in: make([]byte, 0, 64), out: make([]byte, 0, 32)}
	}
	return s
}

// appendCheck appends the check over kind, name and body to dst.
func (s *summer) appendCheck(dst []byte, kind byte, name, body []byte) []byte {
	h, ok := s.hashers.Get().(*hasher)
	if !ok {
		panic("index: the pool holds hashers")
	}
	defer s.hashers.Put(h)
	h.in = append(append(append(h.in[:0], kind), name...), body...)
	h.h.Reset()
	_, _ = h.h.Write(h.in) // a hash takes everything
	return append(dst, h.h.Sum(h.out[:0])[:checkSize]...)
}

// checked returns value without its check, and false if that does not hold or
// the rest is not size bytes long.
func (s *summer) checked(kind byte, name, value []byte, size int) ([]byte, bool) {
	if len(value) != size+checkSize {
		return nil, false
	}
	var check [checkSize]byte
	s.appendCheck(check[:0], kind, name, value[:size])
	return value[:size], string(check[:]) == string(value[size:])
}

func (s *summer) appendChunk(dst []byte, id chunk.ID, p Place) []byte {
	start := len(dst)
	dst = appendPlace(dst, p)
	return s.appendCheck(dst, kindChunk, id[:], dst[start:])
}

// place returns the place in the value of chunk id, and false if the value is
// not one that appendChunk made for that chunk in this repository.
func (s *summer) place(id chunk.ID, value []byte) (Place, bool) {
	b, ok := s.checked(kindChunk, id[:], value, placeSize)
	if !ok {
		return Place{}, false
	}
	return readPlace(b), true
}

func (s *summer) segment(id SegmentID) []byte {
	return s.appendCheck(nil, kindSegment, id[:], nil)
}

func (s *summer) isSegment(id SegmentID, value []byte) bool {
	_, ok := s.checked(kindSegment, id[:], value, 0)
	return ok
}

func (s *summer) appendTag(dst []byte, t Tag) []byte {
	start := len(dst)
	dst = binary.BigEndian.AppendUint64(dst, t.N)
	dst = append(dst, t.Hash[:]...)
	return s.appendCheck(dst, kindTag, nil, dst[start:])
}

func (s *summer) readTag(value []byte) (Tag, bool) {
	b, ok := s.checked(kindTag, nil, value, 8+32)
	if !ok {
		return Tag{}, false
	}
	t := Tag{N: binary.BigEndian.Uint64(b)}
	copy(t.Hash[:], b[8:])
	return t, true
}

// schema is the value that an index of this version and repository holds.
func (s *summer) schema() []byte {
	b := append([]byte{schemaVersion}, s.repository[:]...)
	return s.appendCheck(b, kindSchema, nil, b)
}

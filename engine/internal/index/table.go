package index

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"slices"

	"github.com/dgraph-io/badger/v4/fb"
)

// A table of Badger v4, uncompressed; integers big-endian:
//
//	blocks                                 one after the other
//	index           a flatbuffer           offset and length of each block
//	index length    4
//	checksum        a protobuf, 0 to 11    of the index
//	checksum length 4
//
// and a block:
//
//	entries, offsets of n entries (4 each), n 4, checksum, checksum length 4
//
// where the checksum is over all that precedes it.

// maxTable bounds the memory that verifying takes. Tables have 4 MiB, and 8
// where they come from a memtable.
const maxTable = 64 << 20

// crcTable is that of Badger. MakeTable returns one and the same for this
// polynomial, with the fast code behind it.
func crcTable() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// appendChecksum appends the protobuf of a Castagnoli checksum as Badger
// writes it: field 2, a varint, left out if zero.
func appendChecksum(dst []byte, sum uint32) []byte {
	if sum == 0 {
		return dst
	}
	return binary.AppendUvarint(append(dst, 2<<3), uint64(sum))
}

// cutChecksum splits b before its checksum and the length of that, and returns
// an error unless the checksum is that of the rest.
func cutChecksum(b []byte) ([]byte, error) {
	rest, checksum, err := splitChecksum(b)
	if err != nil {
		return nil, err
	}
	var want [1 + binary.MaxVarintLen32]byte
	if !bytes.Equal(checksum, appendChecksum(want[:0], crc32.Checksum(rest, crcTable()))) {
		return nil, fmt.Errorf("%w: wrong checksum", ErrDamaged)
	}
	return rest, nil
}

func splitChecksum(b []byte) (rest, checksum []byte, err error) {
	if len(b) < 4 {
		return nil, nil, fmt.Errorf("%w: cut short", ErrDamaged)
	}
	end := len(b) - 4
	n := binary.BigEndian.Uint32(b[end:])
	if n > 1+binary.MaxVarintLen32 || int(n) > end {
		return nil, nil, fmt.Errorf("%w: checksum of %d bytes", ErrDamaged, n)
	}
	return b[:end-int(n)], b[end-int(n) : end], nil
}

// A tableVerifier verifies one table after the other.
type tableVerifier struct {
	last uint64 // the highest commit number in any table
	buf  []byte
}

// verify checks every checksum of a table of size bytes.
func (v *tableVerifier) verify(path string, size int64) error {
	if size > maxTable {
		return fmt.Errorf("%w: %d bytes", ErrDamaged, size)
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close() // only read
	v.buf = slices.Grow(v.buf[:0], int(size))[:size]
	if _, err := io.ReadFull(f, v.buf); err != nil {
		return err
	}
	last, err := checkTable(v.buf)
	v.last = max(v.last, last)
	return err
}

// checkTable checks every checksum of a table, and returns the highest commit
// number in it.
func checkTable(b []byte) (last uint64, err error) {
	index, start, err := checkIndex(b)
	if err != nil {
		return 0, err
	}
	return index.MaxVersion(), eachBlock(index, start, func(_ int, offset, length int64) error {
		return checkBlock(b[offset : offset+length])
	})
}

// skim checks what Badger reads when it opens a table: the index and the last
// block.
func (v *tableVerifier) skim(path string, size int64) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close() // only read
	// The index takes about 5 % of a table.
	tail := make([]byte, min(size, 1<<20))
	if _, err := f.ReadAt(tail, size-int64(len(tail))); err != nil {
		return err
	}
	index, start, err := checkIndex(tail)
	if err != nil {
		return err
	}
	v.last = max(v.last, index.MaxVersion())
	final := index.OffsetsLength() - 1
	return eachBlock(index, start+size-int64(len(tail)), func(i int, offset, length int64) error {
		if i < final {
			return nil
		}
		block := make([]byte, length)
		if _, err := f.ReadAt(block, offset); err != nil {
			return err
		}
		return checkBlock(block)
	})
}

// checkIndex checks the index at the end of b, and returns it and where it
// starts in b.
func checkIndex(b []byte) (index *fb.TableIndex, start int64, err error) {
	rest, checksum, err := splitChecksum(b)
	if err != nil {
		return nil, 0, err
	}
	if len(rest) < 4 {
		return nil, 0, fmt.Errorf("%w: cut short", ErrDamaged)
	}
	end := len(rest) - 4
	n := int64(binary.BigEndian.Uint32(rest[end:]))
	if n > int64(end) {
		return nil, 0, fmt.Errorf("%w: index of %d bytes", ErrDamaged, n)
	}
	raw := rest[int64(end)-n : end]
	var want [1 + binary.MaxVarintLen32]byte
	if !bytes.Equal(checksum, appendChecksum(want[:0], crc32.Checksum(raw, crcTable()))) {
		return nil, 0, fmt.Errorf("%w: wrong checksum of the index", ErrDamaged)
	}
	// A flatbuffer of garbage panics, but this is what Badger wrote.
	return fb.GetRootAsTableIndex(raw, 0), int64(end) - n, nil
}

// eachBlock calls f with the number, offset and length of each block. It
// returns an error unless the blocks fill the file up to the index, which
// starts at end.
func eachBlock(index *fb.TableIndex, end int64, f func(i int, offset, length int64) error) error {
	var next int64
	for i := range index.OffsetsLength() {
		var b fb.BlockOffset
		if !index.Offsets(&b, i) || int64(b.Offset()) != next {
			return fmt.Errorf("%w: block %d is not at %d", ErrDamaged, i, next)
		}
		next += int64(b.Len())
		if next > end {
			break
		}
		if err := f(i, int64(b.Offset()), int64(b.Len())); err != nil {
			return fmt.Errorf("block %d: %w", i, err)
		}
	}
	if next != end || next == 0 {
		return fmt.Errorf("%w: blocks end at %d, index starts at %d", ErrDamaged, next, end)
	}
	return nil
}

func checkBlock(b []byte) error {
	rest, err := cutChecksum(b)
	if err != nil {
		return err
	}
	if len(rest) < 4 || uint64(binary.BigEndian.Uint32(rest[len(rest)-4:]))*4 > uint64(len(rest)-4) {
		return fmt.Errorf("%w: more offsets than bytes", ErrDamaged)
	}
	return nil
}

package index

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"
)

// The file of the front, integers big-endian:
//
//	schema 25      as the value in a database
//	name 8         random: a tag file belongs to the front that it names
//	database 8     the number of the database behind, 0 if there is none
//	tagged 1       | tag 48, as the value in a database, zeros if there is none
//	segments 4     | segment 16 each, rising
//	entries 4      | fold 16 and value 38 each, by rising fold
//	checksum 4     Castagnoli, of all that
//
// and the tag file, which is written where only the tag has moved:
//
//	name 8 | tag 48 | checksum 4
const (
	frontName    = "front"
	frontTagName = "front-tag"

	recordSize = foldSize + valueSize
	tagSize    = 8 + 32 + checkSize
	sumSize    = 4
	// maxFrontFile bounds what is read, in bytes: 100,000 segments and many more
	// entries than any front has.
	maxFrontFile = 64 << 20
)

var errFront = fmt.Errorf("%w: front", ErrDamaged)

// A frontState is what the file of the front holds.
type frontState struct {
	name     [8]byte
	gen      uint64 // of the database behind; 0: there is none, the front is whole
	tag      Tag
	tagged   bool
	segments map[SegmentID]bool
	records  records
}

// records are entries in the form of the file: folds and values, by rising fold.
type records []byte

func (r records) len() int           { return len(r) / recordSize }
func (r records) fold(i int) []byte  { return r[i*recordSize : i*recordSize+foldSize] }
func (r records) value(i int) []byte { return r[i*recordSize+foldSize : (i+1)*recordSize] }
func (r records) get(f fold) []byte { // nil: there is none
	n := r.len()
	lo, hi := 0, n
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if bytes.Compare(r.fold(mid), f[:]) < 0 {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo < n && bytes.Equal(r.fold(lo), f[:]) {
		return r.value(lo)
	}
	return nil
}

// merged yields the entries of both, by rising fold. Where both have one, that
// of added counts.
func (r records) merged(added map[fold][valueSize]byte) iter.Seq2[[]byte, []byte] {
	folds := slices.SortedFunc(maps.Keys(added), func(a, b fold) int { return bytes.Compare(a[:], b[:]) })
	return func(yield func(fold, value []byte) bool) {
		i := 0
		for _, f := range folds {
			for ; i < r.len() && bytes.Compare(r.fold(i), f[:]) < 0; i++ {
				if !yield(r.fold(i), r.value(i)) {
					return
				}
			}
			if i < r.len() && bytes.Equal(r.fold(i), f[:]) {
				i++
			}
			value := added[f]
			if !yield(f[:], value[:]) {
				return
			}
		}
		for ; i < r.len(); i++ {
			if !yield(r.fold(i), r.value(i)) {
				return
			}
		}
	}
}

// append appends the file that holds s.
func (s *frontState) append(dst []byte, sums *summer) []byte {
	start := len(dst)
	dst = append(dst, sums.schema()...)
	dst = append(dst, s.name[:]...)
	dst = binary.BigEndian.AppendUint64(dst, s.gen)
	dst = s.appendTag(dst, sums)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(s.segments))) //nolint:gosec // a count
	for _, id := range slices.SortedFunc(maps.Keys(s.segments), func(a, b SegmentID) int { return bytes.Compare(a[:], b[:]) }) {
		dst = append(dst, id[:]...)
	}
	dst = binary.BigEndian.AppendUint32(dst, uint32(s.records.len())) //nolint:gosec // a count
	dst = append(dst, s.records...)
	return binary.BigEndian.AppendUint32(dst, crc32.Checksum(dst[start:], crcTable()))
}

func (s *frontState) appendTag(dst []byte, sums *summer) []byte {
	if !s.tagged {
		return append(dst, make([]byte, 1+tagSize)...)
	}
	return sums.appendTag(append(dst, 1), s.tag)
}

// parseFront reads what append wrote. Every value in it still has its own check.
func parseFront(b []byte, sums *summer) (s frontState, err error) {
	b, ok := cutSum(b)
	schema := sums.schema()
	if !ok || !bytes.HasPrefix(b, schema) {
		return s, errFront
	}
	b = b[len(schema):]
	if len(b) < 8+8+1+tagSize+4 {
		return s, errFront
	}
	s.name = [8]byte(b)
	s.gen = binary.BigEndian.Uint64(b[8:])
	if s.tagged = b[16] == 1; s.tagged {
		if s.tag, s.tagged = sums.readTag(b[17 : 17+tagSize]); !s.tagged {
			return s, errFront
		}
	}
	b = b[17+tagSize:]
	ids, b, ok := cutCounted(b, len(SegmentID{}))
	if !ok {
		return s, errFront
	}
	s.segments = make(map[SegmentID]bool, len(ids)/len(SegmentID{}))
	for id := range slices.Chunk(ids, len(SegmentID{})) {
		s.segments[SegmentID(id)] = true
	}
	entries, b, ok := cutCounted(b, recordSize)
	if !ok || len(b) > 0 {
		return s, errFront
	}
	s.records = entries
	return s, nil
}

// cutSum takes the checksum off the end of b, and reports whether it holds.
func cutSum(b []byte) ([]byte, bool) {
	if len(b) < sumSize {
		return nil, false
	}
	end := len(b) - sumSize
	return b[:end], binary.BigEndian.Uint32(b[end:]) == crc32.Checksum(b[:end], crcTable())
}

// cutCounted takes a count, and as many items of size bytes, off the start of b.
func cutCounted(b []byte, size int) (items, rest []byte, ok bool) {
	if len(b) < 4 {
		return nil, nil, false
	}
	n := int(binary.BigEndian.Uint32(b)) * size
	if b = b[4:]; n > len(b) {
		return nil, nil, false
	}
	return b[:n:n], b[n:], true
}

// readFront reads the file of the front in dir, and the tag file if it belongs
// to it. It returns fs.ErrNotExist if there is none, and else an error that
// wraps ErrDamaged.
func readFront(dir string, sums *summer) (frontState, error) {
	path := filepath.Join(dir, frontName)
	if info, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) || err == nil && info.Size() > maxFrontFile {
		return frontState{}, errors.Join(err, errFront)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return frontState{}, fmt.Errorf("%w: %w", errFront, err)
	}
	s, err := parseFront(b, sums)
	if err != nil {
		return s, err
	}
	b, err = os.ReadFile(filepath.Join(dir, frontTagName))
	if b, ok := cutSum(b); err == nil && ok && len(b) == 8+tagSize && [8]byte(b) == s.name {
		if t, ok := sums.readTag(b[8:]); ok {
			s.tag, s.tagged = t, true
		}
	}
	return s, nil
}

// appendFrontTag appends the tag file of the front of that name.
func appendFrontTag(dst []byte, sums *summer, name [8]byte, t Tag) []byte {
	start := len(dst)
	dst = sums.appendTag(append(dst, name[:]...), t)
	return binary.BigEndian.AppendUint32(dst, crc32.Checksum(dst[start:], crcTable()))
}

// replace puts data in the place of the file called name in dir, whole or not at
// all. It does not sync: what a crash leaves shows by its checksum.
func replace(dir, name string, data []byte) error {
	f, err := os.CreateTemp(dir, name+"-*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), filepath.Join(dir, name))
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

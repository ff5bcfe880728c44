package engine

import (
	"encoding/binary"
	"math/bits"

	"github.com/cairn-backup/cairn/chunk"
)

// A filter is a set of chunk IDs that may say that it holds an ID which was
// never added, and never the opposite: a blocked Bloom filter (Putze, Sanders
// and Singler, 2007). The IDs are keyed hashes, so that their own bits choose the
// places, and nobody without the key can choose IDs that collide.
//
// An exact set would cost 32 bytes and more a chunk. What a wrong yes costs is
// that a dead chunk stays until the next collection, which has other numbers of
// chunks and so another filter.
type filter struct {
	lines []filterLine
}

// A filterLine is what one ID touches: one line of a cache.
type filterLine [8]uint64

// probes is how many bits one ID sets. With 24 bits an ID 12 bits give one
// wrong yes in 30,000, measured by TestFilter.
const probes = 12

// newFilter returns a filter for n IDs at perID bits each, of at most limit
// bytes.
func newFilter(n, perID, limit uint64) *filter {
	const lineBytes = 64
	lines := n*perID/(lineBytes*8) + 1
	return &filter{lines: make([]filterLine, min(lines, limit/lineBytes))}
}

func (f *filter) lineOf(id chunk.ID) *filterLine {
	i, _ := bits.Mul64(binary.LittleEndian.Uint64(id[:]), uint64(len(f.lines)))
	return &f.lines[i]
}

// add adds id.
func (f *filter) add(id chunk.ID) {
	l := f.lineOf(id)
	for _, word := range [2]uint64{binary.LittleEndian.Uint64(id[8:]), binary.LittleEndian.Uint64(id[16:])} {
		for range probes / 2 {
			l[word>>6&7] |= 1 << (word & 63)
			word >>= 9
		}
	}
}

// has reports whether id was added, or seems to have been.
func (f *filter) has(id chunk.ID) bool {
	l := f.lineOf(id)
	for _, word := range [2]uint64{binary.LittleEndian.Uint64(id[8:]), binary.LittleEndian.Uint64(id[16:])} {
		for range probes / 2 {
			if l[word>>6&7]&(1<<(word&63)) == 0 {
				return false
			}
			word >>= 9
		}
	}
	return true
}

package chunk

import (
	"encoding/binary"

	"github.com/restic/chunker"
)

// The scanner. A position is a candidate for a cut if the low bits of a digest
// of the 64 bytes that end there are zero. The digest is Rabin's fingerprint:
// those bytes, as the coefficients of a polynomial over GF(2), modulo the
// repository's polynomial P of degree 53. restic/chunker slides it byte by byte:
//
//	digest = digest·x^8 + in + out·x^512   (mod P)
//
// where each step waits for the table look-up of the step before, which takes
// about six cycles. A digest depends on nothing but its 64 bytes. So the
// scanner slides several digests at once, each along a lane of its own, after
// it has warmed them up on the 64 bytes before the lane; the look-ups of one
// lane fill the waits of the others:
//
//	p:  | 64 | lane 0     | lane 1     | lane 2     | lane 3     |
//	                 | 64 |       | 64 |       | 64 |
//
// restic/chunker begins a chunk with a window that holds a 1 and zeros, skips
// Min-64 bytes, and allows a cut from Min on: by then the 64 bytes of the
// window have all been replaced, so the digest is that of the last 64 bytes
// alone, and the bytes before need not be looked at.
//
// The obvious way to use lanes, marking every candidate of the buffer in a
// bitmap, looks at each byte once, but with chunks of some 40 KiB more than half
// of these bytes lie below Min. Looking for the next candidate only, block by
// block, saves those at the price of the rest of the last block, about 0.8 KiB
// for a chunk. It cannot go quadratic: a block whose first candidate lies i
// positions behind its start costs 4·(i+64) steps in lane 0, which ends it, and
// else 4·(512+64) for 512 positions or more. So a chunk costs at most 4.5 steps,
// each about a third of restic/chunker's, for each byte behind its Min, and 256
// more. In zeros, where every position is a candidate, those are all.
const (
	lanes    = 4
	laneSize = 512 // positions; 256 and 1024 are about 3 % slower for General
	// laneDegree is the degree of the polynomials that the scanner is made for.
	laneDegree = 53
	// topShift moves a digest to the top of its word, so that the 8 bits which
	// a step pushes out are the top byte and fall off by themselves.
	topShift = 64 - laneDegree
)

// tables holds what each byte b contributes, shifted by topShift.
type tables struct {
	out [256]uint64 // b·x^512 mod P, which takes b out of the window
	mod [256]uint64 // b·x^53 mod P, which brings back what a step pushed out
}

func newTables(pol Pol) *tables {
	p := chunker.Pol(pol)
	t := new(tables)
	// Both are linear in b: 8 values each, the others are sums of them.
	for bit := range 8 {
		b := 1 << bit
		t.mod[b] = uint64((chunker.Pol(b) << laneDegree).Mod(p)) << topShift
		h := chunker.Pol(b)
		for range windowSize {
			h = (h << 8).Mod(p)
		}
		t.out[b] = uint64(h) << topShift
		for low := 1; low < b; low++ {
			t.mod[b+low] = t.mod[b] ^ t.mod[low]
			t.out[b+low] = t.out[b] ^ t.out[low]
		}
	}
	return t
}

// digestMask returns the mask whose bits must be zero in a shifted digest.
func digestMask(bits uint8) uint64 { return (1<<bits - 1) << topShift }

// first returns the least i such that the window which ends at p[64+i] makes a
// candidate, or -1. p is at least 64 bytes long.
func (t *tables) first(p []byte, mask uint64) int {
	var d uint64
	for _, b := range p[:windowSize] {
		d = uint64(b)<<topShift ^ d<<8 ^ t.mod[d>>56]
	}
	in := p[windowSize:]
	for i, out := range p[:len(in)] {
		d = uint64(in[i])<<topShift ^ t.out[out] ^ d<<8 ^ t.mod[d>>56]
		if d&mask == 0 {
			return i
		}
	}
	return -1
}

// firstInBlock is first for a whole block, lanes at a time. The additions of a
// step are grouped so that the look-up in mod, for which it waits, comes last.
func (t *tables) firstInBlock(p *[windowSize + blockSize]byte, mask uint64) int {
	const (
		lane1, lane2, lane3 = laneSize, 2 * laneSize, 3 * laneSize
		in                  = windowSize
	)
	d := t.warmUp(p)
	d0, d1, d2, d3 := d[0], d[1], d[2], d[3]
	found, before := -1, lanes // the first candidate so far, and its lane
	for i := range laneSize {
		d0 = (uint64(p[i+in])<<topShift ^ t.out[p[i]] ^ d0<<8) ^ t.mod[d0>>56]
		d1 = (uint64(p[i+in+lane1])<<topShift ^ t.out[p[i+lane1]] ^ d1<<8) ^ t.mod[d1>>56]
		d2 = (uint64(p[i+in+lane2])<<topShift ^ t.out[p[i+lane2]] ^ d2<<8) ^ t.mod[d2>>56]
		d3 = (uint64(p[i+in+lane3])<<topShift ^ t.out[p[i+lane3]] ^ d3<<8) ^ t.mod[d3>>56]
		if d0&mask == 0 || d1&mask == 0 || d2&mask == 0 || d3&mask == 0 {
			switch {
			case d0&mask == 0:
				return i
			case d1&mask == 0 && before > 1:
				found, before = i+lane1, 1
			case d2&mask == 0 && before > 2:
				found, before = i+lane2, 2
			case d3&mask == 0 && before > 3:
				found, before = i+lane3, 3
			}
		}
	}
	return found
}

// warmUp returns the digests of the 64 bytes before each lane. The first six
// bytes are less than P and so are their own digest.
func (t *tables) warmUp(p *[windowSize + blockSize]byte) [lanes]uint64 {
	const (
		lane1, lane2, lane3 = laneSize, 2 * laneSize, 3 * laneSize
		six                 = 6
	)
	d0 := binary.BigEndian.Uint64(p[0:]) >> 16 << topShift
	d1 := binary.BigEndian.Uint64(p[lane1:]) >> 16 << topShift
	d2 := binary.BigEndian.Uint64(p[lane2:]) >> 16 << topShift
	d3 := binary.BigEndian.Uint64(p[lane3:]) >> 16 << topShift
	for i := six; i < windowSize; i++ {
		d0 = (uint64(p[i])<<topShift ^ d0<<8) ^ t.mod[d0>>56]
		d1 = (uint64(p[i+lane1])<<topShift ^ d1<<8) ^ t.mod[d1>>56]
		d2 = (uint64(p[i+lane2])<<topShift ^ d2<<8) ^ t.mod[d2>>56]
		d3 = (uint64(p[i+lane3])<<topShift ^ d3<<8) ^ t.mod[d3>>56]
	}
	return [lanes]uint64{d0, d1, d2, d3}
}

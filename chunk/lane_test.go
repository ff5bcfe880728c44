package chunk

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/restic/chunker"
)

// slowDigest is the digest of a window by the definition, without a table.
func slowDigest(window []byte, pol Pol) uint64 {
	var d chunker.Pol
	for _, b := range window {
		d = (d<<8 ^ chunker.Pol(b)).Mod(chunker.Pol(pol))
	}
	return uint64(d)
}

// candidates returns the lengths at which e's buffer may be cut, by the plain
// scanner, each of them checked by the definition.
func candidates(t *testing.T, e *laneEngine, pol Pol) []int {
	t.Helper()
	var all []int
	for from := 0; from+windowSize < e.end; {
		i := e.tab.first(e.buf[from:e.end], e.mask)
		if i < 0 {
			break
		}
		from += i + 1
		all = append(all, from+windowSize)
		if d := slowDigest(e.buf[from:from+windowSize], pol); d<<topShift&e.mask != 0 {
			t.Fatalf("candidate at %d has digest %#x", from, d)
		}
	}
	return all
}

// Every place of a candidate in a lane, a block and the range that is searched.
func TestFind(t *testing.T) {
	for _, bits := range []uint8{8, 11, 14} {
		e := newLaneEngine(testPol, Profile{Min: 65, Max: 512 << 10, Bits: bits})
		e.end = copy(e.buf, randomBytes(uint64(bits), 256<<10))
		all := candidates(t, e, testPol)
		if len(all) < 5 {
			t.Fatalf("%d candidates are too few", len(all))
		}
		for _, c := range all[:min(len(all), 100)] {
			for _, back := range []int{0, 1, 2, laneSize - 1, laneSize, laneSize + 1, blockSize - 1, blockSize, blockSize + 1, 3 * blockSize} {
				for _, limit := range []int{c - 1, c, c + 1, c + laneSize, c + blockSize} {
					seen := c - 1 - back
					if seen < windowSize || limit > e.end {
						continue
					}
					want := 0
					if i, _ := slices.BinarySearch(all, seen+1); i < len(all) && all[i] <= limit {
						want = all[i]
					}
					if got := e.find(seen, limit); got != want {
						t.Fatalf("bits %d: find(%d, %d) = %d, want %d", bits, seen, limit, got, want)
					}
				}
			}
		}
	}
}

// A stepReader returns as many bytes as a fill asks for at least, so that the
// first fill ends after readSize bytes.
type stepReader struct{ r io.Reader }

func (s stepReader) Read(p []byte) (int, error) { return s.r.Read(p[:min(len(p), readSize)]) }

// A search that is interrupted by a fill goes on at the next position.
func TestSplitterSearchAcrossFill(t *testing.T) {
	for short := range 4 {
		p := Profile{Min: readSize - short, Max: 2 * readSize, Bits: 2}
		s := newSplitter(t, testPol, p)
		for seed := range uint64(24) {
			data := randomBytes(seed, readSize+100)
			t.Run(fmt.Sprintf("%d/%d", short, seed), func(t *testing.T) {
				checkSameCuts(t, cuts(t, s, stepReader{bytes.NewReader(data)}, data), oracle(t, testPol, p, data))
			})
		}
	}
}

// Zeros and short periods, in which every position or every lane has a
// candidate, must not cost out of proportion. The bound is wide, since the
// machine may be shared: quadratic work would be a thousandfold.
func TestSplitterHardDataIsNotSlow(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector's own time is what would be measured")
	}
	const size = 2 << 20
	hard := map[string][]byte{
		"zeros": make([]byte, size), "period64": periodicBytes(64, size),
		"period512": periodicBytes(laneSize, size), "period2048": periodicBytes(blockSize, size),
	}
	random := randomBytes(1, size)
	for _, p := range testProfiles() {
		s := newSplitter(t, testPol, p)
		usual := splitTime(s, random)
		for name, data := range hard {
			if got := splitTime(s, data); got > 40*usual+20*time.Millisecond {
				t.Errorf("%s, %s: %v, random data takes %v", p.Name, name, got, usual)
			}
		}
	}
}

// splitTime returns the best of three times to split data.
func splitTime(s *Splitter, data []byte) time.Duration {
	best := time.Hour
	for range 3 {
		begin := time.Now()
		s.Reset(bytes.NewReader(data))
		for {
			if _, err := s.Next(); err != nil {
				break
			}
		}
		best = min(best, time.Since(begin))
	}
	return best
}

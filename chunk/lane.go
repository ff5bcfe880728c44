package chunk

import "io"

const (
	// readSize is how much more of a stream a fill gets, in bytes, unless the
	// stream ends. As much again is spare, so that the unfinished chunk is
	// moved to the front of the buffer at most once for every readSize bytes.
	readSize = 512 << 10
	// blockSize is the number of positions that one round of the lanes looks at.
	blockSize = lanes * laneSize
)

// A laneEngine finds the boundaries with the scanner of scan.go, in place in
// one contiguous buffer:
//
//	0        start            end                Max+2*readSize
//	| spent  | unfinished     | free             | slack for scanning |
//
// The slack is there because a round looks at a whole block, also where fewer
// bytes are left. What it finds behind end is stale and ignored.
type laneEngine struct {
	min, max int
	mask     uint64
	tab      *tables
	buf      []byte
	start    int // of the present chunk
	end      int // of what was read
	cut      int // length of the chunk that next returned last
	src      source
}

func newLaneEngine(pol Pol, p Profile) *laneEngine {
	e := &laneEngine{
		min:  p.Min,
		max:  p.Max,
		mask: digestMask(p.Bits),
		tab:  newTables(pol),
		buf:  make([]byte, p.Max+2*readSize+blockSize),
	}
	e.reset(nil)
	return e
}

func (e *laneEngine) reset(r io.Reader) {
	e.start, e.end, e.cut = 0, 0, 0
	e.src = newSource(r)
}

func (e *laneEngine) next() ([]byte, error) {
	e.start += e.cut
	e.cut = 0
	for seen := e.min - 1; ; { // no cut has been found up to length seen
		n := e.end - e.start
		if limit := min(n, e.max); limit > seen {
			if cut := e.find(seen, limit); cut > 0 {
				return e.chunk(cut), nil
			}
			seen = limit
		}
		switch {
		case n >= e.max:
			return e.chunk(e.max), nil
		case e.src.err == nil:
			e.fill()
		case e.src.whole() && n > 0:
			return e.chunk(n), nil
		default:
			return nil, e.src.err
		}
	}
}

// chunk returns the n bytes at start and notes that they are spent.
func (e *laneEngine) chunk(n int) []byte {
	e.cut = n
	return e.buf[e.start : e.start+n : e.start+n]
}

// find returns the first length in seen+1..limit at which the present chunk may
// be cut, or 0. The chunk has at least limit bytes in the buffer, and seen is
// at least windowSize.
func (e *laneEngine) find(seen, limit int) int {
	for seen < limit {
		// p begins with the window that ends at length seen.
		p := e.buf[e.start+seen-windowSize:]
		// A short rest is looked at position by position, else a profile of
		// narrow sizes would pay for a block at every chunk.
		if rest := limit - seen; rest < laneSize {
			if i := e.tab.first(p[:windowSize+rest], e.mask); i >= 0 {
				return seen + 1 + i
			}
			return 0
		}
		if i := e.tab.firstInBlock((*[windowSize + blockSize]byte)(p), e.mask); i >= 0 {
			if cut := seen + 1 + i; cut <= limit {
				return cut
			}
			return 0
		}
		seen += blockSize
	}
	return 0
}

// fill reads at least readSize bytes, or to the end of the stream. It is called
// with less than Max bytes unfinished.
func (e *laneEngine) fill() {
	room := len(e.buf) - blockSize
	if room-e.end < readSize {
		e.end = copy(e.buf, e.buf[e.start:e.end])
		e.start = 0
	}
	for want := e.end + readSize; e.end < want && e.src.err == nil; {
		e.end += e.src.read(e.buf[e.end:room])
	}
}

package chunk

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"
)

func testProfiles() []Profile {
	return []Profile{
		General(),
		{Name: "restic", Min: 512 << 10, Max: 8 << 20, Bits: 20},
		{Name: "wide", Min: 64 << 10, Max: 1 << 20, Bits: 17},
		{Name: "narrow", Min: 4000, Max: 4100, Bits: 8},
		{Name: "small", Min: 65, Max: 700, Bits: 6},
		{Name: "smallest", Min: 65, Max: 66, Bits: 1},
		{Name: "block", Min: 100, Max: 100 + blockSize, Bits: 11},
		{Name: "rare", Min: 3000, Max: 200_001, Bits: 23},
	}
}

func TestSplitterSameCuts(t *testing.T) {
	const size = 10<<20 + 4711 // more than the largest Max
	data := map[string][]byte{
		"random":   randomBytes(1, size),
		"text":     textBytes(1, size),
		"database": databaseBytes(1, size),
		"zeros":    make([]byte, size),
		"ones":     bytes.Repeat([]byte{0xff}, size),
		"period2":  periodicBytes(2, size),
		"period64": periodicBytes(64, size),
		"period4k": periodicBytes(4096, size),
		"mixed":    mixedBytes(1, size),
		"empty":    nil,
	}
	for _, p := range testProfiles() {
		s := newSplitter(t, testPol, p)
		for name, d := range data {
			d = d[:min(len(d), 3<<19+2*p.Max)]
			if raceEnabled { // one goroutine, 20 times as slow
				if p.Max > 1<<20 && name != "mixed" {
					continue
				}
				d = d[:min(len(d), 1<<17+2*p.Max)]
			}
			t.Run(p.Name+"/"+name, func(t *testing.T) {
				checkSameCuts(t, cuts(t, s, bytes.NewReader(d), d), oracle(t, testPol, p, d))
			})
		}
	}
}

// The length of a stream must not matter where it meets Min, Max, a block, a
// fill or the end of the buffer.
func TestSplitterSameCutsAtBoundaries(t *testing.T) {
	for _, p := range testProfiles() {
		if p.Max > 1<<20 {
			continue // the others meet every boundary, in less time
		}
		if raceEnabled && p.Max > 1<<16 {
			continue // one goroutine, 20 times as slow
		}
		s := newSplitter(t, testPol, p)
		for _, size := range []int{
			0, windowSize, p.Min, p.Min + laneSize, p.Min + blockSize, p.Max, 2 * p.Max,
			readSize, 2 * readSize, p.Max + 2*readSize,
		} {
			if raceEnabled && size > readSize {
				continue
			}
			for _, d := range []int{-65, -64, -63, -2, -1, 0, 1, 2, 63, 64, 65} {
				if size+d < 0 || size >= readSize && d != d/64*64 && d != -1 && d != 1 {
					continue // long streams take too long for all of them
				}
				for name, data := range map[string][]byte{
					"random": randomBytes(2, size+d), "zeros": make([]byte, size+d),
				} {
					t.Run(fmt.Sprintf("%s/%s/%d%+d", p.Name, name, size, d), func(t *testing.T) {
						checkSameCuts(t, cuts(t, s, bytes.NewReader(data), data), oracle(t, testPol, p, data))
					})
				}
			}
		}
	}
}

func TestSplitterShortReads(t *testing.T) {
	data := mixedBytes(4, 1<<20+4711)
	readers := map[string]func(io.Reader) io.Reader{
		"one byte": iotest.OneByteReader,
		"half":     iotest.HalfReader,
		"data err": iotest.DataErrReader,
		"random":   func(r io.Reader) io.Reader { return &raggedReader{r: r, rnd: rand.New(rand.NewPCG(1, 2))} },
	}
	for _, p := range testProfiles() {
		want := oracle(t, testPol, p, data)
		s := newSplitter(t, testPol, p)
		for name, wrap := range readers {
			t.Run(p.Name+"/"+name, func(t *testing.T) {
				checkSameCuts(t, cuts(t, s, wrap(bytes.NewReader(data)), data), want)
			})
		}
	}
}

// A raggedReader returns random counts, among them 0.
type raggedReader struct {
	r   io.Reader
	rnd *rand.Rand
}

func (r *raggedReader) Read(p []byte) (int, error) {
	if r.rnd.IntN(3) == 0 {
		return 0, nil
	}
	return r.r.Read(p[:min(len(p), 1+r.rnd.IntN(100_000))])
}

// Polynomials of other degrees go through restic/chunker itself.
func TestSplitterOtherDegrees(t *testing.T) {
	data := mixedBytes(5, 1<<20)
	for _, pol := range []Pol{0x11b, 0x1000000af, 1<<52 | 0xabcdef1} {
		for _, p := range testProfiles() {
			t.Run(fmt.Sprintf("%#x/%s", uint64(pol), p.Name), func(t *testing.T) {
				s := newSplitter(t, pol, p)
				checkSameCuts(t, cuts(t, s, bytes.NewReader(data), data), oracle(t, pol, p, data))
			})
		}
	}
	for _, pol := range []Pol{0, 1, 0xff, 1 << 54, 1<<63 | 1} {
		if _, err := NewSplitter(pol, General()); !errors.Is(err, ErrPolynomial) {
			t.Errorf("NewSplitter(%#x) = %v, want ErrPolynomial", uint64(pol), err)
		}
	}
}

func TestSplitterProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pol := Pol(rapid.Uint64Range(0, 1<<53-1).Draw(t, "pol")) | 1<<53
		p := Profile{Min: rapid.IntRange(65, 20_000).Draw(t, "min"), Bits: uint8(rapid.IntRange(1, 16).Draw(t, "bits"))}
		p.Max = p.Min + rapid.OneOf(rapid.IntRange(1, 200), rapid.IntRange(1, 100_000)).Draw(t, "span")
		seed := rapid.Uint64Range(0, 1<<16-1).Draw(t, "seed")
		size := rapid.OneOf(rapid.IntRange(0, 3*p.Max), rapid.IntRange(0, 2<<20)).Draw(t, "size")
		var data []byte
		switch rapid.IntRange(0, 4).Draw(t, "shape") {
		case 0:
			data = randomBytes(seed, size)
		case 1:
			data = periodicBytes(1+int(seed)%9000, size)
		case 2:
			data = databaseBytes(seed, size)
		default:
			data = mixedBytes(seed, size)
		}
		s, err := NewSplitter(pol, p)
		if err != nil {
			t.Fatal(err)
		}
		r := &raggedReader{r: bytes.NewReader(data), rnd: rand.New(rand.NewPCG(seed, 9))}
		checkSameCuts(t, cuts(t, s, r, data), oracle(t, pol, p, data))
	})
}

func TestSplitterErrors(t *testing.T) {
	torn := errors.New("torn")
	data := randomBytes(6, 3<<20)
	then := func(r io.Reader) func() io.Reader {
		return func() io.Reader { return io.MultiReader(bytes.NewReader(data), r) }
	}
	cases := []struct {
		name string
		open func() io.Reader
		want error
	}{
		{"own", then(iotest.ErrReader(torn)), torn},
		{"unexpected EOF", then(iotest.ErrReader(io.ErrUnexpectedEOF)), io.ErrUnexpectedEOF},
		{"wrapped EOF", then(iotest.ErrReader(fmt.Errorf("gone: %w", io.EOF))), io.ErrUnexpectedEOF},
		{"second read", func() io.Reader { return iotest.TimeoutReader(bytes.NewReader(data)) }, iotest.ErrTimeout},
		{"no progress", then(idleReader{}), io.ErrNoProgress},
		{"negative", then(countReader(-1)), errReadCount},
		{"too many", then(countReader(9 << 20)), errReadCount},
	}
	for name, pol := range map[string]Pol{"lanes": testPol, "restic": 0x1000000af} {
		s := newSplitter(t, pol, General())
		for _, c := range cases {
			t.Run(name+"/"+c.name, func(t *testing.T) {
				s.Reset(c.open())
				got, err := readAll(s)
				if !errors.Is(err, c.want) || errors.Is(err, io.EOF) {
					t.Fatalf("error = %v, want %v and not io.EOF", err, c.want)
				}
				if len(got) >= len(data) || !bytes.HasPrefix(data, got) {
					t.Errorf("%d bytes before the error, want a prefix of the stream without its last chunk", len(got))
				}
				if _, again := s.Next(); !errors.Is(again, c.want) {
					t.Errorf("second error = %v, want %v", again, c.want)
				}
				// An error is over with the stream it came from.
				checkSameCuts(t, cuts(t, s, bytes.NewReader(data), data), oracle(t, pol, General(), data))
				if _, again := s.Next(); !errors.Is(again, io.EOF) {
					t.Errorf("Next() after the end = %v, want io.EOF", again)
				}
			})
		}
	}
}

// readAll returns the chunks of s joined, and the error that ended them.
func readAll(s *Splitter) ([]byte, error) {
	var all []byte
	for {
		c, err := s.Next()
		if err != nil {
			return all, err
		}
		all = append(all, c...)
	}
}

type idleReader struct{}

func (idleReader) Read([]byte) (int, error) { return 0, nil }

// A countReader returns an impossible count.
type countReader int

func (c countReader) Read([]byte) (int, error) { return int(c), nil }

func TestSplitterWithoutStream(t *testing.T) {
	for _, pol := range []Pol{testPol, 0x1000000af} {
		s := newSplitter(t, pol, General())
		if _, err := s.Next(); !errors.Is(err, io.EOF) {
			t.Errorf("Next() before Reset = %v, want io.EOF", err)
		}
		s.Reset(nil)
		if _, err := s.Next(); !errors.Is(err, io.EOF) {
			t.Errorf("Next() after Reset(nil) = %v, want io.EOF", err)
		}
	}
}

// A chunk belongs to the caller until the next call, who may also change it,
// and appending to it must not reach the bytes behind it.
func TestSplitterChunkMayBeChanged(t *testing.T) {
	data := randomBytes(7, 3<<20)
	want := oracle(t, testPol, General(), data)
	s := newSplitter(t, testPol, General())
	s.Reset(bytes.NewReader(data))
	var got []int
	for at := 0; ; {
		c, err := s.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(c, data[at:at+len(c)]) {
			t.Fatalf("chunk at byte %d differs from the stream", at)
		}
		at += len(c)
		got = append(got, len(c))
		clear(c)
		_ = append(c, make([]byte, 100)...)
	}
	checkSameCuts(t, got, want)
}

func TestSplitterAllocs(t *testing.T) {
	data := mixedBytes(8, 4<<20)
	for name, pol := range map[string]Pol{"lanes": testPol, "restic": 0x1000000af} {
		s := newSplitter(t, pol, General())
		r := bytes.NewReader(data)
		n := testing.AllocsPerRun(5, func() {
			r.Reset(data)
			s.Reset(r)
			for {
				if _, err := s.Next(); err != nil {
					break
				}
			}
		})
		if n != 0 {
			t.Errorf("%s: %v allocations a stream, want 0", name, n)
		}
	}
}

// The formula for memory in the doc of Splitter.
func TestSplitterMemory(t *testing.T) {
	e := newLaneEngine(testPol, General())
	if got, most := len(e.buf), General().Max+1<<20+2<<10; got > most {
		t.Errorf("buffer of %d bytes, documented are at most %d", got, most)
	}
}

func TestProfileValidate(t *testing.T) {
	for _, p := range append(testProfiles(), Profile{Min: 65, Max: 8 << 20, Bits: 23}) {
		if err := p.Validate(); err != nil {
			t.Errorf("%+v: %v", p, err)
		}
	}
	for _, p := range []Profile{
		{},
		{Min: 64, Max: 1000, Bits: 10},
		{Min: -1, Max: 1000, Bits: 10},
		{Min: 1000, Max: 1000, Bits: 10},
		{Min: 1000, Max: 8<<20 + 1, Bits: 10},
		{Min: 1000, Max: 2000, Bits: 0},
		{Min: 1000, Max: 2000, Bits: 24},
		{Min: 1000, Max: 2000, Bits: 255},
	} {
		if err := p.Validate(); !errors.Is(err, ErrProfile) {
			t.Errorf("Validate(%+v) = %v, want ErrProfile", p, err)
		}
		if _, err := NewSplitter(testPol, p); !errors.Is(err, ErrProfile) {
			t.Errorf("NewSplitter(%+v) = %v, want ErrProfile", p, err)
		}
	}
}

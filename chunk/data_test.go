package chunk

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"strings"

	"github.com/restic/chunker"
	"pgregory.net/rapid"
)

// testPol is irreducible and of degree 53; it is the one of restic/chunker's
// own tests.
const testPol Pol = 0x3DA3358B4DC173

// cuts returns the lengths of the chunks of r as s finds them, and checks that
// the chunks make up want.
func cuts(t rapid.TB, s *Splitter, r io.Reader, want []byte) []int {
	t.Helper()
	var lengths []int
	s.Reset(r)
	for at := 0; ; {
		c, err := s.Next()
		if errors.Is(err, io.EOF) {
			if at != len(want) {
				t.Fatalf("chunks end at byte %d, want %d", at, len(want))
			}
			return lengths
		}
		if err != nil {
			t.Fatalf("Next() after %d bytes: %v", at, err)
		}
		if at+len(c) > len(want) || !bytes.Equal(c, want[at:at+len(c)]) {
			t.Fatalf("chunk at byte %d, %d bytes long, differs from the stream", at, len(c))
		}
		at += len(c)
		lengths = append(lengths, len(c))
	}
}

// oracle returns the lengths of the chunks of data as restic/chunker, and no
// code of ours, finds them.
func oracle(t rapid.TB, pol Pol, p Profile, data []byte) []int {
	t.Helper()
	c := chunker.NewWithBoundaries(bytes.NewReader(data), chunker.Pol(pol), uint(p.Min), uint(p.Max))
	c.SetAverageBits(int(p.Bits))
	var lengths []int
	for buf := make([]byte, 0, p.Max); ; {
		ch, err := c.Next(buf)
		if errors.Is(err, io.EOF) {
			return lengths
		}
		if err != nil {
			t.Fatalf("restic/chunker: %v", err)
		}
		lengths = append(lengths, int(ch.Length))
	}
}

func newSplitter(t rapid.TB, pol Pol, p Profile) *Splitter {
	t.Helper()
	s, err := NewSplitter(pol, p)
	if err != nil {
		t.Fatalf("NewSplitter(%#x, %+v): %v", uint64(pol), p, err)
	}
	return s
}

func checkSameCuts(t rapid.TB, got, want []int) {
	t.Helper()
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			t.Fatalf("chunk %d of %d is %d bytes long, restic/chunker's %d", i, len(want), got[i], want[i])
		}
	}
	if len(got) != len(want) {
		t.Fatalf("%d chunks, restic/chunker finds %d", len(got), len(want))
	}
}

func randomBytes(seed uint64, n int) []byte {
	b := make([]byte, n)
	var key [32]byte
	key[0], key[1] = byte(seed), byte(seed>>8)
	_, _ = rand.NewChaCha8(key).Read(b) // documented never to fail
	return b
}

// textBytes returns n bytes of words and lines, which repeat as source does.
func textBytes(seed uint64, n int) []byte {
	words := strings.Fields(`func return if err != nil { } range for := var const type struct
		the of and to in is that was he it with as his on be at by i had not are but from or
		chunk splitter reader buffer window digest polynomial length offset 0x2f 1024 "" ( ) []byte`)
	r := rand.New(rand.NewPCG(seed, 1))
	b := make([]byte, 0, n+32)
	for len(b) < n {
		b = append(b, words[r.IntN(len(words))]...)
		if r.IntN(9) == 0 {
			b = append(b, "\n\t"...)
		} else {
			b = append(b, ' ')
		}
	}
	return b[:n]
}

// databaseBytes returns n bytes of 4 KiB pages: a header, cells at the end, and
// zeros between them.
func databaseBytes(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 2))
	b := make([]byte, n)
	for at := 0; at < n; at += 4096 {
		page := b[at:min(at+4096, n)]
		cells := len(page) * (50 + r.IntN(50)) / 100
		copy(page, randomBytes(r.Uint64(), min(len(page), 60)))
		copy(page[len(page)-cells:], textBytes(r.Uint64(), cells))
	}
	return b
}

func periodicBytes(period, n int) []byte {
	return bytes.Repeat(randomBytes(uint64(period), period), n/period+1)[:n]
}

// mixedBytes returns stretches of everything in turn.
func mixedBytes(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 3))
	var b []byte
	for len(b) < n {
		size := 1 + r.IntN(300_000)
		switch r.IntN(6) {
		case 0:
			b = append(b, make([]byte, size)...)
		case 1:
			b = append(b, periodicBytes(1+r.IntN(5000), size)...)
		case 2:
			b = append(b, bytes.Repeat([]byte{byte(r.Uint32())}, size)...)
		case 3:
			b = append(b, textBytes(r.Uint64(), size)...)
		default:
			b = append(b, randomBytes(r.Uint64(), size)...)
		}
	}
	return b[:n]
}

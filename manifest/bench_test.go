package manifest

import (
	"context"
	"io"
	"testing"

	"github.com/cairn-backup/cairn/chunk"
)

const benchNodes = 100_000

func BenchmarkNodeAppend(b *testing.B) {
	n := testFile("some-file.go", 4711)
	buf := n.Append(nil)
	b.SetBytes(int64(len(buf)))
	b.ReportAllocs()
	for b.Loop() {
		buf = n.Append(buf[:0])
	}
}

func BenchmarkDecodeNode(b *testing.B) {
	n := testFile("some-file.go", 4711)
	p := n.Append(nil)
	b.SetBytes(int64(len(p)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := DecodeNode(p); err != nil {
			b.Fatal(err)
		}
	}
}

// discard is a Putter that keeps nothing.
type discard struct{ n uint64 }

func (d *discard) PutChunk(context.Context, []byte) (id chunk.ID, _ error) {
	d.n++
	id[0], id[1], id[2], id[31] = byte(d.n), byte(d.n>>8), byte(d.n>>16), 1
	return id, nil
}

// One operation is a directory of 100,000 files.
func BenchmarkDirWriter(b *testing.B) {
	nodes := testFiles(benchNodes)
	b.ReportAllocs()
	for b.Loop() {
		w := NewDirWriter(new(discard))
		for _, n := range nodes {
			if err := w.Add(b.Context(), n); err != nil {
				b.Fatal(err)
			}
		}
		if _, err := w.Finish(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)*benchNodes/b.Elapsed().Seconds(), "nodes/s")
}

// One operation is a directory of 100,000 files.
func BenchmarkReadDir(b *testing.B) {
	m := newMemory()
	root := writeDir(b, m, testFiles(benchNodes))
	b.ReportAllocs()
	for b.Loop() {
		size := uint64(0)
		for n, err := range ReadDir(b.Context(), m, root) {
			if err != nil {
				b.Fatal(err)
			}
			size += n.Size
		}
		if size == 0 {
			b.Fatal(io.ErrUnexpectedEOF)
		}
	}
	b.ReportMetric(float64(b.N)*benchNodes/b.Elapsed().Seconds(), "nodes/s")
}

func BenchmarkLookup(b *testing.B) {
	m := newMemory()
	root := writeDir(b, m, testFiles(benchNodes))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Lookup(b.Context(), m, root, "file-050000.go"); err != nil {
			b.Fatal(err)
		}
	}
}

// One operation is a file of 100,000 chunks.
func BenchmarkExtents(b *testing.B) {
	m := newMemory()
	var extents []Extent
	for i := range benchNodes {
		extents = append(extents, Extent{Kind: Data, Length: 65_536, ID: testID(i)})
	}
	c := writeContent(b, m, extents)
	b.ReportAllocs()
	for b.Loop() {
		for _, err := range Extents(b.Context(), m, c, 0) {
			if err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(b.N)*benchNodes/b.Elapsed().Seconds(), "extents/s")
}

func BenchmarkDecodeSummary(b *testing.B) {
	p, err := EncodeSummary(testSummary())
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(p)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := DecodeSummary(p); err != nil {
			b.Fatal(err)
		}
	}
}

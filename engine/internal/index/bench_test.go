package index

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/cairn-backup/cairn/chunk"
)

const benchBatch = 256 // IDs a LookupMany, about as many as a block of small files

// BenchmarkInsert inserts all entries into an empty index, and closes it.
func BenchmarkInsert(b *testing.B) {
	for _, size := range []int{100_000, 1_000_000} {
		es := entries(0, size)
		b.Run(fmt.Sprintf("disk-%d", size), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				x := mustOpen(b, Options{Dir: b.TempDir()})
				mustInsert(b, x, es)
				mustClose(b, x)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*size), "ns/entry")
		})
		b.Run(fmt.Sprintf("memory-%d", size), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				x := mustOpen(b, Options{})
				mustInsert(b, x, es)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*size), "ns/entry")
		})
	}
}

// BenchmarkLookup looks up entries that are there and entries that are not,
// one by one and many at a time.
func BenchmarkLookup(b *testing.B) {
	for _, size := range []int{100_000, 1_000_000} {
		dir := b.TempDir()
		x := mustOpen(b, Options{Dir: dir})
		mustInsert(b, x, entries(0, size))
		mustClose(b, x)
		x = mustOpen(b, Options{Dir: dir})
		for name, from := range map[string]int{"hit": 0, "miss": size} {
			b.Run(fmt.Sprintf("%s-%d", name, size), func(b *testing.B) {
				ids := randomIDs(from, size, 1<<16)
				b.ReportAllocs()
				i := 0
				for b.Loop() {
					if _, ok, err := x.Lookup(ids[i%len(ids)]); ok != (from == 0) || err != nil {
						b.Fatal(ok, err)
					}
					i++
				}
			})
			b.Run(fmt.Sprintf("%s-many-%d", name, size), func(b *testing.B) {
				ids := randomIDs(from, size, 1<<16)
				places, found := make([]Place, benchBatch), make([]bool, benchBatch)
				b.ReportAllocs()
				i := 0
				for b.Loop() {
					at := i * benchBatch % len(ids)
					if err := x.LookupMany(ids[at:at+benchBatch], places, found); err != nil {
						b.Fatal(err)
					}
					i++
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*benchBatch), "ns/id")
			})
		}
		mustClose(b, x)
	}
}

func randomIDs(from, size, n int) []chunk.ID {
	r := rand.New(rand.NewPCG(1, 2))
	ids := make([]chunk.ID, n)
	for i := range ids {
		ids[i] = id(from + r.IntN(size))
	}
	return ids
}

// BenchmarkOpen opens and closes an index that was closed in order.
func BenchmarkOpen(b *testing.B) {
	for _, size := range []int{100_000, 1_000_000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			dir := b.TempDir()
			x := mustOpen(b, Options{Dir: dir})
			mustInsert(b, x, entries(0, size))
			mustClose(b, x)
			for b.Loop() {
				x := mustOpen(b, Options{Dir: dir})
				b.StopTimer()
				mustClose(b, x)
				b.StartTimer()
			}
		})
	}
}

// BenchmarkClose closes an index after a small run.
func BenchmarkClose(b *testing.B) {
	dir := b.TempDir()
	n := 0
	for b.Loop() {
		b.StopTimer()
		x := mustOpen(b, Options{Dir: dir})
		mustInsert(b, x, entries(n, n+1000))
		n += 1000
		b.StartTimer()
		mustClose(b, x)
	}
}

package chunk

import (
	"bytes"
	"fmt"
	"testing"
)

// BenchmarkSplitter compares the lanes with restic/chunker behind the same
// type. Run it with -count 10 and look at the ratios, not at one figure.
func BenchmarkSplitter(b *testing.B) {
	const size = 16 << 20
	data := []struct {
		name string
		data []byte
	}{
		{"rand", randomBytes(1, size)},
		{"text", textBytes(1, size)},
		{"database", databaseBytes(1, size)},
		{"zeros", make([]byte, size)},
		{"period4k", periodicBytes(4096, size)},
		{"period5000", periodicBytes(5000, size)},
	}
	profiles := []Profile{General(), {Name: "wide", Min: 64 << 10, Max: 1 << 20, Bits: 17}}
	for _, p := range profiles {
		engines := []struct {
			name string
			e    engine
		}{{"lanes", newLaneEngine(testPol, p)}, {"restic", newResticEngine(testPol, p)}}
		for _, d := range data {
			for _, e := range engines {
				b.Run(fmt.Sprintf("%s/%s/%s", p.Name, d.name, e.name), func(b *testing.B) {
					b.SetBytes(size)
					b.ReportAllocs()
					r := bytes.NewReader(nil)
					for b.Loop() {
						r.Reset(d.data)
						s := Splitter{e: e.e}
						s.Reset(r)
						for {
							if _, err := s.Next(); err != nil {
								break
							}
						}
					}
				})
			}
		}
	}
}

func BenchmarkHasher(b *testing.B) {
	for _, size := range []int{256, 4 << 10, 40 << 10, 1 << 20} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			data := randomBytes(1, size)
			h := NewHasher(Key{1})
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				h.Sum(data)
			}
		})
	}
}

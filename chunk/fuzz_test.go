package chunk

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// FuzzSplitterSameCuts puts the lanes beside restic/chunker. The data is period
// repeated up to size: repeats are what scanners go quadratic on. Where bit i of
// noise is set, the i-th of its 64 parts is random instead.
func FuzzSplitterSameCuts(f *testing.F) {
	const all = 1<<64 - 1
	f.Add([]byte{0}, uint64(0), uint64(testPol), 24<<10, 96<<10, uint8(14), 300_000)
	f.Add([]byte{0}, uint64(0), uint64(testPol), 65, 66, uint8(1), 5000)
	f.Add([]byte{0}, uint64(0x5555), uint64(testPol), 3000, 9000, uint8(11), 300_000)
	f.Add([]byte{0xff}, uint64(0), uint64(testPol), 65, 3000, uint8(23), 100_000)
	f.Add([]byte{0, 1}, uint64(0xf0f0), uint64(testPol), 100, 5000, uint8(7), 100_000)
	f.Add(periodicBytes(64, 64), uint64(0), uint64(testPol), 2048, 8192, uint8(5), 100_000)
	f.Add(periodicBytes(512, 512), uint64(1), uint64(testPol), 2048, 8192, uint8(5), 100_000)
	f.Add(periodicBytes(513, 513), uint64(0), uint64(testPol), 2048, 8192, uint8(5), 100_000)
	f.Add(periodicBytes(2048, 2048), uint64(0), uint64(testPol), 2049, 2050, uint8(5), 100_000)
	f.Add(append(make([]byte, 700), randomBytes(3, 900)...), uint64(0), uint64(1<<53|1), 700, 60_000, uint8(9), 300_000)
	f.Add([]byte{0}, uint64(all), uint64(1<<53|12345), 4000, 16_000, uint8(11), 900_000)
	f.Add([]byte{0}, uint64(all), uint64(testPol), 65, 900, uint8(6), 700_000)
	f.Add(textBytes(1, 3000), uint64(0xff00ff), uint64(testPol), 65, 900, uint8(6), 700_000)
	f.Add(databaseBytes(1, 4096), uint64(0xff00ff), uint64(testPol), 24<<10, 96<<10, uint8(14), 700_000)
	f.Fuzz(func(t *testing.T, period []byte, noise, pol uint64, least, most int, bits uint8, size int) {
		p := Profile{Min: least, Max: most, Bits: bits}
		if p.Validate() != nil || p.Max > 1<<20 || size < 0 || size > 1<<20 || len(period) == 0 {
			t.Skip("outside of what this target covers")
		}
		data := bytes.Repeat(period, size/len(period)+1)[:size]
		for i := range 64 {
			if noise>>i&1 == 1 {
				copy(data[i*size/64:(i+1)*size/64], randomBytes(uint64(i), size/64))
			}
		}
		deg53 := Pol(pol&(1<<53-1) | 1<<53)
		s := newSplitter(t, deg53, p)
		want := oracle(t, deg53, p, data)
		checkSameCuts(t, cuts(t, s, bytes.NewReader(data), data), want)
		ragged := &raggedReader{r: bytes.NewReader(data), rnd: rand.New(rand.NewPCG(pol, 1))}
		checkSameCuts(t, cuts(t, s, ragged, data), want)
	})
}

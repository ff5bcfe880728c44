package engine

import (
	"fmt"

	"github.com/cairn-backup/cairn/chunk/codec"
	"github.com/cairn-backup/cairn/engine/internal/store"
)

// A Compression says how hard what is stored is compressed. It is no part of the
// repository: each run may choose, every version reads all of them, and what is
// stored already is not stored again for it.
type Compression uint8

// The levels, with megabytes a second of one core and how many times smaller
// source code becomes. docs/adr/0011-compression.md compares whole backups.
const (
	CompressionFastest Compression = iota // zstd: 227 MB/s, 3.11
	CompressionDefault                    // zstd: 145 MB/s, 3.32
	CompressionBetter                     // zstd: 89 MB/s, 3.46
	CompressionBest                       // zstd: 23 MB/s, 3.66
	CompressionS2                         // S2: 496 MB/s, 2.39
	// CompressionAuto goes from S2 to CompressionBetter and back in the course of a
	// backup: stronger while packs wait for the store, cheaper while the
	// processor is what holds the backup up. A collection takes
	// CompressionFastest.
	CompressionAuto
)

// names are those of the command line.
func (c Compression) names() []string {
	return []string{"fastest", "default", "better", "best", "s2", "auto"}
}

// String returns the name that ParseCompression takes.
func (c Compression) String() string {
	if names := c.names(); int(c) < len(names) {
		return names[c]
	}
	return fmt.Sprintf("Compression(%d)", uint8(c))
}

// ParseCompression returns the level of that name: fastest, default, better,
// best, s2 or auto.
func ParseCompression(name string) (Compression, error) {
	for i, n := range Compression(0).names() {
		if n == name {
			return Compression(i), nil //nolint:gosec // six
		}
	}
	return 0, fmt.Errorf("compression is fastest, default, better, best, s2 or auto, not %q", name)
}

// inStore returns what the store does for it.
func (c Compression) inStore() store.Compression {
	levels := [...]codec.Level{codec.Fastest, codec.Default, codec.Better, codec.Best, codec.S2, codec.Fastest}
	return store.Compression{Level: levels[c], Adapt: c == CompressionAuto}
}

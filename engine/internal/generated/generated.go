// Package generated fills repositories with packs that nobody stored, to see
// what the number of chunks costs: the index segments and records are what a
// backup leaves, the packs themselves are in no store.
package generated

import (
	"context"
	"encoding/binary"

	"github.com/zeebo/blake3"

	"github.com/cairn-backup/cairn/chunk"
	"github.com/cairn-backup/cairn/chunk/pack"
	"github.com/cairn-backup/cairn/chunk/seal"
	"github.com/cairn-backup/cairn/engine/internal/log"
	"github.com/cairn-backup/cairn/engine/internal/store"
)

// Sizes of generated packs, as the profile "general" makes them.
const (
	Chunks = 400    // in a pack
	Length = 40_000 // of a chunk, bytes

	blockChunks = 20
	// perSegment is how many packs a segment and a record have: about as many as
	// a collection leaves in a folded segment.
	perSegment = 1000
)

// ID returns the ID of a generated chunk. Pack n, from 0, has the chunks from
// n*Chunks on.
func ID(n uint64) chunk.ID {
	return blake3.Sum256(binary.LittleEndian.AppendUint64(nil, n))
}

// packTable returns generated pack n as the log and a segment list it.
func packTable(n uint64) (log.PackInfo, store.PackTable) {
	var salt [32]byte
	binary.BigEndian.PutUint64(salt[:], n+1)
	info := log.PackInfo{Kind: seal.KindDataPack, Salt: salt, Size: 16 << 20, Chunks: Chunks}
	info.ID = info.Header().Name()
	t := store.PackTable{Pack: info.ID, Size: uint64(info.Size)}
	for b := range uint32(Chunks / blockChunks) {
		block := pack.Block{Number: b, Offset: 1000 + b*(blockChunks*Length), Stored: blockChunks * Length, Raw: blockChunks * Length}
		for c := range uint32(blockChunks) {
			block.Chunks = append(block.Chunks, pack.Chunk{ID: ID(n*Chunks + uint64(b*blockChunks+c)), Length: Length})
		}
		t.Table.Blocks = append(t.Table.Blocks, block)
	}
	return info, t
}

// Fill records packs full of chunks, each record with an index segment.
func Fill(ctx context.Context, l *log.Log, s *store.Store, packs uint64) error {
	for first := uint64(0); first < packs; first += perSegment {
		var add log.Add
		var tables []store.PackTable
		for n := first; n < min(first+perSegment, packs); n++ {
			info, table := packTable(n)
			add.Packs, tables = append(add.Packs, info), append(tables, table)
		}
		seg, err := s.PutSegment(ctx, tables)
		if err != nil {
			return err
		}
		_, err = l.Append(ctx, func(st *log.State) ([]log.Effect, error) {
			next := st.NextPack()
			seg.Packs = log.Ranges{{First: next, Last: next + uint64(len(tables)) - 1}}
			add.Segments = []log.SegmentInfo{seg}
			return []log.Effect{add}, nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

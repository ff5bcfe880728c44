package pack

import (
	"fmt"

	"github.com/cairn-backup/cairn/chunk"
	"github.com/cairn-backup/cairn/chunk/seal"
	"github.com/cairn-backup/cairn/chunk/wire"
)

const (
	tableVersion = 1
	// What one item takes at least, by which counts are checked.
	minBirthBytes = 50
	minBlockBytes = 6 + minChunkBytes
	minChunkBytes = 1 + 32
)

// A Table lists the blocks of a pack in the order of their offsets.
//
//	uvarint  1, the version
//	uvarint  number of foreign births, then each: uvarint length, clear header
//	uvarint  number of blocks, at least 1, then each:
//	         uvarint number | birth | offset | stored | raw | chunks
//	         then per chunk uvarint length
//	         then the chunks' IDs, 32 bytes each
//
// Births stand in the order in which blocks first name them.
type Table struct {
	Births []seal.Header
	Blocks []Block
}

// Append appends the table's bytes to dst.
func (t Table) Append(dst []byte) []byte {
	dst = wire.AppendUvarint(dst, tableVersion)
	dst = wire.AppendUvarint(dst, uint64(len(t.Births)))
	for _, h := range t.Births {
		dst = wire.AppendUvarint(dst, uint64(h.Len()))
		dst = h.Append(dst)
	}
	dst = wire.AppendUvarint(dst, uint64(len(t.Blocks)))
	for _, b := range t.Blocks {
		dst = b.append(dst)
	}
	return dst
}

func (b Block) append(dst []byte) []byte {
	for _, v := range [...]uint32{b.Number, b.Birth, b.Offset, b.Stored, b.Raw} {
		dst = wire.AppendUvarint(dst, uint64(v))
	}
	dst = wire.AppendUvarint(dst, uint64(len(b.Chunks)))
	for _, c := range b.Chunks {
		dst = wire.AppendUvarint(dst, uint64(c.Length))
	}
	for _, c := range b.Chunks {
		dst = append(dst, c.ID[:]...)
	}
	return dst
}

// ParseTable decodes the table of a pack of objectSize bytes. Every length,
// sum, offset and reference is checked; errors wrap ErrCorrupt. The memory it
// takes is in proportion to p, which it does not retain.
func ParseTable(p []byte, objectSize int64) (Table, error) {
	t, err := parseTable(p, objectSize)
	if err != nil {
		return Table{}, fmt.Errorf("pack table: %w: %w", ErrCorrupt, err)
	}
	return t, nil
}

func parseTable(p []byte, objectSize int64) (Table, error) {
	if len(p) > MaxTable || objectSize > MaxSize {
		return Table{}, fmt.Errorf("table of %d bytes in a pack of %d", len(p), objectSize)
	}
	r := wire.NewReader(p)
	if v := r.Uvarint(1 << 16); r.Err() == nil && v != tableVersion {
		r.Fail(fmt.Sprintf("table version %d", v))
	}
	births, err := parseBirths(r)
	if err != nil {
		return Table{}, err
	}
	t := Table{Births: births}
	n := r.Count(MaxSize, minBlockBytes)
	if r.Err() == nil && n == 0 {
		r.Fail("no blocks")
	}
	t.Blocks = make([]Block, n)
	c := checker{births: uint32(len(t.Births)), size: uint64(max(objectSize, 0)), end: placeSize}
	for i := range t.Blocks {
		b := parseBlock(r)
		if r.Err() != nil {
			break
		}
		if err := c.check(b); err != nil {
			return Table{}, fmt.Errorf("block %d: %w", i, err)
		}
		t.Blocks[i] = b
	}
	if r.Err() == nil && c.named != c.births {
		r.Fail("a birth that no block names")
	}
	if err := r.Done(); err != nil {
		return Table{}, err
	}
	return t, nil
}

func parseBirths(r *wire.Reader) ([]seal.Header, error) {
	n := r.Count(MaxSize, minBirthBytes)
	if n == 0 {
		return nil, r.Err()
	}
	births := make([]seal.Header, n)
	seen := make(map[[32]byte]bool, n)
	for i := range births {
		p := r.Bytes(seal.MaxHeader)
		if r.Err() != nil {
			return nil, r.Err()
		}
		h, size, err := seal.ParseHeader(p)
		switch {
		case err != nil:
			return nil, fmt.Errorf("birth %d: %w", i+1, err)
		case size != len(p):
			return nil, fmt.Errorf("birth %d: %d bytes after the header", i+1, len(p)-size)
		case !isPack(h.Kind):
			return nil, fmt.Errorf("birth %d: it is a %v", i+1, h.Kind)
		case seen[h.Salt]:
			return nil, fmt.Errorf("birth %d: a salt twice", i+1)
		}
		seen[h.Salt] = true
		births[i] = h
	}
	return births, nil
}

func parseBlock(r *wire.Reader) Block {
	const most = 1<<32 - 1
	b := Block{
		Number: uint32(r.Uvarint(most)),
		Birth:  uint32(r.Uvarint(most)),
		Offset: uint32(r.Uvarint(most)),
		Stored: uint32(r.Uvarint(maxStored)),
		Raw:    uint32(r.Uvarint(MaxRaw)),
	}
	b.Chunks = make([]Chunk, r.Count(MaxChunks, minChunkBytes))
	for i := range b.Chunks {
		b.Chunks[i].Length = uint32(r.Uvarint(MaxRaw))
	}
	ids := r.Fixed(len(b.Chunks) * len(chunk.ID{}))
	if r.Err() != nil {
		return Block{}
	}
	for i := range b.Chunks {
		b.Chunks[i].ID = chunk.ID(ids[i*32:])
	}
	return b
}

// A checker holds what the blocks seen so far say about the next one.
type checker struct {
	births uint32 // in the table
	size   uint64 // of the object
	end    uint64 // of the block before
	named  uint32 // births named so far
	next   uint64 // the lowest number that the next block of this pack may have
}

func (c *checker) check(b Block) error {
	if err := b.valid(); err != nil {
		return err
	}
	start, end := uint64(b.Offset), uint64(b.Offset)+uint64(b.Stored)
	switch {
	case b.Birth > c.births:
		return fmt.Errorf("birth %d of %d", b.Birth, c.births)
	case b.Birth > c.named+1:
		return fmt.Errorf("birth %d is named before birth %d", b.Birth, c.named+1)
	case b.Birth == 0 && uint64(b.Number) < c.next:
		return fmt.Errorf("number %d after number %d", b.Number, c.next-1)
	case start < c.end:
		return fmt.Errorf("bytes from %d overlap what ends at %d", start, c.end)
	case end > c.size:
		return fmt.Errorf("bytes up to %d in an object of %d", end, c.size)
	}
	c.end = end
	c.named = max(c.named, b.Birth)
	if b.Birth == 0 {
		c.next = uint64(b.Number) + 1
	}
	return nil
}

// valid checks what a block says about itself.
func (b Block) valid() error {
	if len(b.Chunks) == 0 || len(b.Chunks) > MaxChunks {
		return fmt.Errorf("%d chunks", len(b.Chunks))
	}
	if b.Stored < minStored || b.Stored > maxStored {
		return fmt.Errorf("%d bytes stored", b.Stored)
	}
	var sum uint64
	for i, c := range b.Chunks {
		if c.Length == 0 {
			return fmt.Errorf("chunk %d is empty", i)
		}
		sum += uint64(c.Length)
	}
	if sum != uint64(b.Raw) || sum > MaxRaw {
		return fmt.Errorf("chunks of %d bytes in a block of %d", sum, b.Raw)
	}
	return nil
}

func isPack(k seal.Kind) bool {
	return k == seal.KindDataPack || k == seal.KindMetaPack
}

package pack

import (
	"encoding/binary"
	"fmt"

	"github.com/cairn-backup/cairn/chunk/codec"
	"github.com/cairn-backup/cairn/chunk/seal"
)

const (
	footerPrefix = 4 // the part's number, in front of the sealed footer
	tablePrefix  = 4 // the table's length, in front of it
)

// footer returns the plaintext of the footer. The table is stored as it is:
// nearly all of it are IDs, which look random, and an encoder would cost more
// memory than the table.
func footer(t Table) []byte {
	p := make([]byte, tablePrefix, 64<<10)
	p = codec.AppendRaw(p, t.Append(nil))
	binary.LittleEndian.PutUint32(p, uint32(len(p)-tablePrefix))
	return append(p, make([]byte, -len(p)&(footerStep-1))...)
}

// footerSize returns the size of the footer with a table of n bytes.
func footerSize(n int) int {
	plain := tablePrefix + codec.MaxOverhead + n
	return footerPrefix + seal.Overhead + (plain+footerStep-1)&^(footerStep-1)
}

// parseFooter decodes what footer made, for a pack with this header, size and
// offset of the footer.
func parseFooter(plain []byte, h seal.Header, size, offset int64) (Table, error) {
	if len(plain) < tablePrefix || len(plain)%footerStep != 0 {
		return Table{}, fmt.Errorf("pack footer: %w: %d bytes", ErrCorrupt, len(plain))
	}
	n, rest := binary.LittleEndian.Uint32(plain), plain[tablePrefix:]
	if uint64(n) > uint64(len(rest)) {
		return Table{}, fmt.Errorf("pack footer: %w: table of %d bytes in %d", ErrCorrupt, n, len(rest))
	}
	for _, zero := range rest[n:] {
		if zero != 0 {
			return Table{}, fmt.Errorf("pack footer: %w: padding is not zero", ErrCorrupt)
		}
	}
	d, err := codec.NewDecoder()
	if err != nil {
		return Table{}, err
	}
	table, err := d.Decode(nil, rest[:n], MaxTable)
	if err != nil {
		return Table{}, fmt.Errorf("pack footer: %w: %w", ErrCorrupt, err)
	}
	t, err := ParseTable(table, size)
	if err != nil {
		return Table{}, err
	}
	for i, b := range t.Births {
		if b.Kind != h.Kind || b.Salt == h.Salt {
			return Table{}, fmt.Errorf("pack footer: %w: birth %d is a %v, in a %v", ErrCorrupt, i+1, b.Kind, h.Kind)
		}
	}
	first, last := t.Blocks[0], t.Blocks[len(t.Blocks)-1]
	if int64(first.Offset) < int64(h.Len()+placeSize) || int64(last.Offset)+int64(last.Stored) > offset {
		return Table{}, fmt.Errorf("pack footer: %w: blocks outside of their place", ErrCorrupt)
	}
	return t, nil
}

// ReadPlace decodes the clear header of a pack and the place of its footer, in
// bytes, from the first bytes of the object, of which HeadSize are enough. It
// returns seal.ErrNotCairn, seal.ErrNewerFormat or ErrCorrupt. The place is not
// authenticated: compare it with the object's size, and let OpenTable tell.
//
//nolint:revive // function-result-limit: a place is two numbers, and needs no type for one caller
func ReadPlace(head []byte) (h seal.Header, off, n uint32, err error) {
	h, size, err := seal.ParseHeader(head)
	if err != nil {
		return seal.Header{}, 0, 0, headError(err)
	}
	if !isPack(h.Kind) {
		return seal.Header{}, 0, 0, fmt.Errorf("pack header: %w: %w: it is a %v", ErrCorrupt, seal.ErrDamaged, h.Kind)
	}
	if len(head)-size < placeSize {
		return seal.Header{}, 0, 0, fmt.Errorf("pack header: %w: %w: cut off", ErrCorrupt, seal.ErrDamaged)
	}
	off = binary.LittleEndian.Uint32(head[size:])
	n = binary.LittleEndian.Uint32(head[size+4:])
	if uint64(off) < uint64(size+placeSize) || n < footerPrefix+seal.Overhead+footerStep || n > maxFooter ||
		uint64(off)+uint64(n) > MaxSize {
		return seal.Header{}, 0, 0, fmt.Errorf("pack header: %w: %w: footer of %d bytes at %d",
			ErrCorrupt, seal.ErrDamaged, n, off)
	}
	return h, off, n, nil
}

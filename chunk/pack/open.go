package pack

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cairn-backup/cairn/chunk/codec"
	"github.com/cairn-backup/cairn/chunk/seal"
)

// OpenTable opens the footer of a pack: the n bytes at off that ReadPlace gave,
// which must be the last of the object's objectSize bytes. Errors wrap
// ErrCorrupt.
func OpenTable(key seal.Key, repo [16]byte, h seal.Header, sealed []byte, objectSize int64) (Table, error) {
	o, err := BlockOpener(key, repo, h)
	if err != nil {
		return Table{}, err
	}
	if len(sealed) < footerPrefix || int64(len(sealed)) > objectSize || objectSize > MaxSize {
		return Table{}, fmt.Errorf("pack footer: %w: %w: %d bytes in an object of %d",
			ErrCorrupt, seal.ErrDamaged, len(sealed), objectSize)
	}
	number := binary.LittleEndian.Uint32(sealed)
	plain, err := o.Open(nil, sealed[footerPrefix:], uint64(number), seal.Final)
	if err != nil {
		return Table{}, fmt.Errorf("pack footer: %w: %w", ErrCorrupt, err)
	}
	return parseFooter(plain, h, objectSize, objectSize-int64(len(sealed)))
}

// BlockOpener returns the Opener of all blocks born under one header: key is
// that of the header's kind and generation. It is safe for concurrent use.
func BlockOpener(key seal.Key, repo [16]byte, birth seal.Header) (*seal.Opener, error) {
	if !isPack(birth.Kind) {
		return nil, fmt.Errorf("open pack: %w: %w: it is a %v", ErrCorrupt, seal.ErrDamaged, birth.Kind)
	}
	o, err := seal.NewOpener(key, birth, seal.Binding{Repository: repo})
	if err != nil {
		return nil, headError(err)
	}
	return o, nil
}

// OpenBlock opens and decodes one sealed block and appends its content to dst.
// limit is the length in bytes that the content may have: Raw of the block. It
// may be shorter, if a broken program sealed it: that, and the hashes of the
// chunks, is for the caller to check. Errors wrap ErrCorrupt, or
// seal.ErrNewerFormat for a codec that this version does not know, and leave dst
// as it was. OpenBlock uses d's scratch buffer and retains nothing.
//
//nolint:revive // argument-limit: two of the worker's tools, two of the block's bytes, two of its numbers
func OpenBlock(o *seal.Opener, d *codec.Decoder, dst, sealed []byte, number uint32, limit int) ([]byte, error) {
	plain, err := o.Open(d.Scratch(len(sealed))[:0], sealed, uint64(number), seal.More)
	if err != nil {
		return dst, fmt.Errorf("block: %w: %w", ErrCorrupt, err)
	}
	out, err := d.Decode(dst, plain, min(limit, MaxRaw))
	if errors.Is(err, codec.ErrUnknown) { // sealed by who has the key, so no damage
		return dst, fmt.Errorf("block: %w: %w", seal.ErrNewerFormat, err)
	}
	if err != nil {
		return dst, fmt.Errorf("block: %w: %w", ErrCorrupt, err)
	}
	return out, nil
}

// headError adds ErrCorrupt to errors about a header, but for those that say
// that the object is something else.
func headError(err error) error {
	if errors.Is(err, seal.ErrNotCairn) || errors.Is(err, seal.ErrNewerFormat) {
		return fmt.Errorf("pack header: %w", err)
	}
	return fmt.Errorf("pack header: %w: %w", ErrCorrupt, err)
}

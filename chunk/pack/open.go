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
	plain, err := openBlock(o, d, sealed, number)
	if err != nil {
		return dst, err
	}
	out, err := d.Decode(dst, plain, min(limit, MaxRaw))
	if err != nil {
		return dst, blockError(err)
	}
	return out, nil
}

// ViewBlock is as OpenBlock for who only looks: the content of a block that is
// stored as it is stays where it was decrypted, in d's scratch buffer, and other
// content is in grown, which is buf or one that is larger, for the next call. It is
// valid until the next call with d.
//
//nolint:revive // argument-limit: as OpenBlock
func ViewBlock(o *seal.Opener, d *codec.Decoder, buf, sealed []byte, number uint32, limit int) (content, grown []byte, err error) {
	plain, err := openBlock(o, d, sealed, number)
	if err != nil {
		return nil, buf, err
	}
	content, grown, err = d.View(buf, plain, min(limit, MaxRaw))
	if err != nil {
		return nil, buf, blockError(err)
	}
	return content, grown, nil
}

// openBlock decrypts a block into d's scratch buffer.
func openBlock(o *seal.Opener, d *codec.Decoder, sealed []byte, number uint32) ([]byte, error) {
	plain, err := o.Open(d.Scratch(len(sealed))[:0], sealed, uint64(number), seal.More)
	if err != nil {
		return nil, fmt.Errorf("block: %w: %w", ErrCorrupt, err)
	}
	return plain, nil
}

// blockError says what is wrong with a block that was decrypted.
func blockError(err error) error {
	if errors.Is(err, codec.ErrUnknown) { // sealed by who has the key, so no damage
		return fmt.Errorf("block: %w: %w", seal.ErrNewerFormat, err)
	}
	return fmt.Errorf("block: %w: %w", ErrCorrupt, err)
}

// headError adds ErrCorrupt to errors about a header, but for those that say
// that the object is something else.
func headError(err error) error {
	if errors.Is(err, seal.ErrNotCairn) || errors.Is(err, seal.ErrNewerFormat) {
		return fmt.Errorf("pack header: %w", err)
	}
	return fmt.Errorf("pack header: %w: %w", ErrCorrupt, err)
}

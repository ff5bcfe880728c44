package codec

import (
	"errors"
	"fmt"

	"github.com/klauspost/compress/zstd"
)

// overAlloc is the spare room behind the output with which the zstd decoder
// can use its fast loops; it writes there but keeps nothing.
const overAlloc = 16

// A Decoder decompresses blocks, for one goroutine at a time: give each worker
// its own.
type Decoder struct {
	zstd    *zstd.Decoder // nil until a block needs it
	scratch []byte
}

// NewDecoder returns a Decoder. It takes memory when it is first used.
func NewDecoder() (*Decoder, error) {
	return new(Decoder), nil
}

// Decode appends the content of the encoding src to dst. A stated length above
// limit, in bytes, is an error before anything is allocated; otherwise Decode
// allocates at most the stated length and a few bytes, whatever the payload
// holds, and the content has exactly that length. Errors wrap ErrCorrupt or
// ErrUnknown and leave dst as it was. src must not overlap the spare capacity of
// dst.
func (d *Decoder) Decode(dst, src []byte, limit int) ([]byte, error) {
	b, err := split(src)
	if err != nil {
		return dst, err
	}
	if b.raw > limit {
		return dst, fmt.Errorf("encoded block: %w: %d bytes of content, at most %d expected", ErrCorrupt, b.raw, limit)
	}
	switch b.codec {
	case codecRaw:
		if len(b.payload) != b.raw {
			return dst, fmt.Errorf("encoded block: %w: %d bytes stored, %d stated", ErrCorrupt, len(b.payload), b.raw)
		}
		return append(dst, b.payload...), nil
	case codecZstd:
		return d.decompress(dst, b.payload, b.raw)
	case codecS2:
		return decodeS2(dst, b.payload, b.raw)
	}
	return dst, fmt.Errorf("encoded block: %w: %d", ErrUnknown, b.codec)
}

// View returns the content of the encoding src. What is stored as it is, is not
// copied: then content is a part of src, and otherwise of grown, which is buf or
// one that is larger, for the next call; what buf holds is overwritten. Errors are
// those of Decode.
func (d *Decoder) View(buf, src []byte, limit int) (content, grown []byte, err error) {
	if b, err := split(src); err == nil && b.codec == codecRaw && len(b.payload) == b.raw && b.raw <= limit {
		return b.payload[:b.raw:b.raw], buf, nil
	}
	content, err = d.Decode(buf[:0], src, limit)
	if err != nil {
		return nil, buf, err
	}
	return content, content, nil
}

func (d *Decoder) decompress(dst, payload []byte, n int) ([]byte, error) {
	if err := checkFrame(payload, n); err != nil {
		return dst, fmt.Errorf("encoded block: %w: %w", ErrCorrupt, err)
	}
	if d.zstd == nil {
		z, err := zstd.NewReader(nil,
			zstd.WithDecoderConcurrency(1),
			zstd.WithDecoderMaxWindow(maxWindow),
			zstd.WithDecodeAllCapLimit(true), // never allocates for output
		)
		if err != nil {
			return dst, fmt.Errorf("make zstd decoder: %w", err)
		}
		d.zstd = z
	}
	buf := grow(dst, n+overAlloc)
	end := len(buf) + n
	out, err := d.zstd.DecodeAll(payload, buf[:len(buf):end+overAlloc])
	if err != nil {
		return dst, fmt.Errorf("encoded block: %w: %w", ErrCorrupt, err)
	}
	if len(out) != end {
		return dst, fmt.Errorf("encoded block: %w: %d bytes of content, %d stated", ErrCorrupt, len(out)-len(dst), n)
	}
	return buf[:end], nil
}

// checkFrame refuses, before memory is taken for n bytes of output, payloads
// that cannot be exactly one frame of that much content. The library accepts
// any number of frames, of which some may be empty or skipped: then there
// would be many encodings with bytes that no one reads.
func checkFrame(payload []byte, n int) error {
	var h zstd.Header
	if err := h.Decode(payload); err != nil {
		return err
	}
	switch {
	case h.Skippable || h.DictionaryID != 0 || h.HasCheckSum:
		return errors.New("frame is skippable, or has a dictionary or a checksum")
	case h.HasFCS && h.FrameContentSize != uint64(n):
		return fmt.Errorf("frame of %d bytes, %d stated", h.FrameContentSize, n)
	}
	most, size := frameBlocks(payload[h.HeaderSize:])
	switch {
	case size < 0:
		return errors.New("frame is cut off")
	case h.HeaderSize+size != len(payload):
		return fmt.Errorf("%d bytes after the frame", len(payload)-h.HeaderSize-size)
	case n > most:
		return fmt.Errorf("frame holds at most %d bytes, %d stated", most, n)
	}
	return nil
}

// frameBlocks walks the blocks of a frame (RFC 8878, section 3.1.1.2) and
// returns how much content they can have, and their length in bytes: -1 if the
// last one is not there.
func frameBlocks(p []byte) (most, size int) {
	const (
		headSize   = 3 // last u1 | type u2 | size u21, little-endian
		maxContent = 128 << 10
	)
	for at := 0; len(p)-at >= headSize; {
		head := int(p[at]) | int(p[at+1])<<8 | int(p[at+2])<<16
		n := head >> 3
		at += headSize
		switch head >> 1 & 3 {
		case 0: // as it is
			most, at = most+n, at+n
		case 1: // one byte, n times
			most, at = most+n, at+1
		default: // compressed; 3 is reserved and left to the decoder
			most, at = most+maxContent, at+n
		}
		if at > len(p) {
			return most, -1
		}
		if head&1 == 1 {
			return most, at
		}
	}
	return most, -1
}

// Scratch returns a buffer of n bytes with any content, for what its owner
// must keep beside the Decoder, such as a block between decryption and
// decompression. It is valid until the next call of Scratch.
func (d *Decoder) Scratch(n int) []byte {
	if cap(d.scratch) < n {
		d.scratch = make([]byte, n)
	}
	return d.scratch[:n]
}

package codec

import (
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
// holds, and the content has exactly that length. Errors wrap ErrCorrupt and
// leave dst as it was. src must not overlap the spare capacity of dst.
func (d *Decoder) Decode(dst, src []byte, limit int) ([]byte, error) {
	codec, n, payload, err := split(src)
	if err != nil {
		return dst, err
	}
	if n > limit {
		return dst, fmt.Errorf("encoded block: %w: %d bytes of content, at most %d expected", ErrCorrupt, n, limit)
	}
	switch codec {
	case codecRaw:
		if len(payload) != n {
			return dst, fmt.Errorf("encoded block: %w: %d bytes stored, %d stated", ErrCorrupt, len(payload), n)
		}
		return append(dst, payload...), nil
	case codecZstd:
		return d.decompress(dst, payload, n)
	}
	return dst, fmt.Errorf("encoded block: %w: codec %d", ErrCorrupt, codec)
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
// that cannot be one frame of that much content.
func checkFrame(payload []byte, n int) error {
	var h zstd.Header
	if err := h.Decode(payload); err != nil {
		return err
	}
	// The densest block repeats one byte 128 KiB times and takes 4 bytes.
	const densest = 128 << 10 / 4
	switch {
	case h.Skippable || h.DictionaryID != 0 || h.HasCheckSum:
		return fmt.Errorf("frame is skippable, or has a dictionary or a checksum")
	case h.HasFCS && h.FrameContentSize != uint64(n):
		return fmt.Errorf("frame of %d bytes, %d stated", h.FrameContentSize, n)
	case n > len(payload)*densest:
		return fmt.Errorf("frame of %d bytes cannot hold %d", len(payload), n)
	}
	return nil
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

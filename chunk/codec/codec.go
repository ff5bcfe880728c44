// Package codec compresses blocks. An encoded block is
//
//	1 byte   codec: 0 raw, 1 zstd, 2 S2
//	uvarint  length of the content in bytes
//	payload  the content, or one zstd frame of it, or one S2 block
//
// It carries no checksum: it is always inside a sealed part, and the chunks in
// it are named by their hashes.
package codec

import (
	"errors"
	"fmt"
	"math"

	"github.com/klauspost/compress/zstd"

	"github.com/cairn-backup/cairn/chunk/wire"
)

// Errors about the bytes decoded: one of them is wrapped by each.
var (
	ErrCorrupt = errors.New("corrupt encoding")
	// ErrUnknown says that the codec is none of this version. Inside of a sealed
	// part that is no damage: a newer version wrote it.
	ErrUnknown = errors.New("unknown codec")
)

const (
	codecRaw  = 0
	codecZstd = 1
	codecS2   = 2

	// window is the encoder's window in bytes. Blocks are rarely longer, so a
	// larger one costs memory (2.8 MB an encoder against 9) and gains nothing.
	window = 1 << 20
	// maxWindow is the largest window a decoder accepts: that of the largest
	// block. Decoding needs no memory for it, since the output is the window.
	maxWindow = 16 << 20
	// MaxOverhead is how many bytes an encoding is longer than its content, at
	// most, for content of less than 4 GiB.
	MaxOverhead = 1 + 5
)

// A Level is how hard an Encoder tries. Levels are no part of the format.
type Level uint8

// The levels, with megabytes a second of one core and the ratio on source code
// in blocks of 1 MiB.
const (
	Fastest Level = iota // 227 MB/s, 3.11
	Default              // 145 MB/s, 3.32
	Better               // 89 MB/s, 3.46
	Best                 // 23 MB/s, 3.66
	S2                   // 496 MB/s, 2.39: another codec, for who has few CPU seconds
)

// An Encoder compresses blocks, for one goroutine at a time: give each worker
// its own. It holds 3 MB (Fastest) to 40 MB (Best) from its first use on, of S2
// nothing.
type Encoder struct {
	zstd *zstd.Encoder // nil: S2
}

// NewEncoder returns an Encoder of level l.
func NewEncoder(l Level) (*Encoder, error) {
	levels := [...]zstd.EncoderLevel{
		Fastest: zstd.SpeedFastest, Default: zstd.SpeedDefault,
		Better: zstd.SpeedBetterCompression, Best: zstd.SpeedBestCompression,
	}
	if l == S2 {
		return new(Encoder), nil
	}
	if int(l) >= len(levels) {
		return nil, fmt.Errorf("compression level %d: there are %d", l, len(levels)+1)
	}
	z, err := zstd.NewWriter(nil,
		zstd.WithEncoderLevel(levels[l]),
		zstd.WithEncoderConcurrency(1),
		zstd.WithWindowSize(window),
		zstd.WithEncoderCRC(false), // the AEAD tag covers it
	)
	if err != nil {
		return nil, fmt.Errorf("make zstd encoder: %w", err)
	}
	return &Encoder{zstd: z}, nil
}

// Encode appends the encoding of src to dst. It is at most MaxOverhead bytes
// longer than src: where less than 2 % are saved, the content is stored raw.
// Encode does not allocate if dst has room for len(src) and 64 bytes + 1 %, with
// S2 2 %.
func (e *Encoder) Encode(dst, src []byte) []byte {
	start := len(dst)
	if e.zstd == nil {
		dst = encodeS2(dst, src)
	} else {
		dst = grow(dst, len(src)+len(src)/128+64)
		dst = wire.AppendUvarint(append(dst, codecZstd), uint64(len(src)))
		dst = e.zstd.EncodeAll(src, dst)
	}
	head := 1 + uvarintLen(len(src))
	if len(src) > 0 && len(dst)-start-head <= len(src)-len(src)/50 {
		return dst
	}
	return AppendRaw(dst[:start], src)
}

func uvarintLen(v int) int {
	n := 1
	for ; v >= 0x80; v >>= 7 {
		n++
	}
	return n
}

// AppendRaw appends the encoding that stores src as it is.
func AppendRaw(dst, src []byte) []byte {
	dst = grow(dst, len(src)+MaxOverhead)
	dst = wire.AppendUvarint(append(dst, codecRaw), uint64(len(src)))
	return append(dst, src...)
}

// RawLen returns the length in bytes of the content of the encoding src, as it
// states it. Nothing says that the payload keeps the promise.
func RawLen(src []byte) (int, error) {
	b, err := split(src)
	return b.raw, err
}

// encoded is an encoding taken apart.
type encoded struct {
	codec   byte
	raw     int // stated length of the content, bytes
	payload []byte
}

func split(src []byte) (encoded, error) {
	r := wire.NewReader(src)
	b := encoded{codec: r.Byte(), raw: int(r.Uvarint(math.MaxInt32))}
	b.payload = r.Fixed(r.Len())
	if r.Err() != nil {
		return encoded{}, fmt.Errorf("encoded block: %w: %w", ErrCorrupt, r.Err())
	}
	return b, nil
}

// grow returns p with room for n more bytes. Where it must allocate it takes
// exactly what is needed: buffers of workers settle after a few blocks.
func grow(p []byte, n int) []byte {
	if cap(p)-len(p) >= n {
		return p
	}
	q := make([]byte, len(p), len(p)+n)
	copy(q, p)
	return q
}

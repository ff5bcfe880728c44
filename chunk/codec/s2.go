package codec

import (
	"fmt"

	"github.com/klauspost/compress/s2"

	"github.com/cairn-backup/cairn/chunk/wire"
)

// encodeS2 appends the encoding of src as one S2 block. The block states its
// length once more, as S2 blocks do.
func encodeS2(dst, src []byte) []byte {
	most := s2.MaxEncodedLen(len(src))
	if most < 0 { // more than any block has: 4 GiB
		return AppendRaw(dst, src)
	}
	dst = grow(dst, 1+uvarintLen(len(src))+most)
	dst = wire.AppendUvarint(append(dst, codecS2), uint64(len(src)))
	block := s2.Encode(dst[len(dst):cap(dst)], src)
	return dst[:len(dst)+len(block)]
}

// decodeS2 appends the n bytes of an S2 block to dst. As few bytes may stand for
// very many, nothing but limit bounds what is taken for them: n is not above it.
func decodeS2(dst, payload []byte, n int) ([]byte, error) {
	stated, err := s2.DecodedLen(payload)
	if err == nil && stated != n {
		err = fmt.Errorf("S2 block of %d bytes, %d stated", stated, n)
	}
	if err != nil {
		return dst, fmt.Errorf("encoded block: %w: %w", ErrCorrupt, err)
	}
	buf := grow(dst, n)
	end := len(buf) + n
	out, err := s2.Decode(buf[len(buf):end:end], payload)
	if err == nil && len(out) != n {
		err = fmt.Errorf("%d bytes of content, %d stated", len(out), n)
	}
	if err != nil {
		return dst, fmt.Errorf("encoded block: %w: %w", ErrCorrupt, err)
	}
	return buf[:end], nil
}

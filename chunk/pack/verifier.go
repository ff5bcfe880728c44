package pack

import (
	"fmt"

	"github.com/cairn-backup/cairn/chunk"
	"github.com/cairn-backup/cairn/chunk/codec"
)

// A Verifier decodes blocks and hashes their chunks. It holds the buffers of
// one worker, two blocks in size, and is for one goroutine at a time.
type Verifier struct {
	sum     func([]byte) chunk.ID // a closure, which no one can print: it holds a key
	decoder *codec.Decoder
	raw     []byte
}

// NewVerifier returns a Verifier of chunks that are named under hash.
func NewVerifier(hash chunk.Key) (*Verifier, error) {
	d, err := codec.NewDecoder()
	if err != nil {
		return nil, err
	}
	return &Verifier{sum: chunk.NewHasher(hash).Sum, decoder: d}, nil
}

// Verify decodes the encoded block and compares every chunk with its ID. It
// returns ErrVerify if the content is not that of the chunks.
func (v *Verifier) Verify(chunks []Chunk, encoded []byte) error {
	raw, grown, err := v.decoder.View(v.raw, encoded, MaxRaw)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrVerify, err)
	}
	v.raw = grown
	for i, c := range chunks {
		if uint64(c.Length) > uint64(len(raw)) {
			return fmt.Errorf("%w: the content ends in chunk %d", ErrVerify, i)
		}
		if v.sum(raw[:c.Length]) != c.ID {
			return fmt.Errorf("%w: chunk %d is not %v", ErrVerify, i, c.ID)
		}
		raw = raw[c.Length:]
	}
	if len(raw) > 0 {
		return fmt.Errorf("%w: %d bytes after the last chunk", ErrVerify, len(raw))
	}
	return nil
}

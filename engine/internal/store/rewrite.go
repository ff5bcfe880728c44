package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/cairn-backup/cairn/chunk"
	"github.com/cairn-backup/cairn/chunk/codec"
	"github.com/cairn-backup/cairn/chunk/pack"
	"github.com/cairn-backup/cairn/chunk/seal"
)

// A rewriter makes new blocks of what is used of old ones. A new block holds
// chunks of blocks with one birth only: what was stored by different backups, which
// may not trust each other, is never compressed together.
type rewriter struct {
	enc      *codec.Encoder
	dec      *codec.Decoder
	verifier *pack.Verifier
	hash     *chunk.Hasher
	opened   []byte
	encoded  []byte

	birth  [32]byte // the salt of the chunks' birth
	kind   seal.Kind
	raw    []byte
	chunks []pack.Chunk
	from   []uint64 // the packs that the chunks come from
}

func (r *Repacker) rewriter() (*rewriter, error) {
	a := &r.anew
	if a.enc != nil {
		return a, nil
	}
	var err error
	if a.dec, err = codec.NewDecoder(); err != nil {
		return nil, err
	}
	if a.verifier, err = pack.NewVerifier(r.store.opts.Keys.Chunk); err != nil {
		return nil, err
	}
	a.hash = chunk.NewHasher(r.store.opts.Keys.Chunk)
	a.enc, err = codec.NewEncoder(r.store.opts.Compression.Level)
	return a, err
}

// rewrite opens a block and puts those of its chunks into a new one, each once
// its hash was found right.
func (r *Repacker) rewrite(ctx context.Context, o *seal.Opener, b sealedBlock, chunks []int) error {
	a, err := r.rewriter()
	if err != nil {
		return err
	}
	a.opened, err = pack.OpenBlock(o, a.dec, a.opened[:0], b.sealed, b.block.Number, maxBlock)
	if errors.Is(err, seal.ErrNewerFormat) {
		return fmt.Errorf("pack %d: %w", b.number, err)
	}
	if err != nil {
		return blockError{err}
	}
	rest, next := a.opened, 0
	for i, c := range b.block.Chunks {
		if uint64(c.Length) > uint64(len(rest)) {
			return blockError{fmt.Errorf("the block ends in chunk %d", i)}
		}
		data := rest[:c.Length]
		rest = rest[c.Length:]
		if next == len(chunks) || chunks[next] != i {
			continue
		}
		next++
		if a.hash.Sum(data) != c.ID {
			return blockError{errors.New("the bytes do not match the chunk's name")}
		}
		if err := r.addChunk(ctx, b, c, data); err != nil {
			return err
		}
	}
	return nil
}

// addChunk adds a chunk to the new block, and puts the one before into a pack if
// it is full or of another birth.
func (r *Repacker) addChunk(ctx context.Context, b sealedBlock, c pack.Chunk, data []byte) error {
	a := &r.anew
	limit := r.store.opts.Limits.Block
	if b.birth.Kind == seal.KindMetaPack {
		limit = metaBlockSize
	}
	if len(a.chunks) > 0 && (a.birth != b.birth.Salt || a.kind != b.birth.Kind || len(a.raw)+len(data) > limit) {
		if err := r.flushBlock(ctx); err != nil {
			return err
		}
	}
	a.birth, a.kind = b.birth.Salt, b.birth.Kind
	a.raw, a.chunks = append(a.raw, data...), append(a.chunks, c)
	if !slices.Contains(a.from, b.number) {
		a.from = append(a.from, b.number)
	}
	return nil
}

// flushBlock seals the new block, if there is one, into the open pack.
func (r *Repacker) flushBlock(ctx context.Context) error {
	a := &r.anew
	if len(a.chunks) == 0 {
		return nil
	}
	a.encoded = a.enc.Encode(a.encoded[:0], a.raw)
	err := r.addTo(ctx, a.kind, a.from, func(w *openPack) error {
		err := w.Add(a.chunks, a.encoded, a.verifier)
		if errors.Is(err, pack.ErrVerify) {
			r.store.opts.Logger.WarnContext(ctx, "a block did not survive compression and is stored as it is", slog.Any("error", err))
			err = w.Add(a.chunks, codec.AppendRaw(nil, a.raw), a.verifier)
		}
		return err
	})
	a.raw, a.chunks, a.from = a.raw[:0], a.chunks[:0], a.from[:0]
	return err
}

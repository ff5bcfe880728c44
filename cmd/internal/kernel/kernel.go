// Package kernel is what a backup and a restore cannot do without, one thing at
// a time and in one goroutine: what their cost is compared with, and what a
// machine can do of it.
package kernel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"

	"github.com/cairn-backup/cairn/chunk"
	"github.com/cairn-backup/cairn/chunk/codec"
	"github.com/cairn-backup/cairn/chunk/pack"
	"github.com/cairn-backup/cairn/chunk/seal"
	"github.com/cairn-backup/cairn/manifest"
)

// Size is how many bytes one operation of most kernels works on: a block.
const Size = 1 << 20

// chunkSize is the mean chunk of random data, in bytes.
const chunkSize = 40 << 10

// A Kernel is one thing that is done again and again. It is for one goroutine.
type Kernel struct {
	Bytes int          // that one operation works on, before compression
	Ratio float64      // of Bytes to what they are compressed to; 0 where nothing is compressed
	Run   func() error // one operation
}

// Names returns the names of all kernels, what is done and with what data.
func Names() []string {
	return []string{
		"split/random", "split/text", "hash/random",
		"compress-s2/text", "compress-fastest/text", "compress-fastest/random", "compress-default/text", "compress-better/text",
		"decompress/text", "seal/random", "open/random",
		"pack-write/text", "pack-read/text", "manifest-encode", "manifest-decode",
	}
}

// New prepares the kernel of that name. What waits does so for ctx, also in Run.
func New(ctx context.Context, name string) (Kernel, error) {
	stage, kind, _ := strings.Cut(name, "/")
	data := Random()
	if kind == "text" {
		data = Text()
	}
	stage, level, _ := strings.Cut(stage, "-")
	switch stage {
	case "split":
		return split(data)
	case "hash":
		return hash(data), nil
	case "compress":
		return compress(data, level)
	case "decompress":
		return decompress(data)
	case "seal", "open":
		return aes(data, stage)
	case "pack":
		return packs(data, level)
	case "manifest":
		return list(ctx, level)
	}
	return Kernel{}, fmt.Errorf("no kernel %q", name)
}

// Random returns a block that cannot be compressed.
func Random() []byte {
	p := make([]byte, Size)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(p) // it never fails
	return p
}

// Text returns a block about as compressible as source code: words, with
// sixteen random bits each.
func Text() []byte {
	words := strings.Fields("package func return error if err nil for range var type struct string int byte")
	p := Random()
	text := make([]byte, 0, Size+64)
	for i := 0; len(text) < Size; i++ {
		text = append(text, words[int(p[2*i])%len(words)]...)
		text = append(text, "abcdefghijklmnop"[p[2*i+1]&15], " \n"[p[2*i+1]>>7])
	}
	return text[:Size]
}

func split(data []byte) (Kernel, error) {
	pol, err := chunk.DerivePolynomial(chunk.Key{})
	if err != nil {
		return Kernel{}, err
	}
	s, err := chunk.NewSplitter(pol, chunk.General())
	if err != nil {
		return Kernel{}, err
	}
	r := bytes.NewReader(nil)
	return Kernel{Bytes: len(data), Run: func() error {
		r.Reset(data)
		s.Reset(r)
		for {
			if _, err := s.Next(); errors.Is(err, io.EOF) {
				return nil
			} else if err != nil {
				return err
			}
		}
	}}, nil
}

func hash(data []byte) Kernel {
	h := chunk.NewHasher(chunk.Key{})
	return Kernel{Bytes: len(data), Run: func() error {
		for i := 0; i < len(data); i += chunkSize {
			h.Sum(data[i:min(i+chunkSize, len(data))])
		}
		return nil
	}}
}

// encoder returns an encoder by the name of its level.
func encoder(level string) (*codec.Encoder, error) {
	levels := map[string]codec.Level{
		"s2": codec.S2, "fastest": codec.Fastest, "default": codec.Default, "better": codec.Better, "best": codec.Best,
	}
	l, ok := levels[level]
	if !ok {
		return nil, fmt.Errorf("no level %q", level)
	}
	return codec.NewEncoder(l)
}

func compress(data []byte, level string) (Kernel, error) {
	enc, err := encoder(level)
	if err != nil {
		return Kernel{}, err
	}
	// Room for all, or an encoding that grows would be measured as well.
	out := enc.Encode(make([]byte, 0, 2*len(data)), data)
	return Kernel{Bytes: len(data), Ratio: float64(len(data)) / float64(len(out)), Run: func() error {
		out = enc.Encode(out[:0], data)
		return nil
	}}, nil
}

func decompress(data []byte) (Kernel, error) {
	enc, err := encoder("fastest")
	if err != nil {
		return Kernel{}, err
	}
	dec, err := codec.NewDecoder()
	if err != nil {
		return Kernel{}, err
	}
	encoded := enc.Encode(nil, data)
	plain := make([]byte, 0, 2*len(data))
	return Kernel{Bytes: len(data), Run: func() error {
		_, err := dec.Decode(plain, encoded, len(data))
		return err
	}}, nil
}

// aes seals or opens one part.
func aes(data []byte, what string) (Kernel, error) {
	w, err := seal.NewWriter(seal.Key{}, seal.Template{Kind: seal.KindDataPack}, seal.Binding{})
	if err != nil {
		return Kernel{}, err
	}
	sealed, number, err := w.Part(nil, data)
	if err != nil {
		return Kernel{}, err
	}
	if what == "open" {
		plain := make([]byte, 0, len(data))
		return Kernel{Bytes: len(data), Run: func() error {
			_, err := w.Check(plain, sealed, number, seal.More)
			return err
		}}, nil
	}
	return Kernel{Bytes: len(data), Run: func() error {
		// A Writer numbers its parts in 32 bits: more than anyone waits for.
		_, _, err := w.Part(sealed[:0], data)
		return err
	}}, nil
}

// packs writes a pack of one block, verified, or reads a pack's footer and
// block.
func packs(data []byte, what string) (Kernel, error) {
	enc, err := encoder("fastest")
	if err != nil {
		return Kernel{}, err
	}
	h := chunk.NewHasher(chunk.Key{})
	var chunks []pack.Chunk
	for i := 0; i < len(data); i += chunkSize {
		p := data[i:min(i+chunkSize, len(data))]
		chunks = append(chunks, pack.Chunk{ID: h.Sum(p), Length: uint32(len(p))}) //nolint:gosec // a length
	}
	v, err := pack.NewVerifier(chunk.Key{})
	if err != nil {
		return Kernel{}, err
	}
	encoded := enc.Encode(nil, data)
	buffer := make([]byte, 0, 2*len(data))
	write := func() (pack.Pack, error) {
		w, err := pack.NewWriter(pack.Config{Kind: seal.KindDataPack, Buffer: buffer, Target: Size})
		if err != nil {
			return pack.Pack{}, err
		}
		if err := w.Add(chunks, encoded, v); err != nil {
			return pack.Pack{}, err
		}
		return w.Finish()
	}
	if what == "write" {
		return Kernel{Bytes: len(data), Run: func() error {
			_, err := write()
			return err
		}}, nil
	}
	p, err := write()
	if err != nil {
		return Kernel{}, err
	}
	return readPack(p, len(data))
}

func readPack(p pack.Pack, size int) (Kernel, error) {
	dec, err := codec.NewDecoder()
	if err != nil {
		return Kernel{}, err
	}
	plain := make([]byte, 0, 2*size)
	return Kernel{Bytes: size, Run: func() error {
		h, off, n, err := pack.ReadPlace(p.Object[:pack.HeadSize])
		if err != nil {
			return err
		}
		t, err := pack.OpenTable(seal.Key{}, [16]byte{}, h, p.Object[off:off+n], int64(len(p.Object)))
		if err != nil {
			return err
		}
		o, err := pack.BlockOpener(seal.Key{}, [16]byte{}, h)
		if err != nil {
			return err
		}
		b := t.Blocks[0]
		_, err = pack.OpenBlock(o, dec, plain, p.Object[b.Offset:b.Offset+b.Stored], b.Number, int(b.Raw))
		return err
	}}, nil
}

// Entries is how many files the list of the manifest kernels has.
const Entries = 1000

// list writes or reads the list of a directory.
func list(ctx context.Context, what string) (Kernel, error) {
	nodes := make([]manifest.Node, Entries)
	h := chunk.NewHasher(chunk.Key{})
	for i := range nodes {
		name := fmt.Sprintf("file-%06d.go", i)
		nodes[i] = manifest.Node{
			Name: name, Kind: manifest.File, Mode: 0o644, Size: chunkSize, MTime: manifest.Time{Sec: int64(i)},
			Content: manifest.Content{Extents: []manifest.Extent{{Kind: manifest.Data, Length: chunkSize, ID: h.Sum([]byte(name))}}},
		}
	}
	p := &pages{hash: h, pages: make(map[chunk.ID][]byte)}
	write := func() (chunk.ID, error) {
		w := manifest.NewDirWriter(p)
		for i := range nodes {
			if err := w.Add(ctx, nodes[i]); err != nil {
				return chunk.ID{}, err
			}
		}
		return w.Finish(ctx)
	}
	root, err := write()
	if err != nil {
		return Kernel{}, err
	}
	if what == "encode" {
		return Kernel{Bytes: p.bytes, Run: func() error {
			_, err := write()
			return err
		}}, nil
	}
	return Kernel{Bytes: p.bytes, Run: func() error {
		for _, err := range manifest.ReadDir(ctx, p, root) {
			if err != nil {
				return err
			}
		}
		return nil
	}}, nil
}

// pages keeps the pages of lists, each once.
type pages struct {
	hash  *chunk.Hasher
	pages map[chunk.ID][]byte
	bytes int
}

func (p *pages) PutChunk(_ context.Context, data []byte) (chunk.ID, error) {
	id := p.hash.Sum(data)
	if _, ok := p.pages[id]; !ok {
		p.pages[id] = bytes.Clone(data)
		p.bytes += len(data)
	}
	return id, nil
}

func (p *pages) Chunk(_ context.Context, id chunk.ID) ([]byte, error) {
	data, ok := p.pages[id]
	if !ok {
		return nil, fmt.Errorf("no page %s", id)
	}
	return data, nil
}

package pack

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/cairn-backup/cairn/chunk"
	"github.com/cairn-backup/cairn/chunk/codec"
	"github.com/cairn-backup/cairn/chunk/internal/rule"
	"github.com/cairn-backup/cairn/chunk/seal"
)

// defaultTarget is the middle of the sizes at which packs are closed.
const defaultTarget = 16 << 20

// A Config says what a pack is sealed with.
type Config struct {
	Key        seal.Key  // the key of the pack's kind and generation
	Kind       seal.Kind // seal.KindDataPack or seal.KindMetaPack
	Generation uint32    // of Key
	Repository [16]byte
	Hash       chunk.Key // names chunks; used where Add is given no Verifier
	Envelope   []byte    // of the header; empty where Key is derived, not wrapped

	// Target is the size in bytes at which the caller means to finish the
	// pack. The buffer grows geometrically up to it and slowly beyond.
	// Default: 16 MiB.
	Target int

	// Buffer is memory for the pack, of any content, such as the object of a
	// pack that is stored: the Writer takes ownership of it. Default: it is
	// allocated as the pack grows.
	Buffer []byte
}

// A Writer builds one pack in memory: one buffer, and the table. It is for one
// goroutine.
type Writer struct {
	sealer      *seal.Writer
	newVerifier func() (*Verifier, error)
	verifier    *Verifier // made when Add is first given none
	target      int       // bytes
	buf         []byte    // the object so far
	table       Table
	size        int // bytes of the table, at most
	err         error
}

// NewWriter returns the Writer of a new pack. It copies the envelope.
func NewWriter(c Config) (*Writer, error) {
	sealer, err := seal.NewWriter(c.Key, seal.Template{Kind: c.Kind, Generation: c.Generation, Envelope: c.Envelope},
		seal.Binding{Repository: c.Repository})
	if err != nil {
		return nil, fmt.Errorf("new pack: %w", err)
	}
	return newWriter(c, sealer)
}

func newWriter(c Config, sealer *seal.Writer) (*Writer, error) {
	if !isPack(c.Kind) {
		return nil, fmt.Errorf("new pack: %w: a %v holds no blocks", ErrInvalid, c.Kind)
	}
	if c.Target <= 0 {
		c.Target = defaultTarget
	}
	w := &Writer{
		sealer:      sealer,
		newVerifier: func() (*Verifier, error) { return NewVerifier(c.Hash) },
		target:      min(c.Target, MaxSize),
	}
	w.buf = c.Buffer[:0]
	if cap(w.buf) == 0 {
		w.buf = make([]byte, 0, 64<<10)
	}
	w.buf = sealer.Header().Append(w.buf)
	w.buf = append(w.buf, make([]byte, placeSize)...)
	w.size = 3 * binary.MaxVarintLen32 // version and the two counts
	return w, nil
}

// Add seals the encoded block of chunks, which codec.Encoder.Encode made from
// their content, and adds it to the pack. Before that it opens the sealed
// block again, decodes it and hashes every chunk: if that does not give the
// chunks, Add returns ErrVerify. The pack stays as it was then, and also for
// ErrInvalid and ErrFull. v may be nil: then the Writer makes one of its own.
// Add retains neither chunks nor encoded.
func (w *Writer) Add(chunks []Chunk, encoded []byte, v *Verifier) error {
	if w.err != nil {
		return w.err
	}
	raw, err := codec.RawLen(encoded)
	if err != nil {
		return fmt.Errorf("add block: %w: %w", ErrVerify, err)
	}
	b := Block{
		Offset: uint32(len(w.buf)), Stored: uint32(min(len(encoded)+seal.Overhead, maxStored+1)),
		Raw: uint32(raw), Chunks: chunks,
	}
	if err := b.valid(); err != nil {
		return fmt.Errorf("add block: %w: %w", ErrInvalid, err)
	}
	if v, err = w.orOwn(v); err != nil {
		return err
	}
	if err := w.reserve(b, 0); err != nil {
		return err
	}
	out, number, err := w.sealer.Part(w.buf, encoded)
	if err != nil {
		w.err = fmt.Errorf("add block: %w", err)
		return w.err
	}
	sealed := out[len(w.buf):]
	plain, err := w.sealer.Check(v.decoder.Scratch(len(sealed))[:0], sealed, number, seal.More)
	if err != nil {
		return fmt.Errorf("add block: %w: %w", ErrVerify, err)
	}
	if err := v.Verify(chunks, plain); err != nil && !rule.Off(rule.Verify) {
		return fmt.Errorf("add block: %w", err)
	}
	b.Number = uint32(number)
	w.take(out, b)
	return nil
}

// AddSealed adds a block of another pack as it is. Of b it takes the number,
// the raw length and the chunks; birth is the header that the block was first
// sealed under, of the kind of this pack. The block is not opened, and the key
// it is sealed under need not be known. Errors are ErrInvalid and ErrFull;
// they leave the pack as it was. AddSealed retains none of its arguments.
func (w *Writer) AddSealed(b Block, birth seal.Header, sealed []byte) error {
	if w.err != nil {
		return w.err
	}
	b.Offset, b.Stored = uint32(len(w.buf)), uint32(min(len(sealed), maxStored+1))
	if err := b.valid(); err != nil {
		return fmt.Errorf("add sealed block: %w: %w", ErrInvalid, err)
	}
	own := w.sealer.Header()
	if birth.Kind != own.Kind || birth.Suite != own.Suite || birth.Salt == own.Salt || len(birth.Envelope) > seal.MaxEnvelope {
		return fmt.Errorf("add sealed block: %w: born in a %v, this is a %v", ErrInvalid, birth.Kind, own.Kind)
	}
	i := slices.IndexFunc(w.table.Births, func(h seal.Header) bool { return h.Salt == birth.Salt })
	extra := 0
	switch {
	case i < 0:
		extra = birth.Len() + 2
	case !equal(w.table.Births[i], birth):
		return fmt.Errorf("add sealed block: %w: two births of one salt", ErrInvalid)
	}
	if err := w.reserve(b, extra); err != nil {
		return err
	}
	if i < 0 {
		i = len(w.table.Births)
		birth.Envelope = bytes.Clone(birth.Envelope)
		w.table.Births = append(w.table.Births, birth)
		w.size += extra
	}
	b.Birth = uint32(i) + 1
	w.take(append(w.buf, sealed...), b)
	return nil
}

func (w *Writer) take(out []byte, b Block) {
	w.buf = out
	w.size += b.tableSize()
	b.Chunks = slices.Clone(b.Chunks)
	w.table.Blocks = append(w.table.Blocks, b)
}

// reserve makes room in the buffer for a block, or returns ErrFull. extra is
// what the table grows by besides.
func (w *Writer) reserve(b Block, extra int) error {
	table := w.size + b.tableSize() + extra
	end := len(w.buf) + int(b.Stored)
	if table > MaxTable || Class(end+footerSize(table)) > MaxSize {
		return fmt.Errorf("add block of %d bytes to a pack of %d: %w", b.Stored, len(w.buf), ErrFull)
	}
	w.grow(int(b.Stored))
	return nil
}

// grow makes room for n more bytes: by four up to 4 MiB, then to the target at
// once, then by a sixteenth. Appending alone grows by a quarter, so it would copy a
// byte four times on the average, and near the target take a quarter more than it
// needs.
func (w *Writer) grow(n int) {
	need := len(w.buf) + n
	if need <= cap(w.buf) {
		return
	}
	full := w.target + w.target/16 // with footer and padding
	size := max(need, 4*cap(w.buf))
	if size > min(full, 4<<20) {
		size = full
	}
	if size < need {
		size = need + need/16
	}
	buf := make([]byte, len(w.buf), size)
	copy(buf, w.buf)
	w.buf = buf
}

func (w *Writer) orOwn(v *Verifier) (*Verifier, error) {
	if v != nil {
		return v, nil
	}
	if w.verifier == nil {
		own, err := w.newVerifier()
		if err != nil {
			return nil, err
		}
		w.verifier = own
	}
	return w.verifier, nil
}

// ID returns the name that the pack will have.
func (w *Writer) ID() ID {
	return w.sealer.Header().Name()
}

// Size returns the size in bytes that the pack would have without padding, or
// slightly more.
func (w *Writer) Size() int {
	return len(w.buf) + footerSize(w.size)
}

// Empty reports whether the pack has no blocks.
func (w *Writer) Empty() bool {
	return len(w.table.Blocks) == 0
}

// Finish pads the pack, seals its footer, opens the footer again and returns
// the pack, which no longer belongs to the Writer. The Writer is dead after it;
// a pack without blocks gives ErrEmpty.
func (w *Writer) Finish() (Pack, error) {
	if w.err != nil {
		return Pack{}, w.err
	}
	p, err := w.finish()
	if err != nil {
		w.err = fmt.Errorf("finish pack: %w", err)
		return Pack{}, w.err
	}
	w.err = fmt.Errorf("pack %v: %w", p.ID, seal.ErrFinished)
	w.buf, w.table, w.verifier = nil, Table{}, nil
	return p, nil
}

func (w *Writer) finish() (Pack, error) {
	if w.Empty() {
		return Pack{}, ErrEmpty
	}
	plain := footer(w.table)
	n := footerPrefix + len(plain) + seal.Overhead
	total := Class(len(w.buf) + n)
	offset := total - n
	w.grow(total - len(w.buf))
	padding := len(w.buf)
	w.buf = w.buf[:offset]
	_, _ = rand.Read(w.buf[padding:]) // never returns an error: it ends the program instead

	h := w.sealer.Header()
	place := w.buf[h.Len():]
	binary.LittleEndian.PutUint32(place, uint32(offset))
	binary.LittleEndian.PutUint32(place[4:], uint32(n))

	var number [footerPrefix]byte
	out, last, err := w.sealer.Finish(append(w.buf, number[:]...), plain)
	if err != nil {
		return Pack{}, err
	}
	binary.LittleEndian.PutUint32(out[offset:], uint32(last))
	w.buf = out
	return w.verify(Pack{ID: h.Name(), Header: h, Object: out, Table: w.table}, offset)
}

// verify reads the finished pack's table as a reader would.
func (w *Writer) verify(p Pack, offset int) (Pack, error) {
	number := binary.LittleEndian.Uint32(p.Object[offset:])
	plain, err := w.sealer.Check(nil, p.Object[offset+footerPrefix:], uint64(number), seal.Final)
	if err != nil {
		return Pack{}, fmt.Errorf("%w: %w", ErrVerify, err)
	}
	t, err := parseFooter(plain, p.Header, int64(len(p.Object)), int64(offset))
	if err != nil {
		return Pack{}, fmt.Errorf("%w: %w", ErrVerify, err)
	}
	if !bytes.Equal(t.Append(nil), p.Table.Append(nil)) {
		return Pack{}, fmt.Errorf("%w: the table reads otherwise", ErrVerify)
	}
	return p, nil
}

// tableSize returns how many bytes the block takes in a table, at most.
func (b Block) tableSize() int {
	n := 6*5 + len(b.Chunks)*32
	for _, c := range b.Chunks {
		n += uvarintLen(c.Length)
	}
	return n
}

func uvarintLen(v uint32) int {
	n := 1
	for ; v >= 0x80; v >>= 7 {
		n++
	}
	return n
}

func equal(a, b seal.Header) bool {
	return a.Kind == b.Kind && a.Suite == b.Suite && a.Generation == b.Generation && a.Salt == b.Salt &&
		bytes.Equal(a.Envelope, b.Envelope)
}

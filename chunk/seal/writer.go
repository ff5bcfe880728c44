package seal

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cairn-backup/cairn/chunk/internal/rule"
)

// A Template is what the caller of NewWriter decides about a header.
type Template struct {
	Kind       Kind
	Generation uint32 // of the key
	Envelope   []byte // at most MaxEnvelope bytes
}

// A Writer seals the parts of one object. It is for one goroutine.
type Writer struct {
	header Header
	parts  parts
	next   uint64 // number of the next part
	err    error  // sticks
	nonce  [12]byte
}

// NewWriter draws a salt and returns the Writer of a new object. It copies the
// envelope and does not keep key.
func NewWriter(key Key, t Template, b Binding) (*Writer, error) {
	var salt [32]byte
	if !rule.Off(rule.Salt) {
		_, _ = rand.Read(salt[:]) // never returns an error: it ends the program instead
	}
	return newWriter(key, t, b, salt)
}

// newWriter exists for frozen test vectors. Only NewWriter calls it outside of
// tests: a salt that is used twice gives every secret of both objects away.
func newWriter(key Key, t Template, b Binding, salt [32]byte) (*Writer, error) {
	h := Header{
		Kind: t.Kind, Suite: SuiteAESGCM, Generation: t.Generation,
		Salt: salt, Envelope: bytes.Clone(t.Envelope),
	}
	if err := h.valid(); err != nil {
		return nil, fmt.Errorf("seal %v: %w", t.Kind, err)
	}
	p, err := newParts(key, h, b)
	if err != nil {
		return nil, fmt.Errorf("seal %v: %w", t.Kind, err)
	}
	return &Writer{header: h, parts: p}, nil
}

// Header returns the object's clear header, which is stored in front of its
// parts. The envelope must not be modified.
func (w *Writer) Header() Header {
	return w.header
}

// Part seals plain, of at most MaxBlock bytes, as the next part and appends it
// to dst: Overhead bytes more than plain. Its number is used up even if the
// caller throws the part away. plain must not overlap the spare capacity of
// dst. After an error, or Finish, every call returns that error.
func (w *Writer) Part(dst, plain []byte) (out []byte, number uint64, err error) {
	return w.seal(dst, plain, More)
}

// Finish is Part for the last part. The Writer seals nothing more after it.
func (w *Writer) Finish(dst, plain []byte) (out []byte, number uint64, err error) {
	out, number, err = w.seal(dst, plain, Final)
	if err == nil {
		w.err = ErrFinished
	}
	return out, number, err
}

func (w *Writer) seal(dst, plain []byte, last Last) ([]byte, uint64, error) {
	switch {
	case w.err != nil:
	case len(plain) > MaxBlock:
		w.err = fmt.Errorf("seal %v: %w: part of %d bytes", w.header.Kind, ErrTooLarge, len(plain))
	case w.next >= MaxParts:
		w.err = fmt.Errorf("seal %v: %w", w.header.Kind, ErrExhausted)
	}
	if w.err != nil {
		return dst, 0, w.err
	}
	number := w.next
	if !rule.Off(rule.Number) {
		w.next++ // before the nonce is used, so that nothing can use it again
	}
	putNonce(&w.nonce, number, last)
	return w.parts.aead().Seal(dst, w.nonce[:], plain, w.parts.data), number, nil
}

// Check opens a part that this Writer sealed, as a reader would, and appends
// its plaintext to dst: so that a caller can verify before it publishes. It
// can be called at any time, also after Finish.
func (w *Writer) Check(dst, sealed []byte, number uint64, last Last) ([]byte, error) {
	return w.parts.open(dst, sealed, number, last)
}

// parts is what sealing and opening the parts of one object need.
type parts struct {
	// aead returns the cipher. It is in a closure since fmt, given a verb that
	// does not fit, follows pointers also in unexported fields, and would print
	// the key schedule of a Writer that lies somewhere in a structure.
	aead func() cipher.AEAD
	data []byte // associated data: header | repository | number of the object
}

func newParts(key Key, h Header, b Binding) (parts, error) {
	k := objectKey(&key, &h.Salt)
	block, err := aes.NewCipher(k[:])
	clear(k[:])
	if err != nil {
		return parts{}, err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return parts{}, err
	}
	data := h.Append(make([]byte, 0, h.Len()+24))
	data = append(data, b.Repository[:]...)
	data = binary.LittleEndian.AppendUint64(data, b.Number)
	return parts{aead: func() cipher.AEAD { return aead }, data: data}, nil
}

func (p parts) open(dst, sealed []byte, number uint64, last Last) ([]byte, error) {
	if number >= MaxParts {
		return dst, fmt.Errorf("part %d: %w: no such number", number, ErrDamaged)
	}
	if len(sealed) < Overhead || len(sealed) > MaxBlock+Overhead {
		return dst, fmt.Errorf("part %d: %w: %d bytes long", number, ErrDamaged, len(sealed))
	}
	var nonce [12]byte
	putNonce(&nonce, number, last)
	out, err := p.aead().Open(dst, nonce[:], sealed, p.data)
	if err != nil {
		// The library's error says only that it failed.
		return dst, fmt.Errorf("part %d: %w: authentication failed", number, ErrDamaged)
	}
	return out, nil
}

// putNonce lays out number u64 | 3 zero bytes | last flag.
func putNonce(nonce *[12]byte, number uint64, last Last) {
	binary.LittleEndian.PutUint64(nonce[:], number)
	nonce[11] = 0
	if last == Final {
		nonce[11] = 1
	}
}

var errNoParts = errors.New("object without parts")

package backend

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
)

// Span applies the rules of Get's range to an object of size bytes: it returns
// how many bytes Get(off, n) delivers, or ErrRange.
func Span(off, n, size int64) (int64, error) {
	if off < 0 || off > size {
		return 0, fmt.Errorf("%w: offset %d of %d bytes", ErrRange, off, size)
	}
	if rest := size - off; n < 0 || n > rest {
		return rest, nil
	}
	return n, nil
}

// NewBody returns a body for Get that delivers size bytes of r and closes c.
// If r ends before, Read returns io.ErrUnexpectedEOF; when ctx ends, Read
// returns that. BodySize finds size again. NewBody takes ownership of c.
func NewBody(ctx context.Context, r io.Reader, size int64, c io.Closer) io.ReadCloser {
	return &body{r: r, size: size, left: size, close: c, ended: func() error { return Ended(ctx) }}
}

// BodySize returns the length in bytes of a whole body that a backend
// returned, or -1 if the backend did not say. Wrappers that change bodies but
// not their length keep it, by NewBody or by a method Size.
func BodySize(r io.Reader) int64 {
	if s, ok := r.(interface{ Size() int64 }); ok {
		return s.Size()
	}
	return -1
}

type body struct {
	r     io.Reader
	size  int64
	left  int64 // bytes still to deliver
	close io.Closer
	ended func() error // why the call's context ended, or nil
}

// Size returns the length in bytes of the whole body.
func (b *body) Size() int64 { return b.size }

func (b *body) Read(p []byte) (int, error) {
	if err := b.ended(); err != nil {
		return 0, err
	}
	if b.left == 0 {
		return 0, io.EOF
	}
	if int64(len(p)) > b.left {
		p = p[:b.left]
	}
	n, err := b.r.Read(p)
	b.left -= int64(n)
	if errors.Is(err, io.EOF) {
		if b.left > 0 {
			return n, io.ErrUnexpectedEOF
		}
		// A last Read of no bytes says EOF, as for every body.
		return n, nil
	}
	return n, err
}

// Close closes what the body was made with.
func (b *body) Close() error {
	if b.close == nil {
		return nil
	}
	return b.close.Close()
}

// ReadAll returns the whole object key. It returns ErrTooLarge, having read at
// most limit+1 bytes, if the object has more than limit bytes (at least 0),
// and io.ErrUnexpectedEOF if the body broke off. The caller owns the result.
func ReadAll(ctx context.Context, b Backend, key Key, limit int64) ([]byte, error) {
	r, err := b.Get(ctx, key, 0, -1)
	if err != nil {
		return nil, err
	}
	data, err := readBody(r, limit)
	if cerr := r.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return nil, &OpError{Op: "get", Key: key, Err: err}
	}
	return data, nil
}

func readBody(r io.Reader, limit int64) ([]byte, error) {
	size := BodySize(r)
	if size > limit {
		return nil, fmt.Errorf("%w: %d bytes, more than %d", ErrTooLarge, size, limit)
	}
	if size >= 0 {
		data := make([]byte, size)
		if _, err := io.ReadFull(r, data); err != nil {
			return nil, unexpected(err)
		}
		return data, atEOF(r)
	}
	var buf bytes.Buffer
	// limit+1 overflows for the largest limit, and then none is wanted.
	n, err := buf.ReadFrom(io.LimitReader(r, max(limit, limit+1)))
	if err != nil {
		return nil, err
	}
	if n > limit {
		return nil, fmt.Errorf("%w: more than %d bytes", ErrTooLarge, limit)
	}
	return buf.Bytes(), nil
}

// unexpected turns the io.EOF of a body that ends at once into what it is.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// atEOF reads what follows the last byte: io.EOF, or the error that a store
// reports there, such as a checksum that does not match.
func atEOF(r io.Reader) error {
	n, err := r.Read(make([]byte, 1))
	switch {
	case n > 0:
		return errors.New("body is longer than its size")
	case err == nil || errors.Is(err, io.EOF):
		return nil
	}
	return err
}

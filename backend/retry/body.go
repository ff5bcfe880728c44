package retry

import (
	"context"
	"errors"
	"io"

	"github.com/cairn-backup/cairn/backend"
)

// A span is what a Get asked for.
type span struct {
	key    backend.Key
	off, n int64 // bytes; n < 0: to the end
}

// A body is a body of Get that is opened again where it breaks off.
type body struct {
	src  io.ReadCloser
	size int64 // of the whole body, or -1
	at   int64 // bytes delivered
	span span

	// open returns the rest of the object from at on.
	open func(at int64) (io.ReadCloser, error)
	// again pauses and tries, by the policy, until f succeeds.
	again func(f func() error) error
	err   error // that ended it
}

func newBody(ctx context.Context, r *Backend, src io.ReadCloser, s span) io.ReadCloser {
	b := &body{src: src, size: backend.BodySize(src), span: s}
	b.open = func(at int64) (io.ReadCloser, error) {
		n := s.n
		if b.size >= 0 {
			n = b.size - at // as the first answer had it
		} else if n >= 0 {
			n -= at
		}
		return r.b.Get(ctx, s.key, s.off+at, n)
	}
	b.again = func(f func() error) error { return r.do(ctx, f) }
	if r.policy.Tries <= 1 {
		b.again = nil
	}
	return b
}

// Size returns the length in bytes of the whole body, or -1.
func (b *body) Size() int64 { return b.size }

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	n, err := b.src.Read(p)
	b.at += int64(n)
	if err == nil || n > 0 && !errors.Is(err, io.EOF) && b.again != nil {
		return n, nil // the source repeats an error that matters
	}
	if err == io.EOF { // and not what wraps it
		b.err = err
		return n, err
	}
	if b.again == nil || !Transient(broken(err)) {
		b.err = err
		return n, err
	}
	return b.resume(p, err)
}

// resume opens the rest and reads the first bytes of it: the pauses grow until
// something arrives.
func (b *body) resume(p []byte, cause error) (n int, err error) {
	first := true
	err = b.again(func() error {
		if first { // the failure that led here counts as the first try
			first = false
			return broken(cause)
		}
		_ = b.src.Close() // it is broken
		src, err := b.open(b.at)
		if err != nil {
			b.src = failed{err}
			return err
		}
		b.src = src
		n, err = src.Read(p)
		b.at += int64(n)
		if err == io.EOF { //nolint:errorlint // the end is this value, and nothing that wraps it
			b.err = err
			return nil
		}
		if n > 0 {
			return nil
		}
		return broken(err)
	})
	switch {
	case err != nil:
		b.err = err
		return n, err
	case n == 0 && b.err != nil:
		return 0, b.err
	}
	return n, nil
}

// Close implements io.Closer.
func (b *body) Close() error { return b.src.Close() }

// failed stands for a body that could not be opened again.
type failed struct{ err error }

func (f failed) Read([]byte) (int, error) { return 0, f.err }
func (f failed) Close() error             { return nil }

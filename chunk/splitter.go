package chunk

import (
	"errors"
	"fmt"
	"io"
)

// A Splitter cuts one stream after the other into chunks. The boundaries are
// those of github.com/restic/chunker v0.4.0 for the same polynomial, sizes and
// average bits; how the stream is divided into reads does not matter.
//
// A Splitter holds Max + 1 MiB of buffer and some 6 KiB, whatever the stream
// (for a polynomial of a degree other than 53: Max + 512 KiB). It is not safe
// for concurrent use. The only way to make one is NewSplitter.
type Splitter struct {
	e engine
}

// An engine is a way to find the boundaries: *laneEngine or *resticEngine.
type engine interface {
	// reset drops the present stream and begins r. It keeps the buffers.
	reset(r io.Reader)
	// next is Splitter.Next.
	next() ([]byte, error)
}

var (
	_ engine = (*laneEngine)(nil)
	_ engine = (*resticEngine)(nil)
)

// NewSplitter returns a Splitter on an empty stream; Reset gives it another.
// The error is [ErrProfile] or [ErrPolynomial].
//
// [DerivePolynomial] gives polynomials of degree 53, for which the fast scanner
// is made; with those of degree 8 to 52 restic/chunker itself does the work.
func NewSplitter(pol Pol, p Profile) (*Splitter, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	switch d := pol.deg(); {
	case d == laneDegree:
		return &Splitter{e: newLaneEngine(pol, p)}, nil
	case d >= 8 && d < laneDegree:
		return &Splitter{e: newResticEngine(pol, p)}, nil
	default:
		return nil, fmt.Errorf("%w: degree %d, want 8 to %d", ErrPolynomial, d, laneDegree)
	}
}

// Reset drops what is left of the present stream, and any error, and begins r.
// The Splitter keeps its buffers, so that a Reset costs next to nothing. It
// reads r in pieces of up to about 1 MiB, and lets go of it at its end.
func (s *Splitter) Reset(r io.Reader) { s.e.reset(r) }

// Next returns the next chunk of the stream, valid until the next call of Next
// or Reset. The caller may change its bytes until then.
//
// At the end of the stream the error is io.EOF. Any other error of the reader is
// returned as it is, io.ErrUnexpectedEOF included; one that merely wraps io.EOF
// becomes an io.ErrUnexpectedEOF, so that errors.Is cannot take a torn stream
// for a whole one. The unfinished chunk before an error is never delivered, and
// finished ones may be missing too. A reader that returns no data and no error
// 100 times in a row is io.ErrNoProgress. Errors stay until Reset.
func (s *Splitter) Next() ([]byte, error) { return s.e.next() }

// maxEmptyReads is how often in a row a reader may return 0, nil. Package bufio
// has the same bound.
const maxEmptyReads = 100

var errReadCount = errors.New("reader returned an impossible count")

// A source reads from r and remembers how it ended. The zero source is an empty
// stream.
type source struct {
	r   io.Reader
	err error // once set nothing is read any more
}

func newSource(r io.Reader) source {
	if r == nil {
		return source{err: io.EOF}
	}
	return source{r: r}
}

// read reads into p, which is not empty, and returns how much it got: nothing
// only if s.err is set.
func (s *source) read(p []byte) int {
	for range maxEmptyReads {
		if s.err != nil {
			return 0
		}
		n, err := s.r.Read(p)
		if n < 0 || n > len(p) {
			n, err = 0, fmt.Errorf("%w: %d of %d bytes", errReadCount, n, len(p))
		}
		if err != nil {
			s.stop(err)
		}
		if n > 0 {
			return n
		}
	}
	s.stop(io.ErrNoProgress)
	return 0
}

// stop ends the stream with err and lets go of the reader.
func (s *source) stop(err error) {
	s.r, s.err = nil, err
	if errors.Is(err, io.EOF) && !s.whole() {
		s.err = fmt.Errorf("%w: %v", io.ErrUnexpectedEOF, err) //nolint:errorlint // wrapping it again would undo this
	}
}

// whole reports whether the stream has been read to its end.
func (s *source) whole() bool {
	return s.err == io.EOF //nolint:errorlint // io.Reader: the end is io.EOF itself, not wrapped
}

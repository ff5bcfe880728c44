package chunk

import (
	"errors"
	"io"

	"github.com/restic/chunker"
)

// A resticEngine lets restic/chunker find the boundaries: for polynomials that
// the fast scanner is not made for, and as the oracle of its tests.
type resticEngine struct {
	pol chunker.Pol
	p   Profile
	c   *chunker.Chunker
	src tightReader
	buf []byte // the present chunk; capacity Max, so that it never grows
	err error
}

func newResticEngine(pol Pol, p Profile) *resticEngine {
	e := &resticEngine{
		pol: chunker.Pol(pol),
		p:   p,
		c:   chunker.NewWithBoundaries(nil, chunker.Pol(pol), uint(p.Min), uint(p.Max)),
		buf: make([]byte, 0, p.Max),
	}
	e.reset(nil)
	return e
}

func (e *resticEngine) reset(r io.Reader) {
	e.src = tightReader{src: newSource(r)}
	e.err = nil
	e.c.ResetWithBoundaries(&e.src, e.pol, uint(e.p.Min), uint(e.p.Max))
	e.c.SetAverageBits(int(e.p.Bits)) // a reset puts it back to 20
}

func (e *resticEngine) next() ([]byte, error) {
	if e.err != nil {
		return nil, e.err
	}
	c, err := e.c.Next(e.buf)
	if err != nil {
		if errors.Is(err, errStream) {
			err = e.src.src.err
		}
		e.err = err
		return nil, err
	}
	return c.Data, nil
}

// errStream stands for source.err in what restic/chunker sees.
var errStream = errors.New("stream ended with an error")

// A tightReader shows restic/chunker every error but io.EOF as errStream:
// restic/chunker takes an io.ErrUnexpectedEOF of the reader, say of a truncated
// archive, for one of its own io.ReadFull and would deliver the torn stream as
// a whole one.
type tightReader struct{ src source }

func (t *tightReader) Read(p []byte) (int, error) {
	if n := t.src.read(p); n > 0 {
		return n, nil
	}
	if t.src.whole() {
		return 0, io.EOF
	}
	return 0, errStream
}

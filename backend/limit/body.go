package limit

import (
	"errors"
	"io"
	"sync"

	"github.com/cairn-backup/cairn/backend"
)

// A body is a body of Get that is read no faster than allowed.
type body struct {
	src  io.ReadCloser
	l    *Backend
	take func(n int) error
	once sync.Once // gives the slot back
}

// Size returns the length in bytes of the whole body, or -1.
func (b *body) Size() int64 { return backend.BodySize(b.src) }

// Read reads first and waits then: how much comes is not known before.
func (b *body) Read(p []byte) (int, error) {
	if b.l.down != nil && len(p) > b.l.down.Burst() {
		p = p[:b.l.down.Burst()]
	}
	n, err := b.src.Read(p)
	if werr := b.take(n); werr != nil && (err == nil || errors.Is(err, io.EOF)) {
		err = werr
	}
	return n, err
}

func (b *body) Close() error {
	b.once.Do(b.l.leave)
	return b.src.Close()
}

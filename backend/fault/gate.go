package fault

import (
	"bytes"
	"context"
	"sync"

	"github.com/cairn-backup/cairn/backend"
)

// A Gate holds calls until a test lets them go. One gate may serve several
// rules. It is safe for concurrent use.
type Gate struct {
	arrived chan struct{} // receives once for each call that arrives
	open    chan struct{} // closed by Release
	once    sync.Once
}

// NewGate returns a closed gate.
func NewGate() *Gate {
	return &Gate{
		// More calls than this at one gate wait unseen until Arrived is read.
		arrived: make(chan struct{}, 1024),
		open:    make(chan struct{}),
	}
}

// Arrived delivers one value for each call that has come to the gate.
func (g *Gate) Arrived() <-chan struct{} { return g.arrived }

// Release opens the gate for good: calls that wait go on, later ones pass.
// It may be called more than once.
func (g *Gate) Release() { g.once.Do(func() { close(g.open) }) }

func (g *Gate) pass(ctx context.Context) error {
	select {
	case g.arrived <- struct{}{}:
	case <-g.open:
		return nil
	case <-ctx.Done():
		return backend.Ended(ctx)
	}
	select {
	case <-g.open:
		return nil
	case <-ctx.Done():
		return backend.Ended(ctx)
	}
}

// FlipBit returns a Corrupt function that flips one bit of an object, counted
// from the lowest of the first byte; from the highest of the last byte if i is
// negative (-1). An object that lacks the bit is left alone.
func FlipBit(i int) func([]byte) []byte {
	return func(object []byte) []byte {
		at := i
		if at < 0 {
			at += 8 * len(object)
		}
		if at < 0 || at >= 8*len(object) {
			return object
		}
		object = bytes.Clone(object)
		object[at/8] ^= 1 << (at % 8)
		return object
	}
}

// Truncate returns a Corrupt function that keeps the first n bytes of an
// object; all but the last -n if n is negative.
func Truncate(n int) func([]byte) []byte {
	return func(object []byte) []byte {
		keep := n
		if keep < 0 {
			keep += len(object)
		}
		return object[:min(max(keep, 0), len(object))]
	}
}

// Package fault breaks a backend on purpose, so that tests can see what the
// code above makes of it: [Crash] ends everything after the nth write, and
// [New] applies rules to single calls.
package fault

import (
	"context"
	"errors"
	"io"
	"iter"
	"sync"

	"github.com/cairn-backup/cairn/backend"
)

// ErrInjected is the error of everything that a wrapper of this package made
// fail, unless a rule names another.
var ErrInjected = errors.New("injected fault")

// A CrashBackend behaves as if the process died at a certain write: that call
// and every later one of any kind fails with ErrInjected. It is safe for
// concurrent use.
type CrashBackend struct {
	b       backend.Backend
	applied bool // whether the write at which the crash comes takes effect

	mu      sync.Mutex // guards what follows
	left    int        // writes until the crash
	crashed bool
}

var _ backend.Backend = (*CrashBackend)(nil)

// Crash returns a wrapper of b in which n calls of Put or Delete go through,
// whatever they return, and the next one fails without effect: the crash came
// before it.
func Crash(b backend.Backend, n int) *CrashBackend {
	return &CrashBackend{b: b, left: n}
}

// CrashAfter is as Crash, but the write that fails takes effect: the crash
// came between the effect and its answer. A sweep over n should try both.
func CrashAfter(b backend.Backend, n int) *CrashBackend {
	return &CrashBackend{b: b, left: n, applied: true}
}

// Crashed says whether the crash has come. If it is false after an operation,
// n was past the operation's last write.
func (c *CrashBackend) Crashed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.crashed
}

// Init implements backend.Initer. It is not counted as a write.
func (c *CrashBackend) Init(ctx context.Context) error {
	if c.Crashed() {
		return &backend.OpError{Op: "init", Err: ErrInjected}
	}
	return backend.Init(ctx, c.b)
}

// Put implements backend.Backend.
func (c *CrashBackend) Put(ctx context.Context, key backend.Key, data []byte) error {
	return c.write(func() error { return c.b.Put(ctx, key, data) }, "put", key)
}

// Delete implements backend.Backend.
func (c *CrashBackend) Delete(ctx context.Context, key backend.Key) error {
	return c.write(func() error { return c.b.Delete(ctx, key) }, "delete", key)
}

// Get implements backend.Backend. A crash ends bodies that are open.
func (c *CrashBackend) Get(ctx context.Context, key backend.Key, off, n int64) (io.ReadCloser, error) {
	if c.Crashed() {
		return nil, &backend.OpError{Op: "get", Key: key, Err: ErrInjected}
	}
	r, err := c.b.Get(ctx, key, off, n)
	if err != nil {
		return nil, err
	}
	return &crashBody{ReadCloser: r, c: c}, nil
}

// crashBody is a body of which nothing can be read after the crash.
type crashBody struct {
	io.ReadCloser
	c *CrashBackend
}

// Size returns the length in bytes of the whole body, or -1.
func (b *crashBody) Size() int64 { return backend.BodySize(b.ReadCloser) }

func (b *crashBody) Read(p []byte) (int, error) {
	if b.c.Crashed() {
		return 0, ErrInjected
	}
	return b.ReadCloser.Read(p)
}

// Stat implements backend.Backend.
func (c *CrashBackend) Stat(ctx context.Context, key backend.Key) (backend.Info, error) {
	if c.Crashed() {
		return backend.Info{}, &backend.OpError{Op: "stat", Key: key, Err: ErrInjected}
	}
	return c.b.Stat(ctx, key)
}

// List implements backend.Backend. A crash ends an iteration under way.
func (c *CrashBackend) List(ctx context.Context, prefix backend.Key) iter.Seq2[backend.Info, error] {
	return func(yield func(backend.Info, error) bool) {
		for info, err := range c.b.List(ctx, prefix) {
			if c.Crashed() {
				break
			}
			if !yield(info, err) {
				return
			}
		}
		if c.Crashed() {
			yield(backend.Info{}, &backend.OpError{Op: "list", Key: prefix, Err: ErrInjected})
		}
	}
}

// write runs do if the crash has not come yet.
func (c *CrashBackend) write(do func() error, op string, key backend.Key) error {
	alive, last := c.count()
	if alive {
		return do()
	}
	if last && c.applied {
		_ = do() // its answer is what the crash swallows
	}
	return &backend.OpError{Op: op, Key: key, Err: ErrInjected}
}

// count takes account of one write. It reports whether the write goes through
// and, if not, whether it is the one at which the crash comes.
func (c *CrashBackend) count() (alive, last bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.left > 0 {
		c.left--
		return true, false
	}
	last = !c.crashed
	c.crashed = true
	return false, last
}

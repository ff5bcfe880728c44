// Package limit keeps a backend from using more of the line than it may: bytes
// a second in each direction, and requests at a time.
package limit

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"

	"golang.org/x/time/rate"

	"github.com/cairn-backup/cairn/backend"
)

// Options are the limits. The zero value limits nothing.
type Options struct {
	// Upload and Download are bytes a second, over all requests together, of
	// objects' contents. Up to a quarter of a second's bytes go at once. 0: no
	// limit.
	Upload, Download int64
	// Requests is how many requests may be under way at a time. A body counts
	// until it is closed, a listing while it looks for the next object. 0: no
	// limit.
	Requests int
}

func (o Options) check() error {
	if o.Upload < 0 || o.Download < 0 || o.Requests < 0 {
		return errors.New("limits must not be negative")
	}
	return nil
}

// A Backend limits the calls of another backend. It is safe for concurrent use.
type Backend struct {
	b        backend.Backend
	up, down *rate.Limiter // nil: no limit
	slots    chan struct{} // nil: no limit
}

var (
	_ backend.Backend      = (*Backend)(nil)
	_ backend.Initer       = (*Backend)(nil)
	_ backend.BatchDeleter = (*Backend)(nil)
)

// step bounds the bytes that go at once, so that several requests share the
// line.
const step = 64 << 10

// New returns a wrapper of b with these limits. An object that is put goes as a
// whole once its bytes have been waited for: the limit holds over any time that
// is longer than one object takes. Where the store is reached by connections,
// [Conns] limits it more evenly.
func New(b backend.Backend, opts Options) (*Backend, error) {
	if err := opts.check(); err != nil {
		return nil, err
	}
	l := &Backend{b: b, up: limiter(opts.Upload), down: limiter(opts.Download)}
	if opts.Requests > 0 {
		l.slots = make(chan struct{}, opts.Requests)
	}
	return l, nil
}

func limiter(perSecond int64) *rate.Limiter {
	if perSecond <= 0 {
		return nil
	}
	return rate.NewLimiter(rate.Limit(perSecond), int(max(1, min(perSecond/4, step))))
}

// take waits until n bytes may go.
func take(ctx context.Context, l *rate.Limiter, n int) error {
	if l == nil {
		return nil
	}
	for n > 0 {
		part := min(n, l.Burst())
		r := l.ReserveN(time.Now(), part)
		if err := wait(ctx, r.Delay()); err != nil {
			r.Cancel()
			return err
		}
		n -= part
	}
	return nil
}

func wait(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return backend.Ended(ctx)
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return backend.Ended(ctx)
	}
}

// enter waits for the right to send a request; leave gives it back.
func (l *Backend) enter(ctx context.Context) error {
	if err := backend.Ended(ctx); err != nil || l.slots == nil {
		return err
	}
	select {
	case l.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return backend.Ended(ctx)
	}
}

func (l *Backend) leave() {
	if l.slots != nil {
		<-l.slots
	}
}

// Init implements backend.Initer.
func (l *Backend) Init(ctx context.Context) error { return backend.Init(ctx, l.b) }

// Put implements backend.Backend.
func (l *Backend) Put(ctx context.Context, key backend.Key, data []byte) error {
	if err := key.Validate(); err != nil {
		return &backend.OpError{Op: "put", Key: key, Err: err}
	}
	if err := take(ctx, l.up, len(data)); err != nil {
		return &backend.OpError{Op: "put", Key: key, Err: err}
	}
	if err := l.enter(ctx); err != nil {
		return &backend.OpError{Op: "put", Key: key, Err: err}
	}
	defer l.leave()
	return l.b.Put(ctx, key, data)
}

// Get implements backend.Backend.
func (l *Backend) Get(ctx context.Context, key backend.Key, off, n int64) (io.ReadCloser, error) {
	if err := l.enter(ctx); err != nil {
		return nil, &backend.OpError{Op: "get", Key: key, Err: err}
	}
	src, err := l.b.Get(ctx, key, off, n)
	if err != nil {
		l.leave()
		return nil, err
	}
	b := &body{src: src, l: l, take: func(n int) error { return take(ctx, l.down, n) }}
	return b, nil
}

// Stat implements backend.Backend.
func (l *Backend) Stat(ctx context.Context, key backend.Key) (backend.Info, error) {
	if err := l.enter(ctx); err != nil {
		return backend.Info{}, &backend.OpError{Op: "stat", Key: key, Err: err}
	}
	defer l.leave()
	return l.b.Stat(ctx, key)
}

// List implements backend.Backend.
func (l *Backend) List(ctx context.Context, prefix backend.Key) iter.Seq2[backend.Info, error] {
	return func(yield func(backend.Info, error) bool) {
		if err := l.enter(ctx); err != nil {
			yield(backend.Info{}, &backend.OpError{Op: "list", Key: prefix, Err: err})
			return
		}
		held := true
		defer func() {
			if held {
				l.leave()
			}
		}()
		for info, err := range l.b.List(ctx, prefix) {
			// Who gets the object may well send requests of his own.
			l.leave()
			held = false
			if !yield(info, err) || err != nil {
				return
			}
			if err := l.enter(ctx); err != nil {
				yield(backend.Info{}, &backend.OpError{Op: "list", Key: prefix, Err: err})
				return
			}
			held = true
		}
	}
}

// Delete implements backend.Backend.
func (l *Backend) Delete(ctx context.Context, key backend.Key) error {
	if err := l.enter(ctx); err != nil {
		return &backend.OpError{Op: "delete", Key: key, Err: err}
	}
	defer l.leave()
	return l.b.Delete(ctx, key)
}

// DeleteAll implements backend.BatchDeleter.
func (l *Backend) DeleteAll(ctx context.Context, keys []backend.Key) error {
	d, ok := l.b.(backend.BatchDeleter)
	if !ok {
		for _, key := range keys {
			if err := l.Delete(ctx, key); err != nil {
				return err
			}
		}
		return nil
	}
	if err := l.enter(ctx); err != nil {
		return &backend.OpError{Op: "delete", Err: err}
	}
	defer l.leave()
	return d.DeleteAll(ctx, keys)
}

// Name implements backend.Namer.
func (l *Backend) Name() string { return backend.Name(l.b) }

// Concurrency implements backend.Concurrenter, as far as the store behind does.
func (l *Backend) Concurrency() int { return backend.Concurrency(l.b) }

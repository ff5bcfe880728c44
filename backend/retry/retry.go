// Package retry makes a backend out of one whose calls fail now and then.
//
// What is tried again is what the backend says nothing came of, errors that
// errors.Is finds to be backend.ErrUnavailable, unless they say that a person
// has to do something first (backend.TroubleError); bodies that break off, from
// the byte where they broke; and Puts whose outcome is unknown. A Put that was
// tried again and finds its key taken reads the object back, since it may be its
// own, and then says what is true.
package retry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/cairn-backup/cairn/backend"
)

// A Policy says how often and for how long one call is tried. The zero value is
// the default.
type Policy struct {
	// Tries is how often a call is sent at most, the first time included; 1
	// tries nothing again. Default: as often as the budget allows.
	Tries int
	// First is the mean pause after the first failure; each later one is twice as
	// long, half of it at random. Default: 200 ms.
	First time.Duration
	// Longest bounds the mean pause, not one that the store asks for.
	// Default: 20 s.
	Longest time.Duration
	// Budget is for how long one call is tried again: no try begins later than
	// that after the first. For a body it begins anew whenever bytes arrive.
	// Default: 5 minutes, since routers and laptops come back after one or two.
	Budget time.Duration
	// Contact is the budget of calls as long as the store has never answered one:
	// more likely its address is wrong then. Default: 20 seconds.
	Contact time.Duration
}

func (p Policy) withDefaults() Policy {
	set := func(d *time.Duration, to time.Duration) {
		if *d <= 0 {
			*d = to
		}
	}
	if p.Tries <= 0 {
		p.Tries = math.MaxInt
	}
	set(&p.First, 200*time.Millisecond)
	set(&p.Longest, 20*time.Second)
	set(&p.Budget, 5*time.Minute)
	set(&p.Contact, 20*time.Second)
	p.Contact = min(p.Contact, p.Budget)
	return p
}

// A Backend tries the calls of another backend again. It is safe for concurrent
// use.
type Backend struct {
	b       backend.Backend
	policy  Policy
	retries atomic.Int64
	reached atomic.Bool // the store has answered
}

var (
	_ backend.Backend      = (*Backend)(nil)
	_ backend.Initer       = (*Backend)(nil)
	_ backend.BatchDeleter = (*Backend)(nil)
)

// New returns a wrapper of b that tries calls again by policy.
func New(b backend.Backend, policy Policy) *Backend {
	return &Backend{b: b, policy: policy.withDefaults()}
}

// Retries returns how many calls were sent again so far.
func (r *Backend) Retries() int64 { return r.retries.Load() }

// Init implements backend.Initer.
func (r *Backend) Init(ctx context.Context) error {
	return r.do(ctx, func() error { return backend.Init(ctx, r.b) })
}

// Put implements backend.Backend. ErrExist means that another object is there;
// ErrUnknownOutcome, that a try may have stored data and the budget or ctx ended
// before that could be found out.
func (r *Backend) Put(ctx context.Context, key backend.Key, data []byte) error {
	unsettled := false // an earlier try may have stored data, or still may
	err := r.do(ctx, func() error {
		err := r.b.Put(ctx, key, data)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, backend.ErrExist) && unsettled:
			return r.settle(ctx, key, data, err)
		case errors.Is(err, backend.ErrUnknownOutcome):
			unsettled = true
		}
		return err
	})
	if err == nil || !unsettled || errors.Is(err, backend.ErrUnknownOutcome) || errors.Is(err, errTaken) {
		return err
	}
	return &backend.OpError{Op: "put", Key: key, Kind: backend.ErrUnknownOutcome, Err: err}
}

// errTaken marks an ErrExist that was looked into: the object is another's.
var errTaken = errors.New("it is not the one that was put")

// settle says whose object is at key, after a Put that may have been ours found
// it taken.
func (r *Backend) settle(ctx context.Context, key backend.Key, data []byte, taken error) error {
	ours, err := holds(ctx, r.b, key, data)
	switch {
	case err == nil && ours:
		return nil
	case err == nil:
		return fmt.Errorf("%w: %w", taken, errTaken)
	case errors.Is(err, backend.ErrNotExist):
		// Deleted between the two: nothing of ours is there.
		return &backend.OpError{Op: "put", Key: key, Kind: backend.ErrUnavailable, Err: err}
	}
	return err
}

// holds reports whether the object at key is data.
func holds(ctx context.Context, b backend.Backend, key backend.Key, data []byte) (bool, error) {
	body, err := b.Get(ctx, key, 0, -1)
	if err != nil {
		return false, err
	}
	defer body.Close() //nolint:errcheck // it was only read
	if size := backend.BodySize(body); size >= 0 && size != int64(len(data)) {
		return false, nil
	}
	buf := make([]byte, 64<<10)
	for {
		n, err := body.Read(buf)
		if n > len(data) || !bytes.Equal(buf[:n], data[:n]) {
			return false, nil
		}
		data = data[n:]
		switch {
		case errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
			return len(data) == 0, nil
		case err != nil:
			return false, broken(err)
		}
	}
}

// broken makes a body that broke off an error after which one may try again.
func broken(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, backend.ErrUnavailable) {
		return fmt.Errorf("%w: %w", backend.ErrUnavailable, err)
	}
	return err
}

// Get implements backend.Backend. A body that breaks off goes on from the same
// byte.
func (r *Backend) Get(ctx context.Context, key backend.Key, off, n int64) (io.ReadCloser, error) {
	var src io.ReadCloser
	err := r.do(ctx, func() (err error) {
		src, err = r.b.Get(ctx, key, off, n)
		return err
	})
	if err != nil {
		return nil, err
	}
	return newBody(ctx, r, src, span{key: key, off: off, n: n}), nil
}

// Stat implements backend.Backend.
func (r *Backend) Stat(ctx context.Context, key backend.Key) (info backend.Info, err error) {
	err = r.do(ctx, func() error {
		info, err = r.b.Stat(ctx, key)
		return err
	})
	return info, err
}

// List implements backend.Backend. A listing that breaks off begins anew and
// passes over what was yielded already.
func (r *Backend) List(ctx context.Context, prefix backend.Key) iter.Seq2[backend.Info, error] {
	return func(yield func(backend.Info, error) bool) {
		var last backend.Key // yielded
		stopped := false
		err := r.do(ctx, func() error {
			for info, err := range r.b.List(ctx, prefix) {
				if err != nil {
					return err
				}
				if info.Key <= last {
					continue
				}
				last = info.Key
				if !yield(info, nil) {
					stopped = true
					return nil
				}
			}
			return nil
		})
		if err != nil && !stopped {
			yield(backend.Info{}, err)
		}
	}
}

// Delete implements backend.Backend.
func (r *Backend) Delete(ctx context.Context, key backend.Key) error {
	return r.do(ctx, func() error { return r.b.Delete(ctx, key) })
}

// DeleteAll implements backend.BatchDeleter.
func (r *Backend) DeleteAll(ctx context.Context, keys []backend.Key) error {
	if d, ok := r.b.(backend.BatchDeleter); ok {
		return r.do(ctx, func() error { return d.DeleteAll(ctx, keys) })
	}
	for _, key := range keys {
		if err := r.Delete(ctx, key); err != nil {
			return err
		}
	}
	return nil
}

// do calls f until it succeeds, fails for good, or policy or ctx end. It returns
// the last error of f, with that of ctx if it ended.
func (r *Backend) do(ctx context.Context, f func() error) error {
	p := r.policy
	pauses := &backoff.ExponentialBackOff{InitialInterval: p.First, RandomizationFactor: 0.5, Multiplier: 2, MaxInterval: p.Longest}
	pauses.Reset()
	begin := time.Now()
	for try := 1; ; try++ {
		err := f()
		if answered(err) {
			r.reached.Store(true)
		}
		if ended := backend.Ended(ctx); err != nil && ended != nil && !errors.Is(err, ctx.Err()) {
			return errors.Join(ended, err)
		} else if err == nil || ended != nil || try >= p.Tries || !Transient(err) {
			return err
		}
		pause := max(pauses.NextBackOff(), asked(err))
		budget := p.Budget
		if !r.reached.Load() {
			budget = p.Contact
		}
		if time.Since(begin)+pause > budget {
			return err
		}
		if ended := wait(ctx, pause); ended != nil {
			return errors.Join(ended, err)
		}
		r.retries.Add(1)
	}
}

// Transient reports whether the call that returned err may succeed if it is sent
// again.
func Transient(err error) bool {
	if trouble, ok := errors.AsType[*backend.TroubleError](err); ok && !trouble.Retriable() {
		return false
	}
	return errors.Is(err, backend.ErrUnavailable) || errors.Is(err, backend.ErrUnknownOutcome)
}

// answered reports whether err shows that there is a store at the other end.
func answered(err error) bool {
	trouble, ok := errors.AsType[*backend.TroubleError](err)
	return !Transient(err) || ok && (trouble.Cause == backend.Throttled || trouble.Cause == backend.Mangled)
}

// maxAsked bounds the pause that a store may ask for.
const maxAsked = 2 * time.Minute

// asked returns how long the store asks to wait.
func asked(err error) time.Duration {
	if trouble, ok := errors.AsType[*backend.TroubleError](err); ok {
		return min(trouble.After, maxAsked)
	}
	return 0
}

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return backend.Ended(ctx)
	}
}

// Name implements backend.Namer.
func (r *Backend) Name() string { return backend.Name(r.b) }

// Concurrency implements backend.Concurrenter, as far as the store behind does.
func (r *Backend) Concurrency() int { return backend.Concurrency(r.b) }

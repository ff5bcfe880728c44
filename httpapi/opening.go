package httpapi

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// retryAfter is the least time between two attempts to open the repository.
const retryAfter = time.Second

// An opening opens the repository, and tries again while it cannot be had: on a
// request, at most once a second.
type opening struct {
	open   Opener
	logger *slog.Logger
	group  sync.WaitGroup // the attempt that runs

	mu      sync.Mutex    // guards what follows
	repo    Repository    // nil until it was opened
	err     error         // of the last attempt
	tried   time.Time     // when that ended
	attempt chan struct{} // closed when the attempt that runs has ended; nil: none runs
}

func newOpening(open Opener, logger *slog.Logger) *opening {
	return &opening{open: open, logger: logger}
}

// repository returns the repository, or an error by which a request is answered.
func (o *opening) repository(ctx context.Context) (Repository, error) {
	for {
		o.mu.Lock()
		if o.repo != nil || o.attempt == nil && o.err != nil && time.Since(o.tried) < retryAfter {
			defer o.mu.Unlock()
			return o.repo, o.err
		}
		if o.attempt == nil {
			o.begin(ctx)
		}
		attempt := o.attempt
		o.mu.Unlock()
		select {
		case <-attempt:
		case <-ctx.Done():
			return nil, fmt.Errorf("open repository: %w", ctx.Err())
		}
	}
}

// begin starts an attempt, which does not end with the request that it serves
// first. The caller holds mu.
func (o *opening) begin(ctx context.Context) {
	attempt := make(chan struct{})
	o.attempt = attempt
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), openTimeout)
	o.group.Go(func() {
		defer cancel()
		repo, err := o.try(ctx)
		o.mu.Lock()
		defer o.mu.Unlock()
		o.repo, o.err, o.tried, o.attempt = repo, err, time.Now(), nil
		close(attempt)
	})
}

func (o *opening) try(ctx context.Context) (repo Repository, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("internal error: %v", p)
		}
		if err != nil {
			repo, err = nil, &unopened{err}
			o.logger.WarnContext(ctx, "the repository cannot be opened", slog.Any("error", err))
		}
	}()
	return o.open(ctx)
}

// An unopened error says why there is no repository.
type unopened struct{ err error }

func (u *unopened) Error() string { return u.err.Error() }
func (u *unopened) Unwrap() error { return u.err }

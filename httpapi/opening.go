package httpapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// retryAfter is the least time between two attempts to open the repository.
const retryAfter = time.Second

// errGone is why there is none at the moment: the next attempt tells more.
var errGone = errors.New("it is not there any more")

// An opening opens the repository, and tries again while it cannot be had: on a
// request, at most once a second.
type opening struct {
	open   Opener
	logger *slog.Logger
	group  sync.WaitGroup // the attempt that runs

	mu      sync.Mutex    // guards what follows
	repo    Repository    // nil until it was opened, and when it is gone
	count   int           // of the attempts that succeeded
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
		if repo := o.opened(); repo != nil {
			return repo, nil
		}
		attempt, err := o.await(ctx)
		if err != nil {
			return nil, err
		}
		select {
		case <-attempt:
		case <-ctx.Done():
			return nil, fmt.Errorf("open repository: %w", ctx.Err())
		}
	}
}

// await returns a channel that is closed when there is something new, or, if the
// last attempt is not long ago, why that failed.
func (o *opening) await(ctx context.Context) (<-chan struct{}, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.repo != nil: // by now
		done := make(chan struct{})
		close(done)
		return done, nil
	case o.attempt == nil && o.err != nil && time.Since(o.tried) < retryAfter:
		return nil, o.err
	case o.attempt == nil:
		o.begin(ctx)
	}
	return o.attempt, nil
}

// opened returns the repository, nil if it is not open or gone.
func (o *opening) opened() Repository {
	o.mu.Lock()
	repo, count := o.repo, o.count
	o.mu.Unlock()
	// Asking may take a while, where a network mount hangs.
	if r, ok := repo.(Removable); !ok || !r.Gone() {
		return repo
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.count == count && o.repo != nil {
		o.logger.Warn("the repository is gone")
		o.repo, o.err = nil, &unopened{errGone}
	}
	return nil
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
		if err == nil {
			o.count++
		}
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

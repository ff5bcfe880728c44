package backend

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// What the calls say about objects.
var (
	// ErrExist is returned by Put when key is taken. The object there is
	// whole and durable.
	ErrExist = errors.New("object already exists")
	// ErrNotExist is returned by Get and Stat when there is no such object,
	// and by every call when there is no store: no directory, no bucket.
	ErrNotExist = errors.New("object does not exist")
	// ErrRange is returned by Get when the range begins behind the end of the
	// object or before its start.
	ErrRange = errors.New("range not in object")
	// ErrInvalidKey is returned by every call for a key that no store may hold.
	ErrInvalidKey = errors.New("invalid key")
	// ErrTooLarge is returned by ReadAll for an object above its limit.
	ErrTooLarge = errors.New("object is larger than allowed")
)

// What the calls say about the store.
var (
	// ErrUnauthorized: the store refuses this user. Trying again is pointless.
	ErrUnauthorized = errors.New("store refuses access")
	// ErrUnavailable: the store cannot be reached or is overloaded. Trying
	// again later may work, and nothing has happened.
	ErrUnavailable = errors.New("store is unavailable")
	// ErrNoSpace: the store or the user's share of it is full.
	ErrNoSpace = errors.New("no space left in store")
	// ErrReadOnly: the store, or the wrapper before it, takes no writes.
	ErrReadOnly = errors.New("store is read-only")
	// ErrUnknownOutcome: whether a Put took effect is not known, since its
	// answer was lost or it could not be made durable. To settle it, put the
	// same bytes again: nil or ErrExist decide.
	ErrUnknownOutcome = errors.New("outcome unknown")
	// ErrUnsupported: the store cannot do what the contract asks for, such as
	// creating an object only if it is absent.
	ErrUnsupported = errors.New("not supported by store")
)

// An OpError says which call failed on which key. errors.Is finds both its
// Kind and whatever is in the chain of Err.
type OpError struct {
	Op   string // "put", "get", "stat", "list", "delete" or "init"
	Key  Key    // or the prefix; empty for "init"
	Kind error  // a sentinel of this package, or nil if none fits
	Err  error  // the cause, or nil if Kind says it all
}

// Error returns, for example, "put log/00000000000000000007: no space left in
// store: write: disk quota exceeded".
func (e *OpError) Error() string {
	var s strings.Builder
	s.WriteString(e.Op)
	if e.Key != "" {
		s.WriteString(" " + string(e.Key))
	}
	// A cause that has the kind in its chain says so itself.
	if e.Kind != nil && !errors.Is(e.Err, e.Kind) {
		s.WriteString(": " + e.Kind.Error())
	}
	if e.Err != nil {
		s.WriteString(": " + e.Err.Error())
	}
	return s.String()
}

// Unwrap returns those of Kind and Err that are there.
func (e *OpError) Unwrap() []error {
	var errs []error
	if e.Kind != nil {
		errs = append(errs, e.Kind)
	}
	if e.Err != nil {
		errs = append(errs, e.Err)
	}
	return errs
}

// Ended returns nil while ctx lasts, and then an error that errors.Is finds to
// be both ctx.Err() and the cause that was given for it. A bare context.Cause
// would hide that a call was cancelled. What the cause says about a store is only
// told, not found: it is about another call, and must not be taken for what became
// of this one.
func Ended(ctx context.Context) error {
	err := ctx.Err()
	if err == nil {
		return nil
	}
	if cause := context.Cause(ctx); !errors.Is(cause, err) {
		return fmt.Errorf("%w: %w", err, elsewhere{cause})
	}
	return err
}

// elsewhere is an error of another call.
type elsewhere struct{ err error }

func (e elsewhere) Error() string { return e.err.Error() }

// Is finds whatever is in the chain of the error but the sentinels of this
// package.
func (e elsewhere) Is(target error) bool {
	return !slices.Contains([]error{
		ErrExist, ErrNotExist, ErrRange, ErrInvalidKey, ErrTooLarge,
		ErrUnauthorized, ErrUnavailable, ErrNoSpace, ErrReadOnly, ErrUnknownOutcome, ErrUnsupported,
	}, target) && errors.Is(e.err, target)
}

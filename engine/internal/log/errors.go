package log

import (
	"errors"
	"fmt"

	"github.com/cairn-backup/cairn/backend"
)

// What Append says.
var (
	// ErrConflict: what the record relies on does not hold any more. Nothing
	// is visible.
	ErrConflict = errors.New("conflict with what others did meanwhile")
	// ErrRole: the signer may not do that. Nothing is visible.
	ErrRole = errors.New("not allowed in this role")
	// ErrUnknownOutcome: the store did not say in time whether the record was
	// stored. It is there, or will be, or never: the third answer.
	ErrUnknownOutcome = backend.ErrUnknownOutcome
	// ErrReadOnlyLog: nothing is written, since the log was opened read-only
	// or without a signer, or since it has a Problem, which the error wraps.
	ErrReadOnlyLog = errors.New("the log takes no records")
	// ErrTooLarge: the record does not fit into one object.
	ErrTooLarge = errors.New("record is too large")
	// ErrClosed: the Log was closed.
	ErrClosed = errors.New("the log is closed")
)

// What is wrong with a log. Each comes as a typed error with the places.
var (
	// ErrRolledBack: the store is older than what this machine has seen.
	ErrRolledBack = errors.New("the log was rolled back")
	// ErrLogHole: records are missing below others.
	ErrLogHole = errors.New("the log has a hole")
	// ErrLogDamaged: a record does not open, is signed by no known key, or
	// does not follow the one before.
	ErrLogDamaged = errors.New("the log is damaged")
)

// A RolledBackError says that the store does not hold a record that was read
// from it before. errors.Is finds ErrRolledBack.
type RolledBackError struct {
	Known Position // seen before
	Found Position // the record there now, or the last one before; Hash is zero if it was not read
}

// Error implements error.
func (e *RolledBackError) Error() string {
	return fmt.Sprintf("record %d was %s and the store is at record %d %s: %v",
		e.Known.N, e.Known.Hash.short(), e.Found.N, e.Found.Hash.short(), ErrRolledBack)
}

// Unwrap returns ErrRolledBack.
func (*RolledBackError) Unwrap() error { return ErrRolledBack }

// A HoleError says which record is missing although a later one existed.
// errors.Is finds ErrLogHole.
type HoleError struct {
	N     uint64 // the first that is missing
	Above uint64 // a later one that is there, or of which a checkpoint tells
}

// Error implements error.
func (e *HoleError) Error() string {
	return fmt.Sprintf("record %d is missing below record %d: %v", e.N, e.Above, ErrLogHole)
}

// Unwrap returns ErrLogHole.
func (*HoleError) Unwrap() error { return ErrLogHole }

// A DamagedError says which record is damaged. errors.Is finds ErrLogDamaged
// and whatever is in the chain of Err.
type DamagedError struct {
	N   uint64
	Err error // what is wrong with it
}

// Error implements error.
func (e *DamagedError) Error() string {
	return fmt.Sprintf("record %d: %v: %v", e.N, ErrLogDamaged, e.Err)
}

// Unwrap returns ErrLogDamaged and the cause.
func (e *DamagedError) Unwrap() []error { return []error{ErrLogDamaged, e.Err} }

// An EffectError says which effect of a record cannot be had, and why.
// errors.Is finds ErrConflict or ErrRole.
type EffectError struct {
	Index  int    // of the effect in the record, from 0
	Effect string // its kind, such as "snapshot"
	Err    error
}

// Error implements error.
func (e *EffectError) Error() string {
	return fmt.Sprintf("effect %d, %s: %v", e.Index, e.Effect, e.Err)
}

// Unwrap returns the reason.
func (e *EffectError) Unwrap() error { return e.Err }

// An IgnoredError is an effect that replay left out: it is beyond its signer's role or
// did not hold in the state before it. Nothing of that effect is in the State.
type IgnoredError struct {
	N      uint64 // the record
	Writer string // who wrote it, as the record says
	EffectError
}

func conflict(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrConflict, fmt.Sprintf(format, args...))
}

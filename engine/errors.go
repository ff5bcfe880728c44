package engine

import (
	"errors"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/chunk/seal"
	"github.com/cairn-backup/cairn/engine/internal/keys"
	"github.com/cairn-backup/cairn/engine/internal/log"
	"github.com/cairn-backup/cairn/engine/internal/store"
	"github.com/cairn-backup/cairn/manifest"
)

// Errors that a caller acts on. Every error of this package for which one of
// them holds is found by errors.Is.
var (
	ErrNoRepository = errors.New("no repository here")
	ErrExists       = errors.New("a repository exists already")
	ErrWrongKey     = keys.ErrWrongKey
	ErrNewerFormat  = seal.ErrNewerFormat

	// ErrNoSecret: a secret is empty or unusable: no passphrase, a file that
	// holds no key or a protected one, a public key where a private one is
	// needed.
	ErrNoSecret = keys.ErrNoSecret

	// ErrExpensiveSlot: a key slot asks for more stretching than is allowed,
	// and was refused before any memory was taken.
	ErrExpensiveSlot = keys.ErrExpensiveSlot

	ErrUnauthorized   = backend.ErrUnauthorized
	ErrUnavailable    = backend.ErrUnavailable
	ErrNoSpace        = backend.ErrNoSpace
	ErrReadOnly       = backend.ErrReadOnly
	ErrUnknownOutcome = backend.ErrUnknownOutcome

	ErrConflict   = log.ErrConflict
	ErrRolledBack = log.ErrRolledBack
	ErrLogHole    = log.ErrLogHole
	ErrLogDamaged = log.ErrLogDamaged

	ErrCorrupt    = store.ErrCorrupt
	ErrNotFound   = errors.New("no such snapshot")
	ErrAmbiguous  = errors.New("more than one snapshot begins with it")
	ErrForgotten  = errors.New("the snapshot was deleted")
	ErrIncomplete = errors.New("some items were not restored")
	ErrClosed     = errors.New("the repository is closed")

	// ErrEmptyPolicy: a retention policy has no rule.
	ErrEmptyPolicy = manifest.ErrEmptyPolicy

	// ErrPlanStale: others changed the repository since the plan was made, so
	// that it does not hold any more. Nothing was done: make a new plan.
	ErrPlanStale = errors.New("the repository changed since the plan was made")
)

// A PathError names the path in the snapshot that an error belongs to.
type PathError struct {
	Path string
	Err  error
}

// Error returns path and cause.
func (e *PathError) Error() string { return e.Path + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *PathError) Unwrap() error { return e.Err }

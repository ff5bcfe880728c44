package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/engine/source"
	"github.com/cairn-backup/cairn/engine/source/sqlite"
	"github.com/cairn-backup/cairn/engine/target"
)

// Exit codes. They are part of the command line's contract.
const (
	exitDone         = 0
	exitFailed       = 1 // nothing was published
	exitUsage        = 2 // of the command line, or of the configuration
	exitPartial      = 3 // done, but items could not be read or restored
	exitNoRepository = 10
	exitWrongKey     = 11
	exitNewerFormat  = 12
	exitDamaged      = 13 // check found damage
	exitInterrupted  = 130
)

// Errors that only this program makes.
var (
	errUsage   = errors.New("usage")
	errPartial = errors.New("items could not be read or restored")
	errDamage  = errors.New("check found damage")
)

// A hinted error knows what a person can do about it.
type hinted struct {
	err  error
	hint string
}

func (h *hinted) Error() string { return h.err.Error() }
func (h *hinted) Unwrap() error { return h.err }

// withHint adds a hint to err. The innermost hint is the one that is shown.
func withHint(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	if _, has := errors.AsType[*hinted](err); has {
		return err
	}
	return &hinted{err: err, hint: fmt.Sprintf(format, args...)}
}

// A usage error says what is wrong with the command line or the configuration.
type usageError struct{ text string }

func (u *usageError) Error() string     { return u.text }
func (u *usageError) Is(err error) bool { return err == errUsage }

func usagef(format string, args ...any) error {
	return &usageError{text: fmt.Sprintf(format, args...)}
}

// A told error says in words of this program what its cause is.
type told struct {
	text string
	err  error
}

func (t *told) Error() string { return t.text }
func (t *told) Unwrap() error { return t.err }

// inWords gives err other words.
func inWords(err error, format string, args ...any) error {
	return &told{text: fmt.Sprintf(format, args...), err: err}
}

// A silent error has been told already and only sets the exit code.
type silent struct{ err error }

func (s *silent) Error() string { return s.err.Error() }
func (s *silent) Unwrap() error { return s.err }

// exitCode returns the code that err stands for.
func exitCode(ctx context.Context, err error) int {
	switch {
	case err == nil:
		return exitDone
	case ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, ctx.Err())):
		return exitInterrupted
	case errors.Is(err, errUsage), errors.Is(err, source.ErrPattern), errors.Is(err, engine.ErrNoSecret), errors.Is(err, engine.ErrEmptyPolicy):
		return exitUsage
	case errors.Is(err, errPartial), errors.Is(err, engine.ErrIncomplete):
		return exitPartial
	case errors.Is(err, engine.ErrNoRepository):
		return exitNoRepository
	case errors.Is(err, engine.ErrWrongKey):
		return exitWrongKey
	case errors.Is(err, engine.ErrNewerFormat):
		return exitNewerFormat
	case errors.Is(err, errDamage):
		return exitDamaged
	}
	return exitFailed
}

// hintOf returns what a person can do about err, or "".
func hintOf(err error) string {
	if h, ok := errors.AsType[*hinted](err); ok {
		return h.hint
	}
	if t, ok := errors.AsType[*backend.TroubleError](err); ok && t.Advice != "" {
		return t.Advice
	}
	for _, known := range []struct {
		err  error
		hint string
	}{
		{target.ErrInUse, "stop what uses it, or exchange it all the same with --force"},
		{target.ErrNoSpace, "free some space, or restore elsewhere with --target DIR"},
		{sqlite.ErrNotDatabase, "cairn backup PATH backs it up as a file"},
		{target.ErrNotDirectory, "give a directory that is empty or does not exist"},
		{target.ErrNotEmpty, "give a directory that is empty or does not exist, or say what becomes of what is there: --overwrite=changed or --overwrite=never"},
		{engine.ErrNewerFormat, "a newer version of cairn wrote this repository: update cairn"},
		{engine.ErrLogDamaged, "cairn repair log shows and mends it"},
		{engine.ErrLogHole, "cairn repair log shows and mends it"},
		{engine.ErrRolledBack, "the store shows an older state than this machine has seen: restore its newer files, or accept the older state with cairn repair log"},
		{engine.ErrCorrupt, "cairn check --read-data lists all damage; what is not damaged can be restored"},
		{engine.ErrAmbiguous, "give more digits of the id"},
		{engine.ErrForgotten, "cairn snapshots --deleted shows whether cairn undelete can bring it back"},
		{engine.ErrNotFound, "cairn snapshots lists what is there"},
		{engine.ErrNoSpace, "free some space, then run it again: what was stored is used"},
		{engine.ErrConflict, "run it again: what was stored is used"},
		{engine.ErrPlanStale, "run it again: it makes a new plan"},
		{engine.ErrUnknownOutcome, "cairn snapshots shows whether it took effect"},
	} {
		if errors.Is(err, known.err) {
			return known.hint
		}
	}
	return ""
}

// oneLine puts the text of err on one line and makes it safe to print.
func oneLine(err error) string {
	return printableText(strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", "; "))
}

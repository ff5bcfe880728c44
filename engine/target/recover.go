package target

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
)

// A direction says what becomes of an exchange that was made but is not Done.
type direction uint8

const (
	forward direction = iota // it is finished
	undo                     // it is undone
)

// resolve brings an exchange that may have been interrupted to one of its ends.
func (x *swapper) resolve(note *swapNote, way direction) error {
	var err error
	finished := note.Done
	switch {
	case finished:
	case note.Swap != nil:
		finished, err = x.resolveSwap(note, way)
	default:
		finished, err = x.resolveMoves(note, way)
	}
	if err != nil {
		return err
	}
	if finished {
		if !note.Done {
			done := *note
			done.Done = true
			if err := errors.Join(x.sync(note), x.writeNote(&done)); err != nil {
				return err
			}
		}
		return x.finish(note)
	}
	if err := x.sync(note); err != nil {
		return err
	}
	if err := x.disk.remove(x.at.was); err != nil { // it is empty
		return err
	}
	// Without the staged tree the note would make no sense: it goes first.
	if err := x.dropNote(); err != nil {
		return err
	}
	return x.disk.removeAll(x.at.stage)
}

func (x *swapper) resolveSwap(note *swapNote, way direction) (finished bool, err error) {
	p := note.Swap
	target, errTarget := x.inode(x.abs(p.Target))
	staged, errStaged := x.inode(x.abs(p.Staged))
	if err := errors.Join(errTarget, errStaged); err != nil {
		return false, err
	}
	switch {
	case target == p.New && way == forward:
		return true, nil
	case target == p.New && staged == p.Old:
		return false, x.disk.swap(x.abs(p.Target), x.abs(p.Staged))
	case target == p.Old:
		return false, nil
	case target == 0 && staged == p.Old:
		return false, x.disk.move(x.abs(p.Staged), x.abs(p.Target))
	}
	return false, x.unclear(x.abs(p.Target))
}

func (x *swapper) resolveMoves(note *swapNote, way direction) (finished bool, err error) {
	made := make([]bool, len(note.Moves))
	taken := "" // a name that someone else has taken before we came to it
	// free are the names that undoing frees before it needs them.
	free := map[string]bool{}
	for i, m := range slices.Backward(note.Moves) {
		from, errFrom := x.inode(x.abs(m.From))
		to, errTo := x.inode(x.abs(m.To))
		if err := errors.Join(errFrom, errTo); err != nil {
			return false, err
		}
		switch {
		case to == m.Inode:
			if way == forward && i == len(note.Moves)-1 {
				return true, nil // it was the last
			}
			if from != 0 && !free[string(m.From)] {
				return false, x.unclear(x.abs(m.From))
			}
			made[i], free[string(m.To)] = true, true
		case from != m.Inode:
			return false, x.unclear(x.abs(m.From))
		case to != 0 && !movesAway(note.Moves[:i], m.To, to):
			taken = x.abs(m.To)
		}
	}
	if taken != "" && slices.Contains(made, true) {
		return false, x.unclear(taken) // what was moved might not go with it
	}
	for i, m := range slices.Backward(note.Moves) {
		if !made[i] {
			continue
		}
		if err := x.disk.move(x.abs(m.To), x.abs(m.From)); err != nil {
			return false, err
		}
	}
	return false, nil
}

// movesAway reports whether one of the moves was to take the inode from name.
func movesAway(moves []swapMove, name []byte, inode uint64) bool {
	return slices.ContainsFunc(moves, func(m swapMove) bool { return m.Inode == inode && bytes.Equal(m.From, name) })
}

func (x *swapper) unclear(path string) error {
	return fmt.Errorf("%w: what is at %s is neither the old nor the new one; the old one is in %s or %s, the new one in %s. Put the right one in its place and what else is wanted elsewhere, then remove %s",
		ErrSwapUnclear, path, x.at.was, x.at.stage, x.at.stage, x.at.note)
}

// Recover finishes or undoes what an interrupted exchange of the target at path
// has left, and removes what an interrupted restore had staged. Where there was
// none it does nothing. An application calls it when it starts, before it opens
// its files; [SwapTarget] calls it by itself. By what is at path:
//
//	nothing          the old target is put back
//	the new target   the exchange is finished
//	the old target   nothing had happened; what was staged is removed
//	something else   nothing is touched: ErrSwapUnclear
//
// The last is the case, say, where an application that did not call Recover
// found nothing and made an empty database. [ErrInUse] says that a restore is
// running.
func Recover(ctx context.Context, path string) error {
	return withSwap(ctx, "recover", path, recoverSwap)
}

// Discard removes the old target that the last exchange of the one at path has
// kept; nil if there is none. An interrupted exchange is recovered first.
func Discard(ctx context.Context, path string) error {
	return withSwap(ctx, "discard", path, func(at swapPlace, d disk) error {
		if err := recoverSwap(at, d); err != nil {
			return err
		}
		return d.removeAll(at.old)
	})
}

// withSwap calls f while no one else exchanges the target at path.
func withSwap(ctx context.Context, op, path string, f func(swapPlace, disk) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	at, err := locateSwap(path)
	if err != nil {
		return swapError(op, path, err)
	}
	lock, err := lockSwap(at)
	if err != nil {
		return swapError(op, at.path, err)
	}
	if err := errors.Join(f(at, osDisk{}), lock.release()); err != nil {
		return swapError(op, at.path, err)
	}
	return nil
}

// recoverSwap is Recover under the lock.
func recoverSwap(at swapPlace, d disk) error {
	x := swapper{at: at, disk: d}
	data, err := d.read(at.note)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return x.sweep()
	case err != nil:
		return err
	}
	var note swapNote
	if err := json.Unmarshal(data, &note); err != nil {
		return fmt.Errorf("%w: the note %s cannot be read: %w", ErrSwapUnclear, at.note, err)
	}
	if note.Version != 1 || !x.valid(&note) {
		return fmt.Errorf("%w: the note %s is of another version, or was changed", ErrSwapUnclear, at.note)
	}
	return x.resolve(&note, forward)
}

// sweep removes what a restore has left that did not come to its note.
func (x *swapper) sweep() error {
	for _, p := range []string{x.at.stage, x.at.note + noteTemp} {
		if _, err := x.disk.lstat(p); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := x.disk.removeAll(p); err != nil {
			return err
		}
	}
	// Somebody has resolved an unclear exchange by hand, and left this.
	if _, err := x.disk.lstat(x.at.was); err == nil {
		return fmt.Errorf("%w: %s is left of an earlier one; move it away", ErrSwapUnclear, x.at.was)
	}
	return nil
}

// valid reports whether a note names nothing but what an exchange would.
func (x *swapper) valid(note *swapNote) bool {
	inside := func(rel []byte) bool {
		return filepath.IsLocal(string(rel)) && string(rel) != "."
	}
	for _, m := range note.Moves {
		if !inside(m.From) || !inside(m.To) || m.Inode == 0 {
			return false
		}
	}
	if p := note.Swap; p != nil {
		return len(note.Moves) == 0 && inside(p.Target) && inside(p.Staged) && p.Old != 0 && p.New != 0
	}
	return true
}

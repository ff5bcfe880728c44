package target

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
)

// maxRecord bounds SwapTarget.Record, in bytes.
const maxRecord = 4 << 10

// Recover is [Recover] at the path of s.
func (s *SwapTarget) Recover(ctx context.Context) error { return Recover(ctx, s.path) }

// Recorded returns the Record of the last exchange of the target that was made
// for good, "" if it had none or there was none. After a crash it is to be
// trusted once [SwapTarget.Recover] has returned nil: what was exchanged half is
// then exchanged or not.
func (s *SwapTarget) Recorded(ctx context.Context) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	at, err := locateSwap(s.path)
	if err != nil {
		return "", swapError("recorded", s.path, err)
	}
	// A note that is Done and was not tidied up yet is newer than the record.
	for _, name := range []string{at.note, at.last} {
		note, err := readNote(name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return "", swapError("recorded", at.path, err)
		case note.Done:
			return note.Record, nil
		}
	}
	return "", nil
}

func readNote(path string) (swapNote, error) {
	var note swapNote
	data, err := osDisk{}.read(path)
	if err != nil {
		return note, err
	}
	if err := json.Unmarshal(data, &note); err != nil {
		return note, fmt.Errorf("the note %s cannot be read: %w", path, err)
	}
	return note, nil
}

// shortName leaves room in a name for what is put before and after it.
func shortName(base string) string {
	const most = 200
	if len(base) <= most {
		return base
	}
	return fmt.Sprintf("%s-%08x", base[:most], nameHash(base))
}

// nameHash is FNV-1a: it must be the same for ever.
func nameHash(s string) uint32 {
	h := uint32(2166136261)
	for i := range len(s) {
		h = (h ^ uint32(s[i])) * 16777619
	}
	return h
}

package sqlite

import "context"

// Verify lets SQLite check a database that nobody uses, such as one that a
// restore has staged: give it to target.SwapTarget as Verify, and no database is
// exchanged for one that is corrupt. It runs integrity_check, opens the file for
// reading only and makes none beside it. Errors are those of a [Source]:
// [ErrCorrupt], [ErrNotDatabase], [ErrUnchecked].
func Verify(ctx context.Context, path string) error {
	c := &copier{source: File(path), from: path, to: path}
	_, err := c.check(ctx)
	return err
}

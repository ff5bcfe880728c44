package engine

import (
	"errors"
	"fmt"

	"github.com/cairn-backup/cairn/engine/internal/log"
	"github.com/cairn-backup/cairn/manifest"
)

// meanwhile says why what belongs to a snapshot could not be read: if the
// snapshot was deleted since the operation found it, what it needs may have
// been collected, and that is no damage. Whoever missed something has replayed
// the log.
func (r *Repository) meanwhile(err error, ids ...manifest.ID) error {
	if err == nil || !errors.Is(err, ErrCorrupt) {
		return err
	}
	for _, id := range ids {
		if !r.visible(id) {
			// Not %w: nobody shall take it for damage.
			return fmt.Errorf("snapshot %s: %w while it was read, and collected: %v", id.Short(), ErrForgotten, err) //nolint:errorlint // as said
		}
	}
	return err
}

// visible reports whether a snapshot is there and not deleted.
func (r *Repository) visible(id manifest.ID) (visible bool) {
	_ = r.log.View(func(st *log.State) error { // the function returns nil
		_, visible = st.Snapshot(id)
		return nil
	})
	return visible
}

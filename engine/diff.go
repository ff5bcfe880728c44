package engine

import (
	"context"
	"fmt"
	"iter"

	"github.com/cairn-backup/cairn/engine/internal/log"
	"github.com/cairn-backup/cairn/manifest"
)

// Diff yields what differs between two snapshots, from a to b, by path. Its cost
// is in proportion to the difference: what both share is not read. It yields at
// most one error, last.
func (r *Repository) Diff(ctx context.Context, a, b manifest.ID) iter.Seq2[manifest.Change, error] {
	return func(yield func(manifest.Change, error) bool) {
		changes, err := r.diff(ctx, a, b)
		if err != nil {
			yield(manifest.Change{}, fmt.Errorf("diff: %w", err))
			return
		}
		for c, err := range changes {
			if err != nil {
				err = fmt.Errorf("diff: %w", r.meanwhile(err, a, b))
			}
			if !yield(c, err) {
				return
			}
		}
	}
}

func (r *Repository) diff(ctx context.Context, a, b manifest.ID) (iter.Seq2[manifest.Change, error], error) {
	if err := r.readable(); err != nil {
		return nil, err
	}
	from, needs, err := r.find(ctx, a)
	if err != nil {
		return nil, err
	}
	to, more, err := r.find(ctx, b)
	if err != nil {
		return nil, err
	}
	if err := r.store.Load(ctx, needs.Union(more)); err != nil {
		return nil, err
	}
	return manifest.Diff(ctx, r.store, from.Tree, to.Tree), nil
}

// Undelete makes deleted snapshots visible again, all of them by one record or
// none. It is possible while nothing that they need was collected: ErrNotFound
// says that it is too late, or that there never was such a snapshot.
func (r *Repository) Undelete(ctx context.Context, ids ...manifest.ID) error {
	if err := r.writable(); err != nil {
		return fmt.Errorf("undelete: %w", err)
	}
	if len(ids) == 0 {
		return nil
	}
	err := r.append(ctx, func(st *log.State) ([]log.Effect, error) {
		for _, id := range ids {
			if _, ok := st.ForgottenSnapshot(id); ok {
				continue
			}
			if _, ok := st.Snapshot(id); ok {
				return nil, fmt.Errorf("snapshot %s: %w: it is not deleted", id.Short(), ErrExists)
			}
			return nil, fmt.Errorf("snapshot %s: %w", id.Short(), ErrNotFound)
		}
		return []log.Effect{log.Undelete{IDs: ids}}, nil
	})
	if err != nil {
		return fmt.Errorf("undelete: %w", err)
	}
	return nil
}

// Deleted yields the snapshots that were deleted and can be undeleted still,
// oldest first. It yields at most one error, last.
func (r *Repository) Deleted(ctx context.Context) iter.Seq2[manifest.Snapshot, error] {
	return func(yield func(manifest.Snapshot, error) bool) {
		if err := r.readable(); err != nil {
			yield(manifest.Snapshot{}, fmt.Errorf("deleted snapshots: %w", err))
			return
		}
		if err := r.refresh(ctx); err != nil {
			yield(manifest.Snapshot{}, fmt.Errorf("deleted snapshots: %w", err))
			return
		}
		var infos []*log.SnapshotInfo
		_ = r.log.View(func(st *log.State) error { // the function returns nil
			for info := range st.Forgotten() {
				infos = append(infos, info)
			}
			return nil
		})
		for _, info := range infos {
			snap, err := r.openSnapshot(info)
			if !yield(snap, err) || err != nil {
				return
			}
		}
	}
}

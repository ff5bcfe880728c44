package engine

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/cairn-backup/cairn/chunk/seal"
	"github.com/cairn-backup/cairn/engine/internal/log"
	"github.com/cairn-backup/cairn/engine/internal/store"
	"github.com/cairn-backup/cairn/manifest"
)

// minPrefix is the least number of digits that name a snapshot.
const minPrefix = 4

// Snapshots yields the snapshots that match f, oldest first, from the log
// alone. It yields at most one error, last.
func (r *Repository) Snapshots(ctx context.Context, f manifest.Filter) iter.Seq2[manifest.Snapshot, error] {
	return func(yield func(manifest.Snapshot, error) bool) {
		infos, err := r.snapshotInfos(ctx)
		if err != nil {
			yield(manifest.Snapshot{}, fmt.Errorf("snapshots: %w", err))
			return
		}
		for _, info := range selectInfos(infos, f) {
			snap, err := r.openSnapshot(info)
			if err != nil {
				yield(manifest.Snapshot{}, fmt.Errorf("snapshots: %w", err))
				return
			}
			if !yield(snap, nil) {
				return
			}
		}
	}
}

// snapshotInfos reads the log's tail and returns every snapshot, oldest first.
func (r *Repository) snapshotInfos(ctx context.Context) (infos []*log.SnapshotInfo, err error) {
	if err := r.readable(); err != nil {
		return nil, err
	}
	if err := r.refresh(ctx); err != nil {
		return nil, err
	}
	err = r.log.View(func(st *log.State) error {
		infos = snapshotsOf(st)
		return nil
	})
	return infos, err
}

// snapshotsOf returns the visible snapshots of st, oldest first. The log is in the
// order of commits, which a time that was given, or a backup that took long, may
// contradict.
func snapshotsOf(st *log.State) []*log.SnapshotInfo {
	infos := make([]*log.SnapshotInfo, 0, st.SnapshotCount())
	for info := range st.Snapshots() {
		infos = append(infos, info)
	}
	slices.SortStableFunc(infos, func(a, b *log.SnapshotInfo) int { return a.Summary.Start.Compare(b.Summary.Start) })
	return infos
}

// refresh reads what others wrote. A log that is broken is read as far as it goes.
func (r *Repository) refresh(ctx context.Context) error {
	if r.log.Problem() != nil {
		return nil //nolint:nilerr // no failure of this call
	}
	err := r.log.Refresh(ctx)
	if err != nil && r.log.Problem() != nil {
		return nil //nolint:nilerr // it just turned out to be broken; Problem tells
	}
	return err
}

func selectInfos(infos []*log.SnapshotInfo, f manifest.Filter) []*log.SnapshotInfo {
	summaries := make([]manifest.Summary, len(infos))
	byID := make(map[manifest.ID]*log.SnapshotInfo, len(infos))
	for i, info := range infos {
		summaries[i] = info.Summary
		byID[info.Summary.ID] = info
	}
	chosen := f.Select(summaries)
	out := make([]*log.SnapshotInfo, len(chosen))
	for i, s := range chosen {
		out[i] = byID[s.ID]
	}
	return out
}

// Snapshot returns the snapshot that ref names: an ID, a prefix of at least
// four digits that only one has, or "latest", which is the newest one of all but
// those of [manifest.KindAssets]: they belong to another. ErrNotFound, ErrAmbiguous.
func (r *Repository) Snapshot(ctx context.Context, ref string) (manifest.Snapshot, error) {
	snap, err := r.resolve(ctx, ref)
	if err != nil {
		return snap, fmt.Errorf("snapshot %q: %w", ref, err)
	}
	return snap, nil
}

func (r *Repository) resolve(ctx context.Context, ref string) (manifest.Snapshot, error) {
	infos, err := r.snapshotInfos(ctx)
	if err != nil {
		return manifest.Snapshot{}, err
	}
	var found *log.SnapshotInfo
	for _, info := range infos {
		switch {
		case ref == "latest":
			if info.Summary.Kind != manifest.KindAssets && (found == nil || found.Summary.Start.Compare(info.Summary.Start) <= 0) {
				found = info
			}
		case len(ref) >= minPrefix && strings.HasPrefix(info.Summary.ID.String(), strings.ToLower(ref)):
			if found != nil {
				return manifest.Snapshot{}, ErrAmbiguous
			}
			found = info
		}
	}
	if found == nil {
		if id, err := manifest.ParseID(ref); err == nil && r.forgotten(id) {
			return manifest.Snapshot{}, ErrForgotten
		}
		return manifest.Snapshot{}, ErrNotFound
	}
	return r.openSnapshot(found)
}

// find returns a visible snapshot and its needs.
func (r *Repository) find(ctx context.Context, id manifest.ID) (manifest.Snapshot, log.Ranges, error) {
	var info *log.SnapshotInfo
	ok := false
	look := func(st *log.State) error {
		info, ok = st.Snapshot(id)
		return nil
	}
	if err := r.log.View(look); err != nil {
		return manifest.Snapshot{}, nil, err
	}
	// One that was just seen needs no second look: should it be gone by now its
	// data is still there for a while, and if not, that is told.
	if !ok || !r.log.Recent() {
		if err := r.refresh(ctx); err != nil {
			return manifest.Snapshot{}, nil, err
		}
		if err := r.log.View(look); err != nil {
			return manifest.Snapshot{}, nil, err
		}
	}
	if !ok {
		err := ErrNotFound
		if r.forgotten(id) {
			err = ErrForgotten
		}
		return manifest.Snapshot{}, nil, fmt.Errorf("snapshot %s: %w", id.Short(), err)
	}
	snap, err := r.openSnapshot(info)
	return snap, info.Needs, err
}

func (r *Repository) forgotten(id manifest.ID) (forgotten bool) {
	_ = r.log.View(func(st *log.State) error { // the function returns nil
		_, forgotten = st.ForgottenSnapshot(id)
		return nil
	})
	return forgotten
}

// openSnapshot opens the part of a snapshot that is sealed under the data key.
func (r *Repository) openSnapshot(info *log.SnapshotInfo) (manifest.Snapshot, error) {
	body, err := r.openSealed(info.Body)
	if err != nil {
		return manifest.Snapshot{}, fmt.Errorf("snapshot %s: %w", info.Summary.ID.Short(), err)
	}
	snap, err := manifest.DecodeBody(info.Summary, body)
	if err != nil {
		return manifest.Snapshot{}, errors.Join(fmt.Errorf("snapshot %s: %w", info.Summary.ID.Short(), err), ErrCorrupt)
	}
	return snap, nil
}

// openSealed opens an object that rides in a record.
func (r *Repository) openSealed(object []byte) ([]byte, error) {
	h, _, err := seal.ParseHeader(object)
	if err != nil {
		return nil, errors.Join(err, ErrCorrupt)
	}
	_, parts, err := seal.OpenObject(r.keys.Data(h.Generation), seal.KindManifest, seal.Binding{Repository: r.id}, object)
	if err != nil {
		return nil, errors.Join(err, ErrCorrupt)
	}
	if len(parts) != 1 {
		return nil, fmt.Errorf("%d parts: %w", len(parts), ErrCorrupt)
	}
	return parts[0], nil
}

// openPartial opens what a session record holds of the tree so far.
func (r *Repository) openPartial(s *log.SessionInfo) (parentTree, error) {
	body, err := r.openSealed(s.Partial)
	if err != nil {
		return parentTree{}, err
	}
	began, tree, err := decodePartial(body)
	if err != nil {
		return parentTree{}, errors.Join(err, ErrCorrupt)
	}
	return parentTree{tree: tree, began: began, needs: s.Needs, partial: true}, nil
}

// Delete forgets snapshots, all of them by one record or none. It frees no
// space: collection does.
func (r *Repository) Delete(ctx context.Context, ids ...manifest.ID) error {
	if err := r.writable(); err != nil {
		return fmt.Errorf("delete: %w", err)
	}
	if len(ids) == 0 {
		return nil
	}
	err := r.append(ctx, func(st *log.State) ([]log.Effect, error) {
		for _, id := range ids {
			if _, ok := st.Snapshot(id); ok {
				continue
			}
			if _, ok := st.ForgottenSnapshot(id); ok {
				return nil, fmt.Errorf("snapshot %s: %w", id.Short(), ErrForgotten)
			}
			return nil, fmt.Errorf("snapshot %s: %w", id.Short(), ErrNotFound)
		}
		return []log.Effect{log.Forget{IDs: ids}}, nil
	})
	if err != nil {
		return fmt.Errorf("delete: %w", err)
	}
	return nil
}

// Annotate changes the tags, the pin or the note of a snapshot.
func (r *Repository) Annotate(ctx context.Context, id manifest.ID, a manifest.Annotation) error {
	if err := r.writable(); err != nil {
		return fmt.Errorf("annotate: %w", err)
	}
	err := r.append(ctx, func(st *log.State) ([]log.Effect, error) {
		if _, ok := st.Snapshot(id); !ok {
			return nil, fmt.Errorf("snapshot %s: %w", id.Short(), ErrNotFound)
		}
		return []log.Effect{log.Annotate{ID: id, AddTags: a.Add, RemoveTags: a.Remove, Pin: a.Pin, Note: a.Note}}, nil
	})
	if err != nil {
		return fmt.Errorf("annotate: %w", err)
	}
	return nil
}

func (r *Repository) append(ctx context.Context, build func(st *log.State) ([]log.Effect, error)) error {
	if err := r.log.Refresh(ctx); err != nil {
		return err
	}
	_, err := r.log.Append(ctx, build)
	return err
}

// chunkGetter reads tree pages.
var _ manifest.Getter = (*store.Store)(nil)

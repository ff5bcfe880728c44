package engine

import (
	"context"
	"time"

	"github.com/cairn-backup/cairn/chunk"
	"github.com/cairn-backup/cairn/engine/internal/store"
	"github.com/cairn-backup/cairn/engine/target"
	"github.com/cairn-backup/cairn/manifest"
)

// SaveFile publishes a snapshot of one file, whose extents plan makes from the
// chunks that it puts. Nothing is taken over from another snapshot.
func (r *Repository) SaveFile(ctx context.Context, name string, plan func(put func([]byte) (chunk.ID, error)) ([]manifest.Extent, error)) (id manifest.ID, err error) {
	session, err := r.store.Begin(ctx, store.SessionOptions{})
	if err != nil {
		return id, err
	}
	defer session.Abort(ctx)
	w := session.Writer()
	extents, err := plan(func(p []byte) (chunk.ID, error) {
		id, _, err := w.Put(ctx, p)
		return id, err
	})
	if err != nil {
		return id, err
	}
	content := manifest.NewContentWriter(session)
	n := manifest.Node{Name: name, Kind: manifest.File, Mode: 0o600, MTime: manifest.TimeOf(time.Unix(1_000_000_000, 0))}
	for _, e := range extents {
		if err := content.Add(ctx, e); err != nil {
			return id, err
		}
		if e.Kind != manifest.Patch {
			n.Size += e.Length
		}
	}
	if n.Content, err = content.Finish(ctx); err != nil {
		return id, err
	}
	top := manifest.NewDirWriter(session)
	if err := top.Add(ctx, n); err != nil {
		return id, err
	}
	tree, err := top.Finish(ctx)
	if err == nil {
		err = w.Flush(ctx)
	}
	if err != nil {
		return id, err
	}
	b := &backup{repo: r}
	sum, err := b.commit(ctx, session, manifest.Snapshot{
		Summary: manifest.Summary{
			ID: manifest.NewID(), Start: manifest.TimeOf(time.Now()), Kind: manifest.KindFiles, Name: name, Complete: true,
			Stats: manifest.Stats{Files: 1, Bytes: n.Size},
		},
		Roots: []manifest.Root{{Path: "/" + name, Name: name}}, Tree: tree,
	}, nil)
	return sum.ID, err
}

// Need returns what a restore of all of a snapshot writes.
func (r *Repository) Need(ctx context.Context, snap manifest.Snapshot) (target.Need, error) {
	return r.need(ctx, snap, nil)
}

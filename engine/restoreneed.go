package engine

import (
	"context"
	"errors"
	"io/fs"
	"strings"

	"github.com/cairn-backup/cairn/engine/target"
	"github.com/cairn-backup/cairn/manifest"
)

// begin begins a restore for which the target has room, as far as that can be
// known.
func (r *Repository) begin(ctx context.Context, snap manifest.Snapshot, dst target.Target, opts RestoreOptions) (target.Writer, error) {
	need := target.Need{Bytes: snap.Stats.Bytes, Entries: entriesOf(snap)}
	w, err := dst.Begin(ctx, need)
	if errors.Is(err, target.ErrNoSpace) {
		// Holes take no room, further names neither, and a part of the snapshot
		// less than all of it: only the tree tells how much.
		if need, err = r.need(ctx, snap, opts.Paths); err != nil {
			return nil, err
		}
		w, err = dst.Begin(ctx, need)
	}
	if err != nil {
		return nil, err
	}
	if fit, ok := w.(target.Fitter); ok {
		if err := fit.Fit(ctx, need, r.entries(ctx, snap, opts.Paths)); err != nil {
			return nil, errors.Join(err, w.Abort())
		}
	}
	return w, nil
}

func entriesOf(snap manifest.Snapshot) uint64 {
	return snap.Stats.Files + snap.Stats.Dirs + snap.Stats.Others
}

// need adds up what a restore writes.
func (r *Repository) need(ctx context.Context, snap manifest.Snapshot, paths []string) (target.Need, error) {
	var sum target.Need
	several := len(snap.Roots) > 1
	for e, err := range r.entries(ctx, snap, paths) {
		if err != nil {
			return sum, err
		}
		sum.Bytes += e.Data
		sum.Entries++
		if !several {
			continue
		}
		root, _, _ := strings.Cut(e.Path, "/")
		if n := len(sum.Roots); n == 0 || sum.Roots[n-1].Root != root {
			sum.Roots = append(sum.Roots, target.RootNeed{Root: root})
		}
		last := &sum.Roots[len(sum.Roots)-1]
		last.Bytes += e.Data
		last.Entries++
	}
	return sum, nil
}

// entries yields what a restore of these paths writes, by where it goes.
func (r *Repository) entries(ctx context.Context, snap manifest.Snapshot, paths []string) target.Entries {
	return func(yield func(target.Entry, error) bool) {
		pick, err := newPicker(paths)
		if err != nil {
			yield(target.Entry{}, err)
			return
		}
		links := make(map[uint64]bool)
		err = manifest.Walk(ctx, r.treeFor(pick), snap.Tree, func(path string, n manifest.Node) error {
			if top, rest, below := strings.Cut(path, "/"); len(snap.Roots) == 1 && (below || n.Kind == manifest.Dir && top == path) {
				path = rest // a single directory becomes the target itself
			}
			switch pick.choose(path) {
			case pickNone:
				if n.Kind == manifest.Dir {
					return fs.SkipDir
				}
				return nil
			case pickAbove:
				return nil
			case pickItem:
			}
			e := target.Entry{Path: path, Node: n}
			if n.Link == 0 || !links[n.Link] {
				links[n.Link] = true
				if e.Data, err = r.dataBytes(ctx, &n); err != nil {
					return err
				}
			}
			if !yield(e, nil) {
				return fs.SkipAll
			}
			return nil
		})
		if err != nil {
			yield(target.Entry{}, err)
		}
	}
}

// dataBytes returns how many bytes of content a node has, holes left out.
func (r *Repository) dataBytes(ctx context.Context, n *manifest.Node) (uint64, error) {
	if n.Kind != manifest.File {
		return 0, nil
	}
	sum := uint64(len(n.Content.Inline))
	for e, err := range manifest.Extents(ctx, r.store, n.Content, 0) {
		if err != nil {
			return sum, err
		}
		if e.Kind == manifest.Data || e.Kind == manifest.Repeat { // a patch takes no room of its own
			sum += e.Length
		}
	}
	return sum, nil
}

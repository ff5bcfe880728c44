package engine

import (
	"context"

	"github.com/cairn-backup/cairn/chunk"
	"github.com/cairn-backup/cairn/engine/internal/latch"
	"github.com/cairn-backup/cairn/manifest"
)

// An openDir is a directory that is being walked.
//
// As long as its nodes are some of those that a parent's list has, none is written: if
// it has no others, that list is the new one as well, and is named as a whole.
type openDir struct {
	node manifest.Node // its own, without Tree

	mu    latch.Mutex // guards what follows
	put   manifest.Putter
	list  *manifest.DirWriter // nil: nothing was written
	like  *parentDir          // which has all nodes of same; nil: there is none any more
	same  []*pending          // not in list
	queue []*pending          // done or not, neither in list nor in same, by name
	tree  chunk.ID            // the whole list, once it is finished
}

// newDir returns the directory n, without entries. parents are the same directory
// in the parent trees.
func (s *saver) newDir(n manifest.Node, parents []parentDir) *openDir {
	d := &openDir{node: n, put: s.session}
	// After a conflict, and where all is to be read again, nothing is named that
	// was not stored or found by its chunks.
	if len(parents) > 0 && !s.opts.Reread {
		d.like = &parents[0]
	}
	return d
}

// add adds a node that is done. The caller holds mu.
func (d *openDir) add(ctx context.Context, p *pending) error {
	// Who differs at last writes all of them: no more are kept than are in hand anyway.
	if d.like != nil && len(d.same) < window && d.inParent(p) {
		d.same = append(d.same, p)
		return nil
	}
	if err := d.write(ctx); err != nil {
		return err
	}
	return d.list.Add(ctx, p.node)
}

// inParent reports whether the parent's list has p as it is.
func (d *openDir) inParent(p *pending) bool {
	return p.was != nil && p.was.index == d.like.index && p.node.Equal(&p.was.node)
}

// write makes the list one of its own, with all nodes that were added.
func (d *openDir) write(ctx context.Context) error {
	if d.list == nil {
		d.list = manifest.NewDirWriter(d.put)
	}
	same := d.same
	d.like, d.same = nil, nil
	for _, p := range same {
		if err := d.list.Add(ctx, p.node); err != nil {
			return err
		}
	}
	return nil
}

// soFar returns a list of the nodes that were added, and what waits behind them.
// If the directory is finished it returns the root page.
func (d *openDir) soFar(ctx context.Context) (tree chunk.ID, list *manifest.DirWriter, queue []*pending, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.tree != (chunk.ID{}) {
		return d.tree, nil, nil, nil
	}
	if d.list != nil {
		list = d.list.Clone()
	} else {
		list = manifest.NewDirWriter(d.put)
	}
	for _, p := range d.same {
		if err := list.Add(ctx, p.node); err != nil {
			return chunk.ID{}, nil, nil, err
		}
	}
	return chunk.ID{}, list, append([]*pending(nil), d.queue...), nil
}

// finish stores the list, which is whole, or names the parent's that is like it.
func (s *saver) finish(ctx context.Context, d *openDir, old *oldDirs) (chunk.ID, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	tree, err := s.reuse(d, old)
	if err == nil && tree.IsZero() {
		if err = d.write(ctx); err == nil {
			tree, err = d.list.Finish(ctx)
		}
	}
	if err == nil && !tree.IsZero() {
		// Whoever holds d wants no more of it, and a tree has many.
		d.tree, d.list, d.queue, d.same, d.like = tree, nil, nil, nil, nil
	}
	return tree, err
}

// reuse returns the parent's list if it has the nodes of d and no others, else the
// zero ID.
func (s *saver) reuse(d *openDir, old *oldDirs) (chunk.ID, error) {
	if d.like == nil || len(d.same) == 0 {
		return chunk.ID{}, nil
	}
	behind := old.dirs[0] // as parents[0] of newDir
	if behind.read == len(d.same) {
		if err := behind.advance(); err != nil {
			return chunk.ID{}, err
		}
	}
	if !behind.whole || behind.read != len(d.same)+1 {
		return chunk.ID{}, nil
	}
	s.inherit(d.like.index)
	return d.like.tree, nil
}

package engine

import (
	"context"

	"github.com/cairn-backup/cairn/chunk"
	"github.com/cairn-backup/cairn/engine/internal/latch"
	"github.com/cairn-backup/cairn/manifest"
)

// An openDir is a directory that is being walked.
//
// While every node so far equals the parent's, nothing is written. If the parent
// has no others, its list is named.
type openDir struct {
	node manifest.Node // its own, without Tree

	mu    latch.Mutex // guards what follows
	put   manifest.Putter
	list  *manifest.DirWriter // nil: nothing was written
	like  *oldDir             // which has all nodes of same; nil: there is none any more
	same  []*pending          // done and not in list; at most window
	queue []*pending          // done or not, neither in list nor in same, by name
	room  []*pending          // the array that queue is in, from its begin: for the next queue, when this one is empty
	tree  chunk.ID            // the whole list, once it is finished
}

// newDir returns the directory n, without entries, to be walked beside old.
func (s *saver) newDir(n manifest.Node, old *oldDirs) *openDir {
	d := &openDir{node: n, put: s.session}
	// After a conflict, and where all is to be read again, nothing is named that
	// was not stored or found by its chunks.
	if len(old.dirs) > 0 && !s.opts.Reread {
		d.like = old.dirs[0]
	}
	return d
}

// enqueue adds a node to the queue.
func (d *openDir) enqueue(p *pending) {
	d.mu.Lock()
	defer d.mu.Unlock()
	q := d.queue
	if len(q) == 0 {
		// What is taken off at the front is no room for what comes behind, and in a
		// directory in which nothing changed each node is taken off at once.
		q = d.room
	}
	full := len(q) == cap(q)
	if q = append(q, p); full {
		d.room = q[:0]
	}
	d.queue = q
}

// add adds a node that is done. The caller holds mu.
func (d *openDir) add(ctx context.Context, p *pending) error {
	if d.like != nil && len(d.same) < window && d.inParent(p) {
		p.was, p.old = nil, nil // not wanted any more, and it is kept for long
		d.same = append(d.same, p)
		return nil
	}
	if err := d.write(ctx); err != nil {
		return err
	}
	return d.list.Add(ctx, p.node)
}

// inParent reports whether the parent's list has p as it is, behind those of same.
func (d *openDir) inParent(p *pending) bool {
	if n := len(d.same); n > 0 && p.node.Name <= d.same[n-1].node.Name {
		return false
	}
	if p.was == nil {
		return p.sameAs == d.like.index+1
	}
	return p.was.index == d.like.index && p.node.Equal(&p.was.node)
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

// soFar returns a list of the nodes that were added, and what waits behind them;
// no list if the directory is finished, after which tree does not change any more.
func (d *openDir) soFar(ctx context.Context) (list *manifest.DirWriter, queue []*pending, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.tree != (chunk.ID{}) {
		return nil, nil, nil
	}
	if d.list != nil {
		list = d.list.Clone()
	} else {
		list = manifest.NewDirWriter(d.put)
	}
	for _, p := range d.same {
		if err := list.Add(ctx, p.node); err != nil {
			return nil, nil, err
		}
	}
	return list, append([]*pending(nil), d.queue...), nil
}

// finish stores the list, which is whole, or names the parent's that is like it.
func (s *saver) finish(ctx context.Context, d *openDir) (chunk.ID, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	tree, err := s.reuse(d)
	if err == nil && tree.IsZero() {
		if err = d.write(ctx); err == nil {
			tree, err = d.list.Finish(ctx)
		}
	}
	if err == nil && !tree.IsZero() {
		// Whoever holds d wants no more of it, and a tree has many.
		d.tree, d.list, d.queue, d.room, d.same, d.like = tree, nil, nil, nil, nil, nil
	}
	return tree, err
}

// reuse returns the parent's list if it has the nodes of d and no others, else the
// zero ID. Only what a session that inherits the parent's needs may name is named;
// where no file was taken over none are inherited, and this is no reason to.
func (s *saver) reuse(d *openDir) (chunk.ID, error) {
	old := d.like
	if old == nil || len(d.same) == 0 || !s.inherits[old.index].Load() {
		return chunk.ID{}, nil
	}
	if old.read == len(d.same) {
		if err := old.advance(); err != nil {
			return chunk.ID{}, err
		}
	}
	if !old.whole || old.read != len(d.same)+1 {
		return chunk.ID{}, nil
	}
	return old.tree, nil
}

package engine

import (
	"context"
	"errors"
	"iter"

	"github.com/cairn-backup/cairn/chunk"
	"github.com/cairn-backup/cairn/manifest"
)

// An oldNode is a node of a parent tree.
type oldNode struct {
	index int // in parents.trees
	node  manifest.Node
}

// oldDirs reads the same directory in the parents, in step with the walk.
type oldDirs struct {
	dirs  []*oldDir
	found []oldNode // room for match
}

type oldDir struct {
	index int      // in parents.trees
	tree  chunk.ID // of the list
	next  func() (manifest.Node, error, bool)
	stop  func()
	node  manifest.Node
	read  int  // nodes, and one for the end
	ok    bool // there is a node, or none was read yet
	whole bool // all were read, without an error
}

func (s *saver) openOld(ctx context.Context, dirs []parentDir) *oldDirs {
	var o oldDirs
	for _, d := range dirs {
		next, stop := iter.Pull2(manifest.ReadDir(ctx, s.repo.store, d.tree))
		o.dirs = append(o.dirs, &oldDir{index: d.index, tree: d.tree, next: next, stop: stop, ok: true})
	}
	return &o
}

func (o *oldDirs) close() {
	for _, d := range o.dirs {
		d.stop()
	}
}

// match returns the parents' nodes of that name. Names must rise from call to
// call. A parent that cannot be read is not compared with any further: its
// damage must not keep a new backup from being made. The result is valid until the
// next call.
func (o *oldDirs) match(name string) ([]oldNode, error) {
	o.found = o.found[:0]
	for _, d := range o.dirs {
		for d.ok && d.node.Name < name {
			if err := d.advance(); err != nil {
				return nil, err
			}
		}
		if d.ok && d.node.Name == name {
			o.found = append(o.found, oldNode{index: d.index, node: d.node})
		}
	}
	return o.found, nil
}

// advance goes to the next node. The only errors are those of a context.
func (d *oldDir) advance() error {
	n, err, ok := d.next()
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	d.node, d.ok, d.whole = n, ok && err == nil, !ok
	d.read++
	return nil
}

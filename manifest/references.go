package manifest

import (
	"context"

	"github.com/cairn-backup/cairn/chunk"
)

// A Role says what a chunk is to a tree that relies on it.
type Role uint8

// The roles of chunks.
const (
	RolePage    Role = 1 // a page of a directory or content list
	RoleXattrs  Role = 2 // the extended attributes of a node
	RoleContent Role = 3 // bytes of a file
)

// A Reference is a chunk that a tree relies on.
type Reference struct {
	ID     chunk.ID
	Role   Role
	Length uint64 // of content, the chunk's length in bytes; else 0, not known
}

// References calls visit for every chunk that the tree of directories under the
// list tree relies on, as often as it is named. For a page visit says whether to
// read it and go on with what it names: false where that was done before. For
// the other roles the answer does not matter. The error is that of visit, from
// g, of ctx, or an ErrMalformed. A Getter that is a Prefetcher is told which
// pages come.
func References(ctx context.Context, g Getter, tree chunk.ID, visit func(Reference) (bool, error)) error {
	w := referenceWalk{g: g, visit: visit}
	return w.dir(ctx, ref{id: tree, root: true}, place{})
}

// A referenceWalk is one run of References.
type referenceWalk struct {
	g     Getter
	visit func(Reference) (bool, error)
}

// dir visits a page of a directory list and what it names.
func (w *referenceWalk) dir(ctx context.Context, r ref, at place) error {
	deeper, err := w.visit(Reference{ID: r.id, Role: RolePage})
	if err != nil || !deeper {
		return err
	}
	p, err := readPage(ctx, w.g, pageDir, r)
	if err != nil {
		return err
	}
	if p.level == 0 {
		return p.nodes(r, func(n *Node) error { return w.node(ctx, n, at) })
	}
	refs, err := p.refs(pageDir, r)
	if err != nil {
		return pageError(r.id, err)
	}
	prefetch(ctx, w.g, refs)
	for _, r := range refs {
		if err := w.dir(ctx, r, at); err != nil {
			return err
		}
	}
	return nil
}

// node visits what a node names.
func (w *referenceWalk) node(ctx context.Context, n *Node, at place) error {
	if !n.XattrChunk.IsZero() {
		if _, err := w.visit(Reference{ID: n.XattrChunk, Role: RoleXattrs}); err != nil {
			return err
		}
	}
	for _, e := range n.Content.Extents {
		if err := w.extent(e); err != nil {
			return err
		}
	}
	if !n.Content.List.IsZero() {
		return w.content(ctx, ref{id: n.Content.List, root: true, weight: n.Content.Size})
	}
	if n.Kind != Dir {
		return nil
	}
	in, err := at.enter(n.Name)
	if err != nil {
		return err
	}
	return w.dir(ctx, ref{id: n.Tree, root: true}, in)
}

// content visits a page of a content list and what it names.
func (w *referenceWalk) content(ctx context.Context, r ref) error {
	deeper, err := w.visit(Reference{ID: r.id, Role: RolePage})
	if err != nil || !deeper {
		return err
	}
	p, err := readPage(ctx, w.g, pageContent, r)
	if err != nil {
		return err
	}
	if p.level == 0 {
		placed, err := p.extentsOfPage(nil, r)
		if err != nil {
			return pageError(r.id, err)
		}
		for _, e := range placed {
			if err := w.extent(e.Extent); err != nil {
				return err
			}
		}
		return nil
	}
	refs, err := p.refs(pageContent, r)
	if err != nil {
		return pageError(r.id, err)
	}
	prefetch(ctx, w.g, refs)
	for _, r := range refs {
		if err := w.content(ctx, r); err != nil {
			return err
		}
	}
	return nil
}

func (w *referenceWalk) extent(e Extent) error {
	if e.Kind == Hole {
		return nil
	}
	_, err := w.visit(Reference{ID: e.ID, Role: RoleContent, Length: e.chunkLength()})
	return err
}

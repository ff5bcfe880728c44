package manifest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"sort"

	"github.com/cairn-backup/cairn/chunk"
)

// ReadDir yields the nodes of the directory list with this root page in name
// order, byte by byte. It yields at most one error, last: from g, of ctx, or an
// ErrMalformed. Memory holds one page a level. A Getter that is a Prefetcher is
// told which pages come.
func ReadDir(ctx context.Context, g Getter, root chunk.ID) iter.Seq2[Node, error] {
	return func(yield func(Node, error) bool) {
		c := newCursor(g, root)
		c.hints = true
		for {
			ok, err := c.advance(ctx)
			if err == nil && ok {
				err = loadXattrs(ctx, g, &c.node)
			}
			if err != nil {
				yield(Node{}, err)
				return
			}
			if !ok || !yield(c.node, nil) {
				return
			}
		}
	}
}

// Lookup returns the node called name of the directory list with this root
// page. It reads one page a level. If there is none the error is
// fs.ErrNotExist.
func Lookup(ctx context.Context, g Getter, root chunk.ID, name string) (Node, error) {
	r := ref{id: root, root: true}
	for {
		p, err := readPage(ctx, g, pageDir, r)
		if err != nil {
			return Node{}, err
		}
		if p.level == 0 {
			return p.lookup(ctx, g, r, name)
		}
		refs, err := p.refs(pageDir, r)
		if err != nil {
			return Node{}, pageError(r.id, err)
		}
		i := sort.Search(len(refs), func(i int) bool { return refs[i].first > name })
		if i == 0 {
			return Node{}, fmt.Errorf("%q: %w", name, fs.ErrNotExist)
		}
		r = refs[i-1]
	}
}

// lookup searches a page of level 0.
func (p *pageReader) lookup(ctx context.Context, g Getter, r ref, name string) (Node, error) {
	var found Node
	// The page is read to its end, so that a bad page is refused whichever name
	// is asked for.
	err := p.nodes(r, func(n *Node) error {
		if n.Name == name {
			found = *n
		}
		return nil
	})
	switch {
	case err != nil:
		return Node{}, err
	case found.Name == "":
		return Node{}, fmt.Errorf("%q: %w", name, fs.ErrNotExist)
	}
	if err := loadXattrs(ctx, g, &found); err != nil {
		return Node{}, err
	}
	return found, nil
}

// nodes calls fn for each node of a page of level 0. The node is valid until fn
// returns. An error of fn is returned as it is.
func (p *pageReader) nodes(r ref, fn func(*Node) error) error {
	var n Node
	last := ""
	for range p.count {
		n = Node{}
		p.node(&n)
		switch {
		case p.r.Err() != nil:
			return pageError(r.id, p.r.Err())
		case n.Name <= last:
			return pageError(r.id, fmt.Errorf("name %q after %q", n.Name, last))
		case last == "" && !r.root && n.Name != r.first:
			return pageError(r.id, fmt.Errorf("first name %q, where %q is expected", n.Name, r.first))
		}
		if err := fn(&n); err != nil {
			return err
		}
		last = n.Name
	}
	if err := p.r.Done(); err != nil {
		return pageError(r.id, err)
	}
	return nil
}

// maxDepth bounds how deep directories lie in each other. A stored tree cannot
// have a cycle, since pages are named by their hash; a Getter that does not
// check hashes could make one.
const maxDepth = 10_000

// Walk calls fn for every node below the directory list with this root page: in
// name order, a directory before what is in it. Paths are relative to the root,
// names joined by "/". An error of fn ends the walk and is returned, but for two:
// fs.SkipDir for a directory passes over what is in it, for another node over
// the rest of its directory; fs.SkipAll ends the walk without an error.
func Walk(ctx context.Context, g Getter, root chunk.ID, fn func(path string, n Node) error) error {
	err := walk(ctx, g, root, fn, place{})
	if errors.Is(err, fs.SkipAll) {
		return nil
	}
	return err
}

// A place is where in a tree a walk is.
type place struct {
	prefix string // of the paths of the directory: "" or ends in "/"
	depth  int
}

// enter returns the place inside the directory called name.
func (p place) enter(name string) (place, error) {
	if p.depth == maxDepth {
		return place{}, fmt.Errorf("%s%s: %w: more than %d directories deep", p.prefix, name, ErrMalformed, maxDepth)
	}
	return place{prefix: p.prefix + name + "/", depth: p.depth + 1}, nil
}

func walk(ctx context.Context, g Getter, dir chunk.ID, fn func(string, Node) error, at place) error {
	for n, err := range ReadDir(ctx, g, dir) {
		if err != nil {
			return err
		}
		err := fn(at.prefix+n.Name, n)
		switch {
		case errors.Is(err, fs.SkipDir) && n.Kind == Dir:
			continue
		case errors.Is(err, fs.SkipDir):
			return nil
		case err != nil:
			return err
		case n.Kind != Dir:
			continue
		}
		inside, err := at.enter(n.Name)
		if err == nil {
			err = walk(ctx, g, n.Tree, fn, inside)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

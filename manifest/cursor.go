package manifest

import (
	"context"
	"fmt"

	"github.com/cairn-backup/cairn/chunk"
)

// A cursor walks a directory's list from front to back. It stands before a page
// that has not been read, at a node, or at the end. Pages can be passed over
// unread. It holds one page a level.
type cursor struct {
	g     Getter
	hints bool // tell g what will be read

	unread []ref // the pages ahead, the next one last
	page   pageReader
	id     chunk.ID // of page
	left   uint64   // nodes of page behind the current one
	at     bool     // node is valid
	node   Node     // the current one
	last   string   // the greatest name seen, "" at the start
}

// newCursor returns a cursor before the list with this root.
func newCursor(g Getter, root chunk.ID) *cursor {
	return &cursor{g: g, unread: []ref{{id: root, root: true}}}
}

// ahead returns the unread page that the cursor stands before, or nil.
func (c *cursor) ahead() *ref {
	if c.at || len(c.unread) == 0 {
		return nil
	}
	return &c.unread[len(c.unread)-1]
}

// pass skips the page that the cursor stands before.
func (c *cursor) pass() { c.unread = c.unread[:len(c.unread)-1] }

// open reads the page that the cursor stands before, so that the cursor comes
// to stand before its first page or at its first node.
func (c *cursor) open(ctx context.Context) error {
	r := c.unread[len(c.unread)-1]
	c.pass()
	p, err := readPage(ctx, c.g, pageDir, r)
	if err != nil {
		return err
	}
	if p.level == 0 {
		c.page, c.id, c.left = p, r.id, p.count
		if err := c.next(); err != nil {
			return err
		}
		if !r.root && c.node.Name != r.first {
			return pageError(r.id, fmt.Errorf("first name %q, where %q is expected", c.node.Name, r.first))
		}
		return nil
	}
	refs, err := p.refs(pageDir, r)
	if err != nil {
		return pageError(r.id, err)
	}
	if c.hints {
		prefetch(ctx, c.g, refs)
	}
	for i := range refs {
		c.unread = append(c.unread, refs[len(refs)-1-i])
	}
	return nil
}

// next moves to the node after the current one, or to the end of its page.
func (c *cursor) next() error {
	c.at = false
	if c.left == 0 {
		if err := c.page.r.Done(); err != nil {
			return pageError(c.id, err)
		}
		return nil
	}
	c.left--
	c.node = Node{}
	c.page.node(&c.node)
	if err := c.page.r.Err(); err != nil {
		return pageError(c.id, err)
	}
	if c.node.Name <= c.last {
		return pageError(c.id, fmt.Errorf("name %q after %q", c.node.Name, c.last))
	}
	c.last, c.at = c.node.Name, true
	return nil
}

// advance moves until the cursor stands at the next node; false at the end.
func (c *cursor) advance(ctx context.Context) (bool, error) {
	if c.at {
		if err := c.next(); err != nil {
			return false, err
		}
	}
	for !c.at {
		if c.ahead() == nil {
			return false, nil
		}
		if err := c.open(ctx); err != nil {
			return false, err
		}
	}
	return true, nil
}

package manifest

import (
	"context"
	"fmt"
	"slices"

	"github.com/cairn-backup/cairn/chunk"
)

// A DirWriter stores the list of one directory. It holds one page a level in
// memory, however many nodes there are. The same nodes give the same list.
// It is for one goroutine.
type DirWriter struct {
	put  Putter
	list *listWriter
	last string // name added last
	node []byte // room for the node that is being encoded
	key  []byte // room for its name
	err  error  // the first; sticks
}

// NewDirWriter returns a DirWriter that stores its pages through p.
func NewDirWriter(p Putter) *DirWriter {
	return &DirWriter{put: p, list: newListWriter(p, pageDir, dirBits)}
}

// Add appends n, whose name must be greater, byte by byte, than that of the
// node before. Attributes too large for the node become a chunk. A node that
// cannot be stored is an ErrInvalid. After an error every call returns that
// error. Add does not retain n.
func (w *DirWriter) Add(ctx context.Context, n Node) error {
	if w.err == nil {
		w.err = w.add(ctx, &n)
	}
	return w.err
}

func (w *DirWriter) add(ctx context.Context, n *Node) error {
	if err := n.Validate(); err != nil {
		return err
	}
	if n.Name <= w.last {
		return fmt.Errorf("node %q after %q: %w: out of order", n.Name, w.last, ErrInvalid)
	}
	if err := w.spill(ctx, n); err != nil {
		return err
	}
	w.node = n.Append(w.node[:0])
	w.key = append(w.key[:0], n.Name...)
	w.last = n.Name
	return w.list.add(ctx, 0, item{encoded: w.node, key: w.key, first: n.Name, weight: 1})
}

// spill decides where the attributes of n go. A chunk that n names already
// counts only if its attributes were not loaded.
func (w *DirWriter) spill(ctx context.Context, n *Node) error {
	if len(n.Xattrs) == 0 {
		return nil
	}
	n.XattrChunk = chunk.ID{}
	if xattrsSize(n.Xattrs) <= maxXattrsHere {
		return nil
	}
	id, err := w.put.PutChunk(ctx, encodeXattrs(n.Xattrs))
	if err != nil {
		return fmt.Errorf("put attributes of %q: %w", n.Name, err)
	}
	n.XattrChunk = id
	return nil
}

// Finish stores what is left and returns the root page: Node.Tree of the
// directory. The DirWriter cannot be used after it.
func (w *DirWriter) Finish(ctx context.Context) (chunk.ID, error) {
	if w.err != nil {
		return chunk.ID{}, w.err
	}
	id, err := w.list.finish(ctx)
	w.err = err
	if err == nil {
		w.err = errFinished
	}
	return id, err
}

// A ContentWriter collects the extents of one file and stores a list of them if
// there are more than a node holds. It holds one page a level in memory. It is
// for one goroutine.
type ContentWriter struct {
	put  Putter
	run  run         // the extents that are final
	few  []Extent    // those, as long as a node can hold them
	list *listWriter // else
	next Extent      // may still grow by its neighbour; the zero Extent at the start
	room []byte      // for the extent that is being encoded
	err  error       // the first; sticks
}

// NewContentWriter returns a ContentWriter that stores its pages through p.
func NewContentWriter(p Putter) *ContentWriter {
	return &ContentWriter{put: p}
}

// Add appends e. Neighbouring holes become one, and neighbours of the same
// chunk one Repeat. What cannot be stored is an ErrInvalid; it may be found
// only by the next call. After an error every call returns that error.
func (w *ContentWriter) Add(ctx context.Context, e Extent) error {
	if w.err != nil {
		return w.err
	}
	if err := e.check(); err != nil {
		w.err = fmt.Errorf("%w: %w", ErrInvalid, err)
		return w.err
	}
	if both, ok := join(w.next, e); ok {
		w.next = both
		return nil
	}
	w.err = w.settle(ctx)
	w.next = e
	return w.err
}

// settle makes w.next final.
func (w *ContentWriter) settle(ctx context.Context) error {
	e := w.next
	if e.Kind == 0 {
		return nil
	}
	if err := w.run.next(e); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if w.list == nil {
		w.few = append(w.few, e)
		if len(w.few) <= MaxExtents {
			return nil
		}
		w.list = newListWriter(w.put, pageContent, contentBits)
		for _, e := range w.few {
			if err := w.append(ctx, e); err != nil {
				return err
			}
		}
		w.few = nil
		return nil
	}
	return w.append(ctx, e)
}

// append adds e to the list.
func (w *ContentWriter) append(ctx context.Context, e Extent) error {
	w.room = e.append(w.room[:0])
	key := e.ID[:]
	if e.Kind == Hole {
		key = w.room
	}
	return w.list.add(ctx, 0, item{
		encoded: w.room, key: key, weight: e.covers(), leaves: 1, glued: e.Kind == Patch,
	})
}

// Finish stores what is left and returns the content: the extents themselves if
// they are at most MaxExtents, else the list of them; the zero Content if there
// are none. The caller owns the result. The ContentWriter cannot be used after
// it.
func (w *ContentWriter) Finish(ctx context.Context) (Content, error) {
	if w.err == nil {
		w.err = w.settle(ctx)
	}
	if w.err != nil {
		return Content{}, w.err
	}
	if w.list == nil {
		w.err = errFinished
		return Content{Extents: slices.Clip(w.few)}, nil
	}
	id, err := w.list.finish(ctx)
	if err != nil {
		w.err = err
		return Content{}, err
	}
	w.err = errFinished
	return Content{List: id, Size: w.run.size}, nil
}

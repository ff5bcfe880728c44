package manifest

import (
	"context"
	"fmt"
	"iter"
)

// Extents yields the extents of c in order, each with its offset in the file,
// beginning with the one that covers the byte at from; none if the content ends
// before it. A Patch follows the Data extent it changes, and is yielded with the
// offset of the first byte it replaces. Inline content has no extents.
//
// It reads one page a level to find the first, and yields at most one error,
// last: from g, of ctx, or an ErrMalformed. A Getter that is a Prefetcher is
// told which pages come.
func Extents(ctx context.Context, g Getter, c Content, from uint64) iter.Seq2[Placed, error] {
	return func(yield func(Placed, error) bool) {
		w := extentWalk{g: g, from: from, yield: yield}
		var err error
		if c.List.IsZero() {
			err = w.few(c.Extents)
		} else {
			err = w.list(ctx, c)
		}
		if err != nil {
			yield(Placed{}, err)
		}
	}
}

// An extentWalk is one run of Extents.
type extentWalk struct {
	g     Getter
	from  uint64
	yield func(Placed, error) bool
	begun bool // the extent that covers from has been reached
}

// give yields what comes at or behind from; false if the caller wants no more.
func (w *extentWalk) give(p Placed) bool {
	if p.Kind != Patch && p.Offset+p.Length > w.from {
		w.begun = true
	}
	return !w.begun || w.yield(p, nil)
}

func (w *extentWalk) few(extents []Extent) error {
	var seen run
	for _, e := range extents {
		if err := seen.next(e); err != nil {
			return fmt.Errorf("extents of a node: %w: %w", ErrMalformed, err)
		}
		if !w.give(Placed{Offset: seen.offset(e), Extent: e}) {
			return nil
		}
	}
	return nil
}

func (w *extentWalk) list(ctx context.Context, c Content) error {
	unread := []ref{{id: c.List, root: true, weight: c.Size}} // the next one last
	var placed []Placed
	for len(unread) > 0 {
		r := unread[len(unread)-1]
		unread = unread[:len(unread)-1]
		p, err := readPage(ctx, w.g, pageContent, r)
		if err != nil {
			return err
		}
		if p.level > 0 {
			refs, err := p.refs(pageContent, r)
			if err != nil {
				return pageError(r.id, err)
			}
			for len(refs) > 0 && refs[0].offset+refs[0].weight <= w.from {
				refs = refs[1:]
			}
			prefetch(ctx, w.g, refs)
			for i := range refs {
				unread = append(unread, refs[len(refs)-1-i])
			}
			continue
		}
		if placed, err = p.extentsOfPage(placed[:0], r); err != nil {
			return pageError(r.id, err)
		}
		for _, e := range placed {
			if !w.give(e) {
				return nil
			}
		}
	}
	return nil
}

// A Patched is an extent with the patches that replace parts of it.
type Patched struct {
	Placed
	Patches []Placed // in order, within the extent and disjoint; nil but for Data
}

// PatchedExtents is Extents with every extent and its patches as one item: what
// a file's bytes are put together from. The caller owns what is yielded.
func PatchedExtents(ctx context.Context, g Getter, c Content, from uint64) iter.Seq2[Patched, error] {
	return func(yield func(Patched, error) bool) {
		var next Patched // complete once another extent follows
		for e, err := range Extents(ctx, g, c, from) {
			switch {
			case err != nil:
				if next.Kind == 0 || yield(next, nil) {
					yield(Patched{}, err)
				}
				return
			case e.Kind == Patch:
				next.Patches = append(next.Patches, e)
				continue
			case next.Kind != 0 && !yield(next, nil):
				return
			}
			next = Patched{Placed: e}
		}
		if next.Kind != 0 {
			yield(next, nil)
		}
	}
}

package manifest

import (
	"context"
	"fmt"

	"github.com/cairn-backup/cairn/chunk"
)

// A ref is a page that has not been read, and what the page above says of it.
type ref struct {
	id     chunk.ID
	root   bool // nothing is said of it, save its weight, which is 0 if unknown
	level  uint64
	first  string // name of the first node below
	weight uint64 // nodes or bytes below
	leaves uint64 // extents below
	offset uint64 // in content: bytes before it
}

// A pageReader is one page while it is decoded.
type pageReader struct {
	decoder
	level uint64
	count uint64
}

// The least number of bytes that the items of a page take.
const (
	minDirEntry     = 1 + 1 + 32 + 1
	minContentEntry = 32 + 1 + 1
)

// readPage fetches the page that r names and reads its head. The caller must
// read r.count items and then call done.
func readPage(ctx context.Context, g Getter, kind uint64, r ref) (pageReader, error) {
	if err := ctx.Err(); err != nil {
		return pageReader{}, ctx.Err()
	}
	data, err := g.Chunk(ctx, r.id)
	if err != nil {
		return pageReader{}, fmt.Errorf("list page %s: %w", r.id, err)
	}
	p, err := parsePage(data, kind, r)
	if err != nil {
		return pageReader{}, pageError(r.id, err)
	}
	return p, nil
}

func pageError(id chunk.ID, err error) error {
	return fmt.Errorf("list page %s: %w: %w", id, ErrMalformed, err)
}

// parsePage reads the head of a page.
func parsePage(data []byte, kind uint64, r ref) (pageReader, error) {
	if len(data) > pageLimit {
		return pageReader{}, fmt.Errorf("page of %d bytes, want at most %d", len(data), pageLimit)
	}
	p := pageReader{decoder: newDecoder(data)}
	if got := p.r.Uvarint(1<<64 - 1); got != kind {
		p.r.Fail(fmt.Sprintf("page of kind %d, want %d", got, kind))
	}
	p.level = p.r.Uvarint(maxLevel)
	p.count = uint64(p.r.Count(pageLimit, p.minItem(kind))) //nolint:gosec // not negative
	if p.r.Err() == nil {
		p.checkHead(kind, r)
	}
	return p, p.r.Err()
}

// checkHead compares the head with what the page above says. Levels that fall
// by one are what keeps a cycle of pages from being followed.
func (p *pageReader) checkHead(kind uint64, r ref) {
	switch {
	case !r.root && p.level != r.level:
		p.r.Fail(fmt.Sprintf("page of level %d where %d is expected", p.level, r.level))
	case p.count == 0 && (!r.root || p.level > 0 || kind == pageContent):
		p.r.Fail("page without items")
	case r.root && p.level > 0 && p.count < 2:
		p.r.Fail("root page above a single page")
	case p.level == 0 && kind == pageDir && !r.root && p.count != r.weight,
		p.level == 0 && kind == pageContent && !r.root && p.count != r.leaves:
		p.r.Fail(fmt.Sprintf("%d items, not as many as the page above says", p.count))
	}
}

// minItem returns the least number of bytes that an item of the page takes.
func (p *pageReader) minItem(kind uint64) int {
	switch {
	case kind == pageDir && p.level == 0:
		return minNode
	case kind == pageDir:
		return minDirEntry
	case p.level == 0:
		return minExtent
	}
	return minContentEntry
}

// refs reads the items of a page above level 0. They are checked against r,
// which named the page, and against each other.
func (p *pageReader) refs(kind uint64, r ref) ([]ref, error) {
	list := make([]ref, 0, p.count)
	var weight, leaves uint64
	for range p.count {
		e := ref{level: p.level - 1, offset: r.offset + weight}
		if kind == pageDir {
			e.first = p.string(MaxName)
		}
		e.id = p.id()
		e.weight = p.r.Uvarint(maxSize - weight) // the sum stays in range
		if kind == pageContent {
			e.leaves = p.r.Uvarint(maxSize - leaves)
		}
		if p.r.Err() != nil {
			return nil, p.r.Err()
		}
		weight += e.weight
		leaves += e.leaves
		if err := e.checkAfter(kind, list); err != nil {
			p.r.Fail(err.Error())
			return nil, p.r.Err()
		}
		list = append(list, e)
	}
	switch {
	case r.root && r.weight == 0: // nothing is known of it
	case weight != r.weight || !r.root && leaves != r.leaves:
		p.r.Fail(fmt.Sprintf("%d and %d below, where %d and %d are expected", weight, leaves, r.weight, r.leaves))
	}
	if !r.root && kind == pageDir && list[0].first != r.first {
		p.r.Fail("first name is not the one in the page above")
	}
	return list, p.r.Done()
}

// checkAfter reports why e cannot stand after the items of list.
func (e *ref) checkAfter(kind uint64, list []ref) error {
	if e.weight == 0 || kind == pageContent && e.leaves == 0 {
		return fmt.Errorf("page %s with nothing below", e.id)
	}
	if kind == pageContent {
		return nil
	}
	if err := checkName(e.first); err != nil {
		return err
	}
	if n := len(list); n > 0 && e.first <= list[n-1].first {
		return fmt.Errorf("name %q after %q", e.first, list[n-1].first)
	}
	return nil
}

// extentsOfPage reads the extents of a page of level 0 into dst.
func (p *pageReader) extentsOfPage(dst []Placed, r ref) ([]Placed, error) {
	var seen run
	for range p.count {
		e := readExtent(p.r)
		if p.r.Err() != nil {
			return nil, p.r.Err()
		}
		if err := seen.next(e); err != nil {
			p.r.Fail(err.Error())
			return nil, p.r.Err()
		}
		dst = append(dst, Placed{Offset: r.offset + seen.offset(e), Extent: e})
	}
	if (!r.root || r.weight != 0) && seen.size != r.weight {
		p.r.Fail(fmt.Sprintf("extents cover %d bytes, where %d are expected", seen.size, r.weight))
	}
	return dst, p.r.Done()
}

// childIDs returns the ids of refs, for a Prefetcher.
func childIDs(refs []ref) []chunk.ID {
	ids := make([]chunk.ID, len(refs))
	for i := range refs {
		ids[i] = refs[i].id
	}
	return ids
}

// prefetch tells g, if it cares, that refs will be read.
func prefetch(ctx context.Context, g Getter, refs []ref) {
	if pf, ok := g.(Prefetcher); ok && len(refs) > 0 {
		pf.Prefetch(ctx, childIDs(refs))
	}
}

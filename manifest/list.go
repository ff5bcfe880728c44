package manifest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/zeebo/blake3"

	"github.com/cairn-backup/cairn/chunk"
	"github.com/cairn-backup/cairn/chunk/wire"
)

// A list is stored in pages, each a chunk:
//
//	uvarint kind | uvarint level | uvarint count | count items
//
// The items of level 0 are the list's own: nodes (kind 1) or extents (kind 2).
// Those of a higher level name the pages below, in order:
//
//	directory  bytes name of the first node below | 32 page ID | uvarint nodes below
//	content    32 page ID | uvarint bytes below | uvarint extents below
//
// All pages below a page are one level lower. The root is the lowest level that
// has only one page. The empty list is a page of level 0 without items.
//
// A page ends after an item whose key hashes to a number with so many low zero
// bits: BLAKE3-256 of the key, its first 8 bytes little-endian, 6 bits for
// directories and 7 for content. The key of a node is its name; of Data and
// Repeat the chunk ID; of a Hole its encoding; of an item of a higher level the
// page ID. A page also ends before an item that would make its items more than
// 16 KiB. Three things stay together: a Patch is on the page of the extent it
// patches, whatever the size; a page has at least one item; above level 0 no
// hash ends a page with fewer than two. So where pages end depends on the
// items alone, and after a change the next end is soon the old one again.
const (
	pageDir     = 1
	pageContent = 2
	pageXattrs  = 3 // not a list; see encodeXattrs

	dirBits     = 6 // 64 nodes of 60 to 90 bytes: 4 to 6 KiB
	contentBits = 7 // 128 extents of 37 bytes: 4.6 KiB

	pageFull  = 16 << 10 // bytes of items that end a page
	pageLimit = 64 << 10 // bytes of a page that a reader accepts
	maxLevel  = 32       // two items a page above level 0 are 2^32 pages
)

// errFinished is what a list writer returns after Finish.
var errFinished = fmt.Errorf("%w: list writer used after Finish", ErrInvalid)

// A listWriter cuts a stream of encoded items into pages and stores each page
// as soon as it is known to end. It holds one open page a level.
type listWriter struct {
	put    Putter
	kind   uint64
	mask   uint64 // low bits of the hash that end a page where they are zero
	levels []openPage
	page   []byte // room for the page that is being stored
}

// An openPage is the page of one level that items are added to.
type openPage struct {
	items  []byte
	count  uint64
	weight uint64 // nodes or bytes below
	leaves uint64 // extents below
	first  string // name of the first node below
	ended  bool   // by the hash of its last item
	before bool   // pages of this level have been stored
}

// An item is what a listWriter takes.
type item struct {
	encoded []byte // not retained
	key     []byte // what decides where pages end; not retained
	first   string // in directories, the first name in or below the item
	weight  uint64
	leaves  uint64
	glued   bool // stays with the item before
}

func newListWriter(put Putter, kind uint64, bits uint) *listWriter {
	return &listWriter{put: put, kind: kind, mask: 1<<bits - 1}
}

// add appends it to the open page of level, storing that page first if it has
// ended.
func (w *listWriter) add(ctx context.Context, level int, it item) error {
	if level == len(w.levels) {
		w.levels = append(w.levels, openPage{})
	}
	p := &w.levels[level]
	full := len(p.items)+len(it.encoded) > pageFull
	if p.count > 0 && !it.glued && (p.ended || full) {
		if err := w.flush(ctx, level); err != nil {
			return err
		}
		p = &w.levels[level] // flush may have added a level
	}
	if p.count == 0 {
		p.first = it.first
	}
	p.items = append(p.items, it.encoded...)
	p.count++
	p.weight += it.weight
	p.leaves += it.leaves
	if !it.glued {
		p.ended = (level == 0 || p.count > 1) && w.ends(it.key)
	}
	return nil
}

// ends reports whether a page ends after the item with this key.
func (w *listWriter) ends(key []byte) bool {
	sum := blake3.Sum256(key)
	return binary.LittleEndian.Uint64(sum[:8])&w.mask == 0
}

// flush stores the open page of level, names it in the level above, and leaves
// an empty one.
func (w *listWriter) flush(ctx context.Context, level int) error {
	if level == maxLevel {
		return fmt.Errorf("%w: list of more than %d levels", ErrInvalid, maxLevel)
	}
	id, err := w.store(ctx, level)
	if err != nil {
		return err
	}
	p := &w.levels[level]
	it := item{first: p.first, weight: p.weight, leaves: p.leaves, key: id[:]}
	var entry []byte // not room of w: the level above may flush before it copies
	if w.kind == pageDir {
		entry = wire.AppendText(entry, p.first)
	}
	entry = append(entry, id[:]...)
	entry = wire.AppendUvarint(entry, p.weight)
	if w.kind == pageContent {
		entry = wire.AppendUvarint(entry, p.leaves)
	}
	it.encoded = entry
	*p = openPage{items: p.items[:0], before: true}
	return w.add(ctx, level+1, it)
}

// store puts the open page of level.
func (w *listWriter) store(ctx context.Context, level int) (chunk.ID, error) {
	if err := ctx.Err(); err != nil {
		return chunk.ID{}, ctx.Err()
	}
	var p openPage // an empty list has no level yet
	if level < len(w.levels) {
		p = w.levels[level]
	}
	w.page = wire.AppendUvarint(w.page[:0], w.kind)
	w.page = wire.AppendUvarint(w.page, uint64(level)) //nolint:gosec // 0 to maxLevel
	w.page = wire.AppendUvarint(w.page, p.count)
	w.page = append(w.page, p.items...)
	id, err := w.put.PutChunk(ctx, w.page)
	switch {
	case err != nil:
		return chunk.ID{}, fmt.Errorf("put list page: %w", err)
	case id.IsZero():
		return chunk.ID{}, errors.New("put list page: stored under the zero id")
	}
	return id, nil
}

// finish stores what is open and returns the root page.
func (w *listWriter) finish(ctx context.Context) (chunk.ID, error) {
	for level := 0; ; level++ {
		// A page is stored only when an item follows it, so the open page of
		// every level has items, and the first level without earlier pages is
		// the root.
		if level >= len(w.levels) || !w.levels[level].before {
			return w.store(ctx, level)
		}
		if err := w.flush(ctx, level); err != nil {
			return chunk.ID{}, err
		}
	}
}

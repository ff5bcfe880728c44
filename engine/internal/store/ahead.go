package store

import (
	"context"
	"slices"
	"sync"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/chunk"
	"github.com/cairn-backup/cairn/chunk/pack"
	"github.com/cairn-backup/cairn/chunk/seal"
	"github.com/cairn-backup/cairn/engine/internal/blockcache"
	"github.com/cairn-backup/cairn/engine/internal/index"
	"github.com/cairn-backup/cairn/engine/internal/log"
	"github.com/cairn-backup/cairn/manifest"
)

const (
	// aheadSize is how much of a metadata pack is read at a time from a store that
	// is far, in bytes: whoever reads two blocks of one will want the others.
	// Parts begin at multiples of it, and are longer by about a block.
	aheadSize = 2 << 20
	aheadMore = 256 << 10
	// aheadBytes is how much of what was read so is kept, and aheadParts how many
	// parts are remembered to have been read.
	aheadBytes = 4 * (aheadSize + aheadMore)
	aheadParts = 1024
	// listAtOnce is how many parts a List reads at a time at most, and as few as
	// have listBytes together: what is read must be kept until it is asked for.
	listAtOnce = 16
	listBytes  = aheadBytes - (aheadSize + aheadMore)
	// farPublish is how many bytes may wait to be recorded, at least, in a store
	// that is far: each record costs two requests.
	farPublish = 32 << 20
)

// An aheadRead is a part of a metadata pack as it is stored. Nobody has looked
// at what it is.
type aheadRead struct {
	pack pack.ID
	off  int64         // where the part begins; wholePack: only a block was read
	data []byte        // empty if it was dropped, or never read
	done chan struct{} // nil: it was read; else it is being read, and this is closed then
}

// wholePack stands for no part of a pack.
const wholePack = -1

// A Walk is a Store for who reads the pages of a tree from end to end. Of a store
// that is far already the first block of a metadata pack brings those beside it.
type Walk struct{ store *Store }

// Walk returns s for who reads a tree from end to end.
func (s *Store) Walk() Walk { return Walk{s} }

// Chunk is as Store.Chunk.
func (w Walk) Chunk(ctx context.Context, id chunk.ID) ([]byte, error) {
	return w.store.chunk(ctx, id, next{tree: true})
}

// List returns what reads the list of a large file from its first page to its last.
func (w Walk) List() *List { return &List{store: w.store} }

// A List is a Walk that reads the parts of packs in which the next pages lie
// several at a time. Wait ends it.
type List struct {
	store *Store
	reads sync.WaitGroup

	mu   sync.Mutex // guards what follows
	many int        // parts that are being read
	size int64      // their bytes
}

var _ manifest.Prefetcher = (*List)(nil)

// Chunk is as Store.Chunk.
func (l *List) Chunk(ctx context.Context, id chunk.ID) ([]byte, error) {
	return Walk{l.store}.Chunk(ctx, id)
}

// Prefetch implements manifest.Prefetcher. What it reads ends with ctx.
func (l *List) Prefetch(ctx context.Context, ids []chunk.ID) {
	s := l.store
	if !s.far() {
		return
	}
	places, found, err := s.Places(ids)
	if err != nil {
		return // Chunk tells
	}
	for i, p := range places {
		info, ok := s.packInfo(p.Pack)
		if !found[i] || !ok || info.Kind != seal.KindMetaPack || s.atHand(info, p) {
			continue
		}
		part, size := partOf(info, p)
		if !l.take(size) {
			return
		}
		if _, wait, read := s.aheadOf(&part, p, true); wait != nil || !read {
			l.give(size)
			continue
		}
		l.reads.Go(func() {
			defer l.give(size)
			_, _ = s.readPart(ctx, info, part, size) // as above
		})
	}
}

// take reports whether a part of so many bytes may be read as well.
func (l *List) take(size int64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.many == listAtOnce || l.size+size > listBytes {
		return false
	}
	l.many++
	l.size += size
	return true
}

func (l *List) give(size int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.many--
	l.size -= size
}

// Wait waits until nothing is read any more. To make that soon the caller ends
// the context of Prefetch.
func (l *List) Wait() { l.reads.Wait() }

// atHand reports whether the block at p need not be fetched.
func (s *Store) atHand(info log.PackInfo, p index.Place) bool {
	if _, ok := s.cached(p); ok {
		return true
	}
	return s.opts.Blocks.Has(blockcache.Place{Pack: info.ID, Offset: p.Offset}, int(p.Stored))
}

// far reports whether requests are waited for, and paid for.
func (s *Store) far() bool { return backend.Concurrency(s.opts.Backend) > 0 }

// leastPublished is how many bytes may wait to be recorded, whatever else.
func (s *Store) leastPublished() uint64 {
	if s.far() && s.opts.Limits.Pack == 0 {
		return farPublish
	}
	return 0
}

// readAhead returns the block at p of a metadata pack if it was read together
// with others before, or is now: for who reads a second one of that pack, or the
// first of a tree that is wanted as a whole.
func (s *Store) readAhead(ctx context.Context, info log.PackInfo, p index.Place, tree bool) ([]byte, bool) {
	if info.Kind != seal.KindMetaPack || !s.far() {
		return nil, false
	}
	for {
		part, size := partOf(info, p)
		found, wait, read := s.aheadOf(&part, p, tree)
		switch {
		case wait != nil:
			select {
			case <-wait:
				continue
			case <-ctx.Done():
				return nil, false // as below
			}
		case !read:
			return found, found != nil
		}
		data, err := s.readPart(ctx, info, part, size)
		if err != nil {
			return nil, false // a read of the block alone tells
		}
		at := int64(p.Offset) - part.off
		return data[at : at+int64(p.Stored)], true
	}
}

// partOf returns the part of a pack in which the block at p lies, and how many
// bytes of it are read.
func partOf(info log.PackInfo, p index.Place) (aheadRead, int64) {
	off := int64(p.Offset) &^ (aheadSize - 1)
	at := int64(p.Offset) - off
	return aheadRead{pack: info.ID, off: off}, min(max(aheadSize+aheadMore, at+int64(p.Stored)), int64(info.Size)-off)
}

// aheadOf returns the block at p if it was read, what to wait for if it is being
// read, and else whether its part is worth reading: then the caller has to, by
// readPart, and others wait for him. One that was read and dropped since is not:
// whoever goes to and fro among more packs than are kept would have each read
// again for every block.
func (s *Store) aheadOf(part *aheadRead, p index.Place, tree bool) (found []byte, wait <-chan struct{}, read bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	seen, had := tree, false
	for _, a := range s.ahead {
		if a.pack != part.pack {
			continue
		}
		if a.off == part.off && a.done != nil {
			return nil, a.done, false
		}
		seen = true
		had = had || a.off == part.off
		if at := int64(p.Offset) - a.off; len(a.data) > 0 && at >= 0 && at+int64(p.Stored) <= int64(len(a.data)) {
			return a.data[at : at+int64(p.Stored)], nil, false
		}
	}
	if !seen {
		s.keepAhead(aheadRead{pack: part.pack, off: wholePack})
	}
	if !seen || had {
		return nil, nil, false
	}
	part.done = make(chan struct{})
	s.keepAhead(*part)
	return nil, nil, true
}

// readPart reads a part that aheadOf left to the caller.
func (s *Store) readPart(ctx context.Context, info log.PackInfo, part aheadRead, size int64) ([]byte, error) {
	data, err := s.readAt(ctx, info, part.off, size)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ahead = slices.DeleteFunc(s.ahead, func(a aheadRead) bool { return a.done == part.done })
	close(part.done)
	if err == nil {
		s.keepAhead(aheadRead{pack: part.pack, off: part.off, data: data})
	}
	return data, err
}

// keepAhead remembers a read, and drops the bytes of the oldest ones where there
// are too many. The caller holds mu.
func (s *Store) keepAhead(a aheadRead) {
	s.ahead = append(s.ahead, a)
	size := 0
	for i := len(s.ahead) - 1; i >= 0; i-- {
		if size += len(s.ahead[i].data); size > aheadBytes {
			size -= len(s.ahead[i].data)
			s.ahead[i].data = nil
		}
	}
	if len(s.ahead) > aheadParts {
		s.ahead = slices.Delete(s.ahead, 0, len(s.ahead)-aheadParts)
	}
}

// keepBlocks puts the blocks of a metadata pack that was stored into the cache
// on disk: the next backup reads them.
func (s *Store) keepBlocks(p pack.Pack) {
	if p.Header.Kind != seal.KindMetaPack {
		return
	}
	for _, b := range p.Table.Blocks {
		s.opts.Blocks.Put(blockcache.Place{Pack: p.ID, Offset: b.Offset}, p.Object[b.Offset:b.Offset+b.Stored])
	}
}

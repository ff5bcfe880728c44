package store

import (
	"context"
	"slices"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/chunk/pack"
	"github.com/cairn-backup/cairn/chunk/seal"
	"github.com/cairn-backup/cairn/engine/internal/blockcache"
	"github.com/cairn-backup/cairn/engine/internal/index"
	"github.com/cairn-backup/cairn/engine/internal/log"
)

const (
	// aheadSize is how much of a metadata pack is read at a time from a store that
	// is far, in bytes: whoever reads two blocks of one will want the others.
	// Parts begin at multiples of it, and are longer by about a block.
	aheadSize = 2 << 20
	aheadMore = 256 << 10
	// aheadReads is how many of them are kept.
	aheadReads = 4
	// farPublish is how many bytes may wait to be recorded, at least, in a store
	// that is far: each record costs two requests.
	farPublish = 32 << 20
)

// An aheadRead is a part of a metadata pack as it is stored. Nobody has looked
// at what it is.
type aheadRead struct {
	pack pack.ID
	off  int64
	data []byte // empty: one block of that pack was read, and no more
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
// with others before, or is now: for who reads a second one of that pack.
func (s *Store) readAhead(ctx context.Context, info log.PackInfo, p index.Place) ([]byte, bool) {
	if info.Kind != seal.KindMetaPack || !s.far() {
		return nil, false
	}
	found, seen := s.aheadOf(info.ID, p)
	if found != nil || !seen {
		return found, found != nil
	}
	off := int64(p.Offset) &^ (aheadSize - 1)
	at := int64(p.Offset) - off
	data, err := s.readAt(ctx, info, off, min(max(aheadSize+aheadMore, at+int64(p.Stored)), int64(info.Size)-off))
	if err != nil {
		return nil, false // a read of the block alone tells
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keepAhead(aheadRead{pack: info.ID, off: off, data: data})
	return data[at : at+int64(p.Stored)], true
}

// aheadOf returns the block at p if it was read, and whether any block of that
// pack was.
func (s *Store) aheadOf(id pack.ID, p index.Place) (found []byte, seen bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.ahead {
		if a.pack != id {
			continue
		}
		seen = true
		if at := int64(p.Offset) - a.off; at >= 0 && at+int64(p.Stored) <= int64(len(a.data)) {
			return a.data[at : at+int64(p.Stored)], true
		}
	}
	if !seen {
		s.keepAhead(aheadRead{pack: id})
	}
	return nil, seen
}

// keepAhead keeps a read in the place of the oldest. The caller holds mu.
func (s *Store) keepAhead(a aheadRead) {
	s.ahead = append(s.ahead, a)
	if len(s.ahead) > aheadReads {
		s.ahead = slices.Delete(s.ahead, 0, 1)
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

package store

import (
	"context"
	"slices"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/chunk"
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
	// aheadBytes is how much of what was read so is kept, and aheadParts how many
	// parts are remembered to have been read.
	aheadBytes = 4 * (aheadSize + aheadMore)
	aheadParts = 1024
	// farPublish is how many bytes may wait to be recorded, at least, in a store
	// that is far: each record costs two requests.
	farPublish = 32 << 20
)

// An aheadRead is a part of a metadata pack as it is stored. Nobody has looked
// at what it is.
type aheadRead struct {
	pack pack.ID
	off  int64  // where the part begins; wholePack: only a block was read
	data []byte // empty if it was dropped, or never read
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
	off := int64(p.Offset) &^ (aheadSize - 1)
	found, read := s.aheadOf(aheadRead{pack: info.ID, off: off}, p, tree)
	if !read {
		return found, found != nil
	}
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

// aheadOf returns the block at p if it was read, and else whether its part is
// worth reading. One that was read and dropped since is not: whoever goes to and
// fro among more packs than are kept would have each read again for every block.
func (s *Store) aheadOf(part aheadRead, p index.Place, tree bool) (found []byte, read bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	seen, had := tree, false
	for _, a := range s.ahead {
		if a.pack != part.pack {
			continue
		}
		seen = true
		had = had || a.off == part.off
		if at := int64(p.Offset) - a.off; len(a.data) > 0 && at >= 0 && at+int64(p.Stored) <= int64(len(a.data)) {
			return a.data[at : at+int64(p.Stored)], false
		}
	}
	if !seen {
		s.keepAhead(aheadRead{pack: part.pack, off: wholePack})
	}
	return nil, seen && !had
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

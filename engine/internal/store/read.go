package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/chunk"
	"github.com/cairn-backup/cairn/chunk/pack"
	"github.com/cairn-backup/cairn/chunk/seal"
	"github.com/cairn-backup/cairn/engine/internal/blockcache"
	"github.com/cairn-backup/cairn/engine/internal/index"
	"github.com/cairn-backup/cairn/engine/internal/layout"
	"github.com/cairn-backup/cairn/engine/internal/log"
)

// errNoPlace says that no live pack is known to hold a chunk.
var errNoPlace = errors.New("no live pack holds the chunk")

// notLive says that a pack was doomed since someone looked up a place in it.
func notLive(number uint64) error {
	return &CorruptError{Offset: -1, Err: fmt.Errorf("pack %d is not live", number)}
}

// Find returns the places of ids, in their order. What the index does not know,
// or knows wrongly, is looked for again after the log and every segment were
// read; a chunk that is nowhere then is a CorruptError.
func (s *Store) Find(ctx context.Context, ids []chunk.ID) ([]index.Place, error) {
	places := make([]index.Place, len(ids))
	found := make([]bool, len(ids))
	for attempt := 0; ; attempt++ {
		seen := s.resets.Load()
		err := s.lookup(ids, places, found)
		missing := -1
		for i := range found {
			if !found[i] {
				missing = i
				break
			}
		}
		if err == nil && missing < 0 {
			return places, nil
		}
		if s.opts.Strict || attempt == 1 && err == nil && s.missed(seen) {
			attempt = 2
		}
		switch attempt {
		case 0: // another process may have written or moved it
			if err := s.opts.Log.Refresh(ctx); err != nil && s.opts.Log.Problem() == nil {
				return nil, err // a log with a problem is read as far as it goes
			}
		case 1: // the index may have lost it
			if err := s.rebuild(ctx, seen, errors.Join(err, errNoPlace)); err != nil {
				return nil, err
			}
		default:
			if err != nil {
				return nil, err
			}
			s.setMissed(seen)
			return nil, &CorruptError{ID: ids[missing], Offset: -1, Err: errNoPlace}
		}
		if err := s.LoadAll(ctx); err != nil {
			return nil, err
		}
	}
}

// A miss is final if an index that was built anew missed a chunk before, at the
// same head of the log: else each chunk that is really lost would cost every
// segment again.
type miss struct {
	head   log.Position
	resets uint64
}

func (s *Store) missed(resets uint64) bool {
	m := s.lastMiss.Load()
	return m != nil && *m == miss{head: s.opts.Log.Head(), resets: resets} && !s.index().Damaged()
}

func (s *Store) setMissed(resets uint64) {
	s.lastMiss.Store(&miss{head: s.opts.Log.Head(), resets: resets})
}

// lookup asks the index, and leaves found false for places in packs that are
// not live.
func (s *Store) lookup(ids []chunk.ID, places []index.Place, found []bool) error {
	clear(found)
	if err := s.index().LookupMany(ids, places, found); err != nil {
		clear(found)
		return err
	}
	return s.opts.Log.View(func(st *log.State) error {
		for i, ok := range found {
			found[i] = ok && placeHolds(st, places[i])
		}
		return nil
	})
}

// placeHolds reports whether a place from the index lies in the pack that the
// log knows by that number, within its bounds: the index is a hint, and the
// number alone would name another pack in another history.
func placeHolds(st *log.State, p index.Place) bool {
	info, ok := st.Pack(p.Pack)
	return ok && info.ID.Check() == p.Check && uint64(p.Offset)+uint64(p.Stored) <= uint64(info.Size)
}

// Chunk returns one chunk, verified. Its bytes are shared: nobody may change
// them. It is made for tree pages, of which many lie in one block. A chunk whose
// pack was doomed meanwhile is found in its successor.
func (s *Store) Chunk(ctx context.Context, id chunk.ID) ([]byte, error) {
	return s.chunk(ctx, id, next{})
}

// ChunkAhead is Chunk for who will ask for the chunks of ahead next: if blocks of
// theirs lie right behind that of id, one read brings them along.
func (s *Store) ChunkAhead(ctx context.Context, id chunk.ID, ahead []chunk.ID) ([]byte, error) {
	return s.chunk(ctx, id, next{ahead: ahead})
}

// A next is what will be asked for behind a chunk.
type next struct {
	ahead []chunk.ID // these
	tree  bool       // all of the tree that it is a page of
}

func (s *Store) chunk(ctx context.Context, id chunk.ID, then next) ([]byte, error) {
	places, err := s.Find(ctx, []chunk.ID{id})
	if err != nil {
		return nil, err
	}
	for tries := 1; ; tries++ {
		data, err := s.chunkAt(ctx, id, places[0], then)
		if err == nil || !MayTryAgain(err, tries) {
			return data, err
		}
		again, found, againErr := s.Again(ctx, []chunk.ID{id}, places)
		if againErr != nil {
			return nil, againErr
		}
		if !found[0] {
			return nil, err
		}
		places = again
	}
}

// chunkAt returns the chunk at p, by the cache of blocks.
func (s *Store) chunkAt(ctx context.Context, id chunk.ID, p index.Place, then next) ([]byte, error) {
	r, err := s.Reader()
	if err != nil {
		return nil, err
	}
	defer s.Release(r)
	block, ok := s.cached(p)
	if !ok {
		run, err := s.run(p, then.ahead)
		if err != nil {
			return nil, err
		}
		if len(run) > 1 {
			block, err = s.fetchRun(ctx, r, p, run)
		} else {
			block, err = s.fetchOne(ctx, r, p, then.tree)
		}
		if err != nil {
			return nil, err
		}
	}
	return s.Cut(r, block, id, p)
}

// cached returns the block at p if it is in memory.
func (s *Store) cached(p index.Place) ([]byte, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if block, ok := s.blocks.get(placeOf(p)); ok {
		return block, true
	}
	return s.data.get(placeOf(p))
}

// keep puts a copy of an opened block into memory, and returns it.
func (s *Store) keep(p index.Place, opened []byte) []byte {
	block := bytes.Clone(opened)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(block) > metaBlockSize {
		s.data.put(placeOf(p), block)
	} else {
		s.blocks.put(placeOf(p), block)
	}
	return block
}

func placeOf(p index.Place) blockPlace {
	return blockPlace{pack: p.Pack, check: p.Check, offset: p.Offset}
}

const (
	// maxRun is how many blocks one read brings, at most: so many that the cache
	// holds them until they are asked for.
	maxRun = dataCacheSize / 2 / blockSize
	// maxRunBytes bounds how many bytes that read has.
	maxRunBytes = 4 << 20
)

// run returns the place of a block, and of those beside it, without a gap, that
// hold what comes ahead; by offset. Blocks of one stream lie close together, but
// not always in its order: several are sealed at once.
func (s *Store) run(p index.Place, ahead []chunk.ID) ([]index.Place, error) {
	run := []index.Place{p}
	if len(ahead) == 0 {
		return run, nil
	}
	places, found, err := s.Places(ahead)
	if err != nil {
		return nil, err
	}
	begins, ends := make(map[uint32]index.Place), make(map[uint32]index.Place)
	for i, next := range places {
		if found[i] && next.Pack == p.Pack && next.Check == p.Check {
			begins[next.Offset], ends[next.Offset+next.Stored] = next, next
		}
	}
	for left := maxRunBytes - int64(p.Stored); len(run) < maxRun; {
		next, behind := begins[run[len(run)-1].Offset+run[len(run)-1].Stored]
		if !behind {
			next = ends[run[0].Offset]
		}
		if left -= int64(next.Stored); left < 0 || next.Stored == 0 {
			break
		}
		if _, ok := s.cached(next); ok {
			break
		}
		if behind {
			run = append(run, next)
		} else {
			run = slices.Insert(run, 0, next)
		}
	}
	return run, nil
}

// fetchRun reads and opens blocks that lie one behind the other, and returns the
// one at p. What is wrong with another is told to who asks for that.
func (s *Store) fetchRun(ctx context.Context, r *Reader, p index.Place, run []index.Place) ([]byte, error) {
	first, last := run[0], run[len(run)-1]
	sealed, err := s.ReadRange(ctx, p.Pack, int64(first.Offset), int64(last.Offset+last.Stored-first.Offset))
	if err != nil { // the block by itself may be there all the same
		return s.fetchOne(ctx, r, p, false)
	}
	var block []byte
	for _, at := range run {
		begin := at.Offset - first.Offset
		opened, err := s.OpenBlock(ctx, r, at, sealed[begin:begin+at.Stored])
		switch {
		case err == nil && at.Offset == p.Offset:
			block = s.keep(at, opened)
		case err == nil:
			s.keep(at, opened)
		case at.Offset == p.Offset:
			return nil, err
		}
	}
	return block, nil
}

// fetchOne returns the block at p, and keeps it in memory. tree says that the whole
// tree which it is of will be read.
func (s *Store) fetchOne(ctx context.Context, r *Reader, p index.Place, tree bool) ([]byte, error) {
	opened, err := s.fetchBlock(ctx, r, p, tree)
	if err != nil {
		return nil, err
	}
	return s.keep(p, opened), nil
}

// fetchBlock reads the block at p and opens it, as OpenBlock does. One of a
// metadata pack may be in the cache on disk, which is believed as far as its
// seal holds.
func (s *Store) fetchBlock(ctx context.Context, r *Reader, p index.Place, tree bool) ([]byte, error) {
	info, ok := s.packInfo(p.Pack)
	if !ok {
		return nil, notLive(p.Pack)
	}
	at := blockcache.Place{Pack: info.ID, Offset: p.Offset}
	cache := s.opts.Blocks
	if info.Kind != seal.KindMetaPack {
		cache = nil
	}
	if sealed, ok := cache.Get(at, int(p.Stored)); ok {
		if opened, err := s.OpenBlock(ctx, r, p, sealed); err == nil {
			return opened, nil
		}
		cache.Drop(at)
	}
	if sealed, ok := s.readAhead(ctx, info, p, tree); ok {
		if opened, err := s.OpenBlock(ctx, r, p, sealed); err == nil {
			cache.Put(at, sealed)
			return opened, nil
		}
	}
	sealed, err := s.ReadRange(ctx, p.Pack, int64(p.Offset), int64(p.Stored))
	if err != nil {
		return nil, err
	}
	opened, err := s.OpenBlock(ctx, r, p, sealed)
	if err != nil {
		return nil, err
	}
	cache.Put(at, sealed)
	return opened, nil
}

// ReadRange reads bytes of a live pack.
func (s *Store) ReadRange(ctx context.Context, number uint64, off, n int64) ([]byte, error) {
	buf := make([]byte, n)
	return buf, s.ReadInto(ctx, number, off, buf)
}

// ReadInto fills buf with bytes of a live pack.
func (s *Store) ReadInto(ctx context.Context, number uint64, off int64, buf []byte) error {
	info, ok := s.packInfo(number)
	if !ok {
		return notLive(number)
	}
	return s.readInto(ctx, info, off, buf)
}

// Stream opens a range of a live pack, to be read from its first byte on. The
// caller closes it.
func (s *Store) Stream(ctx context.Context, number uint64, off, n int64) (*Stream, error) {
	info, ok := s.packInfo(number)
	if !ok {
		return nil, notLive(number)
	}
	r := &Stream{key: layout.Pack(info.ID), off: off, want: n}
	var err error
	r.body, err = s.opts.Backend.Get(ctx, r.key, off, n)
	return r, r.explain(err)
}

// A Stream is a range of a pack.
type Stream struct {
	key  backend.Key
	off  int64 // in the pack, of what comes next
	want int64 // bytes of the whole range
	body io.ReadCloser
}

// Read fills buf with the bytes from off on, which must not lie before what was
// read. Those in between are thrown away.
func (r *Stream) Read(off int64, buf []byte) error {
	n, err := io.CopyN(io.Discard, r.body, off-r.off)
	r.off += n
	if err == nil {
		_, err = io.ReadFull(r.body, buf)
		r.off = off + int64(len(buf))
	}
	return r.explain(ended(err, r.body, r.want))
}

// Close ends the request.
func (r *Stream) Close() { _ = r.body.Close() } // what was read is verified by those who take it

func (r *Stream) explain(err error) error { return packError(r.key, r.off, err) }

// OpenBlock opens and decodes the block at p. The result is valid until the
// next call with r.
func (s *Store) OpenBlock(ctx context.Context, r *Reader, p index.Place, sealed []byte) ([]byte, error) {
	info, ok := s.packInfo(p.Pack)
	if !ok {
		return nil, notLive(p.Pack)
	}
	h := info.Header()
	if p.Foreign {
		t, err := s.Table(ctx, p.Pack)
		if err != nil {
			return nil, err
		}
		b, ok := blockAt(t, p.Offset)
		if !ok || b.Birth == 0 {
			return nil, s.corruptAt(info, p, chunk.ID{}, errors.New("the footer knows no such block"))
		}
		h = t.Births[b.Birth-1]
	}
	o, err := s.opener(h)
	if err != nil {
		return nil, err
	}
	raw, grown, err := pack.ViewBlock(o, r.dec, r.buf, sealed, p.Block, maxBlock)
	if errors.Is(err, seal.ErrNewerFormat) {
		return nil, fmt.Errorf("%s at %d: %w", layout.Pack(info.ID), p.Offset, err)
	}
	if err != nil {
		return nil, s.corruptAt(info, p, chunk.ID{}, err)
	}
	r.buf = grown
	return raw, nil
}

// Cut returns the chunk at p of an opened block, once its hash was found right.
func (s *Store) Cut(r *Reader, block []byte, id chunk.ID, p index.Place) ([]byte, error) {
	end := uint64(p.Start) + uint64(p.Length)
	if end <= uint64(len(block)) {
		if data := block[p.Start:end]; r.hash.Sum(data) == id {
			return data, nil
		}
	}
	info, _ := s.packInfo(p.Pack)
	return nil, s.corruptAt(info, p, id, errors.New("the bytes do not match the chunk's name"))
}

// Is reports whether data is the chunk that id names.
func (r *Reader) Is(data []byte, id chunk.ID) bool { return r.hash.Sum(data) == id }

func (s *Store) corruptAt(info log.PackInfo, p index.Place, id chunk.ID, err error) error {
	return &CorruptError{Object: string(layout.Pack(info.ID)), Offset: int64(p.Offset), ID: id, Err: err}
}

func blockAt(t pack.Table, offset uint32) (pack.Block, bool) {
	for _, b := range t.Blocks {
		if b.Offset == offset {
			return b, true
		}
	}
	return pack.Block{}, false
}

// Places returns the places of ids, as the index knows them and nothing else is
// asked.
func (s *Store) Places(ids []chunk.ID) (places []index.Place, found []bool, err error) {
	places, found = make([]index.Place, len(ids)), make([]bool, len(ids))
	if err := s.lookup(ids, places, found); err != nil {
		return nil, nil, err
	}
	return places, found, nil
}

// Where returns the pack of each chunk, as the index knows it and nothing else
// is asked.
func (s *Store) Where(ids []chunk.ID) (packs []uint64, found []bool, err error) {
	places, found, err := s.Places(ids)
	if err != nil {
		return nil, nil, err
	}
	packs = make([]uint64, len(ids))
	for i := range places {
		packs[i] = places[i].Pack
	}
	return packs, found, nil
}

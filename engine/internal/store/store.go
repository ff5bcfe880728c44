// Package store moves chunks in and out of packs. A Store reads; a Session
// writes, and nothing that it wrote is visible before its Commit.
package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/chunk"
	"github.com/cairn-backup/cairn/chunk/codec"
	"github.com/cairn-backup/cairn/chunk/pack"
	"github.com/cairn-backup/cairn/chunk/seal"
	"github.com/cairn-backup/cairn/engine/internal/blockcache"
	"github.com/cairn-backup/cairn/engine/internal/index"
	"github.com/cairn-backup/cairn/engine/internal/keys"
	"github.com/cairn-backup/cairn/engine/internal/latch"
	"github.com/cairn-backup/cairn/engine/internal/layout"
	"github.com/cairn-backup/cairn/engine/internal/log"
)

// ErrCorrupt says that stored data is missing or does not match its name.
var ErrCorrupt = errors.New("corrupt")

// A CorruptError says which stored bytes are corrupt. errors.Is(err, ErrCorrupt)
// reports true for it.
type CorruptError struct {
	Object string   // key of the object; "" if no object is known to hold the chunk
	Offset int64    // in the object, bytes; -1 for the whole
	ID     chunk.ID // the chunk that was wanted; zero for the whole object
	Err    error    // why
}

// Error names the object, the place in it and the chunk, as far as known.
func (e *CorruptError) Error() string {
	s := "corrupt"
	if e.Object != "" {
		s += " " + e.Object
	}
	if e.Offset >= 0 && e.Object != "" {
		s += fmt.Sprintf(" at %d", e.Offset)
	}
	if !e.ID.IsZero() {
		s += " (chunk " + e.ID.Short() + ")"
	}
	return s + ": " + e.Err.Error()
}

// Unwrap makes errors.Is find ErrCorrupt and the reason.
func (e *CorruptError) Unwrap() []error { return []error{ErrCorrupt, e.Err} }

// Options says what a Store works on. Every field but
// Compression, Limits, Blocks and Strict is required.
type Options struct {
	Backend    backend.Backend
	Repository keys.RepositoryID
	Keys       *keys.Set
	Log        *log.Log
	Index      *index.Index
	Workers    int // sealing goroutines of a session
	Logger     *slog.Logger

	Compression Compression // default: codec.Fastest

	Limits Limits
	Blocks *blockcache.Cache // of metadata packs; nil: none
	Strict bool              // what the index does not know is missing: nothing is loaded again
}

// Limits say when a session records what it stored, and other sizes. Zero means the
// default.
type Limits struct {
	// Publish is how many stored bytes may wait to be recorded, at most; and
	// never more than a sixteenth of what the session stored, or 32 MiB of a store
	// whose requests are paid for. An interrupted backup sends so much again, and
	// packs in flight. Default: 64 MiB.
	Publish uint64
	// Partial is how many bytes are stored between two records that carry a
	// partial tree, at most; a quarter of what the session stored, if that is
	// less, but an eighth of Partial at least. Before such a record everything
	// in hand is made durable, which holds the others up. Default: 512 MiB.
	Partial uint64
	// Block is how many bytes of data chunks, before compression, make a block.
	// Default: 1 MiB.
	Block int
	// Pack is at how many bytes a pack is closed. Default: drawn anew for each,
	// see minPack.
	Pack int
	// Fill: an empty index that is to get so many chunks is filled by an
	// index.Filler. Default: 2^18.
	Fill uint64
}

func (l Limits) withDefaults() Limits {
	if l.Publish == 0 {
		l.Publish = 64 << 20
	}
	if l.Partial == 0 {
		l.Partial = 512 << 20
	}
	if l.Block == 0 {
		l.Block = blockSize
	}
	if l.Fill == 0 {
		l.Fill = 1 << 18
	}
	return l
}

// A Store finds and reads chunks. It is safe for concurrent use.
type Store struct {
	opts Options

	loadMu   latch.Mutex // held by who fills, empties or replaces the index
	sought   seeks       // guarded by loadMu
	current  atomic.Pointer[index.Index]
	resets   atomic.Uint64 // of the index
	lastMiss atomic.Pointer[miss]

	mu      sync.Mutex // guards what follows
	openers map[birth]*seal.Opener
	tables  map[pack.ID]pack.Table
	blocks  *blockCache
	ahead   []aheadRead // of metadata packs
	data    *blockCache // of blocks larger than metaBlockSize
	readers []*Reader   // idle
}

// birth names the header under which a block was sealed.
type birth struct {
	salt       [32]byte
	generation uint32
}

const (
	// maxOpeners bounds the cache of ciphers, each about 1 KiB.
	maxOpeners = 4096
	// maxTables bounds the cache of pack footers, each about 20 KiB.
	maxTables = 64
	// blockCacheSize bounds the cache of decoded blocks that single chunks
	// (tree pages, above all) are read from, in bytes.
	blockCacheSize = 16 << 20
	// dataCacheSize bounds the cache of those that are larger than any block of
	// tree pages, in bytes: else who reads a file here and there would drop the
	// pages that say where its chunks are. Views alone fill it.
	dataCacheSize = 8 << 20
	// maxBlock bounds a decoded block, in bytes: format 1 allows no more.
	maxBlock = 16 << 20
)

// New returns a Store. It does no I/O.
func New(opts Options) *Store {
	opts.Limits = opts.Limits.withDefaults()
	s := &Store{
		opts:    opts,
		openers: make(map[birth]*seal.Opener),
		tables:  make(map[pack.ID]pack.Table),
		blocks:  newBlockCache(blockCacheSize),
		data:    newBlockCache(dataCacheSize),
	}
	s.current.Store(opts.Index)
	return s
}

// index returns the index that is in use.
func (s *Store) index() *index.Index { return s.current.Load() }

// A Reader holds what one goroutine needs to open blocks: a decoder, a hasher,
// buffers. It is not safe for concurrent use.
type Reader struct {
	dec  *codec.Decoder
	hash *chunk.Hasher
	buf  []byte
}

// Reader returns an idle Reader or a new one; give it back with Release.
func (s *Store) Reader() (*Reader, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.readers); n > 0 {
		r := s.readers[n-1]
		s.readers = s.readers[:n-1]
		return r, nil
	}
	dec, err := codec.NewDecoder()
	if err != nil {
		return nil, err
	}
	return &Reader{dec: dec, hash: chunk.NewHasher(s.opts.Keys.Chunk)}, nil
}

// Release gives r back.
func (s *Store) Release(r *Reader) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.readers = append(s.readers, r)
}

// Packs returns the infos of live packs by number; those that are not live are
// missing from the result.
func (s *Store) Packs(numbers ...uint64) map[uint64]log.PackInfo {
	infos := make(map[uint64]log.PackInfo, len(numbers))
	_ = s.opts.Log.View(func(st *log.State) error { // the function returns nil
		for _, n := range numbers {
			if info, ok := st.Pack(n); ok {
				infos[n] = info
			}
		}
		return nil
	})
	return infos
}

// packInfo returns the info of one live pack.
func (s *Store) packInfo(number uint64) (info log.PackInfo, ok bool) {
	_ = s.opts.Log.View(func(st *log.State) error { // the function returns nil
		info, ok = st.Pack(number)
		return nil
	})
	return info, ok
}

// opener returns the cipher of the blocks that were born under h.
func (s *Store) opener(h seal.Header) (*seal.Opener, error) {
	b := birth{salt: h.Salt, generation: h.Generation}
	s.mu.Lock()
	o, ok := s.openers[b]
	s.mu.Unlock()
	if ok {
		return o, nil
	}
	o, err := pack.BlockOpener(s.opts.Keys.Data(h.Generation), s.opts.Repository, h)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.openers) >= maxOpeners {
		clear(s.openers)
	}
	s.openers[b] = o
	return o, nil
}

// Table reads the footer of a pack.
func (s *Store) Table(ctx context.Context, number uint64) (pack.Table, error) {
	info, ok := s.packInfo(number)
	if !ok {
		return pack.Table{}, notLive(number)
	}
	s.mu.Lock()
	t, ok := s.tables[info.ID]
	s.mu.Unlock()
	if ok {
		return t, nil
	}
	t, err := s.ReadTable(ctx, info)
	if err != nil {
		return pack.Table{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.tables) >= maxTables {
		clear(s.tables)
	}
	s.tables[info.ID] = t
	return t, nil
}

// ReadTable reads header and footer of a pack from the store, past every cache,
// and compares them with what the log says of the pack.
func (s *Store) ReadTable(ctx context.Context, info log.PackInfo) (pack.Table, error) {
	key := layout.Pack(info.ID)
	corrupt := func(err error) error {
		return &CorruptError{Object: string(key), Offset: -1, Err: err}
	}
	head, err := s.readAt(ctx, info, 0, min(pack.HeadSize, int64(info.Size)))
	if err != nil {
		return pack.Table{}, err
	}
	h, off, n, err := pack.ReadPlace(head)
	if err != nil {
		return pack.Table{}, corrupt(err)
	}
	if h.Salt != info.Salt || h.Kind != info.Kind || h.Generation != info.Generation {
		return pack.Table{}, corrupt(errors.New("the header is that of another pack"))
	}
	if int64(off)+int64(n) != int64(info.Size) {
		return pack.Table{}, corrupt(fmt.Errorf("the footer ends at %d, the pack at %d", int64(off)+int64(n), info.Size))
	}
	sealed, err := s.readAt(ctx, info, int64(off), int64(n))
	if err != nil {
		return pack.Table{}, err
	}
	t, err := pack.OpenTable(s.opts.Keys.Data(info.Generation), s.opts.Repository, h, sealed, int64(info.Size))
	if err != nil {
		return pack.Table{}, corrupt(err)
	}
	return t, nil
}

// readAt reads a range of a pack, whole. A pack that is missing or too short is
// a CorruptError; other errors are those of the backend.
func (s *Store) readAt(ctx context.Context, info log.PackInfo, off, n int64) ([]byte, error) {
	buf := make([]byte, n)
	return buf, s.readInto(ctx, info, off, buf)
}

func (s *Store) readInto(ctx context.Context, info log.PackInfo, off int64, buf []byte) error {
	key := layout.Pack(info.ID)
	return packError(key, off, readFull(ctx, s.opts.Backend, key, off, buf))
}

// packError makes an error that says something about a pack a CorruptError.
func packError(key backend.Key, off int64, err error) error {
	if errors.Is(err, backend.ErrNotExist) || errors.Is(err, backend.ErrRange) || errors.Is(err, errShort) {
		return &CorruptError{Object: string(key), Offset: off, Err: err}
	}
	return err
}

// maxPuts is how often an object is sent whose outcome is not known.
const maxPuts = 3

// put puts an object whose name is drawn at random, so that one that is there
// already is this one, and durable: that is what ErrExist says (V13), whatever an
// earlier try came to. That it can be read would not do. An outcome that stays unknown is ErrUnavailable: nothing
// is visible by the object alone.
func (s *Store) put(ctx context.Context, key backend.Key, object []byte) error {
	for tries := 1; ; tries++ {
		err := s.opts.Backend.Put(ctx, key, object)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil: // before all else: the error may be that of whoever ended it
			return backend.Ended(ctx)
		case tries > 1 && errors.Is(err, backend.ErrExist):
			return nil
		case !errors.Is(err, backend.ErrUnknownOutcome):
			return err
		case tries == maxPuts:
			if trouble, ok := errors.AsType[*backend.TroubleError](err); ok {
				return &backend.OpError{Op: "put", Key: key, Kind: backend.ErrUnavailable, Err: trouble}
			}
			return fmt.Errorf("%w: %v", backend.ErrUnavailable, err) //nolint:errorlint // it must not be found to be ErrUnknownOutcome
		}
	}
}

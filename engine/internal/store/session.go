package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cairn-backup/cairn/chunk"
	"github.com/cairn-backup/cairn/chunk/pack"
	"github.com/cairn-backup/cairn/chunk/seal"
	"github.com/cairn-backup/cairn/engine/internal/latch"
	"github.com/cairn-backup/cairn/engine/internal/log"
)

const (
	// blockSize bounds a block of data chunks, in bytes before compression. A
	// chunk that is larger has a block of its own.
	blockSize = 1 << 20
	// metaBlockSize bounds a block of tree pages: they are read one at a time.
	metaBlockSize = 128 << 10
	// publishEvery is how long stored packs may wait to be recorded.
	publishEvery = 30 * time.Second
	// uploads is how many packs are put at once.
	uploads = 2
)

// A Session is one run that writes chunks. Its methods are safe for concurrent
// use, those of a Writer are not. It ends with Commit or Abort; Abort after
// Commit does nothing.
//
// A chunk's way: claimed by the first who has it, looked up, put into a block,
// the block sealed by one of Options.Workers goroutines into an open pack, a
// full pack put by one of two goroutines. Each hand-over waits for the other
// side, so memory is bounded by the goroutines and not by the input.
type Session struct {
	store *Store
	id    [16]byte
	opts  SessionOptions

	group   *errgroup.Group
	stop    context.CancelCauseFunc
	done    <-chan struct{} // closed when the session failed or was aborted
	cause   func() error
	work    chan *block
	packing chan struct{} // a token for each goroutine that may have a pack in hand
	packs   chan pack.Pack
	sealers sync.WaitGroup
	drained bool

	claims  claims
	free    sync.Pool // of *block
	adapter *adapter  // nil: the level of compression stays

	publishing latch.Mutex // one record at a time; guards partial and opts.Partial
	partial    []byte      // the last one that was recorded

	// gate is held from the claim of a chunk until it is in a block that a
	// barrier finds, in a writer or handed over: another goroutine may count
	// on a chunk as soon as it is claimed. A barrier closes it.
	gate    latch.Gate
	handed  atomic.Int64   // blocks that are not in a pack yet
	settled chan struct{}  // gets one when handed falls to 0
	flying  sync.WaitGroup // packs that are handed to an uploader and not yet put

	mu        sync.Mutex // guards what follows
	open      [2][]*openPack
	spare     [2][][]byte // buffers of packs that were put
	pending   []PackTable // put, not yet in the log
	infos     []log.PackInfo
	waiting   uint64 // bytes of pending
	since     time.Time
	needs     map[uint64]struct{}
	stats     Written
	ended     bool
	finishing bool // nothing more is put
	writers   []*Writer
	resumed   uint64    // Stored when the last partial tree was recorded
	marked    time.Time // and when that was

	meta metaWriter
}

// SessionOptions says how a session works.
type SessionOptions struct {
	Group [16]byte // of the snapshot it works for
	Host  string   // for people
	Dry   bool     // chunks are named and looked up, nothing is stored
	// Partial returns the sealed partial tree, when the session is about to be
	// recorded before its end; nil if there is none. What it puts, and all that
	// was put before, is durable when the record is written.
	Partial func(ctx context.Context) ([]byte, error)
}

// Written counts what a session stored.
type Written struct {
	New    uint64 // bytes of chunks that were not stored before
	Chunks uint64 // how many they were
	Stored uint64 // bytes of packs put
}

// A block is chunks on their way into a pack.
type block struct {
	kind   seal.Kind
	raw    []byte
	chunks []pack.Chunk
}

// Begin opens a session. Every record up to the head must have been read: Begin
// refreshes the log and fills the index.
func (s *Store) Begin(ctx context.Context, opts SessionOptions) (*Session, error) {
	if err := s.opts.Log.Begin(ctx); err != nil {
		return nil, err
	}
	if err := s.LoadAll(ctx); err != nil {
		return nil, err
	}
	ss := &Session{store: s, opts: opts, needs: make(map[uint64]struct{}), since: time.Now(), marked: time.Now(), settled: make(chan struct{}, 1)}
	if _, err := rand.Read(ss.id[:]); err != nil {
		return nil, err
	}
	ss.claims.init()
	ss.adapter = newAdapter(s.opts.Compression, s.opts.Workers)
	ss.meta.hash = chunk.NewHasher(s.opts.Keys.Chunk)
	ss.free.New = func() any { return new(block) }
	runCtx, stop := context.WithCancelCause(ctx)
	group, runCtx := errgroup.WithContext(runCtx)
	ss.group, ss.stop, ss.done = group, stop, runCtx.Done()
	ss.cause = func() error { return context.Cause(runCtx) }
	ss.work = make(chan *block)
	// A block takes longer to be compressed than to be sealed and verified, so
	// that half as many packs as workers keep all of them busy.
	ss.packing = make(chan struct{}, (s.opts.Workers+1)/2)
	ss.packs = make(chan pack.Pack)
	if opts.Dry {
		return ss, nil
	}
	ss.sealers.Add(s.opts.Workers)
	for range s.opts.Workers {
		group.Go(func() error { defer ss.sealers.Done(); return ss.seal(runCtx) })
	}
	for range uploads {
		group.Go(func() error { return ss.upload(runCtx) })
	}
	return ss, nil
}

// ID names the session in the log.
func (ss *Session) ID() [16]byte { return ss.id }

// Written returns the counts so far.
func (ss *Session) Written() Written {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	return ss.stats
}

// Need records that the session relies on these packs: those of a parent
// whose nodes it took over.
func (ss *Session) Need(packs log.Ranges) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	for n := range packs.All() {
		ss.needs[n] = struct{}{}
	}
}

func (ss *Session) need(number uint64) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	ss.needs[number] = struct{}{}
}

// admit reports whether the chunk must be stored by the caller. If not, it is
// stored already, in the pack that it returns (0: by this session), or is being
// stored by another goroutine of this session.
func (ss *Session) admit(ctx context.Context, id chunk.ID) (store bool, number uint64, err error) {
	if !ss.claims.claim(id) {
		return false, 0, nil
	}
	number, found, err := ss.store.stored(ctx, id)
	if err != nil {
		// Others may have taken this claim for the chunk: nothing may be
		// recorded any more that could name it.
		ss.stop(err)
		return false, 0, err
	}
	if found {
		ss.claims.drop(id)
		return false, number, nil
	}
	return true, 0, nil
}

// A Writer takes the chunks of one goroutine, in stream order.
type Writer struct {
	session *Session
	hash    *chunk.Hasher
	last    uint64 // the pack of the last hit, to spare the lock

	mu    sync.Mutex // guards block, which a barrier takes
	block *block
}

// Writer returns a Writer. Flush it before Commit.
func (ss *Session) Writer() *Writer {
	w := &Writer{session: ss, hash: chunk.NewHasher(ss.store.opts.Keys.Chunk)}
	ss.mu.Lock()
	defer ss.mu.Unlock()
	ss.writers = append(ss.writers, w)
	return w
}

// Put stores data as one chunk unless it is stored already. It does not retain
// data. Stored is true if the chunk is new to the repository.
func (w *Writer) Put(ctx context.Context, data []byte) (id chunk.ID, stored bool, err error) {
	return w.PutNamed(ctx, w.Name(data), data)
}

// Name returns the ID that Put stores data under.
func (w *Writer) Name(data []byte) chunk.ID { return w.hash.Sum(data) }

// PutNamed is Put for data whose ID is known.
func (w *Writer) PutNamed(ctx context.Context, id chunk.ID, data []byte) (_ chunk.ID, stored bool, err error) {
	ss := w.session
	ss.gate.Enter()
	defer ss.gate.Leave()
	store, number, err := ss.admit(ctx, id)
	if err != nil || !store {
		if number != 0 && number != w.last {
			ss.need(number)
			w.last = number
		}
		return id, false, err
	}
	ss.count(len(data))
	if ss.opts.Dry {
		return id, true, nil
	}
	if full := w.append(id, data); full != nil {
		return id, true, ss.send(ctx, full)
	}
	return id, true, nil
}

// append adds a chunk to the block, and returns the one before if it is full.
func (w *Writer) append(id chunk.ID, data []byte) (full *block) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.block != nil && len(w.block.raw)+len(data) > w.session.store.opts.Limits.Block {
		full, w.block = w.block, nil
	}
	if w.block == nil {
		w.block = w.session.newBlock(seal.KindDataPack)
	}
	w.block.add(id, data)
	return full
}

// take returns the block and leaves none.
func (w *Writer) take() *block {
	w.mu.Lock()
	defer w.mu.Unlock()
	b := w.block
	w.block = nil
	return b
}

// Flush hands over what was put.
func (w *Writer) Flush(ctx context.Context) error {
	w.session.gate.Enter()
	defer w.session.gate.Leave()
	if b := w.take(); b != nil {
		return w.session.send(ctx, b)
	}
	return nil
}

func (b *block) add(id chunk.ID, data []byte) {
	b.raw = append(b.raw, data...)
	b.chunks = append(b.chunks, pack.Chunk{ID: id, Length: uint32(len(data))}) //nolint:gosec // a chunk has at most 8 MiB
}

func (ss *Session) newBlock(kind seal.Kind) *block {
	b := ss.free.Get().(*block) //nolint:errcheck // the pool holds nothing else
	if b.raw == nil {
		n := metaBlockSize
		if kind == seal.KindDataPack {
			n = ss.store.opts.Limits.Block
		}
		b.raw = make([]byte, 0, n)
	}
	b.kind, b.raw, b.chunks = kind, b.raw[:0], b.chunks[:0]
	return b
}

func (ss *Session) count(n int) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	ss.stats.New += uint64(n) //nolint:gosec // a length
	ss.stats.Chunks++
}

// send gives a block to the sealers. The caller holds the gate, or is the last
// to put anything.
//
// A block that is not taken is lost, with chunks that others count on: the
// session ends by it, or a barrier would wait for the block, and a partial tree
// could name what is in it.
func (ss *Session) send(ctx context.Context, b *block) error {
	ss.handed.Add(1)
	select {
	case ss.work <- b:
		return nil
	case <-ss.done:
		return ss.cause()
	case <-ctx.Done():
		err := context.Cause(ctx)
		ss.stop(err)
		return err
	}
}

// A metaWriter collects tree pages.
type metaWriter struct {
	mu    sync.Mutex // guards what follows
	hash  *chunk.Hasher
	block *block
}

// PutChunk stores a tree page in the metadata packs. It does not retain data.
// It makes a Session a manifest.Putter.
func (ss *Session) PutChunk(ctx context.Context, data []byte) (chunk.ID, error) {
	ss.gate.Enter()
	defer ss.gate.Leave()
	full, id, err := ss.putMeta(ctx, data)
	if err == nil && full != nil {
		err = ss.send(ctx, full)
	}
	return id, err
}

func (ss *Session) putMeta(ctx context.Context, data []byte) (full *block, id chunk.ID, err error) {
	m := &ss.meta
	m.mu.Lock()
	defer m.mu.Unlock()
	id = m.hash.Sum(data)
	store, number, err := ss.admit(ctx, id)
	if err != nil {
		return nil, id, err
	}
	if number != 0 {
		ss.need(number)
	}
	if !store {
		return nil, id, nil
	}
	ss.count(len(data))
	if ss.opts.Dry {
		return nil, id, nil
	}
	if m.block != nil && len(m.block.raw)+len(data) > metaBlockSize {
		full, m.block = m.block, nil
	}
	if m.block == nil {
		m.block = ss.newBlock(seal.KindMetaPack)
	}
	m.block.add(id, data)
	return full, id, nil
}

// takeMeta returns the block of tree pages and leaves none.
func (ss *Session) takeMeta() *block {
	ss.meta.mu.Lock()
	defer ss.meta.mu.Unlock()
	b := ss.meta.block
	ss.meta.block = nil
	return b
}

// HasNew reports whether the session stored anything.
func (ss *Session) HasNew() bool { return ss.Written().Chunks > 0 }

// Drain waits until everything that was put is durable. Nothing may be put
// afterwards.
func (ss *Session) Drain(ctx context.Context) error {
	if ss.drained || ss.opts.Dry {
		return nil
	}
	ss.drained = true
	// A partial tree under way puts pages; there are no more behind it.
	ss.publishing.Lock()
	ss.opts.Partial = nil
	ss.publishing.Unlock()
	ss.mu.Lock()
	ss.finishing = true
	ss.mu.Unlock()
	if last := ss.takeMeta(); last != nil {
		if err := ss.send(ctx, last); err != nil {
			return err
		}
	}
	close(ss.work)
	ss.sealers.Wait()
	err := ss.finishOpen(ctx)
	close(ss.packs)
	return errors.Join(err, ss.group.Wait())
}

// Abort ends a session that is not committed. Packs that are stored are
// recorded if that is quick, so that the next run need not send them again.
func (ss *Session) Abort(ctx context.Context) {
	ended := ss.end()
	ss.stop(errAborted) // also releases the context
	if ended {
		return
	}
	_ = ss.group.Wait() // the caller has the error that made it abort
	if ss.opts.Dry {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second/2)
	defer cancel()
	if err := ss.publishRest(ctx); err != nil {
		ss.store.opts.Logger.InfoContext(ctx, "packs of an unfinished session were not recorded", slog.Any("error", err))
	}
}

var errAborted = errors.New("the session was aborted")

// end marks the session as ended, and reports whether it was.
func (ss *Session) end() bool {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	ended := ss.ended
	ss.ended = true
	return ended
}

// Commit makes the snapshot visible, in one record that also adds what the
// session stored and did not yet record. Drain must have returned nil.
//
// It also ends the interrupted sessions that the snapshot stands for.
func (ss *Session) Commit(ctx context.Context, over [][16]byte, finish func(needs log.Ranges, w Written) (log.Snapshot, error)) (log.Position, error) {
	if !ss.drained {
		return log.Position{}, errors.New("store: Commit before Drain")
	}
	ss.publishing.Lock()
	defer ss.publishing.Unlock()
	pos, err := ss.record(ctx, func(st *log.State, needs log.Ranges) ([]log.Effect, error) {
		snap, err := finish(needs, ss.Written())
		snap.Needs, snap.Session = needs, ss.id
		effects := []log.Effect{snap}
		for _, id := range over {
			if _, open := st.Session(id); open && id != ss.id {
				effects = append(effects, log.End{Session: id})
			}
		}
		return effects, err
	})
	if err != nil {
		return pos, fmt.Errorf("commit: %w", err)
	}
	ss.end()
	return pos, nil
}

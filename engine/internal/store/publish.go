package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"slices"
	"time"

	"github.com/cairn-backup/cairn/chunk/codec"
	"github.com/cairn-backup/cairn/chunk/pack"
	"github.com/cairn-backup/cairn/chunk/seal"
	"github.com/cairn-backup/cairn/engine/internal/index"
	"github.com/cairn-backup/cairn/engine/internal/layout"
	"github.com/cairn-backup/cairn/engine/internal/log"
	"github.com/cairn-backup/cairn/engine/internal/rule"
)

const (
	// minPack and maxPack are the bounds between which the size at which a pack
	// is closed is drawn, in bytes: were it fixed, the place where a pack ends
	// in a known stream would tell what the stream is.
	minPack = 12 << 20
	maxPack = 20 << 20
	// RoomyPack is how large the buffer of a pack is made, in bytes: enough for
	// any, so that none is copied into a larger one at its end. What of it is not
	// written takes no memory.
	RoomyPack = maxPack + blockSize
	// maxMetaPack bounds packs of tree pages, which are read by pieces.
	maxMetaPack = 4 << 20
)

// An openPack is a pack that blocks are added to.
type openPack struct {
	*pack.Writer
	target int // bytes at which it is closed; drawn once, or few would be large
}

// packTarget draws the size at which a pack of that kind is closed.
func (s *Store) packTarget(kind seal.Kind) (int, error) {
	if n := s.opts.Limits.Pack; n > 0 {
		return n, nil
	}
	if kind == seal.KindMetaPack {
		return maxMetaPack, nil
	}
	n, err := rand.Int(rand.Reader, big.NewInt(maxPack-minPack))
	if err != nil {
		return 0, err
	}
	return minPack + int(n.Int64()), nil
}

// seal takes blocks, compresses and seals them.
func (ss *Session) seal(ctx context.Context) error {
	c := compressor{adapter: ss.adapter, level: ss.store.opts.Compression.Level}
	v, err := pack.NewVerifier(ss.store.opts.Keys.Chunk)
	if err != nil {
		return err
	}
	var encoded []byte
	for {
		var b *block
		begin := time.Now()
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case b = <-ss.work:
		}
		if b == nil {
			return nil // closed: all is sealed
		}
		ss.adapter.waited(time.Since(begin))
		if encoded, err = c.encode(encoded[:0], b.raw); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case ss.packing <- struct{}{}:
		}
		err := ss.add(ctx, b, encoded, v)
		<-ss.packing
		if err != nil {
			return err
		}
		ss.free.Put(b)
		if ss.handed.Add(-1) == 0 {
			select {
			case ss.settled <- struct{}{}:
			default:
			}
		}
	}
}

// add seals one encoded block into an open pack.
func (ss *Session) add(ctx context.Context, b *block, encoded []byte, v *pack.Verifier) error {
	w, err := ss.takePack(b.kind)
	if err != nil {
		return err
	}
	err = ss.addTo(ctx, w, b, encoded, v)
	for errors.Is(err, pack.ErrFull) && !w.Empty() {
		// The table is full: very many chunks that compress to nearly nothing.
		if err := ss.finish(ctx, w); err != nil {
			return err
		}
		if w, err = ss.takePack(b.kind); err != nil {
			return err
		}
		err = ss.addTo(ctx, w, b, encoded, v)
	}
	if err != nil {
		return err
	}
	if w.Size() >= w.target {
		return ss.finish(ctx, w)
	}
	ss.givePack(b.kind, w)
	return nil
}

// addTo adds an encoded block to a pack.
func (ss *Session) addTo(ctx context.Context, w *openPack, b *block, encoded []byte, v *pack.Verifier) error {
	err := w.Add(b.chunks, encoded, v)
	if errors.Is(err, pack.ErrVerify) {
		// What the compressor made cannot be read back; the bytes themselves can.
		ss.store.opts.Logger.WarnContext(ctx, "a block did not survive compression and is stored as it is", slog.Any("error", err))
		err = w.Add(b.chunks, codec.AppendRaw(nil, b.raw), v)
	}
	return err
}

func slot(kind seal.Kind) int {
	if kind == seal.KindMetaPack {
		return 1
	}
	return 0
}

func (ss *Session) takePack(kind seal.Kind) (*openPack, error) {
	ss.mu.Lock()
	open := &ss.open[slot(kind)]
	if n := len(*open); n > 0 {
		w := (*open)[n-1]
		*open = (*open)[:n-1]
		ss.mu.Unlock()
		return w, nil
	}
	spare := &ss.spare[slot(kind)]
	var buf []byte
	if n := len(*spare); n > 0 {
		buf = (*spare)[n-1]
		*spare = (*spare)[:n-1]
	}
	ss.mu.Unlock()
	target, err := ss.store.packTarget(kind)
	if err != nil {
		return nil, err
	}
	o := ss.store.opts
	targets := [...]int{RoomyPack, maxMetaPack}
	w, err := pack.NewWriter(pack.Config{
		Key: o.Keys.Data(0), Kind: kind, Repository: o.Repository, Hash: o.Keys.Chunk,
		Target: targets[slot(kind)], Buffer: buf,
	})
	if err != nil {
		return nil, err
	}
	return &openPack{Writer: w, target: target}, nil
}

func (ss *Session) givePack(kind seal.Kind, w *openPack) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	ss.open[slot(kind)] = append(ss.open[slot(kind)], w)
}

// finish closes a pack and hands it to the uploaders.
func (ss *Session) finish(ctx context.Context, w *openPack) error {
	p, err := w.Finish()
	if err != nil {
		return err
	}
	ss.flying.Add(1)
	begin := time.Now()
	select {
	case ss.packs <- p:
		now := time.Now()
		ss.adapter.handed(now, now.Sub(begin))
		return nil
	case <-ss.done:
		ss.flying.Done()
		return ss.cause()
	case <-ctx.Done():
		ss.flying.Done()
		return context.Cause(ctx)
	}
}

// finishOpen closes the packs that are still open. The sealers must be done.
func (ss *Session) finishOpen(ctx context.Context) error {
	for _, w := range ss.takeOpen() {
		if err := ss.finish(ctx, w); err != nil {
			return err
		}
	}
	return nil
}

// takeOpen returns the open packs that hold anything, and leaves none.
func (ss *Session) takeOpen() []*openPack {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	rest := slices.DeleteFunc(append(ss.open[0], ss.open[1]...), func(w *openPack) bool { return w.Empty() })
	ss.open = [2][]*openPack{}
	return rest
}

// upload puts packs, and records them when enough of them wait.
func (ss *Session) upload(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case p, ok := <-ss.packs:
			if !ok {
				return nil
			}
			err := ss.put(ctx, p)
			ss.flying.Done()
			if err != nil {
				return err
			}
		}
		if ss.due() {
			if err := ss.publish(ctx); err != nil {
				return err
			}
		}
	}
}

func (ss *Session) put(ctx context.Context, p pack.Pack) error {
	if err := ss.store.put(ctx, layout.Pack(p.ID), p.Object); err != nil {
		return err
	}
	ss.store.keepBlocks(p)
	size := uint64(len(p.Object))
	var chunks uint32
	for _, b := range p.Table.Blocks {
		chunks += uint32(len(b.Chunks)) //nolint:gosec // bounded by the pack's size
	}
	ss.mu.Lock()
	defer ss.mu.Unlock()
	spare := &ss.spare[slot(p.Header.Kind)]
	*spare = append(*spare, p.Object) // Put does not retain it
	ss.pending = append(ss.pending, PackTable{Pack: p.ID, Size: size, Table: p.Table})
	ss.infos = append(ss.infos, log.PackInfo{
		ID: p.ID, Kind: p.Header.Kind, Generation: p.Header.Generation, Salt: p.Header.Salt,
		Size: uint32(size), Chunks: chunks, Envelope: p.Header.Envelope, //nolint:gosec // a pack has at most 256 MiB
	})
	ss.waiting += size
	ss.stats.Stored += size
	return nil
}

func (ss *Session) due() bool {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	limit := min(ss.store.opts.Limits.Publish, max(ss.stats.Stored/16, ss.store.leastPublished()))
	// Once everything was put the commit is near, and records the rest.
	return !ss.finishing && ss.waiting > 0 && (ss.waiting >= limit || time.Since(ss.since) >= publishEvery)
}

// publish records what was put so far, and how far the session is. A second
// caller goes on without waiting.
func (ss *Session) publish(ctx context.Context) error {
	if !ss.publishing.TryLock() {
		return nil
	}
	defer ss.publishing.Unlock()
	if err := ss.makePartial(ctx); err != nil {
		return err
	}
	return ss.publishPending(ctx)
}

// publishPending records what was put. The caller holds publishing.
func (ss *Session) publishPending(ctx context.Context) error {
	ss.mu.Lock()
	none := len(ss.pending) == 0
	ss.mu.Unlock()
	if none {
		return nil
	}
	_, err := ss.record(ctx, func(_ *log.State, needs log.Ranges) ([]log.Effect, error) {
		return []log.Effect{log.Session{ID: ss.id, Needs: needs, Group: ss.opts.Group, Host: ss.opts.Host, Partial: ss.partial}}, nil
	})
	if err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	return nil
}

// makePartial makes a new partial tree if it is time, and everything durable
// that it relies on.
func (ss *Session) makePartial(ctx context.Context) error {
	ss.mu.Lock()
	limit := ss.store.opts.Limits.Partial
	limit = min(limit, max(limit/8, ss.stats.Stored/4))
	due := ss.opts.Partial != nil && (ss.stats.Stored-ss.resumed >= limit || time.Since(ss.marked) >= publishEvery)
	ss.mu.Unlock()
	if !due {
		return nil
	}
	partial, err := ss.opts.Partial(ctx)
	if err != nil || partial == nil {
		return err
	}
	if err := ss.barrier(ctx); err != nil {
		return err
	}
	ss.partial = partial
	ss.mu.Lock()
	defer ss.mu.Unlock()
	ss.resumed, ss.marked = ss.stats.Stored, time.Now()
	return nil
}

// barrier makes everything durable that was put before it was called. Who hands
// over a block waits meanwhile.
func (ss *Session) barrier(ctx context.Context) error {
	ss.gate.Close()
	defer ss.gate.Open()
	ss.mu.Lock()
	writers := ss.writers
	ss.mu.Unlock()
	for _, w := range writers {
		if b := w.take(); b != nil {
			if err := ss.send(ctx, b); err != nil {
				return err
			}
		}
	}
	if b := ss.takeMeta(); b != nil {
		if err := ss.send(ctx, b); err != nil {
			return err
		}
	}
	for ss.handed.Load() > 0 {
		select {
		case <-ss.settled:
		case <-ss.done:
			return ss.cause()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return ss.putOpen(ctx)
}

// putOpen closes and puts the packs that are open, all of which are at rest.
// Full packs that the other uploader has in hand are waited for.
func (ss *Session) putOpen(ctx context.Context) error {
	for _, w := range ss.takeOpen() {
		p, err := w.Finish()
		if err == nil {
			err = ss.put(ctx, p)
		}
		if err != nil {
			return err
		}
	}
	ss.flying.Wait() // while the gate is closed no more are added
	return ss.failed()
}

// failed returns why the session failed, if it did.
func (ss *Session) failed() error {
	select {
	case <-ss.done:
		return ss.cause()
	default:
		return nil
	}
}

// publishRest records what was put, once the goroutines have ended.
func (ss *Session) publishRest(ctx context.Context) error {
	ss.publishing.Lock()
	defer ss.publishing.Unlock()
	err := ss.publishPending(ctx)
	if !errors.Is(err, log.ErrConflict) {
		return err
	}
	// Something it relied on is gone, and with it the partial tree. What it
	// stored itself is as good as ever.
	ss.partial = nil
	_ = ss.store.opts.Log.View(func(st *log.State) error { // the function returns nil
		ss.mu.Lock()
		defer ss.mu.Unlock()
		for n := range ss.needs {
			if _, live := st.Pack(n); !live {
				delete(ss.needs, n)
			}
		}
		return nil
	})
	return ss.publishPending(ctx)
}

// record appends one record that adds the pending packs, with those of last as its
// other effects. The packs are durable, and so is the segment before the record is
// sent. If it is certain that there is no such record the packs go on waiting. The
// caller holds publishing.
func (ss *Session) record(ctx context.Context, last func(st *log.State, needs log.Ranges) ([]log.Effect, error)) (log.Position, error) {
	ss.mu.Lock()
	p := pending{tables: ss.pending, infos: ss.infos, bytes: ss.waiting}
	ss.pending, ss.infos, ss.waiting, ss.since = nil, nil, 0, time.Now()
	ss.mu.Unlock()
	pos, err := ss.append(ctx, &p, last)
	if err != nil {
		if !errors.Is(err, log.ErrUnknownOutcome) {
			ss.giveBack(p)
		}
		return pos, err
	}
	ss.mu.Lock()
	for i := range p.infos {
		ss.needs[p.first+uint64(i)] = struct{}{} //nolint:gosec // an index
	}
	ss.mu.Unlock()
	if len(p.tables) > 0 {
		ss.remember(ctx, p, pos)
	}
	return pos, nil
}

// pending is packs that are stored and not yet in the log.
type pending struct {
	tables  []PackTable
	infos   []log.PackInfo
	bytes   uint64
	segment log.SegmentInfo
	first   uint64 // number of the first, once recorded
}

func (ss *Session) giveBack(p pending) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	ss.pending, ss.infos = append(p.tables, ss.pending...), append(p.infos, ss.infos...)
	ss.waiting += p.bytes
}

// append puts the segment of p and appends the record.
func (ss *Session) append(ctx context.Context, p *pending, last func(st *log.State, needs log.Ranges) ([]log.Effect, error)) (log.Position, error) {
	if len(p.tables) > 0 {
		id, object, err := sealSegment(ss.store.opts.Keys, ss.store.opts.Repository, p.tables)
		if err != nil {
			return log.Position{}, err
		}
		if err := ss.store.put(ctx, layout.Segment(id), object); err != nil {
			return log.Position{}, err
		}
		p.segment = log.SegmentInfo{ID: id, Size: uint32(len(object))} //nolint:gosec // bounded by Limits.Publish
	}
	return ss.store.opts.Log.Continue(ctx, func(st *log.State) ([]log.Effect, error) {
		p.first = st.NextPack()
		needs, own := ss.needsWith(p.first, len(p.infos))
		if rule.Off(rule.Index) {
			needs = needs.Subtract(st.Dead(needs).Subtract(own))
		}
		effects, err := last(st, needs)
		if err != nil || len(p.infos) == 0 {
			return effects, err
		}
		p.segment.Packs = own
		return append([]log.Effect{log.Add{Packs: p.infos, Segments: []log.SegmentInfo{p.segment}}}, effects...), nil
	})
}

// needsWith returns the needs of the session and of n packs that are about to
// be numbered from first, and the latter alone.
func (ss *Session) needsWith(first uint64, n int) (needs, own log.Ranges) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	numbers := make([]uint64, 0, len(ss.needs)+n)
	for number := range ss.needs {
		numbers = append(numbers, number)
	}
	fresh := make([]uint64, n)
	for i := range fresh {
		fresh[i] = first + uint64(i) //nolint:gosec // an index
	}
	return log.RangesOf(append(numbers, fresh...)), log.RangesOf(fresh)
}

// remember puts recorded packs into the index. The index is a hint: if it
// cannot take them, the claims stay and the next session loads the segment.
func (ss *Session) remember(ctx context.Context, p pending, pos log.Position) {
	x := ss.store.index()
	ss.store.loadMu.Lock() // or a reset could come between entries and mark
	defer ss.store.loadMu.Unlock()
	err := func() error {
		var entries []index.Entry
		for i, t := range p.tables {
			entries = appendEntries(entries[:0], p.first+uint64(i), t) //nolint:gosec // an index
			if err := x.InsertPack(entries); err != nil {
				return err
			}
		}
		return errors.Join(x.MarkLoaded(index.SegmentID(p.segment.ID)), x.SetTag(index.Tag{N: pos.N, Hash: pos.Hash}))
	}()
	if err != nil {
		ss.store.opts.Logger.WarnContext(ctx, "the index did not take new entries", slog.Any("error", err))
		return
	}
	for _, t := range p.tables {
		for _, b := range t.Table.Blocks {
			for _, c := range b.Chunks {
				ss.claims.drop(c.ID)
			}
		}
	}
}

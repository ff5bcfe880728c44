package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"

	"golang.org/x/sync/semaphore"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/chunk/seal"
	"github.com/cairn-backup/cairn/engine/internal/index"
	"github.com/cairn-backup/cairn/engine/internal/layout"
	"github.com/cairn-backup/cairn/engine/internal/log"
)

var errShort = errors.New("the object ends early")

// readFull fills buf from the object at off.
func readFull(ctx context.Context, b backend.Backend, key backend.Key, off int64, buf []byte) error {
	if len(buf) == 0 {
		return nil
	}
	r, err := b.Get(ctx, key, off, int64(len(buf)))
	if err != nil {
		return err
	}
	_, err = io.ReadFull(r, buf)
	if err = errors.Join(ended(err, r, int64(len(buf))), r.Close()); err != nil {
		return fmt.Errorf("get %s: %w", key, err)
	}
	return nil
}

// ended says what the end of a body means that came before all of want bytes
// were there: one that breaks off says nothing about the object.
func ended(err error, body io.Reader, want int64) error {
	switch {
	case !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
		return err
	case backend.BodySize(body) >= want:
		return fmt.Errorf("%w: %w", backend.ErrUnavailable, io.ErrUnexpectedEOF)
	}
	return errShort
}

// maxSegment bounds an index segment, in bytes: a session publishes long before.
const maxSegment = 1 << 30

// CheckIndex drops the index if it was filled from another history than the
// log's: put back to an old state, or ahead of a store that was.
func (s *Store) CheckIndex(ctx context.Context) error {
	tag, ok := s.index().Tag()
	if !ok {
		return nil
	}
	head := s.opts.Log.Head()
	if tag.N == head.N && tag.Hash == head.Hash {
		return nil
	}
	if tag.N < head.N {
		h, err := s.opts.Log.HashAt(ctx, tag.N)
		if err == nil && h == tag.Hash {
			return nil
		}
		if err != nil && !errors.Is(err, backend.ErrNotExist) {
			return err // nothing is known yet: a new index would cost every segment
		}
	}
	s.opts.Logger.InfoContext(ctx, "the index belongs to another history of the repository; it is built anew")
	return s.index().Reset()
}

// SaveTag notes in the index the record that the log has come to, so that the
// next process finds it to be of this history without asking the store.
func (s *Store) SaveTag() error {
	s.loadMu.Lock()
	defer s.loadMu.Unlock()
	tag, ok := s.index().Tag()
	head := s.opts.Log.Head()
	if !ok || s.opts.Log.Problem() != nil || tag.N >= head.N {
		return nil
	}
	return s.index().SetTag(index.Tag{N: head.N, Hash: head.Hash})
}

// LoadAll puts the entries of every live pack into the index.
func (s *Store) LoadAll(ctx context.Context) error {
	return s.load(ctx, func(log.SegmentInfo) bool { return true })
}

// Load puts the entries of the packs with these numbers into the index.
func (s *Store) Load(ctx context.Context, needs log.Ranges) error {
	return s.load(ctx, func(seg log.SegmentInfo) bool { return seg.Packs.Intersects(needs) })
}

func (s *Store) load(ctx context.Context, want func(log.SegmentInfo) bool) error {
	s.loadMu.Lock()
	defer s.loadMu.Unlock()
	err := s.loadMissing(ctx, want)
	switch {
	case errors.Is(err, index.ErrDamaged):
		err = s.reset(ctx, err)
	case errors.Is(err, index.ErrNoSpace):
		err = s.toMemory(ctx, err)
	default:
		return err
	}
	if err != nil {
		return err
	}
	return s.loadMissing(ctx, want)
}

// loadMissing loads what is wanted and not loaded. The caller holds loadMu.
func (s *Store) loadMissing(ctx context.Context, want func(log.SegmentInfo) bool) error {
	for {
		err := s.loadOnce(ctx, want)
		if !errors.Is(err, errFolded) {
			return err
		}
		// The log was replayed, and names other segments by now.
	}
}

// errFolded says that a segment is not live any more.
var errFolded = errors.New("the index segment was doomed meanwhile")

func (s *Store) loadOnce(ctx context.Context, want func(log.SegmentInfo) bool) error {
	loaded, err := s.index().Loaded()
	if err != nil {
		return err
	}
	hurt := s.hurtPacks()
	var todo []log.SegmentInfo
	_ = s.opts.Log.View(func(st *log.State) error { // the function returns nil
		for seg := range st.Segments() {
			if !loaded[index.SegmentID(seg.ID)] && want(seg) {
				todo = append(todo, seg)
			}
		}
		return nil
	})
	if len(todo) == 0 {
		return nil
	}
	if err := s.loadSegments(ctx, todo, hurt); err != nil {
		return err
	}
	head := s.opts.Log.Head()
	return s.index().SetTag(index.Tag{N: head.N, Hash: head.Hash})
}

// entryBytes is what an index segment takes for a chunk, about: 32 bytes of ID that
// do not compress, and its length.
const entryBytes = 36

// loadSegments loads segments: all at once where they are many and the index is
// empty, else each by itself.
func (s *Store) loadSegments(ctx context.Context, todo []log.SegmentInfo, hurt hurtPacks) error {
	var size uint64
	for _, seg := range todo {
		size += uint64(seg.Size) //nolint:gosec // a size
	}
	if chunks := size / entryBytes; chunks >= s.opts.Limits.Fill {
		if fill := s.index().Filler(chunks); fill != nil {
			err := s.fill(ctx, fill, todo, hurt)
			if !errors.Is(err, index.ErrNotFilled) {
				return err
			}
			s.opts.Logger.WarnContext(ctx, "the index could not be filled all at once", slog.Any("error", err))
		}
	}
	return s.loadEach(ctx, todo, hurt)
}

// loadEach loads segments, each by itself.
func (s *Store) loadEach(ctx context.Context, todo []log.SegmentInfo, hurt hurtPacks) error {
	next, stop := s.segmentsAhead(ctx, todo)
	defer stop()
	for _, seg := range todo {
		if err := s.loadSegment(ctx, seg, next, hurt); err != nil {
			return err
		}
	}
	return nil
}

// segmentBytes is how many bytes of index segments are read ahead, and segmentReads how
// many segments, at most. A session through a network makes one for each 32 MiB that it
// stores, of some 30 KiB; read one behind the other, those of a file of 1 GiB are 32
// round trips.
const (
	segmentBytes = 2 << 20
	segmentReads = 32
)

// segmentsAhead begins to read segments, several at once. Each call of next returns
// what ReadSegment returns of the next one. stop ends it, and waits.
func (s *Store) segmentsAhead(ctx context.Context, todo []log.SegmentInfo) (next func() ([]PackTable, error), stop func()) {
	type read struct {
		tables []PackTable
		err    error
		weight int64
	}
	ctx, cancel := context.WithCancel(ctx)
	room := semaphore.NewWeighted(segmentBytes)
	reads := make(chan chan read, len(todo))
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(reads)
		for _, seg := range todo {
			weight := max(segmentBytes/segmentReads, min(int64(seg.Size), segmentBytes))
			if room.Acquire(ctx, weight) != nil {
				return
			}
			one := make(chan read, 1)
			reads <- one
			wg.Go(func() {
				tables, err := s.ReadSegment(ctx, seg)
				one <- read{tables, err, weight}
			})
		}
	})
	next = func() ([]PackTable, error) {
		one, ok := <-reads
		if !ok {
			return nil, backend.Ended(ctx)
		}
		r := <-one
		room.Release(r.weight)
		return r.tables, r.err
	}
	return next, func() { cancel(); wg.Wait() }
}

// fill loads segments all at once. One that is folded meanwhile is left out, and
// told by errFolded. If one cannot be read, what was read before it is kept if that
// is half of all; nothing is if the caller wants no more.
func (s *Store) fill(ctx context.Context, fill *index.Filler, todo []log.SegmentInfo, hurt hurtPacks) error {
	defer fill.Drop()
	insert := func(_ uint64, entries []index.Entry) error { return fill.InsertPack(entries) }
	var done []index.SegmentID
	var sound, left []log.SegmentInfo // what is in those left goes behind that of the others
	for _, seg := range todo {
		if hurt.in(seg.Packs) {
			left = append(left, seg)
		} else {
			sound = append(sound, seg)
		}
	}
	var failed error
	next, stop := s.segmentsAhead(ctx, sound)
	defer stop()
	for _, seg := range sound {
		err := s.collect(ctx, seg, next, insert)
		if err == nil {
			done = append(done, index.SegmentID(seg.ID))
			continue
		}
		failed = err
		if !errors.Is(err, errFolded) {
			break
		}
	}
	switch {
	case ctx.Err() != nil:
		return backend.Ended(ctx)
	case errors.Is(failed, index.ErrNotFilled), failed != nil && !errors.Is(failed, errFolded) && 2*len(done) < len(todo):
		return failed
	}
	if err := fill.Finish(ctx, done); err != nil {
		if ctx.Err() != nil {
			return backend.Ended(ctx)
		}
		return err
	}
	if err := s.loadEach(ctx, left, hurt); err != nil {
		return err
	}
	return failed
}

// folded replays the log, and reports whether a segment that could not be read
// is not live any more.
func (s *Store) folded(ctx context.Context, seg log.SegmentInfo) (bool, error) {
	if err := s.opts.Log.Refresh(ctx); err != nil && s.opts.Log.Problem() == nil {
		return false, err
	}
	live := false
	_ = s.opts.Log.View(func(st *log.State) error { // the function returns nil
		_, live = st.Segment(seg.ID)
		return nil
	})
	return !live, nil
}

// toMemory goes on with an index in memory: that the disk of a cache is full
// must not keep anyone from a backup or a restore. The caller holds loadMu.
func (s *Store) toMemory(ctx context.Context, cause error) error {
	x, err := index.Open(index.Options{Repository: s.opts.Repository})
	if err != nil {
		return err
	}
	s.opts.Logger.WarnContext(ctx, "the index on disk cannot grow; this process goes on with one in memory", slog.Any("error", cause))
	s.resets.Add(1)
	s.current.Store(x) // the other one is closed by who opened it
	return nil
}

// rebuild empties an index that failed, so that the next load fills it. It does
// nothing if someone else did so since the caller looked, when seen was the
// number of resets: else two who miss something would undo each other's loads.
func (s *Store) rebuild(ctx context.Context, seen uint64, cause error) error {
	s.loadMu.Lock()
	defer s.loadMu.Unlock()
	if s.resets.Load() != seen {
		return nil
	}
	return s.reset(ctx, cause)
}

// reset empties the index. The caller holds loadMu.
func (s *Store) reset(ctx context.Context, cause error) error {
	s.opts.Logger.WarnContext(ctx, "the index is damaged and is built anew", slog.Any("error", cause))
	s.resets.Add(1)
	return s.index().Reset()
}

// loadSegment loads the segment that next reads.
func (s *Store) loadSegment(ctx context.Context, seg log.SegmentInfo, next func() ([]PackTable, error), hurt hurtPacks) error {
	err := s.collect(ctx, seg, next, func(number uint64, entries []index.Entry) (err error) {
		if !hurt[number] {
			return s.index().InsertPack(entries)
		}
		if entries, err = s.lacking(entries); err != nil {
			return err
		}
		return s.index().Insert(entries)
	})
	if err != nil {
		return err
	}
	return s.index().MarkLoaded(index.SegmentID(seg.ID))
}

// collect hands on what the segment that next reads holds, pack by pack.
func (s *Store) collect(ctx context.Context, seg log.SegmentInfo, next func() ([]PackTable, error), insert func(number uint64, entries []index.Entry) error) error {
	tables, err := next()
	if errors.Is(err, ErrCorrupt) {
		gone, err2 := s.folded(ctx, seg)
		if err2 != nil {
			return err2
		}
		if gone {
			return errFolded
		}
		s.opts.Logger.WarnContext(ctx, "an index segment is damaged; the footers of its packs are read instead", slog.Any("error", err))
		tables, err = s.footers(ctx, seg)
	}
	if err != nil {
		return err
	}
	var entries []index.Entry
	for _, t := range tables {
		number, ok := uint64(0), false
		_ = s.opts.Log.View(func(st *log.State) error { // the function returns nil
			number, ok = st.PackNumber(t.Pack)
			return nil
		})
		if !ok { // it was doomed meanwhile
			continue
		}
		entries = appendEntries(entries[:0], number, t)
		if err := insert(number, entries); err != nil {
			return err
		}
	}
	return nil
}

// footers reads what a segment should hold from the packs themselves. A pack
// that cannot be read is left out: its chunks are then found nowhere.
func (s *Store) footers(ctx context.Context, seg log.SegmentInfo) ([]PackTable, error) {
	var tables []PackTable
	for number := range seg.Packs.All() {
		info, ok := s.packInfo(number)
		if !ok {
			continue
		}
		t, err := s.ReadTable(ctx, info)
		switch {
		case err == nil:
			tables = append(tables, PackTable{Pack: info.ID, Size: uint64(info.Size), Table: t})
		case !errors.Is(err, ErrCorrupt):
			return nil, err
		}
	}
	return tables, nil
}

// ReadSegment reads an index segment. One that does not match its name or the
// log is a CorruptError.
func (s *Store) ReadSegment(ctx context.Context, seg log.SegmentInfo) ([]PackTable, error) {
	key := layout.Segment(seg.ID)
	corrupt := func(err error) error {
		return &CorruptError{Object: string(key), Offset: -1, Err: err}
	}
	if seg.Size > maxSegment {
		return nil, corrupt(fmt.Errorf("%d bytes are more than a segment may have", seg.Size))
	}
	object := make([]byte, seg.Size)
	err := readFull(ctx, s.opts.Backend, key, 0, object)
	if errors.Is(err, backend.ErrNotExist) || errors.Is(err, backend.ErrRange) || errors.Is(err, errShort) {
		return nil, corrupt(err)
	}
	if err != nil {
		return nil, err
	}
	h, parts, err := seal.OpenObject(s.opts.Keys.Meta, seal.KindSegment, seal.Binding{Repository: s.opts.Repository}, object)
	if err != nil {
		return nil, corrupt(err)
	}
	if h.Name() != seg.ID {
		return nil, corrupt(errors.New("it is another segment"))
	}
	tables, err := parseSegment(parts)
	if err != nil {
		return nil, corrupt(err)
	}
	return tables, nil
}

// Entries returns the places of a pack's chunks.
func Entries(number uint64, t PackTable) []index.Entry { return appendEntries(nil, number, t) }

// appendEntries appends the places of a pack's chunks.
func appendEntries(dst []index.Entry, number uint64, t PackTable) []index.Entry {
	for _, b := range t.Table.Blocks {
		var start uint32
		for _, c := range b.Chunks {
			dst = append(dst, index.Entry{ID: c.ID, Place: index.Place{
				Pack: number, Check: t.Pack.Check(), Offset: b.Offset, Stored: b.Stored, Block: b.Number,
				Start: start, Length: c.Length, Foreign: b.Birth != 0,
			}})
			start += c.Length
		}
	}
	return dst
}

package store

import (
	"context"
	"errors"

	"github.com/cairn-backup/cairn/chunk"
	"github.com/cairn-backup/cairn/chunk/pack"
	"github.com/cairn-backup/cairn/chunk/seal"
	"github.com/cairn-backup/cairn/engine/internal/index"
	"github.com/cairn-backup/cairn/engine/internal/layout"
	"github.com/cairn-backup/cairn/engine/internal/log"
)

const (
	// repackGap is how many bytes that are not wanted are read to spare a request,
	// and repackRead how many are read at a time.
	repackGap  = 128 << 10
	repackRead = 8 << 20
)

// A Use says what of a block is copied. The zero value is nothing.
type Use struct {
	Whole  bool
	Chunks []int // if it is not whole: which of its chunks, rising
}

func (u Use) none() bool { return !u.Whole && len(u.Chunks) == 0 }

// A Repacker copies blocks into new packs: whole ones as they are, authenticated
// on the way; of others the chunks that are used, in new blocks. What it stores
// is of no effect until a record names it. It holds one open pack of each kind
// and one block, and is for one goroutine.
type Repacker struct {
	store   *Store
	open    [2]*openPack
	spare   []byte // the buffer of a pack that was put
	read    []byte
	plain   []byte
	anew    rewriter
	by      map[uint64]map[pack.ID]struct{} // where blocks of a pack went
	tables  []PackTable
	infos   []log.PackInfo
	segment log.SegmentInfo
	bytes   uint64
}

// Repack returns a Repacker. It does no I/O.
func (s *Store) Repack() *Repacker {
	return &Repacker{store: s, by: make(map[uint64]map[pack.ID]struct{})}
}

// A Source is a live pack to copy from, and its table, which must be one that
// was authenticated.
type Source struct {
	Number uint64
	Info   log.PackInfo
	Table  pack.Table
}

// Copy copies what uses, one for each block, says of a pack. A CorruptError says
// that the pack can not be copied; blocks that were are then in the new packs,
// which does no harm.
func (r *Repacker) Copy(ctx context.Context, src Source, uses []Use) error {
	t := src.Table
	for i := 0; i < len(t.Blocks); {
		if uses[i].none() {
			i++
			continue
		}
		off := int64(t.Blocks[i].Offset)
		end, next := off, i
		for j := i; j < len(t.Blocks) && int64(t.Blocks[j].Offset)-end <= repackGap; j++ {
			if uses[j].none() {
				continue
			}
			to := int64(t.Blocks[j].Offset) + int64(t.Blocks[j].Stored)
			if next > i && to-off > repackRead {
				break
			}
			end, next = to, j+1
		}
		if err := r.copyRun(ctx, src, [2]int{i, next}, uses); err != nil {
			return err
		}
		i = next
	}
	return nil
}

// copyRun reads the blocks from run[0] to run[1] at once and adds what is used of
// them.
func (r *Repacker) copyRun(ctx context.Context, src Source, run [2]int, uses []Use) error {
	info, t := src.Info, src.Table
	first, last := t.Blocks[run[0]], t.Blocks[run[1]-1]
	n := int(last.Offset + last.Stored - first.Offset)
	if cap(r.read) < n {
		r.read = make([]byte, n)
	}
	buf := r.read[:n]
	if err := r.store.readInto(ctx, info, int64(first.Offset), buf); err != nil {
		return err
	}
	for i := run[0]; i < run[1]; i++ {
		if uses[i].none() {
			continue
		}
		b := t.Blocks[i]
		birth := info.Header()
		if b.Birth != 0 {
			birth = t.Births[b.Birth-1]
		}
		at := b.Offset - first.Offset
		sealed := buf[at : at+b.Stored]
		o, err := r.store.opener(birth)
		if err != nil {
			return err
		}
		switch {
		case !uses[i].Whole:
			err = r.rewrite(ctx, o, sealedBlock{src.Number, b, birth, sealed}, uses[i].Chunks)
		default:
			if r.plain, err = o.Open(r.plain[:0], sealed, uint64(b.Number), seal.More); err == nil {
				err = r.add(ctx, sealedBlock{src.Number, b, birth, sealed})
			} else {
				err = blockError{err}
			}
		}
		if bad, ok := errors.AsType[blockError](err); ok {
			return r.store.corruptAt(info, index.Place{Offset: b.Offset}, chunk.ID{}, bad.error)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// blockError is what is wrong with a block that was read.
type blockError struct{ error }

// A sealedBlock is a block as it lies in a pack.
type sealedBlock struct {
	number uint64 // of the pack
	block  pack.Block
	birth  seal.Header
	sealed []byte
}

// add adds a sealed block to the open pack of its kind.
func (r *Repacker) add(ctx context.Context, b sealedBlock) error {
	return r.addTo(ctx, b.birth.Kind, []uint64{b.number}, func(w *openPack) error { return w.AddSealed(b.block, b.birth, b.sealed) })
}

// addTo adds a block with what is used of the packs from to the open pack of a
// kind.
func (r *Repacker) addTo(ctx context.Context, kind seal.Kind, from []uint64, add func(w *openPack) error) error {
	for fresh := false; ; fresh = true {
		w, err := r.take(kind)
		if err != nil {
			return err
		}
		err = add(w)
		if errors.Is(err, pack.ErrFull) && !fresh {
			if err := r.finish(ctx, kind); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		for _, number := range from {
			to := r.by[number]
			if to == nil {
				to = make(map[pack.ID]struct{})
				r.by[number] = to
			}
			to[w.ID()] = struct{}{}
		}
		if w.Size() >= w.target {
			return r.finish(ctx, kind)
		}
		return nil
	}
}

// take returns the open pack of that kind.
func (r *Repacker) take(kind seal.Kind) (*openPack, error) {
	open := &r.open[slot(kind)]
	if *open != nil {
		return *open, nil
	}
	target, err := r.store.packTarget(kind)
	if err != nil {
		return nil, err
	}
	o := r.store.opts
	w, err := pack.NewWriter(pack.Config{
		Key: o.Keys.Data(0), Kind: kind, Repository: o.Repository, Hash: o.Keys.Chunk, Target: target, Buffer: r.spare,
	})
	if err != nil {
		return nil, err
	}
	r.spare = nil
	*open = &openPack{Writer: w, target: target}
	return *open, nil
}

// finish puts the open pack of that kind.
func (r *Repacker) finish(ctx context.Context, kind seal.Kind) error {
	w := r.open[slot(kind)]
	if w == nil {
		return nil
	}
	r.open[slot(kind)] = nil
	p, err := w.Finish()
	if err != nil {
		return err
	}
	if err := r.store.put(ctx, layout.Pack(p.ID), p.Object); err != nil {
		return err
	}
	size := uint64(len(p.Object))
	var chunks uint32
	for _, b := range p.Table.Blocks {
		chunks += uint32(len(b.Chunks)) //nolint:gosec // bounded by the pack's size
	}
	r.tables = append(r.tables, PackTable{Pack: p.ID, Size: size, Table: p.Table})
	r.infos = append(r.infos, log.PackInfo{
		ID: p.ID, Kind: p.Header.Kind, Generation: p.Header.Generation, Salt: p.Header.Salt,
		Size: uint32(size), Chunks: chunks, Envelope: p.Header.Envelope, //nolint:gosec // a pack has at most 256 MiB
	})
	r.bytes += size
	r.spare = p.Object // Put does not retain it
	return nil
}

// Flush puts what is open and the segment that lists the new packs.
func (r *Repacker) Flush(ctx context.Context) error {
	if err := r.flushBlock(ctx); err != nil {
		return err
	}
	for _, kind := range []seal.Kind{seal.KindDataPack, seal.KindMetaPack} {
		if err := r.finish(ctx, kind); err != nil {
			return err
		}
	}
	if len(r.tables) == 0 {
		return nil
	}
	var err error
	r.segment, err = r.store.PutSegment(ctx, r.tables)
	r.tables = nil
	return err
}

// Written returns how many packs were put and their bytes, and the size of
// their segment, which is 0 before Flush.
func (r *Repacker) Written() (packs, bytes, segment uint64) {
	return uint64(len(r.infos)), r.bytes, uint64(r.segment.Size)
}

// Add returns the effect that makes the new packs live, numbered from first;
// false if there are none. Flush must have returned nil.
func (r *Repacker) Add(first uint64) (log.Add, bool) {
	if len(r.infos) == 0 {
		return log.Add{}, false
	}
	seg := r.segment
	seg.Packs = log.Ranges{{First: first, Last: first + uint64(len(r.infos)) - 1}}
	return log.Add{Packs: r.infos, Segments: []log.SegmentInfo{seg}}, true
}

// By returns which of the new packs, numbered from first, hold what was copied
// of a pack.
func (r *Repacker) By(number, first uint64) log.Ranges {
	to := r.by[number]
	var numbers []uint64
	for i, info := range r.infos {
		if _, ok := to[info.ID]; ok {
			numbers = append(numbers, first+uint64(i)) //nolint:gosec // an index
		}
	}
	return log.RangesOf(numbers)
}

// PutSegment stores an index segment that lists these packs, and returns it
// without their numbers.
func (s *Store) PutSegment(ctx context.Context, tables []PackTable) (log.SegmentInfo, error) {
	id, object, err := sealSegment(s.opts.Keys, s.opts.Repository, tables)
	if err != nil {
		return log.SegmentInfo{}, err
	}
	if err := s.put(ctx, layout.Segment(id), object); err != nil {
		return log.SegmentInfo{}, err
	}
	return log.SegmentInfo{ID: id, Size: uint32(len(object))}, nil //nolint:gosec // callers bound it
}

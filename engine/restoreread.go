package engine

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"github.com/cairn-backup/cairn/chunk"
	"github.com/cairn-backup/cairn/engine/internal/index"
	"github.com/cairn-backup/cairn/engine/internal/store"
	"github.com/cairn-backup/cairn/engine/progress"
)

// maxWrite bounds one write of several chunks, in bytes.
const maxWrite = 256 << 10

// locate finds the places of refs. With Skip it leaves out those of chunks that are nowhere: their files have failed.
func (x *restorer) locate(ctx context.Context, refs []ref) ([]ref, error) {
	ids := make([]chunk.ID, len(refs))
	for i := range refs {
		ids[i] = refs[i].id
	}
	places, err := x.repo.store.Find(ctx, ids)
	switch {
	case err == nil:
		for i := range refs {
			refs[i].place = places[i]
		}
	case x.opts.OnError == Skip && errors.Is(err, ErrCorrupt):
		if refs, err = x.locateSome(ctx, refs, ids); err != nil {
			return nil, err
		}
	default:
		return nil, x.blame(err, refs)
	}
	return refs, nil
}

// locateSome returns those refs whose chunks have a place.
func (x *restorer) locateSome(ctx context.Context, refs []ref, ids []chunk.ID) ([]ref, error) {
	places, found, err := x.repo.store.Places(ids)
	if err != nil {
		return nil, err
	}
	left := refs[:0]
	for i, r := range refs {
		if found[i] {
			r.place = places[i]
			left = append(left, r)
			continue
		}
		if err := x.refFailed(ctx, &r, &store.CorruptError{ID: r.id, Offset: -1, Err: errNoPlace}); err != nil {
			return nil, err
		}
	}
	return left, nil
}

var (
	errNoPlace = errors.New("no live pack holds the chunk")
	errLength  = errors.New("the chunk is not as long as the tree says")
)

// blame names the first file that a missing chunk belongs to.
func (x *restorer) blame(err error, refs []ref) error {
	if c := new(store.CorruptError); errors.As(err, &c) {
		for i := range refs {
			if refs[i].id == c.ID {
				return &PathError{Path: refs[i].file.path, Err: err}
			}
		}
	}
	return err
}

// readAll reads and writes refs, and waits until that is done. What its place
// does not hold is sought elsewhere: collection may have moved it meanwhile.
func (x *restorer) readAll(ctx context.Context, refs []ref) error {
	for len(refs) > 0 {
		slices.SortStableFunc(refs, func(a, b ref) int {
			return cmp.Or(cmp.Compare(a.place.Pack, b.place.Pack), cmp.Compare(a.place.Offset, b.place.Offset), cmp.Compare(a.place.Start, b.place.Start))
		})
		if err := x.fetchAll(ctx, reads(refs, x.readSize())); err != nil {
			return err
		}
		x.mu.Lock()
		lost := x.lost
		x.lost = nil
		x.mu.Unlock()
		var err error
		if refs, err = x.again(ctx, lost); err != nil {
			return err
		}
	}
	return nil
}

// missed deals with a chunk that its place does not hold.
func (x *restorer) missed(ctx context.Context, f *ref, err error) error {
	f.tries++
	if !store.MayTryAgain(err, f.tries) {
		return x.refFailed(ctx, f, err)
	}
	f.err = err
	x.mu.Lock()
	defer x.mu.Unlock()
	x.lost = append(x.lost, *f)
	return nil
}

// again returns those refs that have another place; the others have failed.
func (x *restorer) again(ctx context.Context, refs []ref) ([]ref, error) {
	if len(refs) == 0 {
		return nil, nil
	}
	ids, failed := make([]chunk.ID, len(refs)), make([]index.Place, len(refs))
	for i := range refs {
		ids[i], failed[i] = refs[i].id, refs[i].place
	}
	places, found, err := x.repo.store.Again(ctx, ids, failed)
	if err != nil {
		return nil, err
	}
	left := refs[:0]
	for i, r := range refs {
		if found[i] {
			r.place = places[i]
			left = append(left, r)
		} else if err := x.refFailed(ctx, &r, r.err); err != nil {
			return nil, err
		}
	}
	return left, nil
}

// refFailed gives up one reference, and with it the file.
func (x *restorer) refFailed(ctx context.Context, f *ref, err error) error {
	if f.slot != nil {
		f.slot.err = err
		return nil
	}
	f.blank()
	return x.abandon(ctx, f.file, progress.Damaged, err)
}

// writeBlock writes the chunks of one opened block. blockErr says why it could
// not be opened.
func (x *restorer) writeBlock(ctx context.Context, r *store.Reader, block []byte, blockErr error, refs []ref) error {
	c := cutter{Reader: r, store: x.repo.store, block: block}
	for len(refs) > 0 {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		run, err := run{}, blockErr
		if err == nil {
			run, err = c.run(refs)
		}
		switch {
		case err != nil:
			err = x.missed(ctx, &refs[0], err)
		case len(run.refs) == 1:
			err = x.writeChunk(ctx, &refs[0], run.data)
		default:
			err = x.writeRun(ctx, run)
		}
		if err != nil {
			return err
		}
		refs = refs[max(len(run.refs), 1):]
	}
	return nil
}

// A run is chunks that follow each other in a block as well as in a file, and
// their bytes: one call writes them.
type run struct {
	refs []ref
	data []byte
}

// A cutter cuts one block.
type cutter struct {
	*store.Reader
	store *store.Store
	block []byte
	last  *ref // that was verified: one chunk may go to many places
}

// cut verifies one chunk and returns its bytes.
func (c *cutter) cut(f *ref) ([]byte, error) {
	if c.last != nil && c.last.id == f.id && c.last.place == f.place {
		return c.block[f.place.Start : f.place.Start+f.place.Length], nil
	}
	data, err := c.store.Cut(c.Reader, c.block, f.id, f.place)
	if err == nil {
		c.last = f
	}
	return data, err
}

// run cuts the first chunk of refs, and those that follow it. An error is of the
// first alone.
func (c *cutter) run(refs []ref) (run, error) {
	data, err := c.cut(&refs[0])
	if err != nil {
		return run{}, err
	}
	n, start := 1, int(refs[0].place.Start)
	for n < len(refs) && refs[n-1].precedes(&refs[n]) && len(data)+int(refs[n].place.Length) <= maxWrite {
		more, err := c.cut(&refs[n])
		if err != nil {
			break // for the next run to tell
		}
		data = c.block[start : start+len(data)+len(more)]
		n++
	}
	return run{refs: refs[:n], data: data}, nil //nolint:nilerr // as said above
}

// precedes reports whether the chunk of g comes right behind that of f, where it
// is as well as where it goes.
func (f *ref) precedes(g *ref) bool {
	return f.file == g.file && f.slot == nil && f.times == 1 && g.times == 1 && f.parts == nil && g.parts == nil && f.patchwork == nil && g.patchwork == nil &&
		f.off+f.size == g.off && f.place.Start+f.place.Length == g.place.Start &&
		f.size == uint64(f.place.Length) && g.size == uint64(g.place.Length)
}

// writeRun writes a run.
func (x *restorer) writeRun(ctx context.Context, run run) error {
	file := run.refs[0].file
	out, err := x.create(ctx, file)
	if err == nil && out != nil {
		_, err = out.WriteAt(run.data, int64(run.refs[0].off)) //nolint:gosec // an offset in a file
		x.meter.AddBytes(int64(len(run.data)))
	}
	if err != nil {
		if err := x.fileFailed(ctx, file, progress.NotRestored, err); err != nil {
			return err
		}
	}
	for range run.refs {
		if err := x.done(ctx, file); err != nil {
			return err
		}
	}
	return nil
}

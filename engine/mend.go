package engine

import (
	"bytes"
	"context"
	"sync"

	"github.com/cairn-backup/cairn/engine/internal/store"
	"github.com/cairn-backup/cairn/engine/progress"
	"github.com/cairn-backup/cairn/engine/target"
)

const (
	// compareBatch is how many references one worker compares at a time: some
	// MiB, so that also the parts of one large file are spread.
	compareBatch = 64
	// zeroStep is how many bytes of a hole are dealt with before anyone looks
	// whether the restore was cancelled.
	zeroStep = 64 << 20
)

// compare keeps of refs what is right in the target already, and returns the
// others. Without an Updater it returns all.
func (x *restorer) compare(ctx context.Context, refs []ref) ([]ref, error) {
	if x.update == nil {
		return refs, nil
	}
	var wait sync.WaitGroup
	for i := 0; i < len(refs); i += compareBatch {
		batch := refs[i:min(i+compareBatch, len(refs))]
		if err := x.send(ctx, &wait, job{compare: batch}); err != nil {
			wait.Wait()
			return nil, err
		}
	}
	wait.Wait()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	left := refs[:0]
	for _, r := range refs {
		switch {
		case r.settled:
		case x.update.DryRun() && r.parts == nil: // the file is reported as one that differs
			if err := x.done(ctx, r.file); err != nil {
				return nil, err
			}
		default:
			left = append(left, r)
		}
	}
	return left, nil
}

// compareRefs compares a batch. It returns the buffer for the next call.
func (x *restorer) compareRefs(ctx context.Context, r *store.Reader, refs []ref, buf []byte) ([]byte, error) {
	for i := range refs {
		if ctx.Err() != nil {
			return buf, context.Cause(ctx)
		}
		f := &refs[i]
		out, err := x.create(ctx, f.file)
		switch {
		case err != nil:
			f.settled = true
			err = x.fileFailed(ctx, f.file, progress.NotRestored, err)
		case out == nil: // it failed, or what is there is kept
			f.settled = true
		case f.id.IsZero():
			f.settled, err = true, x.zero(ctx, f)
		case f.file.mender != nil && f.parts == nil: // else the chunk tells, see writeParts
			buf, err = x.compareRef(ctx, r, f, buf)
		}
		if err != nil {
			return buf, err
		}
		if !f.settled {
			continue
		}
		x.meter.AddBytes(int64(f.bytes())) //nolint:gosec // a file's size
		if err := x.done(ctx, f.file); err != nil {
			return buf, err
		}
	}
	return buf, nil
}

// compareRef settles f if its bytes are in the old content.
func (x *restorer) compareRef(ctx context.Context, r *store.Reader, f *ref, buf []byte) ([]byte, error) {
	size, old := f.size, uint64(max(f.file.old, 0))
	if f.off > old || f.times > (old-f.off)/size {
		return buf, nil
	}
	if uint64(cap(buf)) < size {
		buf = make([]byte, size)
	}
	p := buf[:size]
	for i := range f.times {
		if ctx.Err() != nil {
			return buf, context.Cause(ctx)
		}
		// What cannot be read is not right.
		n, err := f.file.mender.ReadAt(p, int64(f.off+i*size)) //nolint:gosec // an offset in a file
		whole := uint64(n) == size || err == nil
		if !whole || !r.Is(p, f.id) {
			return buf, nil
		}
	}
	f.settled = true
	x.bytesKept.Add(size * f.times)
	if err := f.file.mender.Keep(int64(f.off), int64(size*f.times)); err != nil { //nolint:gosec // a range of a file
		return buf, x.fileFailed(ctx, f.file, progress.NotRestored, err)
	}
	return buf, nil
}

// zero makes a hole where f is one.
func (x *restorer) zero(ctx context.Context, f *ref) error {
	m := f.file.mender
	if m == nil {
		return nil // what is not written is a hole
	}
	for at := uint64(0); at < f.size; at += zeroStep {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := m.Zero(int64(f.off+at), int64(min(zeroStep, f.size-at))); err != nil { //nolint:gosec // a range of a file
			return x.fileFailed(ctx, f.file, progress.NotRestored, err)
		}
	}
	return nil
}

// writeInline writes content that is in the node, unless it is there already.
func (x *restorer) writeInline(out target.File, f *outFile) error {
	want := f.node.Content.Inline
	if f.mender != nil && f.old == int64(len(want)) {
		have := make([]byte, len(want))
		if n, _ := f.mender.ReadAt(have, 0); n == len(want) && bytes.Equal(have, want) {
			x.bytesKept.Add(uint64(len(want)))
			return f.mender.Keep(0, f.old)
		}
	}
	_, err := out.WriteAt(want, 0)
	return err
}

package engine

import (
	"context"
	"errors"
	"fmt"

	"github.com/cairn-backup/cairn/engine/progress"
	"github.com/cairn-backup/cairn/engine/target"
	"github.com/cairn-backup/cairn/manifest"
)

// Limits of one sequence. Two are in memory: one that is being written, and one
// that is being read ahead of it. Much more would not read faster, since a
// sequence is some hundred blocks already.
const (
	sequenceBytes = 32 << 20
	sequenceSteps = 8192
)

// A sequence is what goes to a stream next. The walk fills it; when it is full
// the workers read its chunks, in parallel and by place, and one goroutine
// writes it in the order of the tree.
type sequence struct {
	steps []step
	refs  []ref
	bytes uint64 // of chunks

	full  chan sequence // to the writer
	zeros []byte        // what a hole is written as
}

// A step is one entry, or a part of a file that is too large for one sequence.
type step struct {
	path string
	node *manifest.Node // nil: file
	// first is the file of which the node is a further name, if it is one.
	first *outFile

	file  *outFile
	slots []*slot
	last  bool  // of the file
	err   error // why the file ends here
}

// A slot is a place in a file and, later, the chunk for it.
type slot struct {
	off, times uint64
	data       []byte
	err        error
	patches    []*slot // what replaces parts of data
}

// inSequence adds a step.
func (x *restorer) inSequence(ctx context.Context, s step) error {
	if s.node != nil {
		n := *s.node // the caller goes on to use its own
		s.node = &n
	}
	x.seq.steps = append(x.seq.steps, s)
	if len(x.seq.steps) < sequenceSteps && x.seq.bytes < sequenceBytes {
		return nil
	}
	return x.flushSequence(ctx)
}

// fileInSequence adds a file.
func (x *restorer) fileInSequence(ctx context.Context, f *outFile) error {
	x.report.Bytes += f.node.Size
	s := step{path: f.path, file: f}
	for e, err := range x.extents(ctx, f.node.Content) {
		if err != nil {
			s.err = err
			break
		}
		if e.Kind == manifest.Hole {
			x.meter.AddBytes(int64(e.Length)) //nolint:gosec // a file's size
			continue
		}
		s.slots = append(s.slots, x.slotFor(f, e))
		if x.seq.bytes >= sequenceBytes {
			if err := x.inSequence(ctx, s); err != nil {
				return err
			}
			s = step{path: f.path, file: f}
		}
	}
	if s.err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	s.last = true
	return x.inSequence(ctx, s)
}

// flushSequence reads the chunks of what was planned and hands it to the writer,
// which is done with the one before by then.
func (x *restorer) flushSequence(ctx context.Context) error {
	seq := *x.seq
	x.seq.steps, x.seq.refs, x.seq.bytes = nil, nil, 0
	refs, err := x.locate(ctx, seq.refs)
	if err != nil {
		return err
	}
	if err := x.readAll(ctx, refs); err != nil {
		return err
	}
	seq.refs = nil
	select {
	case seq.full <- seq:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// writeSequence writes all sequences.
func (x *restorer) writeSequence(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case seq, ok := <-x.seq.full:
			if !ok {
				return nil
			}
			for i := range seq.steps {
				if err := x.writeStep(ctx, &seq.steps[i]); err != nil {
					return err
				}
				seq.steps[i] = step{} // its chunks are not needed any more
			}
		}
	}
}

func (x *restorer) writeStep(ctx context.Context, s *step) error {
	if s.node == nil {
		return x.writePart(ctx, s)
	}
	x.meter.AddFiles(1)
	var err error
	if s.first != nil && s.first.failed {
		err = fmt.Errorf("it is the file %q, which %w", s.first.path, errFirst)
	} else {
		err = x.out.Make(ctx, s.path, *s.node)
	}
	if err != nil {
		return x.failed(ctx, s.path, progress.NotRestored, err)
	}
	if s.first != nil {
		x.meter.AddBytes(int64(s.node.Size)) //nolint:gosec // the total counts every name
	}
	return nil
}

// writePart writes a file, or a part. A file that lacks a chunk is left out if
// that is known before it begins; else the rest of it is zeros, and it is
// reported.
func (x *restorer) writePart(ctx context.Context, s *step) error {
	f := s.file
	if f.failed {
		return x.endPart(ctx, s)
	}
	err := s.err
	for _, slot := range s.slots {
		err = errors.Join(err, slot.patch())
	}
	if err != nil {
		if err := x.fileFailed(ctx, f, progress.Damaged, err); err != nil {
			return err
		}
		return x.endPart(ctx, s)
	}
	out, err := x.create(ctx, f)
	if err == nil {
		err = x.writeSlots(ctx, out, s)
	}
	if err != nil {
		if err := x.fileFailed(ctx, f, progress.NotRestored, err); err != nil {
			return err
		}
	}
	return x.endPart(ctx, s)
}

func (x *restorer) writeSlots(ctx context.Context, out target.File, s *step) error {
	f := s.file
	if inline := f.node.Content.Inline; len(inline) > 0 {
		x.meter.AddBytes(int64(len(inline)))
		return x.writeOn(ctx, out, f, inline)
	}
	for _, slot := range s.slots {
		if err := x.zerosOn(ctx, out, f, slot.off); err != nil {
			return err
		}
		for range slot.times {
			if err := x.writeOn(ctx, out, f, slot.data); err != nil {
				return err
			}
			x.meter.AddBytes(int64(len(slot.data)))
		}
	}
	if s.last {
		return x.zerosOn(ctx, out, f, f.node.Size)
	}
	return nil
}

// writeOn writes p where the file ends so far.
func (x *restorer) writeOn(ctx context.Context, out target.File, f *outFile, p []byte) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	_, err := out.WriteAt(p, int64(f.at)) //nolint:gosec // an offset in a file
	f.at += uint64(len(p))
	return err
}

// zerosOn writes a hole up to end. The target would do it as well, but could not
// be cancelled meanwhile.
func (x *restorer) zerosOn(ctx context.Context, out target.File, f *outFile, end uint64) error {
	for f.at < end {
		if err := x.writeOn(ctx, out, f, x.seq.zeros[:min(uint64(len(x.seq.zeros)), end-f.at)]); err != nil {
			return err
		}
	}
	return nil
}

// endPart closes the file after its last part.
func (x *restorer) endPart(ctx context.Context, s *step) error {
	if !s.last {
		return nil
	}
	s.file.todo.Store(1)
	return x.done(ctx, s.file)
}

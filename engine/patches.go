package engine

import (
	"bytes"
	"context"
	"sync"

	"github.com/cairn-backup/cairn/chunk"
	"github.com/cairn-backup/cairn/engine/internal/store"
	"github.com/cairn-backup/cairn/engine/target"
	"github.com/cairn-backup/cairn/manifest"
)

// A part is a range of the bytes of a chunk.
type part struct{ off, end uint64 }

// unpatched returns what of an extent its patches leave; nil if it has none.
func unpatched(e manifest.Patched) []part {
	if len(e.Patches) == 0 {
		return nil
	}
	parts := make([]part, 0, len(e.Patches)+1)
	at := uint64(0)
	for _, p := range e.Patches {
		if off := p.Offset - e.Offset; off > at {
			parts = append(parts, part{at, off})
		}
		at = p.Offset - e.Offset + p.Length
	}
	if at < e.Length {
		parts = append(parts, part{at, e.Length})
	}
	return parts
}

// extentRef returns the reference to the chunk of an extent, or to a hole. That
// of a patched chunk says what its patches leave, so that the order in which they are
// written does not matter.
func extentRef(f *outFile, e manifest.Patched) ref {
	r := ref{file: f, off: e.Offset, times: max(e.Count, 1), id: e.ID, parts: unpatched(e)}
	r.size = e.Length / r.times
	return r
}

// bytes returns how much of the file f stands for.
func (f *ref) bytes() uint64 {
	if f.parts == nil {
		return f.size * f.times
	}
	sum := uint64(0)
	for _, p := range f.parts {
		sum += p.end - p.off
	}
	return sum
}

// A patchwork is a chunk and its patches on their way to a file, in a restore to a
// new place. A chunk that comes before all of them, as it mostly does since it was
// stored before, is written whole, by one call: its parts are many and small.
type patchwork struct {
	mu      sync.Mutex // held while any of it is written
	patched bool       // a patch was written, or given up: the chunk must leave room
}

// writePatchwork writes a chunk of a patchwork, or a patch.
func (x *restorer) writePatchwork(f *ref, out target.File, data []byte) error {
	f.patchwork.mu.Lock()
	defer f.patchwork.mu.Unlock()
	switch {
	case f.parts == nil:
		f.patchwork.patched = true
	case f.patchwork.patched || len(f.parts) == 0:
		return x.writeParts(f, out, data)
	}
	if _, err := out.WriteAt(data, int64(f.off)); err != nil { //nolint:gosec // an offset in a file
		return err
	}
	x.meter.AddBytes(int64(f.bytes())) //nolint:gosec // a length
	return nil
}

// blank leaves zeros where a patch is given up, and not what it was to replace.
func (f *ref) blank() {
	if f.patchwork == nil || f.parts != nil {
		return
	}
	f.patchwork.mu.Lock()
	defer f.patchwork.mu.Unlock()
	f.patchwork.patched = true
	f.file.mu.Lock()
	out := f.file.file // open: f counts in todo
	f.file.mu.Unlock()
	if out != nil {
		_, _ = out.WriteAt(make([]byte, f.size), int64(f.off)) //nolint:gosec // an offset in a file; it is reported as incomplete anyway
	}
}

// writeParts writes what patches leave of a chunk. The chunk's name does not
// tell whether that is right in the target already, since there are patches
// there as well: its bytes do.
func (x *restorer) writeParts(f *ref, out target.File, data []byte) error {
	for _, p := range f.parts {
		want, at := data[p.off:p.end], int64(f.off+p.off) //nolint:gosec // an offset in a file
		var err error
		if f.has(want, at) {
			x.bytesKept.Add(p.end - p.off)
			err = f.file.mender.Keep(at, int64(len(want)))
		} else {
			_, err = out.WriteAt(want, at)
		}
		if err != nil {
			return err
		}
		x.meter.AddBytes(int64(len(want)))
	}
	return nil
}

// has reports whether the old content of the file is want at off.
func (f *ref) has(want []byte, off int64) bool {
	m := f.file.mender
	if m == nil || off+int64(len(want)) > f.file.old {
		return false
	}
	have := make([]byte, len(want))
	n, _ := m.ReadAt(have, off) // what cannot be read is not right
	return n == len(want) && bytes.Equal(have, want)
}

// slotFor plans the chunks of an extent that goes to a stream.
func (x *restorer) slotFor(f *outFile, e manifest.Patched) *slot {
	r := extentRef(f, e)
	r.parts = nil // the patches come on top
	r.slot = &slot{off: r.off, times: r.times}
	x.seq.refs = append(x.seq.refs, r)
	x.seq.bytes += r.size
	for _, p := range e.Patches {
		over := ref{file: f, off: p.Offset, times: 1, size: p.Length, id: p.ID, slot: &slot{off: p.Offset, times: 1}}
		r.slot.patches = append(r.slot.patches, over.slot)
		x.seq.refs = append(x.seq.refs, over)
		x.seq.bytes += over.size
	}
	return r.slot
}

// patch puts the patches of a slot on its chunk, once. It returns why any of
// them is not there.
func (s *slot) patch() error {
	if s.err != nil {
		return s.err
	}
	for _, p := range s.patches {
		if p.err != nil {
			return p.err
		}
		copy(s.data[p.off-s.off:], p.data)
	}
	s.patches = nil
	return nil
}

// patchedChunk returns the chunk of a Data or Repeat extent with its patches.
// Nobody may change its bytes. The chunks of ahead will be asked for next.
func (r *Repository) patchedChunk(ctx context.Context, e *manifest.Patched, ahead []chunk.ID) ([]byte, error) {
	data, err := r.chunkOf(ctx, e.Placed, ahead)
	if err != nil || len(e.Patches) == 0 {
		return data, err
	}
	data = bytes.Clone(data)
	for _, p := range e.Patches {
		patch, err := r.chunkOf(ctx, p, nil)
		if err != nil {
			return nil, err
		}
		copy(data[p.Offset-e.Offset:], patch)
	}
	return data, nil
}

// chunkOf returns the chunk that an extent names, which is as long as it says.
func (r *Repository) chunkOf(ctx context.Context, e manifest.Placed, ahead []chunk.ID) ([]byte, error) {
	length := e.Length
	if e.Kind == manifest.Repeat {
		length /= e.Count
	}
	data, err := r.store.ChunkAhead(ctx, e.ID, ahead)
	if err == nil && uint64(len(data)) != length {
		err = &store.CorruptError{ID: e.ID, Offset: -1, Err: errLength}
	}
	return data, err
}

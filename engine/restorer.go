package engine

import (
	"context"
	"errors"
	"iter"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/cairn-backup/cairn/chunk"
	"github.com/cairn-backup/cairn/engine/internal/index"
	"github.com/cairn-backup/cairn/engine/internal/store"
	"github.com/cairn-backup/cairn/engine/progress"
	"github.com/cairn-backup/cairn/engine/target"
	"github.com/cairn-backup/cairn/manifest"
)

const (
	// windowRefs bounds how many chunk references are planned at once: their
	// reads are sorted by place, and memory does not grow with the snapshot.
	windowRefs = 1 << 17
	// windowFiles bounds how many files with more than one chunk a window
	// holds, since each may be open, and farWindowFiles where a further window
	// means further requests; it is a quarter of what the system lets a process
	// open, if that is less.
	windowFiles    = 512
	farWindowFiles = 4096
	// inlineBatch is how many files without chunks make one job.
	inlineBatch = 64
)

// A restorer writes one snapshot. One goroutine walks the tree and plans, some
// read packs, and the workers open blocks and write files.
//
// What goes wrong goes from the inside out: missed is told that a place does not
// hold a chunk, and has others tried; refFailed that none does; abandon or
// fileFailed that a file cannot be whole, once for each; failed that an item is
// not restored. With Skip failed notes that and the restore goes on, else its
// error ends it.
type restorer struct {
	repo     *Repository
	snap     manifest.Snapshot
	tree     manifest.Getter // of its pages
	out      target.Writer
	update   target.Updater // out, if it is over what was there before
	opts     RestoreOptions
	meter    *progress.Meter
	pick     *picker
	jobs     chan job
	reads    chan readJob
	idle     chan []byte         // buffers for what is read
	links    map[uint64]*outFile // the first name of each group that was planned
	above    []link              // directories that are made once something below them is
	later    []link              // further names
	window   []ref
	seq      *sequence // in place of the window, if the target is a stream
	files    int       // in the window, with more than one chunk
	maxFiles int
	inline   []*outFile // in the window, without chunks

	bytesKept atomic.Uint64 // found right in the target

	mu     sync.Mutex // guards report.Problems, open and lost
	report *RestoreReport
	open   map[*outFile]struct{} // files that were created and are not closed
	lost   []ref                 // whose places held nothing right, to be sought elsewhere
}

type link struct {
	path  string
	node  manifest.Node
	first *outFile
}

// A ref is one place in a file that a chunk goes to.
type ref struct {
	file  *outFile
	off   uint64
	times uint64 // written so often, one behind the other
	size  uint64 // of the chunk, bytes; of the hole, if id is zero
	id    chunk.ID
	place index.Place
	parts []part // what of the chunk stays, if patches replace the rest; nil: all of it

	patchwork *patchwork // of a chunk and of its patches

	settled bool  // nothing is left to do
	tries   int   // how many places held nothing right
	err     error // what the last one gave
	slot    *slot // where the chunk goes if it is not written right away
}

// An outFile is a file that is being written: created by the first who writes
// to it, closed by the last.
type outFile struct {
	path string
	node manifest.Node
	at   uint64       // written to a stream so far
	todo atomic.Int64 // references, and one while it is being planned

	mu     sync.Mutex // guards what follows
	file   target.File
	mender target.Mender // file, if it has old content
	old    int64         // its size in bytes
	failed bool
	kept   bool // the target keeps what is there
}

// A job is work for a worker. wait is released when it is done.
type job struct {
	wait    *sync.WaitGroup
	blocks  *piece
	make    []*outFile // to be made without reading
	compare []ref      // to be compared with what is there
}

// planFile adds the chunks of a file to the window.
func (x *restorer) planFile(ctx context.Context, f *outFile) error {
	n := &f.node
	x.report.Bytes += n.Size
	f.todo.Store(1)
	planned := 0
	for e, err := range x.extents(ctx, n.Content) {
		if err != nil {
			return x.abandon(ctx, f, progress.Damaged, err)
		}
		if e.Kind == manifest.Hole && x.update == nil {
			x.meter.AddBytes(int64(e.Length)) //nolint:gosec // a file's size
			continue
		}
		r := extentRef(f, e)
		if len(e.Patches) > 0 && x.update == nil {
			r.patchwork = new(patchwork)
		}
		x.window = append(x.window, r)
		for _, p := range e.Patches {
			x.window = append(x.window, ref{file: f, off: p.Offset, times: 1, size: p.Length, id: p.ID, patchwork: r.patchwork})
		}
		f.todo.Add(1 + int64(len(e.Patches)))
		// A file that is compared stays open until what it lacks is read.
		if planned++; planned == 2 && x.update == nil || planned == 1 && x.update != nil {
			x.files++
		}
		if len(x.window) >= windowRefs {
			if err := x.flush(ctx); err != nil {
				return err
			}
		}
	}
	if planned == 0 {
		x.inline = append(x.inline, f)
	} else if err := x.done(ctx, f); err != nil {
		return err
	}
	if x.files >= x.maxFiles || len(x.inline) >= windowRefs/16 {
		return x.flush(ctx)
	}
	return nil
}

// extents yields the extents of a file. Of a store that is far, the pages of a long
// list of them are read several at a time.
func (x *restorer) extents(ctx context.Context, c manifest.Content) iter.Seq2[manifest.Patched, error] {
	walk, ok := x.tree.(store.Walk)
	if !ok || c.List.IsZero() {
		return manifest.PatchedExtents(ctx, x.tree, c, 0)
	}
	return func(yield func(manifest.Patched, error) bool) {
		list := walk.List()
		defer list.Wait()
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		for e, err := range manifest.PatchedExtents(ctx, list, c, 0) {
			if !yield(e, err) {
				return
			}
		}
	}
}

// abandon ends the planning of a file that cannot be planned to its end. What
// was planned of it is still done, so that whoever is last closes it.
func (x *restorer) abandon(ctx context.Context, f *outFile, what progress.Kind, err error) error {
	if err := x.fileFailed(ctx, f, what, err); err != nil {
		return err
	}
	return x.done(ctx, f)
}

// flush does what is planned, and waits until it is done.
func (x *restorer) flush(ctx context.Context) error {
	refs, inline := x.window, x.inline
	x.window, x.inline, x.files = x.window[:0], nil, 0
	var wait sync.WaitGroup
	defer wait.Wait()
	for batch := range slices.Chunk(inline, inlineBatch) {
		if err := x.send(ctx, &wait, job{make: batch}); err != nil {
			return err
		}
	}
	refs, err := x.compare(ctx, refs)
	if err != nil {
		return err
	}
	if refs, err = x.locate(ctx, refs); err != nil {
		return err
	}
	return x.readAll(ctx, refs)
}

// send gives a job to a worker. It counts in wait until it is done.
func (x *restorer) send(ctx context.Context, wait *sync.WaitGroup, j job) error {
	wait.Add(1)
	j.wait = wait
	select {
	case x.jobs <- j:
		return nil
	case <-ctx.Done():
		wait.Done()
		return context.Cause(ctx)
	}
}

// work does jobs until there are no more.
func (x *restorer) work(ctx context.Context) error {
	r, err := x.repo.store.Reader()
	if err != nil {
		return err
	}
	defer x.repo.store.Release(r)
	var buf []byte
	for {
		var j job
		var ok bool
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case j, ok = <-x.jobs:
		}
		if !ok {
			return nil
		}
		var err error
		switch {
		case j.blocks != nil:
			err = x.writeBlocks(ctx, r, j.blocks)
		case j.compare != nil:
			buf, err = x.compareRefs(ctx, r, j.compare, buf)
		default:
			err = x.makeInline(ctx, j.make)
		}
		j.wait.Done()
		if err != nil {
			return err
		}
	}
}

// makeInline writes files whose content is in their nodes, or is one hole.
func (x *restorer) makeInline(ctx context.Context, files []*outFile) error {
	for _, f := range files {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		out, err := x.create(ctx, f)
		if err == nil && out != nil && len(f.node.Content.Inline) > 0 {
			err = x.writeInline(out, f)
			x.meter.AddBytes(int64(len(f.node.Content.Inline)))
		}
		if err != nil {
			if err := x.fileFailed(ctx, f, progress.NotRestored, err); err != nil {
				return err
			}
		}
		if err := x.done(ctx, f); err != nil {
			return err
		}
	}
	return nil
}

// writeChunk writes one chunk, which is right, to where f says.
func (x *restorer) writeChunk(ctx context.Context, f *ref, data []byte) error {
	if uint64(len(data)) != f.size {
		return x.refFailed(ctx, f, &store.CorruptError{ID: f.id, Offset: -1, Err: errLength})
	}
	if f.slot != nil {
		f.slot.data = slices.Clone(data)
		return nil
	}
	if err := x.write(ctx, f, data); err != nil {
		if err := x.fileFailed(ctx, f.file, progress.NotRestored, err); err != nil {
			return err
		}
	}
	return x.done(ctx, f.file)
}

func (x *restorer) write(ctx context.Context, f *ref, data []byte) error {
	out, err := x.create(ctx, f.file)
	if err != nil || out == nil {
		return err
	}
	switch {
	case f.patchwork != nil:
		return x.writePatchwork(f, out, data)
	case f.parts != nil:
		return x.writeParts(f, out, data)
	}
	for i := range f.times {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if _, err := out.WriteAt(data, int64(f.off+i*uint64(len(data)))); err != nil { //nolint:gosec // an offset in a file
			return err
		}
		x.meter.AddBytes(int64(len(data)))
	}
	return nil
}

// create returns the open file, and creates it the first time; nil if it failed
// before, or the target keeps what is there.
func (x *restorer) create(ctx context.Context, f *outFile) (target.File, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failed || f.kept || f.file != nil {
		return f.file, nil
	}
	file, err := x.out.Create(ctx, f.path, f.node)
	if x.update != nil && errors.Is(err, target.ErrKept) {
		f.kept = true
		return nil, nil //nolint:nilnil // as documented
	}
	if err != nil {
		return nil, err
	}
	f.file = file
	if m, ok := file.(target.Mender); ok && x.update != nil {
		f.mender, f.old = m, m.Mend()
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.open[f] = struct{}{}
	return file, nil
}

// closeOpen closes what a restore that failed has left open. The workers must
// have ended.
func (x *restorer) closeOpen() {
	for f := range x.open {
		if d, ok := f.file.(target.Discarder); ok {
			_ = d.Discard() // the restore has failed
			continue
		}
		_ = f.file.Close() // the restore has failed, and what it made is removed
	}
	clear(x.open)
}

// fileFailed marks a file as failed; only its first error is reported.
func (x *restorer) fileFailed(ctx context.Context, f *outFile, what progress.Kind, err error) error {
	f.mu.Lock()
	first := !f.failed
	f.failed = true
	f.mu.Unlock()
	if !first {
		return nil
	}
	return x.failed(ctx, f.path, what, err)
}

// done counts one reference as dealt with, and closes the file after the last.
func (x *restorer) done(ctx context.Context, f *outFile) error {
	if f.todo.Add(-1) > 0 {
		return nil
	}
	x.meter.AddFiles(1)
	f.mu.Lock()
	file, mender, failed := f.file, f.mender, f.failed
	f.file = nil
	f.mu.Unlock()
	if file == nil {
		return nil
	}
	x.mu.Lock()
	delete(x.open, f)
	x.mu.Unlock()
	end := file.Close
	if failed && mender != nil { // what was there is better than a part
		end = mender.Discard
	}
	if err := end(); err != nil {
		return x.fileFailed(ctx, f, progress.NotRestored, err)
	}
	return nil
}

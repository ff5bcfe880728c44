package engine

import (
	"cmp"
	"context"
	"errors"
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
	// holds, since each may be open.
	windowFiles = 512
	// readSize bounds one read from a pack, in bytes.
	readSize = 4 << 20
	// readGap is how many unneeded bytes are read rather than asked around.
	readGap = 128 << 10
	// inlineBatch is how many files without chunks make one job.
	inlineBatch = 64
)

// A restorer writes one snapshot. One goroutine walks the tree and plans; the
// workers read blocks and write files.
type restorer struct {
	repo   *Repository
	snap   manifest.Snapshot
	out    target.Writer
	update target.Updater // out, if it is over what was there before
	opts   RestoreOptions
	meter  *progress.Meter
	pick   *picker
	jobs   chan job
	links  map[uint64]*outFile // the first name of each group that was planned
	above  []link              // directories that are made once something below them is
	later  []link              // further names
	window []ref
	seq    *sequence  // in place of the window, if the target is a stream
	files  int        // in the window, with more than one chunk
	inline []*outFile // in the window, without chunks

	bytesKept atomic.Uint64 // found right in the target

	mu     sync.Mutex // guards report.Problems and open
	report *RestoreReport
	open   map[*outFile]struct{} // files that were created and are not closed
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

	settled bool  // nothing is left to do
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
	read    *readJob
	make    []*outFile // to be made without reading
	compare []ref      // to be compared with what is there
}

// A readJob is a range of a pack, and what is to be made of its blocks.
type readJob struct {
	refs []ref // sorted by place
	off  int64
	end  int64
}

// planFile adds the chunks of a file to the window.
func (x *restorer) planFile(ctx context.Context, f *outFile) error {
	n := &f.node
	x.report.Bytes += n.Size
	f.todo.Store(1)
	planned := 0
	for e, err := range manifest.Extents(ctx, x.repo.store, n.Content, 0) {
		if err != nil {
			return x.abandon(ctx, f, progress.Damaged, err)
		}
		switch e.Kind {
		case manifest.Data:
			x.window = append(x.window, ref{file: f, off: e.Offset, times: 1, size: e.Length, id: e.ID})
		case manifest.Repeat:
			x.window = append(x.window, ref{file: f, off: e.Offset, times: e.Count, size: e.Length / e.Count, id: e.ID})
		case manifest.Hole:
			if x.update == nil {
				x.meter.AddBytes(int64(e.Length)) //nolint:gosec // a file's size
				continue
			}
			x.window = append(x.window, ref{file: f, off: e.Offset, times: 1, size: e.Length})
		default:
			return x.abandon(ctx, f, progress.NotRestored, errPatch)
		}
		f.todo.Add(1)
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
	if x.files >= windowFiles || len(x.inline) >= windowRefs/16 {
		return x.flush(ctx)
	}
	return nil
}

var errPatch = errors.New("its content uses page patches, which this version does not read")

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
	for _, r := range reads(refs) {
		if err := x.send(ctx, &wait, job{read: &r}); err != nil {
			return err
		}
	}
	wait.Wait()
	return ctx.Err()
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

// locate finds the places of refs and sorts them by place. With Skip it leaves
// out those of chunks that are nowhere: their files have failed.
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
	slices.SortStableFunc(refs, func(a, b ref) int {
		return cmp.Or(cmp.Compare(a.place.Pack, b.place.Pack), cmp.Compare(a.place.Offset, b.place.Offset), cmp.Compare(a.place.Start, b.place.Start))
	})
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
		if r.slot != nil {
			r.slot.err = &store.CorruptError{ID: r.id, Offset: -1, Err: errNoPlace}
			continue
		}
		if err := x.abandon(ctx, r.file, progress.Damaged, &store.CorruptError{ID: r.id, Offset: -1, Err: errNoPlace}); err != nil {
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

// reads cuts sorted refs into reads of neighbouring blocks.
func reads(refs []ref) []readJob {
	var jobs []readJob
	for i := 0; i < len(refs); {
		p := refs[i].place
		r := readJob{off: int64(p.Offset), end: int64(p.Offset) + int64(p.Stored)}
		j := i + 1
		for ; j < len(refs) && refs[j].place.Pack == p.Pack; j++ {
			off := int64(refs[j].place.Offset)
			end := off + int64(refs[j].place.Stored)
			if off > r.end+readGap || end > r.off+readSize && end > r.end {
				break
			}
			r.end = max(r.end, end)
		}
		r.refs = refs[i:j]
		jobs = append(jobs, r)
		i = j
	}
	return jobs
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
		case j.read != nil:
			buf, err = x.read(ctx, r, j.read, buf)
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

// read reads a range, opens its blocks, and writes their chunks. It returns the
// buffer for the next call.
func (x *restorer) read(ctx context.Context, r *store.Reader, j *readJob, buf []byte) ([]byte, error) {
	n := int(j.end - j.off)
	if cap(buf) < n {
		buf = make([]byte, n)
	}
	buf = buf[:n]
	readErr := x.repo.store.ReadInto(ctx, j.refs[0].place.Pack, j.off, buf)
	for i := 0; i < len(j.refs); {
		p := j.refs[i].place
		end := i
		for end < len(j.refs) && j.refs[end].place.Offset == p.Offset {
			end++
		}
		err := readErr
		var block []byte
		if err == nil {
			at := int64(p.Offset) - j.off
			block, err = x.repo.store.OpenBlock(ctx, r, p, buf[at:at+int64(p.Stored)])
		}
		if err := x.writeBlock(ctx, r, block, err, j.refs[i:end]); err != nil {
			return buf, err
		}
		i = end
	}
	return buf, nil
}

// writeBlock writes the chunks of one opened block. blockErr says why it could
// not be opened.
func (x *restorer) writeBlock(ctx context.Context, r *store.Reader, block []byte, blockErr error, refs []ref) error {
	var data []byte
	var cutErr error
	for i := range refs {
		f := &refs[i]
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if blockErr == nil && (i == 0 || f.id != refs[i-1].id) {
			data, cutErr = x.repo.store.Cut(r, block, f.id, f.place)
		}
		err, what := errors.Join(blockErr, cutErr), progress.Damaged
		if err == nil && uint64(len(data)) != f.size {
			err = &store.CorruptError{ID: f.id, Offset: -1, Err: errLength}
		}
		if f.slot != nil {
			f.slot.data, f.slot.err = slices.Clone(data), err
			continue
		}
		if err == nil {
			what = progress.NotRestored
			err = x.write(ctx, f, data)
		}
		if err != nil {
			if err := x.fileFailed(ctx, f.file, what, err); err != nil {
				return err
			}
		}
		if err := x.done(ctx, f.file); err != nil {
			return err
		}
	}
	return nil
}

func (x *restorer) write(ctx context.Context, f *ref, data []byte) error {
	out, err := x.create(ctx, f.file)
	if err != nil || out == nil {
		return err
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

// A PathError names the path in the snapshot that an error belongs to.
type PathError struct {
	Path string
	Err  error
}

// Error returns path and cause.
func (e *PathError) Error() string { return e.Path + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *PathError) Unwrap() error { return e.Err }

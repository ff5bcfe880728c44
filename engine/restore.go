package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/chunk"
	"github.com/cairn-backup/cairn/engine/progress"
	"github.com/cairn-backup/cairn/engine/target"
	"github.com/cairn-backup/cairn/manifest"
)

// Restore writes a snapshot, or the part of it that RestoreOptions.Paths names,
// to dst. Every chunk is verified before it is written. After an error the
// target is as before, as far as its kind allows; nil means that every item is
// there, whole and durable. A repository on the local backend that lies in what
// is restored is left alone: target.Sparing.
//
// Cancelling ctx ends it within a second.
func (r *Repository) Restore(ctx context.Context, id manifest.ID, dst target.Target, opts RestoreOptions) (report RestoreReport, err error) {
	begin := time.Now()
	m := r.newMeter(opts.Progress)
	defer func() { m.Finish(err) }()
	before := r.Traffic()
	report, err = r.restore(ctx, id, dst, opts, m)
	report.Traffic = r.Traffic().Sub(before)
	report.Elapsed, report.Requests, report.BytesRead = time.Since(begin), report.Traffic.Requests(), report.Traffic.Get.Bytes
	if err != nil {
		return report, fmt.Errorf("restore: %w", err)
	}
	return report, nil
}

func (r *Repository) restore(ctx context.Context, id manifest.ID, dst target.Target, opts RestoreOptions, m *progress.Meter) (report RestoreReport, err error) {
	if err := r.readable(); err != nil {
		return report, err
	}
	pick, err := newPicker(opts.Paths)
	if err != nil {
		return report, err
	}
	m.SetPhase(progress.Open)
	snap, needs, err := r.find(ctx, id)
	if err != nil {
		return report, err
	}
	report.Snapshot = snap
	if err := r.store.Load(ctx, needs); err != nil {
		return report, err
	}
	if pick.all() {
		m.AddFilesTotal(int64(entriesOf(snap)))  //nolint:gosec // a count
		m.AddBytesTotal(int64(snap.Stats.Bytes)) //nolint:gosec // a size
	}
	w, err := r.begin(ctx, snap, r.sparing(dst), opts)
	if err != nil {
		return report, r.meanwhile(err, id)
	}
	if target.AllOrNothing(w) {
		opts.OnError = Fail // what is there is better than a part
		if !snap.Complete && !opts.AcceptIncomplete {
			return report, errors.Join(fmt.Errorf("%w: the snapshot lacks %d items that could not be read when it was made, and what is there of them would go",
				target.ErrNotSwappable, snap.Stats.Missing), w.Abort())
		}
	}
	m.SetPhase(progress.Write)
	x := &restorer{repo: r, snap: snap, tree: r.treeFor(pick), out: w, opts: opts, meter: m, pick: pick, report: &report}
	x.update, _ = w.(target.Updater)
	if _, ok := w.(target.Sequential); ok {
		x.seq = new(sequence)
	}
	if err := x.run(ctx); err != nil {
		return report, errors.Join(r.meanwhile(err, id), w.Abort())
	}
	missed := pick.missed()
	if missed != nil && target.AllOrNothing(w) { // what is there does not give way to a part
		return report, errors.Join(missed, w.Abort())
	}
	m.SetPhase(progress.Commit)
	if err := w.Commit(ctx); err != nil {
		return report, errors.Join(err, w.Abort())
	}
	skipped := target.SkippedBy(w)
	report.Owners, report.Devices, report.Xattrs = skipped.Owners, skipped.Devices, skipped.Xattrs
	if x.update != nil {
		report.Changes, report.BytesKept = x.update.Changes(), x.bytesKept.Load()
	}
	switch {
	case missed != nil:
		return report, missed
	case len(report.Problems) > 0:
		return report, fmt.Errorf("%w: %d", ErrIncomplete, len(report.Problems))
	}
	return report, nil
}

// treeFor returns what reads the pages of a tree of which pick takes a part, or
// all.
func (r *Repository) treeFor(pick *picker) manifest.Getter {
	if pick.all() {
		return r.store.Walk()
	}
	return r.store
}

// sparing returns dst so that it does not take away the repository, which may lie
// in what is restored.
func (r *Repository) sparing(dst target.Target) target.Target {
	if dir, local := strings.CutPrefix(backend.Name(r.meter), "file:"); local {
		return target.Sparing(dst, dir)
	}
	return dst
}

// run writes everything.
func (x *restorer) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	x.jobs, x.links, x.open = make(chan job), make(map[uint64]*outFile), make(map[*outFile]struct{})
	for range x.repo.opts.Workers {
		g.Go(func() error { return x.work(ctx) })
	}
	x.startFetching(ctx, g)
	if x.seq != nil {
		x.seq.full, x.seq.zeros = make(chan sequence), make([]byte, 256<<10)
		g.Go(func() error { return x.writeSequence(ctx) })
	}
	g.Go(func() error {
		defer close(x.jobs) // nobody fetches any more: readAll waits for that
		defer close(x.reads)
		if x.seq != nil {
			defer close(x.seq.full)
		}
		if err := x.roots(ctx); err != nil {
			return err
		}
		if x.seq != nil {
			return x.flushSequence(ctx)
		}
		if err := x.flush(ctx); err != nil {
			return err
		}
		return x.makeLinks(ctx)
	})
	err := g.Wait()
	if err != nil {
		x.closeOpen()
	}
	return err
}

// roots writes the roots of the snapshot: a single directory becomes the target
// itself, everything else an entry in it.
func (x *restorer) roots(ctx context.Context) error {
	single := len(x.snap.Roots) == 1
	for n, err := range manifest.ReadDir(ctx, x.tree, x.snap.Tree) {
		if err != nil {
			return err
		}
		path := n.Name
		if single && n.Kind == manifest.Dir {
			path = ""
		}
		if err := x.entry(ctx, path, &n); err != nil {
			return err
		}
		single = single && path == ""
	}
	if !single && x.pick.all() {
		x.whole("")
	}
	return nil
}

// entry writes one item and what is below it.
func (x *restorer) entry(ctx context.Context, path string, n *manifest.Node) error {
	what := x.pick.choose(path)
	if what == pickNone || what == pickAbove && n.Kind != manifest.Dir {
		return nil
	}
	if x.update != nil {
		x.update.Hold(path)
	}
	if what == pickAbove {
		return x.aboveDir(ctx, path, n)
	}
	if err := x.makeAbove(ctx); err != nil {
		return err
	}
	switch n.Kind {
	case manifest.Dir:
		if err := x.make(ctx, path, n); err != nil {
			return err
		}
		x.report.Dirs++
		return x.below(ctx, path, n.Tree)
	case manifest.File:
		x.report.Files++
		f := &outFile{path: path, node: *n}
		if n.Link != 0 {
			if first := x.links[n.Link]; first != nil {
				if x.seq != nil {
					return x.inSequence(ctx, step{path: path, node: n, first: first})
				}
				x.later = append(x.later, link{path: path, node: *n, first: first})
				return nil
			}
			x.links[n.Link] = f
		}
		if x.seq != nil {
			return x.fileInSequence(ctx, f)
		}
		return x.planFile(ctx, f)
	default:
		x.report.Others++
		return x.make(ctx, path, n)
	}
}

// aboveDir looks for what was asked for below a directory that was not. The
// directory is made only if there is something.
func (x *restorer) aboveDir(ctx context.Context, path string, n *manifest.Node) error {
	x.above = append(x.above, link{path: path, node: *n})
	depth := len(x.above)
	if err := x.below(ctx, path, n.Tree); err != nil {
		return err
	}
	if len(x.above) == depth {
		x.above = x.above[:depth-1]
	}
	return nil
}

// makeAbove makes the directories above what was found.
func (x *restorer) makeAbove(ctx context.Context) error {
	for i := range x.above {
		if err := x.make(ctx, x.above[i].path, &x.above[i].node); err != nil {
			return err
		}
		x.report.Dirs++
	}
	x.above = x.above[:0]
	return nil
}

func (x *restorer) below(ctx context.Context, path string, tree chunk.ID) error {
	for n, err := range manifest.ReadDir(ctx, x.tree, tree) {
		if err != nil {
			return x.failed(ctx, path, progress.Damaged, err)
		}
		if err := x.entry(ctx, join(path, n.Name), &n); err != nil {
			return err
		}
	}
	if x.pick.choose(path) == pickItem {
		x.whole(path)
	}
	return nil
}

// whole says that the target was told of every entry of a directory. Of a
// snapshot that lacks what could not be read nobody knows what else belongs
// there.
func (x *restorer) whole(path string) {
	if x.update != nil && x.snap.Complete {
		x.update.Whole(path)
	}
}

// make writes an item that is no regular file.
func (x *restorer) make(ctx context.Context, path string, n *manifest.Node) error {
	if x.seq != nil {
		return x.inSequence(ctx, step{path: path, node: n})
	}
	x.meter.AddFiles(1)
	if err := x.out.Make(ctx, path, *n); err != nil {
		return x.failed(ctx, path, progress.NotRestored, err)
	}
	return nil
}

// makeLinks makes the further names of hard-linked files, once the first is
// there. Those of a file that failed have failed with it.
func (x *restorer) makeLinks(ctx context.Context) error {
	for i := range x.later {
		l := &x.later[i]
		var err error
		if l.first.failed { // nobody writes any more
			err = x.failed(ctx, l.path, progress.NotRestored, fmt.Errorf("it is the file %q, which %w", l.first.path, errFirst))
		} else {
			err = x.makeLink(ctx, l)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// makeLink makes a further name, or a file with the content if the first name
// is a file that the target keeps.
func (x *restorer) makeLink(ctx context.Context, l *link) error {
	err := x.out.Make(ctx, l.path, l.node)
	if errors.Is(err, target.ErrKept) {
		if err := x.planFile(ctx, &outFile{path: l.path, node: l.node}); err != nil {
			return err
		}
		return x.flush(ctx)
	}
	x.meter.AddFiles(1)
	if err != nil {
		return x.failed(ctx, l.path, progress.NotRestored, err)
	}
	x.meter.AddBytes(int64(l.node.Size)) //nolint:gosec // the total counts every name
	return nil
}

var errFirst = errors.New("was not restored whole")

// failed records an item that was not restored, or returns the error if that
// ends the restore.
func (x *restorer) failed(ctx context.Context, path string, what progress.Kind, err error) error {
	err = x.repo.meanwhile(err, x.snap.ID)
	if x.opts.OnError != Skip || ctx.Err() != nil || errors.Is(err, ErrForgotten) {
		return fmt.Errorf("%q: %w", path, err)
	}
	x.meter.Problem(path, what, err)
	x.mu.Lock()
	defer x.mu.Unlock()
	x.report.Problems = append(x.report.Problems, progress.Problem{Path: path, What: what, Err: err})
	return nil
}

package target

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/cairn-backup/cairn/manifest"
)

// A Part is one root of a snapshot and where it is restored to.
type Part struct {
	// Root is the root's name in the snapshot.
	Root string

	// Target takes the root: a directory becomes the target itself, and what
	// is no directory an entry of it.
	Target Target

	// Name is the name of that entry. Default: Root.
	Name string
}

// Parts returns a target for a snapshot of several roots, of which each goes to
// a target of its own: back to where it was, for one. Two parts may not share a
// target. None can be a stream, and either all of them are over what was there
// before, in the sense of [Updater], or none is.
//
// Everything is written before anything is committed, and exchanges are
// prepared before the first is made. Commits follow one another all the same:
// the error of one that fails says which parts are restored already.
func Parts(parts ...Part) Target { return &partsTarget{parts: parts} }

type partsTarget struct{ parts []Part }

// errParts says what Parts cannot do.
var errParts = errors.New("the parts of a restore cannot be streams, and must all be over content or none")

// Begin begins every part, or none.
func (t *partsTarget) Begin(ctx context.Context, need Need) (_ Writer, err error) {
	w := &partsWriter{byRoot: make(map[string]*part, len(t.parts))}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.Abort())
		}
	}()
	updaters := 0
	var room promised
	for _, p := range t.parts {
		if p.Name == "" {
			p.Name = p.Root
		}
		if w.byRoot[p.Root] != nil {
			return nil, fmt.Errorf("two parts are for the root %q: %w", p.Root, ErrUnsupported)
		}
		inner, err := p.Target.Begin(ctx, room.with(p.Target, need, p.Root))
		if err != nil {
			return nil, err
		}
		one := &part{Part: p, writer: inner, links: make(map[uint64]bool)}
		w.parts = append(w.parts, one)
		w.byRoot[p.Root] = one
		if one.update, _ = inner.(Updater); one.update != nil {
			updaters++
		}
		if _, ok := inner.(Sequential); ok {
			return nil, fmt.Errorf("%w: %w", ErrUnsupported, errParts)
		}
	}
	switch updaters {
	case 0:
		return w, nil
	case len(w.parts):
		return &partsUpdater{w}, nil
	}
	return nil, fmt.Errorf("%w: %w", ErrUnsupported, errParts)
}

func (d *DirTarget) place() string  { return d.path }
func (s *SwapTarget) place() string { return s.path }

func (w *swapWriter) allOrNothing() bool { return true }

// promised is how much of each file system, by device, is for earlier parts.
type promised map[uint64]Need

// with returns the need of one root together with what was promised to others
// on the same file system, which none of them has taken yet.
func (p *promised) with(t Target, need Need, root string) Need {
	n := need.of(root)
	placed, ok := t.(interface{ place() string })
	if !ok || need.Roots == nil { // then n is that of all
		return n
	}
	disk, ok := fileSystemOf(placed.place())
	if !ok {
		return n
	}
	if *p == nil {
		*p = make(promised)
	}
	sum := (*p)[disk]
	sum.Bytes += n.Bytes
	sum.Entries += n.Entries
	(*p)[disk] = sum
	return sum
}

// fileSystemOf returns what tells the file system of path, which may be absent,
// from others.
func fileSystemOf(path string) (device uint64, ok bool) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return 0, false
	}
	for {
		fi, err := os.Stat(abs)
		if err == nil {
			return inodeOfDir(fi).dev, true
		}
		above := filepath.Dir(abs)
		if above == abs {
			return 0, false
		}
		abs = above
	}
}

// of returns the need of one root, as far as it is known.
func (n Need) of(root string) Need {
	for _, r := range n.Roots {
		if r.Root == root {
			return Need{Bytes: r.Bytes, Entries: r.Entries}
		}
	}
	return Need{Bytes: n.Bytes, Entries: n.Entries}
}

// A part is a Part that is written.
type part struct {
	Part
	writer Writer
	update Updater // writer, if it is one
	done   bool    // committed

	mu    sync.Mutex // guards what follows
	links map[uint64]bool
}

// A partsWriter hands every entry to its part.
type partsWriter struct {
	parts  []*part
	byRoot map[string]*part
}

var _ Writer = (*partsWriter)(nil)

// at returns the part of a path and the path in it.
func (w *partsWriter) at(op, path string, kind manifest.NodeKind) (*part, string, error) {
	root, rest, below := strings.Cut(path, "/")
	p := w.byRoot[root]
	switch {
	case p == nil:
		return nil, "", &Error{Op: op, Path: path, Err: fmt.Errorf("%w: no part is for this root", ErrPath)}
	case !below && kind != manifest.Dir:
		rest = p.Name
	}
	return p, rest, nil
}

// Create makes a file.
func (w *partsWriter) Create(ctx context.Context, path string, n manifest.Node) (File, error) {
	p, rest, err := w.at("create", path, n.Kind)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	p.links[n.Link] = true
	p.mu.Unlock()
	return p.writer.Create(ctx, rest, n)
}

// Make makes another entry. The further name of a file in another part is
// ErrKept: it has to be written there, too.
func (w *partsWriter) Make(ctx context.Context, path string, n manifest.Node) error {
	if path == "" {
		return nil // nothing stands for all parts
	}
	p, rest, err := w.at("make", path, n.Kind)
	if err != nil {
		return err
	}
	if n.Kind == manifest.File {
		p.mu.Lock()
		known := p.links[n.Link]
		p.mu.Unlock()
		if !known {
			return ErrKept
		}
	}
	return p.writer.Make(ctx, rest, n)
}

// A preparer can do all of its Commit that may fail, but for the last step.
type preparer interface {
	prepare(ctx context.Context) error
}

// Commit commits one part after the other.
func (w *partsWriter) Commit(ctx context.Context) error {
	for _, p := range w.parts {
		if q, ok := p.writer.(preparer); ok {
			if err := q.prepare(ctx); err != nil {
				return err
			}
		}
	}
	var done []string
	for _, p := range w.parts {
		if err := p.writer.Commit(ctx); err != nil {
			if len(done) > 0 {
				err = fmt.Errorf("%w; restored already: %q", err, done)
			}
			return err
		}
		p.done = true
		done = append(done, p.Root)
	}
	return nil
}

// Abort aborts the parts that are not committed.
func (w *partsWriter) Abort() error {
	var errs []error
	for _, p := range w.parts {
		if !p.done {
			errs = append(errs, p.writer.Abort())
		}
	}
	return errors.Join(errs...)
}

// allOrNothing reports whether one of the parts is exchanged.
func (w *partsWriter) allOrNothing() bool {
	return slices.ContainsFunc(w.parts, func(p *part) bool { return AllOrNothing(p.writer) })
}

// Skipped adds up what was left out.
func (w *partsWriter) Skipped() (sum Skipped) {
	for _, p := range w.parts {
		s := SkippedBy(p.writer)
		sum.Owners += s.Owners
		sum.Devices += s.Devices
		sum.Xattrs += s.Xattrs
	}
	return sum
}

// A partsUpdater is a partsWriter over what the targets held before.
type partsUpdater struct{ *partsWriter }

var (
	_ Updater = (*partsUpdater)(nil)
	_ Fitter  = (*partsUpdater)(nil)
)

// DryRun reports whether nothing is written.
func (w *partsUpdater) DryRun() bool {
	return len(w.parts) > 0 && w.parts[0].update.DryRun()
}

// Hold keeps path from being deleted.
func (w *partsUpdater) Hold(path string) {
	root, rest, _ := strings.Cut(path, "/")
	p := w.byRoot[root]
	if p == nil {
		return
	}
	p.update.Hold(rest)
	if rest == "" { // of which kind it is nobody knows yet
		p.update.Hold(p.Name)
	}
}

// Whole lets Commit delete from a directory.
func (w *partsUpdater) Whole(path string) {
	root, rest, _ := strings.Cut(path, "/")
	if p := w.byRoot[root]; p != nil {
		p.update.Whole(rest)
	}
}

// Changes adds up the counts.
func (w *partsUpdater) Changes() (sum Changes) {
	for _, p := range w.parts {
		c := p.update.Changes()
		sum.Unchanged += c.Unchanged
		sum.Created += c.Created
		sum.Replaced += c.Replaced
		sum.Mended += c.Mended
		sum.Adjusted += c.Adjusted
		sum.Kept += c.Kept
		sum.Deleted += c.Deleted
	}
	return sum
}

// Fit asks every part, and reckons together those that share a file system.
func (w *partsUpdater) Fit(ctx context.Context, need Need, entries Entries) error {
	grown := make(map[uint64]growth)
	for _, p := range w.parts {
		mine := w.entriesOf(p, entries)
		over, ok := p.writer.(*overWriter)
		if !ok {
			if fit, ok := p.writer.(Fitter); ok {
				if err := fit.Fit(ctx, need, mine); err != nil {
					return err
				}
			}
			continue
		}
		if over.over.dry || checkSpace(over.path, need) == nil {
			continue
		}
		disk, _ := fileSystemOf(over.path)
		g := grown[disk]
		if err := over.addGrowth(ctx, &g, mine); err != nil {
			return err
		}
		grown[disk] = g
	}
	for _, p := range w.parts {
		over, ok := p.writer.(*overWriter)
		if !ok {
			continue
		}
		disk, _ := fileSystemOf(over.path)
		if g, ok := grown[disk]; ok {
			if err := over.fits(g); err != nil {
				return err
			}
		}
	}
	return nil
}

// entriesOf yields the entries of one part.
func (w *partsUpdater) entriesOf(p *part, entries Entries) Entries {
	return func(yield func(Entry, error) bool) {
		for e, err := range entries {
			if err == nil {
				in, rest, err := w.at("begin", e.Path, e.Node.Kind)
				if err != nil || in != p {
					continue
				}
				e.Path = rest
			}
			if !yield(e, err) {
				return
			}
		}
	}
}

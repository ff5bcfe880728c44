package engine

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/cairn-backup/cairn/chunk"
	"github.com/cairn-backup/cairn/engine/internal/rule"
	"github.com/cairn-backup/cairn/engine/internal/store"
	"github.com/cairn-backup/cairn/engine/progress"
	"github.com/cairn-backup/cairn/engine/source"
	"github.com/cairn-backup/cairn/manifest"
)

const (
	// window bounds how many entries of one directory are in hand at once.
	window = 512
	// settled is how much older than the backup's begin a file's ctime must be
	// for the file to count as unchanged, in seconds: a file system may stamp
	// with a clock as coarse as that, so that a change right after the look
	// would show the same time.
	settled = 2
)

// A saver walks a view and stores what it finds.
//
// Directories are walked by the goroutine that found them, or by another one
// where there is one to spare; files are read by Options.Workers goroutines.
// The nodes of a directory are added in order as they are done, at most window
// of them waiting, and as many that may turn out to be the parent's; see openDir.
type saver struct {
	*backup
	session *store.Session
	parents parents
	reading chan *pending
	walkers chan struct{} // a token for each goroutine that may walk beside
	stop    context.CancelCauseFunc

	stats struct {
		files, dirs, others, bytes, read, missing, changed atomic.Uint64
	}
	sockets  atomic.Uint64
	inherits []atomic.Bool // by parent tree: a node of it was taken over, and its needs are ours
	taken    []sync.Once   // by parent tree: its needs are made ours
	top      atomic.Pointer[openDir]

	mu          sync.Mutex // guards what follows
	missing     []manifest.Missing
	missingSize int // bytes
	changed     []string
}

// A pending is a node that is being completed.
type pending struct {
	path   string        // not set where a parent's node is taken over and nothing is walked
	node   manifest.Node // whole, once finished is set
	skip   bool          // the entry is left out
	err    error         // ends the backup
	done   chan struct{} // closed when the rest is set; nil: it is
	old    *oldContent   // of a file, what a parent has of it; nil: nothing
	was    *oldNode      // what the first parent that has it has, to compare with when the rest is set; nil: nothing
	sameAs int           // in place of was: one more than the index of the parent whose node this is; 0: none

	finished atomic.Bool
	dir      atomic.Pointer[openDir] // a directory that is being walked
}

// start makes a new saver ready for save.
func (s *saver) start(b *backup, session *store.Session, parents parents) {
	s.backup, s.session, s.parents = b, session, parents
	s.reading = make(chan *pending)
	s.walkers = make(chan struct{}, b.repo.opts.Workers)
	s.taken = make([]sync.Once, len(parents.trees))
	s.inherits = make([]atomic.Bool, len(parents.trees))
}

// figures returns the counts.
func (s *saver) figures() manifest.Stats {
	return manifest.Stats{
		Files: s.stats.files.Load(), Dirs: s.stats.dirs.Load(), Others: s.stats.others.Load(),
		Bytes: s.stats.bytes.Load(), Read: s.stats.read.Load(),
		Missing: s.stats.missing.Load(), Changed: s.stats.changed.Load(),
	}
}

// save stores everything and returns the top list.
func (s *saver) save(parent context.Context) (chunk.ID, error) {
	stopped, stop := context.WithCancelCause(parent)
	defer stop(nil)
	s.stop = stop // the first error ends all walks and reads
	g, ctx := errgroup.WithContext(stopped)
	for range s.repo.opts.Workers {
		g.Go(func() error { return s.readFiles(ctx) })
	}
	var tree chunk.ID
	g.Go(func() (err error) {
		defer close(s.reading)
		dirs := make([]parentDir, 0, len(s.parents.trees))
		for i, t := range s.parents.trees {
			dirs = append(dirs, parentDir{index: i, tree: t.tree})
		}
		old := s.openOld(ctx, dirs)
		defer old.close()
		top := s.newDir(manifest.Node{}, old)
		s.top.Store(top)
		tree, err = s.saveDir(ctx, "", top, old)
		return err
	})
	err := g.Wait()
	if first := context.Cause(stopped); err != nil && first != nil && parent.Err() == nil {
		err = first // the others only say that they were stopped
	}
	return tree, err
}

// A parentDir is the same directory in one of the parent trees.
type parentDir struct {
	index int // in parents.trees
	tree  chunk.ID
}

// saveDir stores the list of a directory and all below it; old is the same directory
// in the parents.
func (s *saver) saveDir(ctx context.Context, path string, d *openDir, old *oldDirs) (chunk.ID, error) {
	var failed error
	for n, err := range s.view.ReadDir(ctx, path) {
		if err != nil {
			failed = s.unreadable(join(path, n.Name), err)
		} else {
			failed = s.saveEntry(ctx, path, d, n, old)
		}
		if failed != nil {
			break
		}
	}
	if failed == nil {
		failed = s.settle(ctx, d, 0)
	}
	if failed != nil {
		s.stop(failed)
		s.wait(d)
		return chunk.ID{}, failed
	}
	return s.finish(ctx, d)
}

// saveEntry begins to save one entry of a directory.
func (s *saver) saveEntry(ctx context.Context, path string, d *openDir, n manifest.Node, old *oldDirs) error {
	// Before what is below it is walked: "" and "." would lead here again, for
	// ever, and ".." out of the source.
	if err := manifest.CheckName(n.Name); err != nil {
		return err
	}
	match, err := old.match(n.Name)
	if err != nil {
		return err
	}
	p := &pending{node: n}
	d.enqueue(p)
	s.begin(ctx, path, p, match)
	if err := s.settle(ctx, d, window); err != nil {
		return err
	}
	return s.settleDone(ctx, d)
}

// wait waits for what was begun, since goroutines may still write to it.
func (s *saver) wait(d *openDir) {
	for _, p := range d.queue {
		if p.done != nil {
			<-p.done
		}
	}
}

// settle adds nodes to their directory, in order, until no more than keep wait.
func (s *saver) settle(ctx context.Context, d *openDir, keep int) error {
	for len(d.queue) > keep {
		p := d.queue[0]
		if p.done != nil {
			<-p.done // every reader and walker ends when ctx does
		}
		if p.err != nil {
			return p.err
		}
		if err := s.add(ctx, d, p); err != nil {
			return err
		}
	}
	return nil
}

// settleDone adds the nodes that are done already. Were they left until the
// window is full, a tree of small directories would be in memory as a whole.
func (s *saver) settleDone(ctx context.Context, d *openDir) error {
	for len(d.queue) > 0 {
		if done := d.queue[0].done; done != nil {
			select {
			case <-done:
			default:
				return nil
			}
		}
		if err := s.settle(ctx, d, len(d.queue)-1); err != nil {
			return err
		}
	}
	return nil
}

func (s *saver) add(ctx context.Context, d *openDir, p *pending) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.queue[0] = nil // the array behind it lives on
	d.queue = d.queue[1:]
	if p.skip {
		return nil
	}
	s.count(&p.node)
	return d.add(ctx, p)
}

func (s *saver) count(n *manifest.Node) {
	switch n.Kind {
	case manifest.File:
		s.stats.files.Add(1)
		s.stats.bytes.Add(n.Size)
	case manifest.Dir:
		s.stats.dirs.Add(1)
	default:
		s.stats.others.Add(1)
	}
	s.meter.AddFiles(1)
}

// begin starts to save one entry of the directory at path.
func (s *saver) begin(ctx context.Context, path string, p *pending, match []oldNode) {
	same, index := s.unchanged(&p.node, match)
	if same == nil || p.node.Kind == manifest.Dir {
		p.path = join(path, p.node.Name)
	}
	switch p.node.Kind {
	case manifest.Socket:
		s.sockets.Add(1)
		s.meter.Problem(p.path, progress.Unsupported, errSocket)
		p.skip = true
	case manifest.Dir:
		s.beginDir(ctx, p, same, match)
		return
	case manifest.File:
		if same != nil {
			s.takeOver(p, same, index)
			p.node.Content, p.node.Size = same.Content, same.Size
			s.meter.AddBytes(int64(p.node.Size)) //nolint:gosec // a file's size
			break
		}
		p.old = s.earlier(match)
		p.keep(match)
		p.done = make(chan struct{})
		select {
		case s.reading <- p:
		case <-ctx.Done():
			p.err = context.Cause(ctx)
			close(p.done)
		}
		return
	default:
		if same != nil {
			s.takeOver(p, same, index)
			p.node.Target = same.Target
			break
		}
		s.complete(ctx, p)
	}
	p.compare(match)
	p.finished.Store(true)
}

// compare sets sameAs if the first parent has the same node. All of the node must be
// set.
func (p *pending) compare(match []oldNode) {
	if len(match) > 0 && p.node.Equal(&match[0].node) {
		p.sameAs = match[0].index + 1
	}
}

// keep keeps what the first parent has, to compare later: match is used again.
func (p *pending) keep(match []oldNode) {
	if len(match) > 0 {
		was := match[0]
		p.was = &was
	}
}

var errSocket = errors.New("sockets are not stored")

// takeOver copies what a look does not tell from the parent's node.
func (s *saver) takeOver(p *pending, same *manifest.Node, index int) {
	p.node.Xattrs = same.Xattrs
	s.inherit(index)
}

// inherit says that what a parent's tree names is named by the new one, too.
func (s *saver) inherit(index int) {
	// Before the node counts as finished, whoever is first: a record of the
	// session may come any time.
	s.taken[index].Do(func() {
		if !rule.Off(rule.Inherit) {
			s.session.Need(s.parents.trees[index].needs)
		}
		s.inherits[index].Store(true)
	})
}

// inherited reports whether a node of any parent was taken over, and whether one of
// an interrupted run was.
func (s *saver) inherited() (some, partial bool) {
	for i := range s.inherits {
		if s.inherits[i].Load() {
			some, partial = true, partial || s.parents.trees[i].partial
		}
	}
	return some, partial
}

// complete reads what the walk left out; an entry that cannot be read is left
// out if the options say so.
func (s *saver) complete(ctx context.Context, p *pending) {
	if err := source.Complete(ctx, s.view, p.path, &p.node); err != nil {
		p.skip = true
		p.err = s.unreadable(p.path, err)
	}
}

// beginDir saves a directory, beside the caller if a walker is to spare.
func (s *saver) beginDir(ctx context.Context, p *pending, same *manifest.Node, match []oldNode) {
	var dirs []parentDir
	for _, m := range match {
		if m.node.Kind == manifest.Dir {
			dirs = append(dirs, parentDir{index: m.index, tree: m.node.Tree})
		}
	}
	p.keep(match)
	unchanged := same != nil
	if unchanged {
		p.node.Xattrs = same.Xattrs
	}
	run := func() {
		if !unchanged {
			s.complete(ctx, p)
		}
		if p.err != nil || p.skip {
			return
		}
		old := s.openOld(ctx, dirs)
		defer old.close()
		d := s.newDir(p.node, old)
		p.dir.Store(d)
		p.node.Tree, p.err = s.saveDir(ctx, p.path, d, old)
		if p.err == nil {
			p.finished.Store(true)
			p.dir.Store(nil) // only now, see partialDir
		}
	}
	select {
	case s.walkers <- struct{}{}:
		p.done = make(chan struct{})
		go func() {
			defer close(p.done)
			defer func() { <-s.walkers }()
			run()
		}()
	default:
		run()
	}
}

// unchanged returns the parent's node that n equals, if its content need not be
// read again, and the index of that parent.
func (s *saver) unchanged(n *manifest.Node, match []oldNode) (*manifest.Node, int) {
	if s.opts.Reread {
		return nil, 0
	}
	began := manifest.TimeOf(s.began)
	for i := range match {
		o := &match[i].node
		switch {
		case o.Kind != n.Kind || o.Flags != 0 || n.Look.IsZero() || o.Look != n.Look:
		case n.Kind == manifest.File && (o.Size != n.Size || o.MTime != n.MTime):
		case !s.parents.trees[match[i].index].trusts(n.Look, began):
		default:
			return o, match[i].index
		}
	}
	return nil, 0
}

// unreadable records an entry that could not be read. It returns the error if
// that ends the backup: by the options, or because it is none of the source's.
func (s *saver) unreadable(path string, err error) error {
	if s.opts.OnUnreadable != Skip || !errors.Is(err, source.ErrSource) || !contains(path) {
		s.stop(err)
		return err
	}
	s.meter.Problem(path, progress.Unreadable, err)
	s.stats.missing.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	m := manifest.Missing{Path: path, Reason: reason(err)}
	if size := len(m.Path) + len(m.Reason); len(s.missing) < manifest.MaxMissing && s.missingSize+size <= maxMissingSize {
		s.missing = append(s.missing, m)
		s.missingSize += size
	}
	return nil
}

// reason returns the text of err, cut to what a snapshot holds.
func reason(err error) string {
	s := strings.ToValidUTF8(err.Error(), "\uFFFD")
	if len(s) > manifest.MaxReason {
		s = strings.ToValidUTF8(s[:manifest.MaxReason], "")
	}
	return s
}

// contains reports whether path lies in a root and is none: a backup whose root
// cannot be read is none.
func contains(path string) bool {
	for i := range len(path) {
		if path[i] == '/' {
			return true
		}
	}
	return false
}

func join(dir, name string) string {
	switch {
	case dir == "":
		return name
	case name == "":
		return dir
	}
	return dir + "/" + name
}

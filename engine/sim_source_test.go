package engine_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cairn-backup/cairn/engine/source"
	"github.com/cairn-backup/cairn/engine/target"
	"github.com/cairn-backup/cairn/manifest"
)

func itoa(n int) string { return strconv.Itoa(n) }

// simContents is how many different contents files may have: so few that
// unrelated trees share chunks.
const simContents = 16

// simContent is the content with that number: one chunk. They are made once.
var simContent = sync1(func() [][]byte {
	all := make([][]byte, simContents)
	for i := range all {
		all[i] = random(uint64(9000+i), 600+71*i)
	}
	return all
})

// A simFile is one state of a file.
type simFile struct {
	content int
	pages   []byte // of a file that consists of pages; nil: it is none, and has content
	changed time.Time
}

// bytes returns what the file holds. Nobody may change it.
func (f simFile) bytes() []byte {
	if f.pages != nil {
		return f.pages
	}
	return simContent[f.content]
}

// A simTree is one state of a data set, which never changes: files by path.
type simTree map[string]simFile

// A simData is a data set that changes.
type simData struct {
	name    string
	paged   float64 // the share of changes that are to files of pages
	tree    simTree
	changes int
}

// change makes a new tree out of the present one.
func (d *simData) change(rng *rand.Rand, now time.Time) {
	t := maps.Clone(d.tree)
	if t == nil {
		t = make(simTree)
	}
	for range 1 + rng.IntN(4) {
		at := fmt.Sprintf("d%d/f%d", rng.IntN(3), rng.IntN(4))
		paged := d.paged > 0 && rng.Float64() < d.paged
		if paged {
			at = fmt.Sprintf("db/p%d", rng.IntN(2))
		}
		if rng.IntN(5) == 0 && len(t) > 1 {
			delete(t, at)
			continue
		}
		d.changes++
		changed := simStart.Add(-time.Duration(1e6-d.changes) * time.Second) // no two changes have one time
		if rng.IntN(4) == 0 {
			changed = now // which a backup that begins now does not trust
		}
		f := simFile{changed: changed}
		if paged {
			f.pages = simChange(rng, t[at].pages)
		} else {
			f.content = rng.IntN(simContents)
		}
		t[at] = f
	}
	d.tree = t
}

// A simSource is one tree as a source. Files tell their inode and ctime, so
// that a backup takes over those that did not change.
type simSource struct {
	name string
	tree simTree
	// looks counts how often the whole tree was walked: a backup that begins
	// anew walks it again.
	looks int
	// now returns the tree as it is, for a walk that begins; nil: it stays the same.
	// Were it shown as it was earlier, a time of change could look old and still be
	// shared with a later change, which a parent knows already.
	now func() simTree
	// think waits for the actor's turn, at the end of a walk.
	think func(ctx context.Context) bool
}

// Open implements source.Source.
func (s *simSource) Open(context.Context) (source.View, error) {
	if s.now != nil {
		s.tree = s.now()
	}
	return &simView{s}, nil
}

type simView struct{ *simSource }

// Info implements source.View.
func (v *simView) Info() source.Info {
	return source.Info{Kind: manifest.KindFiles, Name: v.name, Roots: []manifest.Root{{Path: v.name, Name: v.name}}}
}

// ReadDir implements source.View.
func (v *simView) ReadDir(ctx context.Context, dir string) iter.Seq2[manifest.Node, error] {
	return func(yield func(manifest.Node, error) bool) {
		if ctx.Err() != nil {
			yield(manifest.Node{}, ctx.Err())
			return
		}
		for _, n := range v.nodes(dir) {
			if !yield(n, nil) {
				return
			}
		}
	}
}

func (v *simView) nodes(dir string) []manifest.Node {
	if dir == "" {
		v.looks++
		return []manifest.Node{v.dir(v.name)}
	}
	below := strings.TrimPrefix(strings.TrimPrefix(dir, v.name), "/")
	var nodes []manifest.Node
	seen := make(map[string]bool)
	for _, at := range slices.Sorted(maps.Keys(v.tree)) {
		in, name := path.Split(at)
		switch in = path.Clean(in); {
		case below == "" && !seen[in]:
			seen[in] = true
			nodes = append(nodes, v.dir(in))
		case below == in:
			f := v.tree[at]
			nodes = append(nodes, manifest.Node{
				Name: name, Kind: manifest.File, Mode: 0o644, Size: uint64(len(f.bytes())),
				MTime: manifest.TimeOf(f.changed), Look: manifest.Look{Dev: 1, Ino: inode(at), CTime: manifest.TimeOf(f.changed)},
			})
		}
	}
	return nodes
}

func (v *simView) dir(name string) manifest.Node {
	return manifest.Node{Name: name, Kind: manifest.Dir, Mode: 0o755, MTime: manifest.TimeOf(simStart), Look: manifest.Look{Dev: 1, Ino: inode(name), CTime: manifest.TimeOf(simStart.Add(-time.Hour))}}
}

// inode gives every path a number of its own, the same in every run.
func inode(at string) uint64 {
	n := uint64(14695981039346656037) // FNV-1a
	for _, c := range []byte(at) {
		n = (n ^ uint64(c)) * 1099511628211
	}
	return n
}

// OpenFile implements source.View.
func (v *simView) OpenFile(_ context.Context, at string) (io.ReadCloser, error) {
	f, ok := v.tree[strings.TrimPrefix(at, v.name+"/")]
	if !ok {
		return nil, &source.Error{Op: "open", Path: at, Err: fs.ErrNotExist}
	}
	r := bytes.NewReader(f.bytes())
	if f.pages != nil {
		return simPaged{r}, nil
	}
	return io.NopCloser(r), nil
}

// Finish implements source.View. The actor waits for its turn once more: what
// others do just before a commit matters most.
func (v *simView) Finish(ctx context.Context) error {
	if v.think != nil && !v.think(ctx) {
		return errSimDead
	}
	return ctx.Err()
}

// Close implements source.View.
func (v *simView) Close() error { return nil }

// A simTarget takes a restore into memory.
type simTarget struct {
	mu    sync.Mutex // guards files
	files map[string][]byte
	done  bool // committed
}

// Begin implements target.Target.
func (m *simTarget) Begin(context.Context, target.Need) (target.Writer, error) {
	m.files = make(map[string][]byte)
	return m, nil
}

// Create implements target.Writer.
func (m *simTarget) Create(_ context.Context, at string, n manifest.Node) (target.File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.files[at]; ok {
		return nil, &target.Error{Op: "create", Path: at, Err: fs.ErrExist}
	}
	p := make([]byte, n.Size)
	m.files[at] = p
	return simOut(p), nil
}

// Make implements target.Writer.
func (m *simTarget) Make(context.Context, string, manifest.Node) error { return nil }

// Commit implements target.Writer.
func (m *simTarget) Commit(context.Context) error { m.done = true; return nil }

// Abort implements target.Writer.
func (m *simTarget) Abort() error { return nil }

// compare returns what differs from a tree.
func (m *simTarget) compare(t simTree) error {
	var errs []error
	for at, f := range t {
		got, ok := m.files[at]
		switch {
		case !ok:
			errs = append(errs, fmt.Errorf("%s is missing", at))
		case !bytes.Equal(got, f.bytes()):
			errs = append(errs, fmt.Errorf("%s has other content than content %d, or other pages than those %d bytes", at, f.content, len(f.pages)))
		}
	}
	for at := range m.files {
		if _, ok := t[at]; !ok {
			errs = append(errs, fmt.Errorf("%s should not be there", at))
		}
	}
	return errors.Join(errs...)
}

// A simOut is a file being restored. Ranges that are written at once are disjoint.
type simOut []byte

// WriteAt implements io.WriterAt.
func (f simOut) WriteAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > int64(len(f)) {
		return 0, io.ErrShortWrite
	}
	return copy(f[off:], p), nil
}

// ReadAt implements io.ReaderAt.
func (f simOut) ReadAt(p []byte, off int64) (int, error) { return bytes.NewReader(f).ReadAt(p, off) }

// Close implements io.Closer.
func (f simOut) Close() error { return nil }

// Package steady backs up data that others may write to: what it delivers existed
// at one moment, or nothing is published.
package steady

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"io/fs"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cairn-backup/cairn/engine/source"
	"github.com/cairn-backup/cairn/manifest"
)

// ErrChanging says that the data changed between the first and the last look.
var ErrChanging = errors.New("the data changed while it was read")

// maxNamed bounds how many changed entries an error names.
const maxNamed = 10

// A ChangedError names what changed. errors.Is finds it to be ErrChanging.
type ChangedError struct {
	Paths []string // at most ten, as the view knows them
	More  int      // not named
}

// Error names the paths.
func (e *ChangedError) Error() string {
	text := fmt.Sprintf("%v: %s", ErrChanging, strings.Join(e.Paths, ", "))
	if e.More > 0 {
		text += fmt.Sprintf(" and %d more", e.More)
	}
	return text
}

// Is reports whether target is [ErrChanging].
func (e *ChangedError) Is(target error) bool { return target == ErrChanging }

// A Source delivers what Of does, as a database called Name. Files and
// directories, which have no consistency of their own, are looked at again after
// everything was read; if anything differs from the first look, Finish fails with
// ErrChanging and nothing is published. All first looks come before all last
// ones, so what did not change between its two looks is what was there at one
// moment between them.
type Source struct {
	Of   source.Source
	Name string

	// Loose publishes what changed meanwhile, too.
	Loose bool

	// Totals is told how much there is, by a walk that runs ahead. Default:
	// nobody.
	Totals func(bytes, files int64)
}

var _ source.Source = (*Source)(nil)

// Open opens the data.
func (s *Source) Open(ctx context.Context) (source.View, error) {
	inner, err := s.Of.Open(ctx)
	if err != nil {
		return nil, err
	}
	info := inner.Info()
	v := &view{
		View: inner, info: info, dirs: make(map[string][]look), seed: maphash.MakeSeed(),
		check: info.Kind == manifest.KindFiles && !s.Loose,
	}
	v.info.Kind, v.info.Name = manifest.KindDatabase, s.Name
	v.stop = func() {}
	if s.Totals != nil {
		v.walk(ctx, s.Totals)
	}
	return v, nil
}

// A view is one look at the data, and another one at its end.
type view struct {
	source.View
	info  source.Info
	check bool
	seed  maphash.Seed
	stop  func() // ends the walk and waits for it

	mu   sync.Mutex // guards dirs
	dirs map[string][]look
}

// A look is what one entry of a directory was like, as hashes: a path of a
// million files must not take hundreds of bytes for each.
type look struct{ name, state uint64 }

func (v *view) Info() source.Info { return v.info }

// ReadDir yields what the inner view does, and remembers it as the first look.
func (v *view) ReadDir(ctx context.Context, path string) iter.Seq2[manifest.Node, error] {
	if !v.check {
		return v.View.ReadDir(ctx, path)
	}
	return func(yield func(manifest.Node, error) bool) {
		var looks []look
		for n, err := range v.View.ReadDir(ctx, path) {
			if err == nil {
				looks = append(looks, v.look(&n))
			}
			if !yield(n, v.vanished(err)) {
				return
			}
		}
		v.mu.Lock()
		defer v.mu.Unlock()
		v.dirs[path] = slices.Clip(looks)
	}
}

// look hashes what tells a changed entry from an unchanged one.
func (v *view) look(n *manifest.Node) look {
	return look{
		name: maphash.String(v.seed, n.Name),
		state: maphash.Comparable(v.seed, struct {
			kind     manifest.NodeKind
			mode     uint32
			uid, gid uint32
			size     uint64
			mtime    manifest.Time
			look     manifest.Look
		}{n.Kind, n.Mode, n.UID, n.GID, n.Size, n.MTime, n.Look}),
	}
}

// vanished returns err, which is ErrChanging as well if an entry that was there
// a moment before is not, or is something else.
func (v *view) vanished(err error) error {
	if v.check && errors.Is(err, source.ErrSource) && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, source.ErrChanged)) {
		return fmt.Errorf("%w: %w", ErrChanging, err)
	}
	return err
}

// fresh is how old a file's times must be before it is read: a change within
// the same tick of the file system's clock would not show in them. Linux ticks
// every 1 to 10 ms.
const fresh = 50 * time.Millisecond

// freshCoarse is the same for file systems that keep seconds, or as FAT two.
const freshCoarse = 2100 * time.Millisecond

// OpenFile opens a file once its last change is old enough to be told from the
// next one.
func (v *view) OpenFile(ctx context.Context, path string) (io.ReadCloser, error) {
	f, err := v.View.OpenFile(ctx, path)
	if err != nil || !v.check {
		return f, v.vanished(err)
	}
	again, ok := f.(source.Again)
	if !ok {
		return f, nil
	}
	n, err := again.Again()
	if err == nil {
		err = wait(ctx, freshFor(&n, time.Now()))
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// freshFor returns for how long yet a change of n might not show.
func freshFor(n *manifest.Node, now time.Time) time.Duration {
	changed, need := n.Look.CTime, fresh
	if changed.Compare(n.MTime) < 0 {
		changed = n.MTime
	}
	if n.MTime.Nsec == 0 && n.Look.CTime.Nsec == 0 {
		need = freshCoarse
	}
	age := now.Sub(changed.Time())
	if age < -need {
		return 0 // a time in the future says nothing
	}
	return need - age
}

func wait(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Finish takes the last look.
func (v *view) Finish(ctx context.Context) error {
	if err := v.View.Finish(ctx); err != nil || !v.check {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	changed := new(ChangedError)
	for path, first := range v.dirs {
		if err := v.compare(ctx, path, first, changed); err != nil {
			return err
		}
	}
	if len(changed.Paths) == 0 {
		return nil
	}
	slices.Sort(changed.Paths)
	return changed
}

// compare looks at a directory again.
func (v *view) compare(ctx context.Context, path string, first []look, changed *ChangedError) error {
	at := make(map[uint64]uint64, len(first))
	for _, l := range first {
		at[l.name] = l.state
	}
	for n, err := range v.View.ReadDir(ctx, path) {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			changed.add(join(path, n.Name))
			continue
		}
		now := v.look(&n)
		if state, ok := at[now.name]; !ok || state != now.state {
			changed.add(join(path, n.Name))
		}
		delete(at, now.name)
	}
	if len(at) > 0 {
		changed.add(join(path, "(an entry that is gone)"))
	}
	return nil
}

func (e *ChangedError) add(path string) {
	if len(e.Paths) < maxNamed {
		e.Paths = append(e.Paths, path)
	} else {
		e.More++
	}
}

// walk counts everything, beside whoever reads it.
func (v *view) walk(ctx context.Context, totals func(bytes, files int64)) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		var bytes, files int64
		if v.count(ctx, "", &bytes, &files) == nil {
			totals(bytes, files)
		}
	}()
	v.stop = func() {
		cancel()
		<-done
	}
}

// count adds what is below path. An entry that cannot be looked at counts as
// nothing: whoever reads it says so.
func (v *view) count(ctx context.Context, path string, bytes, files *int64) error {
	for n, err := range v.View.ReadDir(ctx, path) {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			continue
		}
		*files++
		*bytes += int64(n.Size) //nolint:gosec // a size
		if n.Kind != manifest.Dir {
			continue
		}
		if err := v.count(ctx, join(path, n.Name), bytes, files); err != nil {
			return err
		}
	}
	return nil
}

// Complete completes a node.
func (v *view) Complete(ctx context.Context, path string, n *manifest.Node) error {
	return v.vanished(source.Complete(ctx, v.View, path, n))
}

// Labels returns the labels of the data.
func (v *view) Labels() map[string]string { return source.Labels(v.View) }

// LeftOut returns what the data left out.
func (v *view) LeftOut() []string { return source.LeftOut(v.View) }

// Close ends the walk and closes the data.
func (v *view) Close() error {
	v.stop()
	return v.View.Close()
}

func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

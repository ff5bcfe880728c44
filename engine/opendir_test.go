package engine

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"

	"github.com/cairn-backup/cairn/backend/mem"
	"github.com/cairn-backup/cairn/chunk"
	"github.com/cairn-backup/cairn/engine/source"
	"github.com/cairn-backup/cairn/manifest"
)

// pageMap keeps pages, and counts what is put.
type pageMap struct {
	pages map[chunk.ID][]byte
	puts  int
}

func (m *pageMap) PutChunk(_ context.Context, data []byte) (chunk.ID, error) {
	m.puts++
	id := chunk.NewHasher([32]byte{}).Sum(data)
	m.pages[id] = append([]byte(nil), data...)
	return id, nil
}

func (m *pageMap) Chunk(_ context.Context, id chunk.ID) ([]byte, error) {
	if p, ok := m.pages[id]; ok {
		return p, nil
	}
	return nil, errors.New("no such page")
}

func nodes(from, to int) []manifest.Node {
	var n []manifest.Node
	for i := from; i < to; i++ {
		n = append(n, manifest.Node{Name: fmt.Sprintf("%05d", i), Kind: manifest.Symlink, Target: "t"})
	}
	return n
}

func listed(t *testing.T, m *pageMap, list []manifest.Node) chunk.ID {
	t.Helper()
	w := manifest.NewDirWriter(m)
	for _, n := range list {
		if err := w.Add(t.Context(), n); err != nil {
			t.Fatal(err)
		}
	}
	id, err := w.Finish(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// TestOpenDir: a directory gets the list that a DirWriter makes of it, and writes
// none if it is the parent's.
func TestOpenDir(t *testing.T) {
	changed := func(list []manifest.Node, at int) []manifest.Node {
		list[at].Target = "u"
		return list
	}
	for _, c := range []struct {
		name     string
		old, new []manifest.Node
		skip     int // so many entries behind the last are left out
		broken   bool
		alone    bool // nothing was inherited yet
		named    bool
	}{
		{name: "the same", old: nodes(0, 300), new: nodes(0, 300), named: true},
		{name: "the same, and a socket behind it", old: nodes(0, 300), new: nodes(0, 300), skip: 1, named: true},
		{name: "the same, but nothing was taken over", old: nodes(0, 300), new: nodes(0, 300), alone: true},
		{name: "as many as are kept", old: nodes(0, window), new: nodes(0, window), named: true},
		{name: "one more than that", old: nodes(0, window+1), new: nodes(0, window+1)},
		{name: "many more", old: nodes(0, 5000), new: nodes(0, 5000)},
		{name: "one came at the end", old: nodes(0, 300), new: nodes(0, 301)},
		{name: "one came at the start", old: nodes(1, 300), new: nodes(0, 300)},
		{name: "one went at the end", old: nodes(0, 301), new: nodes(0, 300)},
		{name: "one went at the end, and a socket behind it", old: nodes(0, 301), new: nodes(0, 300), skip: 1},
		{name: "one went at the start", old: nodes(0, 300), new: nodes(1, 300)},
		{name: "one went in the middle", old: nodes(0, 300), new: append(nodes(0, 100), nodes(101, 300)...)},
		{name: "the first changed", old: nodes(0, 300), new: changed(nodes(0, 300), 0)},
		{name: "the last changed", old: nodes(0, 300), new: changed(nodes(0, 300), 299)},
		{name: "empty", old: nil, new: nil},
		{name: "it became empty", old: nodes(0, 3), new: nil},
		{name: "it was empty", old: nil, new: nodes(0, 3)},
		{name: "the parent cannot be read further", old: nodes(0, 300), new: nodes(0, 300), broken: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx := t.Context()
			m := &pageMap{pages: make(map[chunk.ID][]byte)}
			parent := listed(t, m, c.old)
			want := listed(t, m, c.new)
			next, stop := iter.Pull2(func(yield func(manifest.Node, error) bool) {
				for n, err := range manifest.ReadDir(ctx, m, parent) {
					if !yield(n, err) {
						return
					}
				}
				if c.broken {
					yield(manifest.Node{}, errors.New("unreadable"))
				}
			})
			old := &oldDirs{dirs: []*oldDir{{tree: parent, next: next, stop: stop, ok: true}}}
			defer old.close()
			s := &saver{inherits: make([]atomic.Bool, 1)}
			s.inherits[0].Store(!c.alone)
			d := &openDir{put: m, like: old.dirs[0]}
			m.puts = 0
			var late *pending // is added after the next match, as one that is read is
			add := func() {
				if late != nil {
					if err := d.add(ctx, late); err != nil {
						t.Fatal(err)
					}
				}
			}
			for i, n := range c.new {
				match, err := old.match(n.Name)
				if err != nil {
					t.Fatal(err)
				}
				add()
				late = &pending{node: n}
				if i%2 == 0 {
					late.compare(match)
				} else {
					late.keep(match)
				}
			}
			add()
			for i := range c.skip {
				if _, err := old.match(fmt.Sprintf("x%d", i)); err != nil {
					t.Fatal(err)
				}
			}
			list, _, err := d.soFar(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := list.Finish(ctx); err != nil || got != want {
				t.Errorf("so far it is %v, %v; want %v", got, err, want)
			}
			m.puts = 0
			got, err := s.finish(ctx, d)
			if err != nil || got != want {
				t.Errorf("the list is %v, %v; want %v", got, err, want)
			}
			if named := m.puts == 0; named != c.named {
				t.Errorf("pages put: %d", m.puts)
			}
		})
	}
}

// TestReuse: whatever comes, goes and changes, a backup gives the tree that one
// without any parent gives.
func TestReuse(t *testing.T) {
	t.Parallel()
	r := openSmall(t, mem.New(), newKeyFile(t))
	dir := t.TempDir()
	rng := rand.New(rand.NewPCG(1, 2))
	place := func() string {
		sub := rng.IntN(6) // the last is larger than what is kept of a directory
		return filepath.Join(dir, fmt.Sprint("d", sub), fmt.Sprint("e", sub%3), fmt.Sprintf("f%d", rng.IntN(40+sub/5*700)))
	}
	put := func(path string) {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, noise(rng.Uint64(), rng.IntN(900)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for range 2500 {
		put(place())
	}
	for round := range 25 {
		for range rng.IntN(4) {
			switch path := place(); rng.IntN(4) {
			case 0:
				put(path)
			case 1:
				_ = os.Remove(path)
			case 2:
				_ = os.Rename(path, place())
			default:
				_ = os.RemoveAll(filepath.Dir(path))
				put(path)
			}
		}
		src := source.Dir(dir)
		got, err := r.Backup(t.Context(), src, BackupOptions{})
		if err != nil {
			t.Fatal(err)
		}
		want, err := r.Backup(t.Context(), src, BackupOptions{Reread: true})
		if err != nil {
			t.Fatal(err)
		}
		if got.Snapshot.Tree != want.Snapshot.Tree {
			t.Fatalf("round %d: the tree differs from one that was written anew", round)
		}
	}
}

// TestNameTwice: a source that yields a name twice is refused, also where the parent
// has as many entries.
func TestNameTwice(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	m := &pageMap{pages: make(map[chunk.ID][]byte)}
	parent := listed(t, m, nodes(0, 2))
	next, stop := iter.Pull2(manifest.ReadDir(ctx, m, parent))
	old := &oldDirs{dirs: []*oldDir{{tree: parent, next: next, stop: stop, ok: true}}}
	defer old.close()
	d := &openDir{put: m, like: old.dirs[0]}
	var err error
	for range 2 {
		match, matchErr := old.match("00000")
		if matchErr != nil || len(match) != 1 {
			t.Fatal(match, matchErr)
		}
		p := &pending{node: nodes(0, 1)[0]}
		p.compare(match)
		err = errors.Join(err, d.add(ctx, p))
	}
	if !errors.Is(err, manifest.ErrInvalid) {
		t.Errorf("add = %v, want ErrInvalid", err)
	}
}

// TestOpenDirOfAnotherParent: what only the second parent has is in no list that may
// be the first one's.
func TestOpenDirOfAnotherParent(t *testing.T) {
	for _, keep := range []bool{false, true} {
		m := &pageMap{pages: make(map[chunk.ID][]byte)}
		old := &oldDirs{}
		defer func() { old.close() }()
		for index, list := range [][]manifest.Node{nodes(0, 2), nodes(0, 3)} {
			tree := listed(t, m, list)
			next, stop := iter.Pull2(manifest.ReadDir(t.Context(), m, tree))
			old.dirs = append(old.dirs, &oldDir{index: index, tree: tree, next: next, stop: stop, ok: true})
		}
		d := &openDir{put: m, like: old.dirs[0]}
		for _, n := range nodes(0, 3) {
			match, err := old.match(n.Name)
			if err != nil || len(match) == 0 {
				t.Fatal(match, err)
			}
			p := &pending{node: n}
			if keep {
				p.keep(match)
			} else {
				p.compare(match)
			}
			if err := d.add(t.Context(), p); err != nil {
				t.Fatal(err)
			}
		}
		if len(d.same) > 0 || d.list == nil {
			t.Errorf("kept %t: %d nodes count as those of the first parent", keep, len(d.same))
		}
	}
}

// TestEnqueue: whatever comes and goes, the queue has what came last, in order. One
// that is always empty again takes no more room.
func TestEnqueue(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := new(openDir)
		var want []*pending
		for range rapid.IntRange(0, 60).Draw(t, "steps") {
			if len(want) > 0 && rapid.Bool().Draw(t, "take") {
				d.queue[0] = nil // as saver.add does
				d.queue, want = d.queue[1:], want[1:]
			} else {
				p := new(pending)
				d.enqueue(p)
				want = append(want, p)
			}
			if !slices.Equal(d.queue, want) {
				t.Fatalf("%v, want %v", d.queue, want)
			}
		}
	})
	d, p := new(openDir), new(pending)
	d.enqueue(p)
	if n := testing.AllocsPerRun(100, func() {
		d.queue = d.queue[1:]
		d.enqueue(p)
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

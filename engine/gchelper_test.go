package engine_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"maps"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/engine/source"
	"github.com/cairn-backup/cairn/manifest"
)

// cancelling calls tick at each write.
type cancelling struct {
	backend.Backend
	tick func()
}

func (c *cancelling) Put(ctx context.Context, key backend.Key, data []byte) error {
	c.tick()
	return c.Backend.Put(ctx, key, data)
}

func (c *cancelling) Delete(ctx context.Context, key backend.Key) error {
	c.tick()
	return c.Backend.Delete(ctx, key)
}

// contextAfter returns a context that ends at the nth tick, from 0.
func contextAfter(t *testing.T, n int) (ctx context.Context, tick func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	var ticks atomic.Int64
	return ctx, func() {
		if ticks.Add(1) == int64(n)+1 {
			cancel()
		}
	}
}

// A blobTree is one state of a data set in memory, by path of two elements.
type blobTree map[string]blob

// A blob is a file: slices of random data, each by its seed.
type blob struct {
	slices  []uint64
	changed time.Time
}

// blobSlice is the length of a slice, in bytes: a chunk, more or less.
const blobSlice = 30_000

func (b blob) bytes() []byte {
	var p []byte
	for _, seed := range b.slices {
		p = append(p, random(seed, blobSlice)...)
	}
	return p
}

// A blobSource is one tree as a source, whose unchanged files a backup takes
// over from its parent.
type blobSource struct {
	name string
	tree blobTree
}

func (s *blobSource) Open(context.Context) (source.View, error) { return s, nil }

func (s *blobSource) Info() source.Info {
	return source.Info{Kind: manifest.KindFiles, Name: s.name, Roots: []manifest.Root{{Path: s.name, Name: s.name}}}
}

func (s *blobSource) ReadDir(ctx context.Context, dir string) iter.Seq2[manifest.Node, error] {
	return func(yield func(manifest.Node, error) bool) {
		for _, n := range s.nodes(dir) {
			if !yield(n, ctx.Err()) {
				return
			}
		}
	}
}

func (s *blobSource) nodes(dir string) (nodes []manifest.Node) {
	long := time.Unix(1_700_000_000, 0) // the same in each backup, so that the lists are
	if dir == "" {
		return []manifest.Node{blobDir(s.name, long)}
	}
	below := strings.TrimPrefix(strings.TrimPrefix(dir, s.name), "/")
	seen := make(map[string]bool)
	for _, at := range slices.Sorted(maps.Keys(s.tree)) {
		in, name, _ := strings.Cut(at, "/")
		switch f := s.tree[at]; {
		case below == "" && !seen[in]:
			seen[in] = true
			nodes = append(nodes, blobDir(in, long))
		case below == in:
			nodes = append(nodes, manifest.Node{
				Name: name, Kind: manifest.File, Mode: 0o644, Size: uint64(len(f.slices) * blobSlice), MTime: manifest.TimeOf(f.changed),
				Look: manifest.Look{Dev: 1, Ino: inode(at), CTime: manifest.TimeOf(f.changed)},
			})
		}
	}
	return nodes
}

func blobDir(name string, at time.Time) manifest.Node {
	return manifest.Node{Name: name, Kind: manifest.Dir, Mode: 0o755, MTime: manifest.TimeOf(at), Look: manifest.Look{Dev: 1, Ino: inode(name), CTime: manifest.TimeOf(at)}}
}

func (s *blobSource) OpenFile(_ context.Context, at string) (io.ReadCloser, error) {
	f, ok := s.tree[strings.TrimPrefix(at, s.name+"/")]
	if !ok {
		return nil, &source.Error{Op: "open", Path: at, Err: fs.ErrNotExist}
	}
	return io.NopCloser(bytes.NewReader(f.bytes())), nil
}

func (s *blobSource) Finish(ctx context.Context) error { return ctx.Err() }

func (s *blobSource) Close() error { return nil }

// holds returns what differs from the tree in a restore of a snapshot of it.
func (t blobTree) holds(ctx context.Context, r *engine.Repository, id manifest.ID) error {
	m := new(simTarget)
	if _, err := r.Restore(ctx, id, m, engine.RestoreOptions{}); err != nil {
		return err
	}
	if len(m.files) != len(t) {
		return fmt.Errorf("%d files, want %d", len(m.files), len(t))
	}
	for at, b := range t {
		if !bytes.Equal(m.files[at], b.bytes()) {
			return fmt.Errorf("%s has other content", at)
		}
	}
	return nil
}

// liveBytes returns how many bytes the trees have in different slices.
func liveBytes(trees map[manifest.ID]blobTree) int64 {
	seen := make(map[uint64]bool)
	for _, t := range trees {
		for _, b := range t {
			for _, seed := range b.slices {
				seen[seed] = true
			}
		}
	}
	return int64(len(seen)) * blobSlice
}

// prove reports whether the long version of a test is wanted.
func prove() bool { return os.Getenv("CAIRN_PROVE") != "" }

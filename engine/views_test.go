package engine_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/backend/mem"
	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/engine/internal/layout"
	"github.com/cairn-backup/cairn/engine/source"
	"github.com/cairn-backup/cairn/manifest"
)

// A packReads counts reads of packs.
type packReads struct {
	backend.Backend
	reads, bytes atomic.Int64
}

func (p *packReads) Get(ctx context.Context, key backend.Key, off, n int64) (io.ReadCloser, error) {
	if strings.HasPrefix(string(key), string(layout.Packs)) {
		p.reads.Add(1)
		p.bytes.Add(n)
	}
	return p.Backend.Get(ctx, key, off, n)
}

// manySource is a tree of small files, of which some are different in each
// version.
type manySource struct{ dirs, files, version, changed int }

func (s manySource) Open(context.Context) (source.View, error) { return s, nil }

func (s manySource) Info() source.Info {
	return source.Info{Kind: manifest.KindFiles, Name: "many", Roots: []manifest.Root{{Path: "/many", Name: "many"}}}
}

func (s manySource) Finish(context.Context) error { return nil }
func (s manySource) Close() error                 { return nil }

func (s manySource) ReadDir(_ context.Context, path string) iter.Seq2[manifest.Node, error] {
	return func(yield func(manifest.Node, error) bool) {
		switch path {
		case "":
			yield(manifest.Node{Name: "many", Kind: manifest.Dir, Mode: 0o755}, nil)
		case "many":
			for i := range s.dirs {
				if !yield(manifest.Node{Name: fmt.Sprintf("d%05d", i), Kind: manifest.Dir, Mode: 0o755}, nil) {
					return
				}
			}
		default:
			for i := range s.files {
				name := fmt.Sprintf("f%05d", i)
				n := manifest.Node{Name: name, Kind: manifest.File, Mode: 0o644, Size: uint64(len(s.content(path + "/" + name)))}
				if !yield(n, nil) {
					return
				}
			}
		}
	}
}

// content is the path of the file, and the version if the file changes.
func (s manySource) content(path string) string {
	var dir, file int
	if _, err := fmt.Sscanf(path, "many/d%d/f%d", &dir, &file); err != nil {
		return err.Error()
	}
	every := s.dirs * s.files / s.changed
	if (dir*s.files+file)%every == every/2 {
		return fmt.Sprintf("%s version %d", path, s.version)
	}
	return path + " version 0"
}

func (s manySource) OpenFile(_ context.Context, path string) (io.ReadCloser, error) {
	return io.NopCloser(strings.NewReader(s.content(path))), nil
}

// TestDiffReadsTheDifference: a diff of two snapshots reads in proportion to
// what differs, and not to what there is.
func TestDiffReadsTheDifference(t *testing.T) {
	t.Parallel()
	dirs, most := 100, int64(60)
	if os.Getenv("CAIRN_PROVE") != "" {
		dirs, most = 1000, 200
	}
	b := mem.New()
	r := open(t, b, engine.Options{})
	var ids []manifest.ID
	for version := range 2 {
		src := manySource{dirs: dirs, files: 500, version: version, changed: 100}
		ids = append(ids, backUp(t, r, src, engine.BackupOptions{}).Snapshot.ID)
	}
	counted := &packReads{Backend: b}
	reader := open(t, counted, engine.Options{})
	counted.reads.Store(0)
	changes := 0
	for c, err := range reader.Diff(t.Context(), ids[0], ids[1]) {
		if err != nil {
			t.Fatal(err)
		}
		if c.Kind == manifest.Modified {
			changes++
		}
	}
	t.Logf("%d files: %d changes, %d reads", dirs*500, changes, counted.reads.Load())
	if changes != 100 || counted.reads.Load() >= most {
		t.Errorf("a diff found %d changes, want 100, with %d reads, want less than %d", changes, counted.reads.Load(), most)
	}
}

// TestFSReadsBlocks: a random read of 64 KiB of a large file fetches the block
// that holds it, two if it lies across their border, and hardly anything else.
func TestFSReadsBlocks(t *testing.T) {
	t.Parallel()
	size, reads := 64<<20, 300
	if os.Getenv("CAIRN_PROVE") != "" {
		size = 1 << 30
	}
	b := mem.New()
	r := open(t, b, engine.Options{})
	content := random(1, size)
	src := source.Stream("large", func(_ context.Context, w io.Writer) error {
		_, err := w.Write(content)
		return err
	})
	id := backUp(t, r, src, engine.BackupOptions{}).Snapshot.ID
	counted := &packReads{Backend: b}
	fsys, err := open(t, counted, engine.Options{}).FS(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	f, err := fsys.Open("large")
	if err != nil {
		t.Fatal(err)
	}
	at := f.(io.ReaderAt)
	rng := rand.New(rand.NewPCG(1, 2))
	p := make([]byte, 64<<10)
	var total, worst int64
	for range reads {
		off := rng.IntN(size - len(p))
		before := counted.reads.Load()
		if n, err := at.ReadAt(p, int64(off)); n != len(p) || err != nil && err != io.EOF {
			t.Fatal(n, err)
		}
		if !bytes.Equal(p, content[off:off+len(p)]) {
			t.Fatalf("wrong bytes at %d", off)
		}
		n := counted.reads.Load() - before
		total, worst = total+n, max(worst, n)
	}
	t.Logf("%d reads of %d bytes: %d reads of the store, %d bytes, %d at most for one", reads, size, total, counted.bytes.Load(), worst)
	// A read crosses a border of blocks of 1 MiB about once in 16 times; the
	// list of chunks has to be read, too.
	if most := int64(reads + reads/8 + size>>26 + 4); total > most {
		t.Errorf("%d reads took %d blocks, want at most %d", reads, total, most)
	}
	if worst > 4 {
		t.Errorf("one read took %d blocks", worst)
	}
}

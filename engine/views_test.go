package engine_test

import (
	"bytes"
	"context"
	"errors"
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
// that holds it, two if it lies across their border (by one read of the store if
// they lie side by side), and hardly anything else.
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

// TestFSReadsAhead: who reads much at a time gets several blocks by one read of
// the store, and damage to one of them is told of that one alone.
func TestFSReadsAhead(t *testing.T) {
	t.Parallel()
	const size, step = 24 << 20, 4 << 20
	b := mem.New()
	r := open(t, b, engine.Options{Workers: 1}) // else several blocks are sealed at once, and lie in any order
	content := random(1, size)
	id := backUp(t, r, source.Dir(write(t, map[string][]byte{"large": content})), engine.BackupOptions{}).Snapshot.ID
	counted := &packReads{Backend: b}
	read := func(n int, each func(off int, got []byte, err error)) {
		t.Helper()
		fsys, err := open(t, counted, engine.Options{}).FS(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		root, err := fsys.ReadDir(".")
		if err != nil {
			t.Fatal(err)
		}
		f, err := fsys.Open(root[0].Name() + "/large")
		if err != nil {
			t.Fatal(err)
		}
		counted.reads.Store(0)
		for off := 0; off < size; off += n {
			p := make([]byte, n)
			got, err := f.(io.ReaderAt).ReadAt(p, int64(off))
			each(off, p[:got], err)
		}
	}
	read(step, func(off int, got []byte, err error) {
		if err != nil || !bytes.Equal(got, content[off:off+step]) {
			t.Fatalf("at %d: %d bytes, %v", off, len(got), err)
		}
	})
	// 24 blocks and more, and two pages of the list of chunks.
	if n := counted.reads.Load(); n > 14 {
		t.Errorf("%d MiB take %d reads of the store", size>>20, n)
	}

	data, _ := packKeys(t, r)
	hurtObjects(t, b, data, func(pack []byte) []byte { // in the middle of its second block
		pack[3<<19] ^= 1
		return pack
	})
	bad := 0
	read(step, func(off int, got []byte, err error) {
		switch {
		case !bytes.Equal(got, content[off:off+len(got)]):
			t.Fatalf("wrong bytes at %d", off)
		case errors.Is(err, engine.ErrCorrupt):
			bad++
		case err != nil || len(got) != step:
			t.Fatalf("at %d: %d bytes, %v", off, len(got), err)
		}
		if off == 0 && len(got) < 1<<19 { // the first block is not damaged
			t.Errorf("at 0: %d bytes, %v", len(got), err)
		}
	})
	if bad == 0 || bad > 2*len(data) {
		t.Errorf("a damaged block in each of %d packs hurts %d reads", len(data), bad)
	}
}

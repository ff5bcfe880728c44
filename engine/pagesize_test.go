package engine_test

import (
	"context"
	"io"
	"io/fs"
	"iter"
	"math/rand/v2"
	"testing"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/backend/local"
	"github.com/cairn-backup/cairn/backend/mem"
	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/engine/source"
	"github.com/cairn-backup/cairn/manifest"
)

// A pageSource is a database of which every page is random bytes, made when they
// are read: what cannot be compressed.
type pageSource struct {
	seeds []uint64 // by page of 4 KiB
	info  source.Info
}

const dbPage = 4096

func newPageSource(size int64) *pageSource {
	s := &pageSource{seeds: make([]uint64, size/dbPage)}
	for i := range s.seeds {
		s.seeds[i] = uint64(i)
	}
	s.info = source.Info{Kind: manifest.KindDatabase, Name: "app.db", Roots: []manifest.Root{{Path: "/app.db", Name: "app.db"}}}
	return s
}

// update gives n scattered pages other bytes.
func (s *pageSource) update(rng *rand.Rand, n int) {
	for _, i := range rng.Perm(len(s.seeds))[:n] {
		s.seeds[i] = rng.Uint64()
	}
}

func (s *pageSource) Open(context.Context) (source.View, error) { return s, nil }
func (s *pageSource) Info() source.Info                         { return s.info }
func (s *pageSource) Finish(ctx context.Context) error          { return ctx.Err() }
func (s *pageSource) Close() error                              { return nil }

func (s *pageSource) ReadDir(_ context.Context, dir string) iter.Seq2[manifest.Node, error] {
	return func(yield func(manifest.Node, error) bool) {
		if dir != "" {
			yield(manifest.Node{}, &source.Error{Op: "read", Path: dir, Err: fs.ErrNotExist})
			return
		}
		yield(manifest.Node{Name: "app.db", Kind: manifest.File, Mode: 0o600, Size: uint64(len(s.seeds) * dbPage)}, nil)
	}
}

func (s *pageSource) OpenFile(context.Context, string) (io.ReadCloser, error) {
	return &pageReader{source: s}, nil
}

type pageReader struct {
	source *pageSource
	page   int
	rest   []byte
	buf    [dbPage]byte
}

func (r *pageReader) Grain() (int, error) { return source.DatabaseGrain, nil }
func (r *pageReader) Close() error        { return nil }

func (r *pageReader) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		if r.page == len(r.source.seeds) {
			return 0, io.EOF
		}
		var seed [32]byte
		for i := range 8 {
			seed[i] = byte(r.source.seeds[r.page] >> (8 * i))
		}
		_, _ = rand.NewChaCha8(seed).Read(r.buf[:]) // never fails
		r.rest = r.buf[:]
		r.page++
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// TestPageUpdatesAreSmall holds what a backup stores of scattered updates of pages,
// lists, index and record included, to 8 MiB for 1,000 of them in 1 GiB, and to 1 MiB
// for 100: to as much of the size where the database is smaller. It is so without
// the fingerprints as well; those spare reading what changed from the store.
func TestPageUpdatesAreSmall(t *testing.T) {
	size, fixed := int64(32<<20), 16<<10 // of a small database the least list and record is a part that counts
	var b backend.Backend = mem.New()
	if prove() {
		size, fixed, b = 1<<30, 0, local.New(t.TempDir()+"/repo")
	}
	part := int((1 << 30) / size)
	cache := t.TempDir()
	src := newPageSource(size)
	rng := rand.New(rand.NewPCG(8, 1))
	r := open(t, b, engine.Options{Workers: 2, CacheDir: cache})
	backUp(t, r, src, engine.BackupOptions{})
	if again := backUp(t, r, src, engine.BackupOptions{}); !again.Unchanged || again.Snapshot.Stats.New > 4096 || again.Traffic.Get.Bytes > 1<<20 {
		t.Errorf("nothing changed: unchanged %t, %d new bytes, %d were read", again.Unchanged, again.Snapshot.Stats.New, again.Traffic.Get.Bytes)
	}
	for _, c := range []struct{ pages, limit int }{{1000, 8 << 20}, {100, 1 << 20}} {
		src.update(rng, max(c.pages/part, 1))
		rep := backUp(t, r, src, engine.BackupOptions{})
		got := int(rep.Traffic.Put.Bytes)
		t.Logf("%d pages of %d MiB: %d KiB were put, of which packs %d, in %v; %d KiB were read",
			max(c.pages/part, 1), size>>20, got>>10, rep.Snapshot.Stats.Stored>>10, rep.Elapsed, rep.Traffic.Get.Bytes>>10)
		if got > c.limit/part+fixed {
			t.Errorf("%d bytes were put, want at most %d", got, c.limit/part+fixed)
		}
		if rep.Traffic.Get.Bytes > 1<<20 {
			t.Errorf("%d bytes were read, though there are fingerprints", rep.Traffic.Get.Bytes)
		}
	}
	src.update(rng, 1000/part)
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	r = open(t, b, engine.Options{Workers: 2})
	rep := backUp(t, r, src, engine.BackupOptions{})
	t.Logf("another machine: %d KiB were put, %d KiB read, in %v", rep.Traffic.Put.Bytes>>10, rep.Traffic.Get.Bytes>>10, rep.Elapsed)
	if got := int(rep.Traffic.Put.Bytes); got > 8<<20/part+fixed {
		t.Errorf("another machine put %d bytes, want at most %d", got, 8<<20/part+fixed)
	}
	view, err := r.FS(t.Context(), rep.Snapshot.ID)
	if err != nil {
		t.Fatal(err)
	}
	f, err := view.Open("app.db")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	sameStream(t, &pageReader{source: src}, f)
}

// sameStream compares what two readers give.
func sameStream(t testing.TB, want, got io.Reader) {
	t.Helper()
	a, b := make([]byte, dbPage), make([]byte, dbPage)
	for at := 0; ; at += dbPage {
		n, errA := io.ReadFull(want, a)
		m, errB := io.ReadFull(got, b)
		if n != m || string(a[:n]) != string(b[:m]) || errA != errB { //nolint:errorlint // ReadFull's own
			t.Fatalf("at %d: %d and %d bytes, %v and %v, equal %t", at, n, m, errA, errB, string(a[:n]) == string(b[:m]))
		}
		if errA != nil {
			return
		}
	}
}

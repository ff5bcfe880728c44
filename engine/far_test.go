package engine_test

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/backend/mem"
	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/engine/source"
	"github.com/cairn-backup/cairn/engine/target"
	"github.com/cairn-backup/cairn/manifest"
)

// far is a store in a network: requests wait, and many wait at once.
type far struct {
	asked
	// meet is how many reads of packs must be under way before one goes on.
	meet int
	// spoil damages what is read of packs, if it is longer than so many bytes.
	spoil int64

	mu2     sync.Mutex // guards what follows
	waiting int
	all     chan struct{} // closed once enough are waiting
	late    bool          // they never met
}

func (f *far) Concurrency() int { return 16 }

func (f *far) Get(ctx context.Context, key backend.Key, off, n int64) (io.ReadCloser, error) {
	f.note("get", key)
	if strings.HasPrefix(string(key), "packs/") && f.meet > 0 && n > 24<<10 { // longer than the list of chunks
		f.meeting(ctx)
	}
	body, err := f.Backend.Get(ctx, key, off, n)
	if err != nil || f.spoil == 0 || !strings.HasPrefix(string(key), "packs/") || backend.BodySize(body) <= f.spoil {
		return body, err
	}
	data, err := io.ReadAll(body)
	if err != nil {
		return nil, err
	}
	for i := range data {
		data[i] ^= 1
	}
	return backend.NewBody(ctx, strings.NewReader(string(data)), int64(len(data)), nil), nil
}

func (f *far) meeting(ctx context.Context) {
	f.mu2.Lock()
	if f.all == nil {
		f.all = make(chan struct{})
	}
	if f.waiting++; f.waiting == f.meet {
		close(f.all)
	}
	all := f.all
	f.mu2.Unlock()
	select {
	case <-all:
	case <-ctx.Done():
	case <-time.After(30 * time.Second):
		f.mu2.Lock()
		defer f.mu2.Unlock()
		f.late = true
	}
}

// TestFarFile: the packs of one large file are read in parallel, by more
// requests at once than there are workers, each once and whole.
func TestFarFile(t *testing.T) {
	f := &far{asked: asked{Backend: mem.New()}}
	dir := write(t, map[string][]byte{"large": random(5, 1<<20)})
	r := open(t, f, engine.Tuned(engine.Options{Workers: 2}, small))
	id := backUp(t, r, renamed(dir), engine.BackupOptions{}).Snapshot.ID
	f.take()
	f.meet = 8
	same(t, dir, restore(t, r, id))
	if f.late {
		t.Errorf("fewer than %d reads wait at once", f.meet)
	}
	packs := make(map[string]int)
	for _, request := range withPrefix(f.take(), "get packs/") {
		packs[request]++
	}
	for request, n := range packs {
		if n > 1 {
			t.Errorf("%q is sent %d times", request, n)
		}
	}
}

// TestFarTree: what lists a tree is read in some large pieces, and once.
func TestFarTree(t *testing.T) {
	tree := fstest.MapFS{}
	for d := range 60 {
		for i := range 200 {
			tree[fmt.Sprintf("directory %d/file %x", d, random(uint64(d*1000+i), 12))] = &fstest.MapFile{Mode: 0o644}
		}
	}
	for name, spoil := range map[string]int64{"whole": 0, "damaged on the way": 140 << 10} {
		t.Run(name, func(t *testing.T) {
			f := &far{asked: asked{Backend: mem.New()}}
			opts := engine.Options{CacheDir: t.TempDir(), MetadataCache: 64 << 20}
			walk := func() int {
				t.Helper()
				r := open(t, f, opts)
				defer r.Close()
				snaps := list(t, r)
				if len(snaps) == 0 {
					_, err := r.Backup(t.Context(), source.FS("data", tree), engine.BackupOptions{})
					if err != nil {
						t.Fatal(err)
					}
					snaps = list(t, r)
				}
				f.take()
				view, err := r.FS(t.Context(), snaps[0].ID)
				if err != nil {
					t.Fatal(err)
				}
				names := 0
				err = fs.WalkDir(view, ".", func(_ string, _ fs.DirEntry, err error) error {
					names++
					return err
				})
				if err != nil || names < len(tree) {
					t.Fatalf("the tree has %d entries, %v", names, err)
				}
				return len(withPrefix(f.take(), "get packs/"))
			}
			walk()
			if n := walk(); n > 0 {
				t.Errorf("the machine that stored the tree reads it by %d requests", n)
			}
			f.spoil = spoil
			opts.CacheDir = t.TempDir()
			n := walk()
			t.Logf("another machine: %d requests", n)
			if spoil == 0 && n > 5 {
				t.Errorf("another machine makes %d requests for the tree", n)
			}
			if spoil > 0 && n < 5 {
				t.Errorf("only %d requests: nothing was damaged", n)
			}
		})
	}
}

// A stuck target holds every write until it is let go.
type stuck struct {
	target.Target
	gate    chan struct{}
	written atomic.Int64
}

func (s *stuck) Begin(context.Context, target.Need) (target.Writer, error) {
	return stuckWriter{s}, nil
}

type stuckWriter struct{ *stuck }

func (w stuckWriter) Create(context.Context, string, manifest.Node) (target.File, error) {
	return stuckFile(w), nil
}
func (stuckWriter) Make(context.Context, string, manifest.Node) error { return nil }
func (stuckWriter) Commit(context.Context) error                      { return nil }
func (stuckWriter) Abort() error                                      { return nil }

type stuckFile struct{ *stuck }

func (f stuckFile) WriteAt(p []byte, _ int64) (int, error) {
	<-f.gate
	f.written.Add(int64(len(p)))
	return len(p), nil
}
func (stuckFile) ReadAt([]byte, int64) (int, error) { return 0, io.EOF }
func (stuckFile) Close() error                      { return nil }

// weighed counts what is read of packs.
type weighed struct {
	far
	read atomic.Int64 // bytes
}

func (w *weighed) Get(ctx context.Context, key backend.Key, off, n int64) (io.ReadCloser, error) {
	body, err := w.far.Get(ctx, key, off, n)
	if err != nil || !strings.HasPrefix(string(key), "packs/") {
		return body, err
	}
	count := io.TeeReader(body, writerFunc(func(p []byte) (int, error) { w.read.Add(int64(len(p))); return len(p), nil }))
	return backend.NewBody(ctx, count, backend.BodySize(body), body), nil
}

// TestFarMemory: where the target is slower than the store, what was read and is
// not written yet is about a MiB for each request at once and each worker, however
// long the packs are and however many wait to be read: so the formula of
// Options.Workers has it.
func TestFarMemory(t *testing.T) {
	const workers, packs = 2, 40
	dir := write(t, map[string][]byte{"file": random(5, packs<<20)})
	synctest.Test(t, func(t *testing.T) {
		w := &weighed{far: far{asked: asked{Backend: mem.New()}}}
		r := open(t, w, engine.Tuned(engine.Options{Workers: workers}, engine.Limits{Pack: 2 << 20}))
		id := backUp(t, r, renamed(dir), engine.BackupOptions{}).Snapshot.ID
		_ = r.Close() // its buffers are no part of this
		r = open(t, w, engine.Options{Workers: workers})
		heap() // or what lies in pools would count as being there before
		before, read := heap(), w.read.Load()
		s := &stuck{gate: make(chan struct{})}
		done := make(chan error)
		go func() {
			_, err := r.Restore(t.Context(), id, s, engine.RestoreOptions{})
			done <- err
		}()
		synctest.Wait() // nobody can go on
		const most = (16 + workers) * (1<<20 + 128<<10)
		got, grown := w.read.Load()-read, int64(heap())-int64(before) //nolint:gosec // sizes of a heap
		t.Logf("%d bytes read, %d of memory", got, grown)
		if got > most || got < 16<<19 {
			t.Errorf("%d bytes were read and not written, want at most %d, and half a MiB for each request", got, most)
		}
		// Beside it each worker has a block, decrypted and decompressed.
		if grown > most+workers*(4<<20) {
			t.Errorf("the heap grew by %d bytes", grown)
		}
		close(s.gate)
		if err := <-done; err != nil || s.written.Load() != packs<<20 {
			t.Errorf("Restore = %v, %d bytes written", err, s.written.Load())
		}
		_ = r.Close()
	})
}

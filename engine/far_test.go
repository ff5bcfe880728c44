package engine_test

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/backend/mem"
	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/engine/source"
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

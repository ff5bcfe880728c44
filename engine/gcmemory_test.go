package engine

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/cairn-backup/cairn/backend/local"
	"github.com/cairn-backup/cairn/chunk/seal"
	"github.com/cairn-backup/cairn/engine/internal/generated"
	"github.com/cairn-backup/cairn/engine/internal/log"
	"github.com/cairn-backup/cairn/engine/internal/store"
	"github.com/cairn-backup/cairn/manifest"
)

// generate records packs full of chunks, and a snapshot of one file that uses
// the chunks of every second pack, and of every fourth the first half.
func generate(t *testing.T, r *Repository, packs uint64) {
	t.Helper()
	ctx := t.Context()
	if err := generated.Fill(ctx, r.log, r.store, packs); err != nil {
		t.Fatal(err)
	}
	session, err := r.store.Begin(ctx, store.SessionOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer session.Abort(ctx)
	session.Need(log.Ranges{{First: 1, Last: packs}})
	list := manifest.NewContentWriter(session)
	for n := range packs {
		for c := range uint64(generated.Chunks) {
			if n%2 == 0 || n%4 == 1 && c < generated.Chunks/2 {
				if err := list.Add(ctx, manifest.Extent{Kind: manifest.Data, Length: generated.Length, ID: generated.ID(n*generated.Chunks + c)}); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	publishFile(t, r, session, list)
}

// publishFile commits a snapshot of one file with that content.
func publishFile(t *testing.T, r *Repository, session *store.Session, list *manifest.ContentWriter) {
	t.Helper()
	ctx := t.Context()
	content, err := list.Finish(ctx)
	if err != nil {
		t.Fatal(err)
	}
	dir := manifest.NewDirWriter(session)
	if err := dir.Add(ctx, manifest.Node{Name: "file", Kind: manifest.File, Mode: 0o644, Size: content.Size, Content: content}); err != nil {
		t.Fatal(err)
	}
	tree, err := dir.Finish(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := session.Drain(ctx); err != nil {
		t.Fatal(err)
	}
	snap := manifest.Snapshot{Summary: manifest.Summary{ID: manifest.NewID(), Start: manifest.TimeOf(time.Now()), Kind: manifest.KindFiles, Host: "h", Complete: true}, Tree: tree}
	body, err := manifest.EncodeBody(snap)
	if err != nil {
		t.Fatal(err)
	}
	_, sealed, err := seal.Object(r.keys.Data(0), seal.Template{Kind: seal.KindManifest}, seal.Binding{Repository: r.id}, body)
	if err != nil {
		t.Fatal(err)
	}
	_, err = session.Commit(ctx, nil, func(log.Ranges, store.Written) (log.Snapshot, error) {
		return log.Snapshot{Summary: snap.Summary, Body: sealed}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestGCMemory: a collection among many chunks takes a few bytes for each. The
// chunks are generated: their packs are in no store, and a plan needs none. It
// runs beside no other test, whose memory it would count.
func TestGCMemory(t *testing.T) {
	packs, most := uint64(250), uint64(64<<20)
	if os.Getenv("CAIRN_PROVE") != "" {
		packs, most = 25_000, 400<<20 // 10 million chunks
	}
	dir := t.TempDir()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	opts := Options{CacheDir: filepath.Join(dir, "cache"), Workers: 2}
	opts.tuning.valid = true
	b := local.New(filepath.Join(dir, "repo"))
	r, err := OpenOrInit(t.Context(), b, Identity(id), opts)
	if err != nil {
		t.Fatal(err)
	}
	generate(t, r, packs)
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if r, err = Open(t.Context(), b, Identity(id), opts); err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer debug.SetGCPercent(debug.SetGCPercent(50)) // as the command line does
	debug.FreeOSMemory()
	before := heap()
	ctx, stop := context.WithCancel(t.Context())
	peak := watchHeap(ctx)
	begin := time.Now()
	plan, err := r.PlanGC(t.Context(), GCOptions{SpareAge: -1, Walk: Always, MaxRepack: 1 << 62})
	if err != nil {
		t.Fatal(err)
	}
	elapsed := time.Since(begin)
	runtime.GC()
	after := heap()
	stop()
	most2 := <-peak
	t.Logf("%d chunks: %d MiB at most, %d MiB before and %d with the plan at hand, in %v", packs*generated.Chunks, most2>>20, before>>20, after>>20, elapsed)
	if grown := int64(most2) - int64(before); grown > int64(most) { //nolint:gosec // sizes of a heap
		t.Errorf("the heap grows by %d bytes at most, want %d", grown, most)
	}
	// One in 10,000 wrong answers of the filter may keep a block of a dead pack.
	if dead := plan.Dead.Objects + plan.Repacked.Objects - packs/4; dead < packs/4 || dead > packs/4+1 {
		t.Errorf("%d packs are dead and %d partly dead, want %d of each", plan.Dead.Objects, plan.Repacked.Objects, packs/4)
	}
	runtime.KeepAlive(plan)
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}

// watchHeap sends the largest heap that it saw once ctx ends.
func watchHeap(ctx context.Context) <-chan uint64 {
	out := make(chan uint64, 1)
	go func() {
		var most uint64
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			most = max(most, heap())
			select {
			case <-ctx.Done():
				out <- most
				return
			case <-tick.C:
			}
		}
	}()
	return out
}

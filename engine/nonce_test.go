package engine_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"sync"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/backend/mem"
	"github.com/cairn-backup/cairn/chunk/seal"
	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/engine/internal/layout"
	"github.com/cairn-backup/cairn/engine/internal/log"
	"github.com/cairn-backup/cairn/engine/source"
	"github.com/cairn-backup/cairn/manifest"
)

// sealed collects the salts of all that was ever sealed for a store, also of
// what never became an object.
type sealed struct {
	backend.Backend
	t *testing.T

	mu    sync.Mutex // guards what follows
	salts map[[32]byte][32]byte
	kinds map[seal.Kind]int
}

func (s *sealed) Put(ctx context.Context, key backend.Key, data []byte) error {
	s.note(string(key), data)
	return s.Backend.Put(ctx, key, data)
}

// note remembers a sealed object by its salt. The same bytes may be sent twice.
func (s *sealed) note(what string, object []byte) {
	h, _, err := seal.ParseHeader(object)
	if err != nil {
		s.t.Errorf("%s: %v", what, err)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	sum := sha256.Sum256(object)
	if old, ok := s.salts[h.Salt]; ok && old != sum {
		s.t.Errorf("%s: a salt was used for two objects", what)
	}
	if _, ok := s.salts[h.Salt]; !ok {
		s.kinds[h.Kind]++
	}
	s.salts[h.Salt] = sum
	if bytes.Equal(h.Salt[:], make([]byte, 32)) {
		s.t.Errorf("%s: the salt is zero", what)
	}
}

// TestSalts: over everything that several racing writers send to a store, no
// salt repeats, so that no key ever seals two objects (V10).
func TestSalts(t *testing.T) {
	t.Parallel()
	b := &sealed{Backend: mem.New(), t: t, salts: make(map[[32]byte][32]byte), kinds: make(map[seal.Kind]int)}
	open(t, b, engine.Options{}).Close()
	var g errgroup.Group
	for i := range 4 {
		r := open(t, b, engine.Tuned(engine.Options{Workers: 2}, small))
		dir := write(t, someFiles())
		update(t, dir, map[string][]byte{"own": random(uint64(i), 100_000)})
		g.Go(func() error {
			report, err := r.Backup(t.Context(), source.Dir(dir), engine.BackupOptions{})
			if err != nil {
				return err
			}
			for j := range 80 {
				if err := r.Annotate(t.Context(), report.Snapshot.ID, manifest.Annotation{Add: []string{fmt.Sprint(j % 2)}}); err != nil {
					return err
				}
			}
			_, err = r.AddKey(t.Context(), secret, "more")
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	r := open(t, b, engine.Options{})
	_ = r.Log().View(func(st *log.State) error {
		for s := range st.Snapshots() {
			b.note("manifest", s.Body)
		}
		for s := range st.Sessions() {
			b.note("partial tree", s.Partial)
		}
		return nil
	})
	records := 0
	for key := range objects(t, b) {
		if _, err := layout.ParseRecord(key); err == nil {
			records++
		}
	}
	t.Logf("sealed, by kind: %v; %d records were stored", b.kinds, records)
	for _, kind := range []seal.Kind{
		seal.KindConfig, seal.KindSlot, seal.KindDataPack, seal.KindMetaPack, seal.KindSegment, seal.KindRecord, seal.KindCheckpoint, seal.KindManifest,
	} {
		if b.kinds[kind] == 0 {
			t.Errorf("nothing of kind %d was sealed", kind)
		}
	}
	if b.kinds[seal.KindRecord] <= records {
		t.Error("no two writers raced for a record")
	}
}

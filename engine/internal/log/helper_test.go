package log

import (
	"crypto/rand"
	"testing"
	"time"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/backend/mem"
	"github.com/cairn-backup/cairn/chunk/pack"
	"github.com/cairn-backup/cairn/chunk/seal"
	"github.com/cairn-backup/cairn/engine/internal/layout"
	"github.com/cairn-backup/cairn/manifest"
)

// A rig is a repository without anything but a log.
type rig struct {
	mem  *mem.Backend
	opts Options
	last *Position // of the records that were forged
}

func newRig() *rig {
	r := &rig{mem: mem.New()}
	admin, keeper, writer := NewSigner([32]byte{1}, allRoles), NewSigner([32]byte{2}, Keeper), NewSigner([32]byte{3}, Writer)
	r.opts = Options{
		Backend: r.mem, Repository: [16]byte{9}, Meta: seal.Key{7}, Genesis: HashOf([]byte("config")), Signer: admin,
		Keys: Keys{Admin: admin.Public(), Keeper: keeper.Public(), Writer: writer.Public()}, Writer: "test",
		Settle: 200 * time.Millisecond,
	}
	return r
}

// copy returns a rig with a store of its own that holds the same.
func (r *rig) copy(t *testing.T) *rig {
	t.Helper()
	c := &rig{mem: mem.New(), opts: r.opts}
	c.opts.Backend = c.mem
	for _, key := range objects(t, r, "") {
		if err := c.mem.Put(t.Context(), key, read(t, r, key)); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func (r *rig) open(t *testing.T, change ...func(*Options)) *Log {
	t.Helper()
	l := r.openAny(t, change...)
	if err := l.Problem(); err != nil {
		t.Fatalf("Problem: %v", err)
	}
	return l
}

// openAny also opens a log with a problem.
func (r *rig) openAny(t *testing.T, change ...func(*Options)) *Log {
	t.Helper()
	opts := r.opts
	for _, f := range change {
		f(&opts)
	}
	l, err := Open(t.Context(), opts)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	return l
}

func (r *rig) on(b backend.Backend) func(*Options) { return func(o *Options) { o.Backend = b } }

// objects returns the keys in the store.
func objects(t *testing.T, r *rig, prefix backend.Key) []backend.Key {
	t.Helper()
	var keys []backend.Key
	for info, err := range r.mem.List(t.Context(), prefix) {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, info.Key)
	}
	return keys
}

func remove(t *testing.T, r *rig, records ...uint64) {
	t.Helper()
	for _, n := range records {
		if err := r.mem.Delete(t.Context(), layout.Record(n)); err != nil {
			t.Fatal(err)
		}
	}
}

func read(t *testing.T, r *rig, key backend.Key) []byte {
	t.Helper()
	data, err := backend.ReadAll(t.Context(), r.mem, key, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// overwrite puts data in the place of an object, as no backend would.
func overwrite(t *testing.T, r *rig, key backend.Key, data []byte) {
	t.Helper()
	if err := r.mem.Delete(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	if err := r.mem.Put(t.Context(), key, data); err != nil {
		t.Fatal(err)
	}
}

func in(dir string) func(*Options) { return func(o *Options) { o.Dir = dir } }

func fixed(effects ...Effect) func(*State) ([]Effect, error) {
	return func(*State) ([]Effect, error) { return effects, nil }
}

func mustAppend(t *testing.T, l *Log, effects ...Effect) Position {
	t.Helper()
	pos, err := l.Append(t.Context(), fixed(effects...))
	if err != nil {
		t.Fatalf("Append: %v", err)
	}
	return pos
}

func newPack() PackInfo {
	p := PackInfo{Kind: seal.KindDataPack, Size: 1000, Chunks: 3}
	_, _ = rand.Read(p.Salt[:])
	p.ID = pack.ID(p.Salt[:16])
	return p
}

func newSnapshot(needs ...uint64) Snapshot {
	return Snapshot{
		Summary: manifest.Summary{ID: manifest.NewID(), Kind: manifest.KindFiles, Name: "data", Host: "host", Tags: []string{"a"}},
		Needs:   RangesOf(needs), Body: []byte("sealed"),
	}
}

// backUp commits a snapshot with n packs of its own and returns its ID and
// their numbers.
func backUp(t *testing.T, l *Log, n int) (manifest.ID, Ranges) {
	t.Helper()
	var id manifest.ID
	var needs Ranges
	_, err := l.Append(t.Context(), func(s *State) ([]Effect, error) {
		var a Add
		var numbers []uint64
		for i := range n {
			a.Packs = append(a.Packs, newPack())
			numbers = append(numbers, s.NextPack()+uint64(i))
		}
		snap := newSnapshot(numbers...)
		id, needs = snap.Summary.ID, snap.Needs
		return []Effect{a, snap}, nil
	})
	if err != nil {
		t.Fatalf("Append: %v", err)
	}
	return id, needs
}

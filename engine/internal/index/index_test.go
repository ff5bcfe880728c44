package index

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/dgraph-io/badger/v4"
	"github.com/zeebo/blake3"

	"github.com/cairn-backup/cairn/chunk"
)

// id returns the nth of a row of random IDs.
func id(n int) chunk.ID {
	return blake3.Sum256(binary.BigEndian.AppendUint64(nil, uint64(n)))
}

// place returns the one right place of id(n).
func place(n int) Place {
	h := id(-n - 1)
	u := func(i int) uint32 { return binary.BigEndian.Uint32(h[i:]) }
	return Place{
		Pack:    uint64(u(0))<<8 | uint64(h[31]),
		Offset:  u(4),
		Stored:  u(8),
		Block:   u(12),
		Start:   u(16),
		Length:  u(20),
		Foreign: h[24]&1 != 0,
	}
}

// entries returns the entries from up to below to.
func entries(from, to int) []Entry {
	es := make([]Entry, 0, to-from)
	for n := from; n < to; n++ {
		es = append(es, Entry{ID: id(n), Place: place(n)})
	}
	return es
}

func segment(n int) SegmentID {
	h := id(n)
	return SegmentID(h[:16])
}

// mustOpen opens an index. If opts does not say otherwise its front is so small
// that everything is in the database, which most of these tests are about.
func mustOpen(t testing.TB, opts Options) *Index {
	t.Helper()
	if opts.limits == nil {
		opts.limits = new(frontLimits)
	}
	x, err := Open(opts)
	if err != nil {
		t.Fatalf("Open(%+v) = %v", opts, err)
	}
	t.Cleanup(func() { _ = x.Close() })
	return x
}

// diskOf returns the open database of x.
func diskOf(t testing.TB, x *Index) *disk {
	t.Helper()
	f, ok := x.store.(*front)
	if !ok {
		t.Fatal("not on disk")
	}
	f.mu.RLock()
	defer f.mu.RUnlock()
	d, err := f.database()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func mustClose(t testing.TB, x *Index) {
	t.Helper()
	if err := x.Close(); err != nil {
		t.Fatalf("Close() = %v", err)
	}
}

func mustInsert(t testing.TB, x *Index, es []Entry) {
	t.Helper()
	if err := x.Insert(es); err != nil {
		t.Fatalf("Insert(%d entries) = %v", len(es), err)
	}
}

// checkAll fails the test unless exactly the entries from up to below to are
// there.
func checkAll(t testing.TB, x *Index, from, to int) {
	t.Helper()
	for n := from - 10; n < to+10; n++ {
		p, ok, err := x.Lookup(id(n))
		if want := n >= from && n < to; err != nil || ok != want || ok && p != place(n) {
			t.Fatalf("Lookup(%d) = %+v, %v, %v, want %+v, %v", n, p, ok, err, place(n), want)
		}
	}
}

// both runs f in memory and on disk.
func both(t *testing.T, f func(t *testing.T, x *Index)) {
	t.Run("memory", func(t *testing.T) { f(t, mustOpen(t, Options{})) })
	t.Run("database", func(t *testing.T) { f(t, mustOpen(t, Options{Dir: t.TempDir()})) })
	t.Run("front and database", func(t *testing.T) {
		f(t, mustOpen(t, Options{Dir: t.TempDir(), limits: &frontLimits{whole: 50, cache: 20}}))
	})
	t.Run("front", func(t *testing.T) {
		f(t, mustOpen(t, Options{Dir: t.TempDir(), limits: &frontLimits{whole: frontWhole, cache: frontCache}}))
	})
}

func TestInsertAndLookup(t *testing.T) {
	both(t, func(t *testing.T, x *Index) {
		mustInsert(t, x, nil)
		mustInsert(t, x, entries(0, 2500))
		checkAll(t, x, 0, 2500)
		if n, err := x.Count(); n != 2500 || err != nil {
			t.Errorf("Count() = %d, %v, want 2500", n, err)
		}
		if x.Rebuilt() || x.Damaged() {
			t.Errorf("Rebuilt() = %v, Damaged() = %v, want false", x.Rebuilt(), x.Damaged())
		}
	})
}

func TestInsertLastWins(t *testing.T) {
	both(t, func(t *testing.T, x *Index) {
		mustInsert(t, x, []Entry{{id(1), place(7)}, {id(1), place(8)}})
		if p, ok, err := x.Lookup(id(1)); p != place(8) || !ok || err != nil {
			t.Errorf("Lookup = %+v, %v, %v, want the second place of one call", p, ok, err)
		}
		mustInsert(t, x, []Entry{{id(1), place(9)}})
		if p, ok, err := x.Lookup(id(1)); p != place(9) || !ok || err != nil {
			t.Errorf("Lookup = %+v, %v, %v, want the place of the second call", p, ok, err)
		}
	})
}

func TestInsertPackOutOfRange(t *testing.T) {
	both(t, func(t *testing.T, x *Index) {
		top := Place{Pack: 1<<40 - 1}
		mustInsert(t, x, []Entry{{id(1), top}})
		if p, ok, err := x.Lookup(id(1)); p != top || !ok || err != nil {
			t.Errorf("Lookup = %+v, %v, %v, want %+v", p, ok, err, top)
		}
		if err := x.Insert([]Entry{{id(1), Place{Pack: 1 << 40}}}); err == nil {
			t.Error("Insert(pack 1<<40) = nil, want an error")
		}
	})
}

func TestSegmentsAndTag(t *testing.T) {
	both(t, func(t *testing.T, x *Index) {
		if tag, ok := x.Tag(); ok {
			t.Errorf("Tag() = %v, true in an empty index", tag)
		}
		for n := range 3 {
			if err := x.MarkLoaded(segment(n)); err != nil {
				t.Fatalf("MarkLoaded = %v", err)
			}
			if err := x.SetTag(Tag{N: uint64(n), Hash: id(n)}); err != nil {
				t.Fatalf("SetTag = %v", err)
			}
		}
		segments, err := x.Loaded()
		if len(segments) != 3 || !segments[segment(0)] || !segments[segment(2)] || err != nil {
			t.Errorf("Loaded() = %v, %v, want three", segments, err)
		}
		if tag, ok := x.Tag(); tag != (Tag{N: 2, Hash: id(2)}) || !ok {
			t.Errorf("Tag() = %v, %v, want the last", tag, ok)
		}
		if n, err := x.Count(); n != 0 || err != nil {
			t.Errorf("Count() = %d, %v, want 0", n, err)
		}
	})
}

func TestReset(t *testing.T) {
	both(t, func(t *testing.T, x *Index) {
		mustInsert(t, x, entries(0, 100))
		if err := errors.Join(x.MarkLoaded(segment(1)), x.SetTag(Tag{N: 1}), x.Reset()); err != nil {
			t.Fatal(err)
		}
		checkAll(t, x, 0, 0)
		_, tagged := x.Tag()
		if segments, err := x.Loaded(); len(segments) != 0 || err != nil || tagged {
			t.Errorf("Loaded() = %v, %v, tagged %v, want nothing after Reset", segments, err, tagged)
		}
		mustInsert(t, x, entries(5, 10))
		checkAll(t, x, 5, 10)
	})
}

func TestClosed(t *testing.T) {
	both(t, func(t *testing.T, x *Index) {
		mustClose(t, x)
		mustClose(t, x)
		if _, _, err := x.Lookup(id(1)); !errors.Is(err, ErrClosed) {
			t.Errorf("Lookup = %v, want ErrClosed", err)
		}
		if err := x.Reset(); !errors.Is(err, ErrClosed) {
			t.Errorf("Reset = %v, want ErrClosed", err)
		}
	})
}

func TestReopen(t *testing.T) {
	dir := t.TempDir()
	for round := range 6 { // more than the four tables at which level 0 is merged
		x := mustOpen(t, Options{Dir: dir})
		checkAll(t, x, 0, round*300)
		if x.Rebuilt() {
			t.Fatalf("round %d: Rebuilt() = true", round)
		}
		mustInsert(t, x, entries(round*300, round*300+300))
		mustClose(t, x)
		if _, err := os.Stat(filepath.Join(onlyGen(t, dir), cleanName)); err != nil {
			t.Fatal(err)
		}
	}
}

// onlyGen returns the only database directory in dir.
func onlyGen(t testing.TB, dir string) string {
	t.Helper()
	gens, err := filepath.Glob(filepath.Join(dir, genPrefix+"*"))
	if err != nil || len(gens) != 1 {
		t.Fatalf("databases = %v, %v, want one", gens, err)
	}
	return gens[0]
}

func TestOpenOtherRepository(t *testing.T) {
	dir := t.TempDir()
	x := mustOpen(t, Options{Dir: dir})
	mustInsert(t, x, entries(0, 10))
	mustClose(t, x)
	y := mustOpen(t, Options{Dir: dir, Repository: [16]byte{1}})
	if !y.Rebuilt() {
		t.Error("Rebuilt() = false for the index of another repository")
	}
	checkAll(t, y, 0, 0)
}

func TestOpenLocked(t *testing.T) {
	dir := t.TempDir()
	x := mustOpen(t, Options{Dir: dir})
	if _, err := Open(Options{Dir: dir}); !errors.Is(err, ErrLocked) {
		t.Fatalf("Open of an open index = %v, want ErrLocked", err)
	}
	if err := x.Reset(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Options{Dir: dir}); !errors.Is(err, ErrLocked) {
		t.Fatalf("Open after Reset = %v, want ErrLocked", err)
	}
	mustClose(t, x)
	mustClose(t, mustOpen(t, Options{Dir: dir}))
}

func TestReadOnlyWritesNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "sub")
	x := mustOpen(t, Options{Dir: dir, ReadOnly: true})
	mustInsert(t, x, entries(0, 10))
	checkAll(t, x, 0, 10)
	mustClose(t, x)
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Stat(%s) = %v, want not exist", dir, err)
	}
}

func TestNoSpace(t *testing.T) {
	x := mustOpen(t, Options{Dir: t.TempDir()})
	mustInsert(t, x, entries(-1, 0))
	d := diskOf(t, x)
	free := uint64(minFree)
	d.free = func(string) (uint64, error) {
		free -= 1 << 10 // goes down with every batch
		return free + 3<<10, nil
	}
	if err := x.Insert(entries(0, 10*batchSize)); !errors.Is(err, ErrNoSpace) || errors.Is(err, ErrDamaged) {
		t.Errorf("Insert = %v, want ErrNoSpace", err)
	}
	if n, err := x.Count(); n != 1+3*batchSize || err != nil {
		t.Errorf("Count() = %d, %v, want the batches that had room", n, err)
	}
	if err := x.SetTag(Tag{N: 1}); !errors.Is(err, ErrNoSpace) {
		t.Errorf("SetTag = %v, want ErrNoSpace", err)
	}
}

func TestOpenUnwritable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{path, filepath.Join(path, "sub")} {
		if x, err := Open(Options{Dir: dir}); err == nil || x != nil {
			t.Errorf("Open(%s) = %v, %v, want an error", dir, x, err)
		}
	}
}

// A panic in Badger, and a database that cannot be opened again, are damage
// that Reset mends.
func TestPanicIsDamage(t *testing.T) {
	dir := t.TempDir()
	x := mustOpen(t, Options{Dir: dir})
	mustInsert(t, x, entries(0, 10))
	diskOf(t, x).db = new(badger.DB) // its methods panic
	if _, _, err := x.Lookup(id(1)); !errors.Is(err, ErrDamaged) {
		t.Errorf("Lookup = %v, want ErrDamaged", err)
	}
	if err := x.Insert(entries(0, 1)); !errors.Is(err, ErrDamaged) {
		t.Errorf("Insert = %v, want ErrDamaged", err)
	}
	if err := x.SetTag(Tag{N: 1}); !errors.Is(err, ErrDamaged) {
		t.Errorf("SetTag = %v, want ErrDamaged", err)
	}
	if err := x.Reset(); err != nil {
		t.Fatalf("Reset = %v", err)
	}
	mustInsert(t, x, entries(20, 30))
	checkAll(t, x, 20, 30)
	mustClose(t, x)
	checkAll(t, mustOpen(t, Options{Dir: dir}), 20, 30)
}

// The directory may go while the index is open.
func TestDeletedWhileOpen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "index")
	x := mustOpen(t, Options{Dir: dir})
	mustInsert(t, x, entries(0, 10))
	if err := os.RemoveAll(dir); err != nil {
		t.Skip(err) // Windows keeps open files
	}
	checkAll(t, x, 0, 10)
	if err := x.Reset(); err != nil {
		t.Fatalf("Reset = %v", err)
	}
	mustInsert(t, x, entries(20, 30))
	checkAll(t, x, 20, 30)
	mustClose(t, x)
	checkAll(t, mustOpen(t, Options{Dir: dir}), 20, 30)
}

func TestConcurrentUse(t *testing.T) {
	both(t, func(t *testing.T, x *Index) {
		var wg sync.WaitGroup
		for w := range 6 {
			wg.Go(func() {
				for n := range 30 {
					from := (w*30 + n) * 20
					es := entries(from, from+20)
					if w == 0 && n%10 == 9 {
						if err := x.Reset(); err != nil {
							t.Errorf("Reset = %v", err)
						}
					}
					if err := errors.Join(x.Insert(es), x.MarkLoaded(segment(n)), x.SetTag(Tag{N: uint64(n)})); err != nil {
						t.Errorf("writing: %v", err)
					}
					places, found, err := lookupAll(x, es)
					if err != nil {
						t.Errorf("LookupMany = %v", err)
					}
					for i := range es {
						if found[i] && places[i] != es[i].Place {
							t.Errorf("Lookup(%d) = %+v, want %+v", from+i, places[i], es[i].Place)
						}
					}
					if _, err := x.Loaded(); err != nil {
						t.Errorf("Loaded = %v", err)
					}
					x.Tag()
				}
			})
		}
		wg.Wait()
		if x.Damaged() {
			t.Error("Damaged() = true")
		}
	})
}

// scale returns the first of its arguments with -short, the third when
// everything is to be proven at full length, as .ci/prove does, else the second.
func scale(short, normal, full int) int {
	switch {
	case os.Getenv("CAIRN_PROVE") != "":
		return full
	case testing.Short():
		return short
	}
	return normal
}

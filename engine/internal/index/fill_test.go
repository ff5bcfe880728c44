package index

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// fillable is an index for which a few entries are many.
func fillable(t testing.TB, whole int) (*Index, Options) {
	t.Helper()
	opts := Options{Dir: t.TempDir(), limits: &frontLimits{whole: whole, cache: 10}}
	return mustOpen(t, opts), opts
}

func fillWith(t testing.TB, l *Filler, packs ...[]Entry) {
	t.Helper()
	for _, es := range packs {
		if err := l.InsertPack(es); err != nil {
			t.Fatal(err)
		}
	}
}

// has checks that x has exactly these entries.
func has(t testing.TB, x *Index, es []Entry) {
	t.Helper()
	for _, e := range es {
		if p, ok, err := x.Lookup(e.ID); !ok || err != nil || p != e.Place {
			t.Fatalf("Lookup = %+v, %v, %v, want %+v", p, ok, err, e.Place)
		}
	}
	if n, err := x.Count(); err != nil || n != int64(len(es)) {
		t.Fatalf("Count = %d, %v, want %d", n, err, len(es))
	}
	if x.Damaged() {
		t.Error("Damaged() = true")
	}
}

func noFills(t testing.TB, dir string) {
	t.Helper()
	if found, _ := filepath.Glob(filepath.Join(dir, fillPrefix+"*")); len(found) > 0 {
		t.Errorf("%v is left", found)
	}
}

// TestFill: what a Filler was given is there after Finish, with lists, and stays
// when the index is opened again, also after a kill; and more goes in behind it.
func TestFill(t *testing.T) {
	t.Parallel()
	x, opts := fillable(t, 100)
	l := x.Filler(1000)
	if l == nil {
		t.Fatal("no Filler for an empty index")
	}
	var all []Entry
	for n := range 60 {
		es := packOf((n*37)%60, 150, mib/10)
		fillWith(t, l, es)
		all = append(all, es...)
	}
	if _, ok, err := x.Lookup(all[0].ID); ok || err != nil {
		t.Errorf("before Finish: Lookup = %v, %v", ok, err)
	}
	if err := l.Finish(t.Context(), []SegmentID{segment(1)}); err != nil {
		t.Fatal(err)
	}
	noFills(t, opts.Dir)
	has(t, x, all)
	forget(t, x)
	if n := askAll(t, x, all[:150]); n != 4 {
		t.Errorf("%d lookups for the two stretches of a pack, want 4", n)
	}
	if again := x.Filler(1000); again != nil {
		t.Error("a Filler for an index that is not empty")
	}
	more := packOf(100, 50, mib)
	mustInsertPack(t, x, more)
	all = append(all, more...)
	for range 2 {
		mustClose(t, x)
		x = mustOpen(t, opts)
		has(t, x, all)
		if segments, err := x.Loaded(); err != nil || !segments[segment(1)] || len(segments) != 1 {
			t.Errorf("Loaded = %v, %v", segments, err)
		}
	}
	// As a kill leaves it: no front, and not closed.
	diskOf(t, x)
	mustClose(t, x)
	for _, name := range []string{frontName, filepath.Join(filepath.Base(onlyGen(t, opts.Dir)), cleanName)} {
		if err := os.Remove(filepath.Join(opts.Dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	x = mustOpen(t, opts)
	if x.Rebuilt() {
		t.Error("Rebuilt() = true")
	}
	has(t, x, all)
}

// TestFillLastWins: of a chunk that is in several packs the last place counts, as
// with Insert.
func TestFillLastWins(t *testing.T) {
	t.Parallel()
	x, _ := fillable(t, 100)
	l := x.Filler(1000)
	var last []Entry
	for n := range 9 {
		es := packOf(0, 100, mib/10)
		for i := range es {
			es[i].Place.Pack, es[i].Place.Check = uint64(8-n), checkOf(8-n)
		}
		fillWith(t, l, es)
		last = es
	}
	if err := l.Finish(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	has(t, x, last)
}

// TestFillBesideInsert: what others inserted while a Filler was filled stays, and
// is newer; if they needed a database, nothing is filled.
func TestFillBesideInsert(t *testing.T) {
	t.Parallel()
	for name, n := range map[string]int{"without a database": 50, "with one": 500} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x, opts := fillable(t, 100)
			l := x.Filler(1000)
			fillWith(t, l, packOf(1, 300, mib/10), packOf(2, 300, mib/10))
			want := packOf(3, n, mib/100)
			mustInsertPack(t, x, want)
			filled := n < 100
			for i, e := range packOf(1, 300, mib/10) {
				newer := i < 20
				if newer {
					e.Place.Pack, e.Place.Check = 4, checkOf(4)
					mustInsert(t, x, []Entry{e})
				}
				if newer || filled {
					want = append(want, e)
				}
			}
			if filled {
				want = append(want, packOf(2, 300, mib/10)...)
			}
			if err := l.Finish(t.Context(), nil); filled != (err == nil) || !filled && !errors.Is(err, ErrNotFilled) {
				t.Fatalf("Finish = %v", err)
			}
			noFills(t, opts.Dir)
			has(t, x, want)
			mustClose(t, x)
			x = mustOpen(t, opts)
			has(t, x, want)
		})
	}
}

// TestFillDropped: of a Filler that does not come to its end nothing is left.
func TestFillDropped(t *testing.T) {
	t.Parallel()
	cancelled, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("enough"))
	for name, end := range map[string]func(x *Index, l *Filler) error{
		"drop":   func(_ *Index, l *Filler) error { l.Drop(); return nil },
		"cancel": func(_ *Index, l *Filler) error { return l.Finish(cancelled, []SegmentID{segment(1)}) },
		"pack out of range": func(_ *Index, l *Filler) error {
			defer l.Drop()
			return l.InsertPack([]Entry{{ID: id(1), Place: Place{Pack: maxPack}}})
		},
		"file cut": func(_ *Index, l *Filler) error {
			_ = l.file.Truncate(0)
			return l.Finish(context.Background(), nil)
		},
		"file changed": func(_ *Index, l *Filler) error {
			b := make([]byte, 3*fillBlock)
			if _, err := l.file.ReadAt(b, fillBlock); err != nil {
				return err
			}
			for i := range b {
				b[i] ^= 0x55
			}
			_, _ = l.file.WriteAt(b, fillBlock)
			return l.Finish(context.Background(), nil)
		},
		"one byte of the lists changed": func(_ *Index, l *Filler) error {
			_, _ = l.file.WriteAt([]byte("x"), l.parts[fillParts].blocks[0].off)
			return l.Finish(context.Background(), nil)
		},
		"file closed": func(_ *Index, l *Filler) error {
			_ = l.file.Close()
			return l.Finish(context.Background(), nil)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x, opts := fillable(t, 100)
			l := x.Filler(1000)
			for n := range 40 {
				fillWith(t, l, packOf(n, 2000, 4000))
			}
			if err := end(x, l); (err == nil) != (name == "drop") || strings.HasPrefix(name, "file") && !errors.Is(err, ErrNotFilled) {
				t.Errorf("err = %v", err)
			}
			noFills(t, opts.Dir)
			if x.Damaged() {
				t.Error("Damaged() = true")
			}
			if segments, err := x.Loaded(); len(segments) > 0 || err != nil {
				t.Errorf("Loaded = %v, %v", segments, err)
			}
			// It is as good as new.
			l = x.Filler(1000)
			if l == nil {
				t.Fatal("no Filler behind one that was dropped")
			}
			fillWith(t, l, packOf(1, 300, mib/10))
			if err := l.Finish(t.Context(), nil); err != nil {
				t.Fatal(err)
			}
			has(t, x, packOf(1, 300, mib/10))
		})
	}
}

// TestFillKilled: the file of a process that was killed goes with the next open.
func TestFillKilled(t *testing.T) {
	t.Parallel()
	x, opts := fillable(t, 100)
	l := x.Filler(1000)
	fillWith(t, l, packOf(1, 300, mib/10))
	_ = l.file.Close() // as the kernel does
	mustClose(t, x)
	if found, _ := filepath.Glob(filepath.Join(opts.Dir, fillPrefix+"*")); len(found) != 1 {
		t.Fatalf("files: %v", found)
	}
	mustOpen(t, opts)
	noFills(t, opts.Dir)
}

// TestFillWhileUsed: others look up, insert and close while Finish is at work.
func TestFillWhileUsed(t *testing.T) {
	t.Parallel()
	x, _ := fillable(t, 100)
	l := x.Filler(1000)
	for n := range 20 {
		fillWith(t, l, packOf(n, 500, mib/100))
	}
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 200 {
				if err := x.Insert(entries(500_000+g*1000+i, 500_001+g*1000+i)); err != nil {
					t.Error(err)
				}
				if _, _, err := x.Lookup(id(i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	if err := l.Finish(t.Context(), nil); err != nil {
		t.Error(err)
	}
	wg.Wait()
	for n := range 20 {
		for _, e := range packOf(n, 500, mib/100) {
			if p, ok, err := x.Lookup(e.ID); !ok || err != nil || p != e.Place {
				t.Fatalf("Lookup = %+v, %v, %v, want %+v", p, ok, err, e.Place)
			}
		}
	}
	if n, err := x.Count(); n != 20*500+800 || err != nil {
		t.Errorf("Count = %d, %v", n, err)
	}
}

// TestFillNothing: without any entry there is no database, but segments are loaded.
func TestFillNothing(t *testing.T) {
	t.Parallel()
	x, opts := fillable(t, 100)
	if err := x.Filler(1000).Finish(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if found, _ := filepath.Glob(filepath.Join(opts.Dir, genPrefix+"*")); len(found) > 0 {
		t.Errorf("databases: %v", found)
	}
	l := x.Filler(1000)
	if l == nil {
		t.Fatal("no Filler behind an empty one")
	}
	if err := l.Finish(t.Context(), []SegmentID{segment(1)}); err != nil { // all of its packs are gone
		t.Fatal(err)
	}
	for range 2 {
		if segments, err := x.Loaded(); len(segments) != 1 || !segments[segment(1)] || err != nil {
			t.Errorf("Loaded = %v, %v", segments, err)
		}
		mustClose(t, x)
		x = mustOpen(t, opts)
	}
}

// TestFillManyTables: what is cut into tables is all there.
func TestFillManyTables(t *testing.T) {
	t.Parallel()
	x, opts := fillable(t, 100)
	l := x.Filler(1000)
	packs := scale(40, 80, 1000)
	for n := range packs {
		fillWith(t, l, packOf(n, 2000, 4000))
	}
	if err := l.Finish(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	mustClose(t, x)
	tables, err := filepath.Glob(filepath.Join(opts.Dir, genPrefix+"*", "*.sst"))
	if min := packs * 2000 * 90 / (4 << 20); err != nil || len(tables) < min {
		t.Errorf("%d tables, %v; want %d at least", len(tables), err, min)
	}
	x = mustOpen(t, opts)
	for n := range packs {
		for i, e := range packOf(n, 2000, 4000) {
			if i%37 != n%37 {
				continue
			}
			if p, ok, err := x.Lookup(e.ID); !ok || err != nil || p != e.Place {
				t.Fatalf("Lookup = %+v, %v, %v, want %+v", p, ok, err, e.Place)
			}
		}
	}
	if n, err := x.Count(); n != int64(packs)*2000 || err != nil {
		t.Errorf("Count = %d, %v", n, err)
	}
}

// TestFillFails: a table that cannot be written, or a disk that gets full, is an
// error wherever it comes, and the process lives.
func TestFillFails(t *testing.T) {
	t.Parallel()
	for _, full := range []bool{false, true} {
		for _, at := range []int{1, 2, 4, 6} { // write to Badger: Prepare, then tables
			t.Run(fmt.Sprintf("full=%v at %d", full, at), func(t *testing.T) {
				t.Parallel()
				if !full && runtime.GOOS == "windows" {
					t.Skip("Windows does not remove what is open")
				}
				x, opts := fillable(t, 100)
				l := x.Filler(1000)
				for n := range 80 {
					fillWith(t, l, packOf(n, 2000, 4000))
				}
				f, ok := x.store.(*front)
				if !ok {
					t.Fatal("it is in memory")
				}
				tables := 0
				f.mu.Lock()
				err := f.spillInto(func(d *disk) error {
					calls := 0
					d.free = func(dir string) (uint64, error) {
						if calls++; calls < at {
							return freeSpace(dir)
						}
						if full {
							return 1, nil
						}
						found, _ := filepath.Glob(filepath.Join(d.path(d.gen), "*.sst"))
						tables = max(tables, len(found))
						_ = os.RemoveAll(d.path(d.gen))
						return freeSpace(dir)
					}
					return d.fill(t.Context(), l)
				})
				hung := f.hung
				f.mu.Unlock()
				l.Drop()
				if err == nil || hung || full != errors.Is(err, ErrNoSpace) {
					t.Fatalf("fill = %v, hung: %v", err, hung)
				}
				if !full && at > 3 && tables == 0 {
					t.Error("no table was written before")
				}
				noFills(t, opts.Dir)
				mustInsertPack(t, x, packOf(1, 300, mib/10))
				has(t, x, packOf(1, 300, mib/10))
			})
		}
	}
}

// BenchmarkFill is BenchmarkInsert by a Filler.
func BenchmarkFill(b *testing.B) {
	x, _ := fillable(b, 100)
	l := x.Filler(1)
	for n := 0; n*400 < b.N; n++ {
		fillWith(b, l, packOf(n, 400, 1000))
	}
	if err := l.Finish(context.Background(), nil); err != nil {
		b.Fatal(err)
	}
}

package index

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/dgraph-io/badger/v4"
)

// packOf returns the entries of generated pack n, of so many chunks of as many
// stored bytes, a block each.
func packOf(n, chunks int, stored uint32) []Entry {
	es := make([]Entry, chunks)
	for i := range es {
		es[i] = Entry{ID: id(n*10_000 + i), Place: Place{Pack: uint64(n), Check: checkOf(n), Offset: uint32(i) * stored, Stored: stored, Length: stored}}
	}
	return es
}

func checkOf(n int) uint32 { return uint32(n) * 0x9e3779b1 }

func mustInsertPack(t testing.TB, x *Index, es []Entry) {
	t.Helper()
	if err := x.InsertPack(es); err != nil {
		t.Fatalf("InsertPack(%d entries) = %v", len(es), err)
	}
}

// ask asks as a backup does, and reports whether Near had the answer.
func ask(t testing.TB, x *Index, e Entry) bool {
	t.Helper()
	if h, near := x.Near(e.ID); near {
		if h != (Holder{e.Place.Pack, e.Place.Check}) {
			t.Fatalf("Near = %+v, want that of %+v", h, e.Place)
		}
		return true
	}
	p, ok, err := x.Lookup(e.ID)
	if !ok || err != nil || p != e.Place {
		t.Fatalf("Lookup = %+v, %v, %v, want %+v", p, ok, err, e.Place)
	}
	x.Gather(p)
	return false
}

// askAll asks for entries in their order and returns for how many Near had no
// answer.
func askAll(t testing.TB, x *Index, es []Entry) (lookups int) {
	t.Helper()
	for _, e := range es {
		if !ask(t, x, e) {
			lookups++
		}
	}
	return lookups
}

// forget lets go of what is at hand.
func forget(t testing.TB, x *Index) {
	t.Helper()
	diskOf(t, x)
	x.store.(*front).near.clear()
}

const mib = 1 << 20

// TestNear: two lookups answer for all of a stretch of a pack, whether its entries
// came before there was a database or after, and in the next process.
func TestNear(t *testing.T) {
	t.Parallel()
	for name, limits := range map[string]frontLimits{"database": {}, "spilled": {whole: 150, cache: 1}, "half": {whole: 60}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			opts := Options{Dir: t.TempDir(), limits: &limits}
			x := mustOpen(t, opts)
			var packs [][]Entry
			for n := range 4 { // three stretches each, of 16, 16 and 8 chunks
				packs = append(packs, packOf(n+1, 40, mib/2))
				mustInsertPack(t, x, packs[n])
			}
			for round := range 2 {
				forget(t, x)
				for n, es := range packs {
					if got := askAll(t, x, es); got > 6 || n > 0 && limits.cache == 0 && got < 6 {
						t.Errorf("round %d: %d lookups for pack %d, want two for each of three stretches", round, got, n+1)
					}
					if got := askAll(t, x, es); got != 0 {
						t.Errorf("round %d: %d lookups for pack %d asked for again, want none", round, got, n+1)
					}
				}
				if _, near := x.Near(id(999_999)); near {
					t.Error("Near of an unknown chunk = true")
				}
				mustClose(t, x)
				x = mustOpen(t, opts)
			}
			if x.Damaged() {
				t.Error("Damaged() = true")
			}
		})
	}
}

// TestNearNeedsTwo: a chunk here and there fetches no list.
func TestNearNeedsTwo(t *testing.T) {
	t.Parallel()
	x := mustOpen(t, Options{Dir: t.TempDir()})
	for n := range 40 {
		mustInsertPack(t, x, packOf(n, 2, mib))
	}
	for i := range 2 {
		for n := range 40 {
			ask(t, x, packOf(n, 2, mib)[i])
		}
	}
	if n := len(x.store.(*front).near.lists); n != 0 {
		t.Errorf("%d lists are at hand, want none", n)
	}
}

// TestNearIsBounded: of many lists those used last are at hand, and of a very long
// one its begin.
func TestNearIsBounded(t *testing.T) {
	t.Parallel()
	x := mustOpen(t, Options{Dir: t.TempDir()})
	for n := range nearLists + 2 {
		mustInsertPack(t, x, packOf(n, 10, mib/2))
	}
	for n := range nearLists + 2 {
		if askAll(t, x, packOf(n, 10, mib/2)); n > 0 {
			ask(t, x, packOf(1, 10, mib/2)[9]) // used all the time
		}
	}
	near := &x.store.(*front).near
	if n := len(near.lists); n != nearLists {
		t.Errorf("%d lists are at hand, want %d", n, nearLists)
	}
	for n, want := range map[int]bool{0: false, 1: true, 2: false, 3: true, nearLists + 1: true} {
		if _, got := x.Near(packOf(n, 10, mib/2)[5].ID); got != want {
			t.Errorf("Near of pack %d = %v, want %v", n, got, want)
		}
	}

	const most = listPart * listParts
	long := packOf(100, most+500, 100)
	mustInsertPack(t, x, long)
	if got := askAll(t, x, long[:100]) + askAll(t, x, long); got < 500 || got > 520 {
		t.Errorf("%d lookups for a stretch of %d chunks, want 500 and a few", got, len(long))
	}
	for _, l := range near.lists {
		if len(l.folds) > most*foldSize {
			t.Errorf("a list of %d bytes", len(l.folds))
		}
	}
}

// TestDropLists: of a pack in which something could not be read Near says nothing
// any more, in the next process neither.
func TestDropLists(t *testing.T) {
	t.Parallel()
	opts := Options{Dir: t.TempDir()}
	x := mustOpen(t, opts)
	one, two := packOf(1, 40, mib/2), packOf(2, 40, mib/2)
	mustInsertPack(t, x, one)
	mustInsertPack(t, x, two)
	askAll(t, x, append(one, two...))
	if err := x.DropLists(1, 7); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if n := askAll(t, x, one); n != len(one) {
			t.Errorf("%d lookups for a dropped pack, want %d", n, len(one))
		}
		if n := askAll(t, x, two); n > 6 {
			t.Errorf("%d lookups for the other pack, want 6", n)
		}
		mustClose(t, x)
		x = mustOpen(t, opts)
	}
	askAll(t, x, two)
	if err := x.Reset(); err != nil {
		t.Fatal(err)
	}
	if _, near := x.Near(two[0].ID); near {
		t.Error("Near after Reset = true")
	}
}

// TestNearWrong: a list that is damaged, of another pack with that number, or of
// another repository is none.
func TestNearWrong(t *testing.T) {
	t.Parallel()
	es := packOf(1, 10, mib/2)
	key := neighbourhoodOf(es[0].Place).key(0)
	for name, change := range map[string]func(d *disk, value []byte) []byte{
		"a bit":      func(_ *disk, v []byte) []byte { v[listHead+3] ^= 4; return v },
		"the check":  func(_ *disk, v []byte) []byte { v[len(v)-1] ^= 4; return v },
		"cut":        func(_ *disk, v []byte) []byte { return v[:20] },
		"empty":      func(*disk, []byte) []byte { return nil },
		"repository": func(_ *disk, v []byte) []byte { return newSummer([16]byte{9}).appendCheck(nil, kindList, key[1:], v) },
		"other pack": func(d *disk, v []byte) []byte {
			v = v[:len(v)-checkSize]
			v[0] ^= 1
			return d.sums.appendCheck(v, kindList, key[1:], v)
		},
	} {
		t.Run(name, func(t *testing.T) {
			x := mustOpen(t, Options{Dir: t.TempDir()})
			mustInsertPack(t, x, es)
			if n := askAll(t, x, es); n != 2 {
				t.Fatalf("%d lookups, want 2", n)
			}
			forget(t, x)
			d := diskOf(t, x)
			value, err := d.get(key)
			if err != nil || value == nil {
				t.Fatal(value, err)
			}
			if err := d.put(key, change(d, value)); err != nil {
				t.Fatal(err)
			}
			if n := askAll(t, x, es); n != len(es) {
				t.Errorf("%d lookups, want %d: a wrong list was used", n, len(es))
			}
			if x.Damaged() != (name != "other pack") {
				t.Errorf("Damaged() = %v", x.Damaged())
			}
		})
	}
}

// TestListFitsTheLog: what a kill leaves of the write-ahead log counts as whole
// though there are lists in it, which are longer than all else.
func TestListFitsTheLog(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	x := mustOpen(t, Options{Dir: dir})
	es := packOf(1, 1000, 1000)
	mustInsertPack(t, x, es)
	err := diskOf(t, x).each(kindList, func(item *badger.Item) error {
		if n := item.ValueSize(); n > maxList {
			t.Errorf("a list of %d bytes", n)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	logs, err := filepath.Glob(filepath.Join(onlyGen(t, dir), "*.mem"))
	if err != nil || len(logs) != 1 {
		t.Fatal(logs, err)
	}
	b, err := os.ReadFile(logs[0])
	if err != nil {
		t.Fatal(err)
	}
	if _, end, err := checkLog(b, 0); err != nil || end != int64(len(b)) {
		t.Errorf("checkLog = %d, %v, want all %d bytes", end, err, len(b))
	}
}

// TestNearConcurrently: lists are used while others insert, drop and reset.
func TestNearConcurrently(t *testing.T) {
	t.Parallel()
	x := mustOpen(t, Options{Dir: t.TempDir()})
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for n := range 30 {
				es := packOf(w*30+n+1, 20, mib/4)
				if err := x.InsertPack(es); err != nil {
					t.Errorf("InsertPack = %v", err)
				}
				for _, e := range append(es, packOf(n+1, 20, mib/4)...) {
					if h, near := x.Near(e.ID); near && h.Pack != e.Place.Pack {
						t.Errorf("Near = pack %d, want %d", h.Pack, e.Place.Pack)
					}
					if p, found, err := x.Lookup(e.ID); err != nil {
						t.Errorf("Lookup = %v", err)
					} else if found {
						x.Gather(p)
					}
				}
				switch {
				case w == 0 && n%10 == 9:
					if err := x.Reset(); err != nil {
						t.Errorf("Reset = %v", err)
					}
				case w == 1 && n%5 == 4:
					if err := x.DropLists(uint64(n)); err != nil {
						t.Errorf("DropLists = %v", err)
					}
				}
			}
		})
	}
	wg.Wait()
	if x.Damaged() {
		t.Error("Damaged() = true")
	}
}

// BenchmarkNear asks for the chunks of packs one after the other, as a backup does
// that reads everything again, and as it would without lists.
func BenchmarkNear(b *testing.B) {
	const packs, chunks = 2500, 400 // a million
	dir := b.TempDir()
	x := mustOpen(b, Options{Dir: dir})
	for n := range packs {
		mustInsertPack(b, x, packOf(n, chunks, 40_000))
	}
	mustClose(b, x)
	x = mustOpen(b, Options{Dir: dir})
	var es []Entry
	for n := range 100 {
		es = append(es, packOf(n*777%packs, chunks, 40_000)...)
	}
	for _, lists := range []bool{true, false} {
		b.Run(fmt.Sprintf("lists=%v", lists), func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				e := es[i%len(es)]
				if lists {
					if _, near := x.Near(e.ID); near {
						continue
					}
				}
				p, ok, err := x.Lookup(e.ID)
				if !ok || err != nil {
					b.Fatal(ok, err)
				}
				if lists {
					x.Gather(p)
				}
			}
		})
	}
}

package index

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// openedDatabase reports whether the database of x is open.
func openedDatabase(t testing.TB, x *Index) bool {
	t.Helper()
	f, ok := x.store.(*front)
	if !ok {
		t.Fatal("not on disk")
	}
	return f.db.Load() != nil
}

func exists(t testing.TB, path string) bool {
	t.Helper()
	_, err := os.Lstat(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return err == nil
}

// A small index has no database, and is as whole when it is opened again.
func TestFrontAlone(t *testing.T) {
	opts := Options{Dir: t.TempDir(), limits: &frontLimits{whole: 1000}}
	for round := range 5 {
		x := mustOpen(t, opts)
		if tag, _ := x.Tag(); int(tag.N) != round*200 || x.Rebuilt() {
			t.Fatalf("round %d: tag %d, Rebuilt() = %v", round, tag.N, x.Rebuilt())
		}
		checkAll(t, x, 0, round*200)
		if loaded, err := x.Loaded(); len(loaded) != round || err != nil {
			t.Fatalf("round %d: %d segments, %v", round, len(loaded), err)
		}
		fill(t, x, round*200, (round+1)*200)
		if n, err := x.Count(); n != int64(round+1)*200 || err != nil {
			t.Errorf("Count() = %d, %v", n, err)
		}
		mustClose(t, x)
		if gens, _ := filepath.Glob(filepath.Join(opts.Dir, genPrefix+"*")); len(gens) > 0 {
			t.Fatalf("round %d: there is %s", round, gens)
		}
	}
	x := mustOpen(t, opts)
	mustInsert(t, x, entries(1000, 1001))
	onlyGen(t, opts.Dir)
	checkAll(t, x, 0, 1001)
	mustClose(t, x)
	x = mustOpen(t, opts)
	if loaded, err := x.Loaded(); len(loaded) != 5 || err != nil {
		t.Errorf("with a database: %d segments, %v", len(loaded), err)
	}
	checkAll(t, x, 0, 1001)
}

// What was asked for last is found without the database, and so are the marks
// and the tag; a tag alone does not rewrite the file.
func TestFrontSparesTheDatabase(t *testing.T) {
	opts := Options{Dir: t.TempDir(), limits: &frontLimits{cache: 100}}
	fill(t, mustOpen(t, opts), 0, 1000).close(t)
	x := mustOpen(t, opts)
	for n := 500; n < 600; n++ {
		if _, ok, err := x.Lookup(id(n)); !ok || err != nil {
			t.Fatalf("Lookup(%d) = %v, %v", n, ok, err)
		}
	}
	mustClose(t, x)

	before, err := os.ReadFile(filepath.Join(opts.Dir, frontName))
	if err != nil {
		t.Fatal(err)
	}
	x = mustOpen(t, opts)
	for n := 500; n < 600; n++ {
		if p, ok, err := x.Lookup(id(n)); !ok || p != place(n) || err != nil {
			t.Fatalf("Lookup(%d) = %+v, %v, %v", n, p, ok, err)
		}
	}
	if loaded, err := x.Loaded(); len(loaded) != 1 || err != nil {
		t.Errorf("%d segments, %v", len(loaded), err)
	}
	if err := x.SetTag(Tag{N: 1001}); err != nil {
		t.Fatal(err)
	}
	if openedDatabase(t, x) {
		t.Error("the database was opened")
	}
	mustClose(t, x)
	if after, err := os.ReadFile(filepath.Join(opts.Dir, frontName)); !bytes.Equal(before, after) || err != nil {
		t.Errorf("the file was written for a tag (%v)", err)
	}

	x = mustOpen(t, opts)
	if tag, ok := x.Tag(); tag.N != 1001 || !ok {
		t.Errorf("Tag() = %v, %v, want 1001", tag, ok)
	}
	if _, ok, err := x.Lookup(id(0)); !ok || err != nil || !openedDatabase(t, x) {
		t.Errorf("Lookup = %v, %v, database open: %v", ok, err, openedDatabase(t, x))
	}
	if exists(t, filepath.Join(opts.Dir, frontName)) {
		t.Error("the file is there while the database is open")
	}
}

// A kill leaves the index as it was when it was opened last, or the database as
// it is: never marks without entries, or an old place for a new one.
func TestFrontKilled(t *testing.T) {
	for name, limits := range map[string]frontLimits{"whole": {whole: 5000}, "cache": {cache: 50}} {
		t.Run(name, func(t *testing.T) {
			opts := Options{Dir: t.TempDir(), limits: &limits}
			fill(t, mustOpen(t, opts), 0, 100).close(t)
			x := mustOpen(t, opts)
			moved := []Entry{{ID: id(7), Place: place(7000)}}
			mustInsert(t, x, moved)
			fill(t, x, 100, 200)
			leak(t, x)

			x = mustOpen(t, opts)
			loaded, err := x.Loaded()
			tag, _ := x.Tag()
			if err != nil || x.Rebuilt() || len(loaded) == 0 || int(tag.N) != len(loaded)*100 {
				t.Fatalf("%d segments, tag %d, %v, Rebuilt() = %v", len(loaded), tag.N, err, x.Rebuilt())
			}
			want := place(7)
			if len(loaded) == 2 {
				want = place(7000)
			}
			if p, ok, err := x.Lookup(id(7)); !ok || p != want || err != nil {
				t.Errorf("with %d segments Lookup = %+v, %v, %v, want %+v", len(loaded), p, ok, err, want)
			}
			mustInsert(t, x, entries(7, 8))
			checkAllAtOnce(t, x, len(loaded)*100)
		})
	}
}

// Every bit of the file counts, and a tag file that is damaged, or another
// front's, is passed over.
func TestFrontDamaged(t *testing.T) {
	opts := Options{Dir: t.TempDir(), limits: &frontLimits{whole: 1000}}
	fill(t, mustOpen(t, opts), 0, 20).close(t)
	path := filepath.Join(opts.Dir, frontName)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	try := func(t *testing.T, b []byte) {
		t.Helper()
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		x := mustOpen(t, opts)
		if loaded, err := x.Loaded(); !x.Rebuilt() || len(loaded) > 0 || err != nil {
			t.Fatalf("Rebuilt() = %v, %d segments, %v", x.Rebuilt(), len(loaded), err)
		}
		checkAll(t, x, 0, 0)
		leak(t, x)
	}
	for bit := range len(good) * 8 {
		if bit%scale(97, 13, 1) == 0 {
			b := bytes.Clone(good)
			b[bit/8] ^= 1 << (bit % 8)
			try(t, b)
		}
	}
	for _, n := range []int{0, 3, 4, 50, len(good) - 1} {
		try(t, good[:n])
	}

	for name, spoil := range map[string]func([]byte) []byte{
		"flipped":         func(b []byte) []byte { b[20] ^= 1; return b },
		"short":           func(b []byte) []byte { return b[:30] },
		"another front's": func([]byte) []byte { return appendFrontTag(nil, newSummer([16]byte{}), [8]byte{1}, Tag{N: 9}) },
	} {
		if err := os.WriteFile(path, good, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := readFront(opts.Dir, newSummer([16]byte{}))
		if err != nil {
			t.Fatal(err)
		}
		b := spoil(appendFrontTag(nil, newSummer([16]byte{}), s.name, Tag{N: 9}))
		if err := os.WriteFile(filepath.Join(opts.Dir, frontTagName), b, 0o600); err != nil {
			t.Fatal(err)
		}
		x := mustOpen(t, opts)
		if tag, ok := x.Tag(); tag.N != 20 || !ok || x.Rebuilt() {
			t.Errorf("%s: Tag() = %v, %v, Rebuilt() = %v, want that of the front", name, tag, ok, x.Rebuilt())
		}
		leak(t, x)
	}
}

// Damage of a database that shows when it is opened, long after the index, is
// an error that Reset mends.
func TestFrontDatabaseDamaged(t *testing.T) {
	for name, spoil := range map[string]func(gen string) error{
		"a flipped bit": func(gen string) error {
			path := filepath.Join(gen, manifestName)
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			b[len(b)-1] ^= 1
			return os.WriteFile(path, b, 0o600)
		},
		"a file": func(gen string) error { return errors.Join(os.RemoveAll(gen), os.WriteFile(gen, nil, 0o600)) },
	} {
		t.Run(name, func(t *testing.T) {
			opts := Options{Dir: t.TempDir(), limits: &frontLimits{cache: 10}}
			fill(t, mustOpen(t, opts), 0, 100).close(t)
			if err := spoil(onlyGen(t, opts.Dir)); err != nil {
				t.Fatal(err)
			}
			x := mustOpen(t, opts)
			if _, _, err := lookupAll(x, entries(0, 100)); !errors.Is(err, ErrDamaged) {
				t.Fatalf("LookupMany = %v, want ErrDamaged", err)
			}
			if err := x.Insert(entries(0, 1)); !errors.Is(err, ErrDamaged) {
				t.Errorf("Insert = %v, want ErrDamaged", err)
			}
			if err := x.Reset(); err != nil {
				t.Fatal(err)
			}
			if loaded, err := x.Loaded(); len(loaded) > 0 || err != nil {
				t.Errorf("after Reset: %d segments, %v", len(loaded), err)
			}
			fill(t, x, 0, 50).close(t)
			checkAll(t, mustOpen(t, opts), 0, 50)
		})
	}
	t.Run("gone", func(t *testing.T) {
		opts := Options{Dir: t.TempDir(), limits: &frontLimits{cache: 10}}
		fill(t, mustOpen(t, opts), 0, 100).close(t)
		if err := os.RemoveAll(onlyGen(t, opts.Dir)); err != nil {
			t.Fatal(err)
		}
		x := mustOpen(t, opts)
		if loaded, err := x.Loaded(); !x.Rebuilt() || len(loaded) > 0 || err != nil {
			t.Errorf("Rebuilt() = %v, %d segments, %v", x.Rebuilt(), len(loaded), err)
		}
		checkAll(t, x, 0, 0)
	})
}

// What the front keeps of a database has room for so many entries, those of this
// process first.
func TestFrontIsBounded(t *testing.T) {
	opts := Options{Dir: t.TempDir(), limits: &frontLimits{whole: 100, cache: 30}}
	fill(t, mustOpen(t, opts), 0, 500).close(t)
	x := mustOpen(t, opts)
	_, _, err := lookupAll(x, entries(100, 120))
	if err != nil {
		t.Fatal(err)
	}
	mustClose(t, x)
	s, err := readFront(opts.Dir, newSummer([16]byte{}))
	if err != nil || s.records.len() != 30 {
		t.Fatalf("%d entries, %v, want 30", s.records.len(), err)
	}
	for n := 100; n < 120; n++ {
		if s.records.get(foldOf(id(n))) == nil {
			t.Errorf("entry %d is not kept", n)
		}
	}
}

// BenchmarkOpenSmall opens, asks and closes an index without a database, and one
// with.
func BenchmarkOpenSmall(b *testing.B) {
	for name, limits := range map[string]frontLimits{"front": {whole: frontWhole}, "database": {}} {
		b.Run(name, func(b *testing.B) {
			opts := Options{Dir: b.TempDir(), limits: &limits}
			fill(b, mustOpen(b, opts), 0, 10_000).close(b)
			b.ReportAllocs()
			for b.Loop() {
				x, err := Open(opts)
				if err != nil {
					b.Fatal(err)
				}
				if _, ok, err := x.Lookup(id(1)); !ok || err != nil {
					b.Fatal(err)
				}
				if err := errors.Join(x.SetTag(Tag{N: 1}), x.Close()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

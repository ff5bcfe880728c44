package index

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/cairn-backup/cairn/chunk"
)

func lookupAll(x *Index, es []Entry) ([]Place, []bool, error) {
	ids := make([]chunk.ID, len(es))
	for i := range es {
		ids[i] = es[i].ID
	}
	places, found := make([]Place, len(es)), make([]bool, len(es))
	err := x.LookupMany(ids, places, found)
	return places, found, err
}

// A sample is an index to damage, with the entries below size.
type sample struct {
	name  string
	size  int
	files []file // of the database
}

// A file is one without the zeros at its end.
type file struct {
	name string
	data []byte
	size int64
}

// samples makes an index that was closed, and one that was killed in its
// fourth run.
func samples(t testing.TB) []sample {
	t.Helper()
	const run = 3000
	dir := t.TempDir()
	for n := range 3 {
		fill(t, mustOpen(t, Options{Dir: dir}), n*run, (n+1)*run).close(t)
	}
	closed := sample{"closed", 3 * run, readFiles(t, dir)}
	x := fill(t, mustOpen(t, Options{Dir: dir}), 3*run, 4*run)
	killed := sample{"killed", 4 * run, readFiles(t, dir)}
	x.close(t)
	return []sample{closed, killed}
}

// readFiles reads the only database in dir.
func readFiles(t testing.TB, dir string) []file {
	t.Helper()
	infos, err := os.ReadDir(onlyGen(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	var files []file
	for _, e := range infos {
		b, err := os.ReadFile(filepath.Join(onlyGen(t, dir), e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, file{e.Name(), b[:used(b)], int64(len(b))})
	}
	return files
}

// used returns the length of b without zeros at its end.
func used(b []byte) int {
	for len(b) > 0 && b[len(b)-1] == 0 {
		b = b[:len(b)-1]
	}
	return len(b)
}

// write writes the files to the database in dir, which it makes.
func write(t testing.TB, dir string, files ...file) {
	t.Helper()
	gen := filepath.Join(dir, genPrefix+"7")
	if err := os.MkdirAll(gen, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		path := filepath.Join(gen, f.name)
		if err := errors.Join(os.WriteFile(path, f.data, 0o600), os.Truncate(path, f.size)); err != nil {
			t.Fatal(err)
		}
	}
}

type filled struct{ x *Index }

// fill inserts a segment of the entries from up to below to, and tags it.
func fill(t testing.TB, x *Index, from, to int) filled {
	t.Helper()
	mustInsert(t, x, entries(from, to))
	if err := errors.Join(x.MarkLoaded(segment(to)), x.SetTag(Tag{N: uint64(to)})); err != nil {
		t.Fatal(err)
	}
	return filled{x}
}

func (f filled) close(t testing.TB) {
	t.Helper()
	mustClose(t, f.x)
}

// What opening and using a damaged index came to.
type outcome struct{ whole, short, rebuilt, flagged, failed int }

// use opens a damaged index and does everything with it. It fails the test on
// a wrong place, on a segment whose entries are missing and nothing said so,
// and if Reset does not mend it.
func use(t testing.TB, s sample, dir string, o *outcome) {
	t.Helper()
	start := time.Now()
	x := mustOpen(t, Options{Dir: dir})
	misses, err := useAll(t, x, s.size)
	switch {
	case x.Rebuilt():
		o.rebuilt++
		if misses != s.size {
			t.Errorf("%d of %d entries are missing after a rebuild, want all", misses, s.size)
		}
	case err != nil:
		o.failed++
		if !errors.Is(err, ErrDamaged) {
			t.Errorf("error = %v, want ErrDamaged", err)
		}
	case x.Damaged():
		o.flagged++
	case misses > 0:
		o.short++
		if tag, ok := x.Tag(); ok && int(tag.N) > s.size-misses {
			t.Errorf("tag %d, but %d of %d entries are missing", tag.N, misses, s.size)
		}
	default:
		o.whole++
	}
	if err != nil || rand.IntN(8) == 0 { // the rest is quicker without
		if err := x.Reset(); err != nil {
			t.Fatalf("Reset = %v", err)
		}
		mustInsert(t, x, entries(0, 10))
		checkAll(t, x, 0, 10)
	}
	mustClose(t, x)
	if d := time.Since(start); d > 20*time.Second {
		t.Errorf("took %v", d)
	}
}

// useAll calls every method, and returns how many entries are missing, or the
// first error.
func useAll(t testing.TB, x *Index, size int) (misses int, err error) {
	t.Helper()
	es := entries(0, size)
	places, found, err := lookupAll(x, es)
	if err != nil {
		return 0, err
	}
	for i := range es {
		if !found[i] {
			misses++
		} else if places[i] != es[i].Place {
			t.Errorf("Lookup(%d) = %+v, want %+v", i, places[i], es[i].Place)
		}
	}
	if _, err := x.Loaded(); err != nil {
		return 0, err
	}
	if _, err := x.Count(); err != nil {
		return 0, err
	}
	return misses, x.Insert(entries(size, size+2000))
}

func TestFlippedBits(t *testing.T) {
	flips := scale(15, 30, 300)
	for _, s := range samples(t) {
		t.Run(s.name, func(t *testing.T) {
			var o outcome
			for range flips {
				flip(t, s, &o)
				if t.Failed() {
					return
				}
			}
			t.Logf("%d flips: %+v", flips, o)
			if o.rebuilt == 0 {
				t.Error("no flip was found")
			}
		})
	}
}

// flip flips one bit in a copy of a sample and uses it. Each file has the same
// chance, since the small ones matter as much.
func flip(t *testing.T, s sample, o *outcome) {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, s.files...)
	f := s.files[rand.IntN(len(s.files))]
	at := rand.IntN(min(int(f.size), len(f.data)+64))
	if rand.IntN(3) == 0 {
		at = max(0, len(f.data)-1-rand.IntN(64)) // lengths stand at the end
	}
	b := make([]byte, max(len(f.data), at+1))
	copy(b, f.data)
	bit := rand.IntN(8)
	b[at] ^= 1 << bit
	write(t, dir, file{f.name, b, f.size})
	use(t, s, dir, o)
	if t.Failed() {
		t.Errorf("after flipping bit %d at %d of %d in %s", bit, at, len(f.data), f.name)
	}
}

func TestTruncatedAndDeletedFiles(t *testing.T) {
	for _, s := range samples(t) {
		for _, f := range s.files {
			t.Run(s.name+" "+f.name, func(t *testing.T) {
				t.Parallel() // most of the time is fsync
				var o outcome
				n := int64(len(f.data))
				sizes := []int64{-1, max(n-1, 0), n + 100, 0, n / 2}[:scale(2, 3, 5)] // -1 deletes
				for _, size := range sizes {
					dir := t.TempDir()
					write(t, dir, s.files...)
					path := filepath.Join(onlyGen(t, dir), f.name)
					err := os.Truncate(path, max(size, 0))
					if size < 0 {
						err = os.Remove(path)
					}
					if err != nil {
						t.Fatal(err)
					}
					use(t, s, dir, &o)
				}
				t.Logf("%+v", o)
			})
		}
	}
}

func TestOddFiles(t *testing.T) {
	s := samples(t)[0]
	for name, spoil := range map[string]func(gen string) error{
		"negative table": func(gen string) error { return os.WriteFile(filepath.Join(gen, "-1.sst"), nil, 0o600) },
		"directory":      func(gen string) error { return os.Mkdir(filepath.Join(gen, "00009.mem"), 0o700) },
		"extra log":      func(gen string) error { return os.WriteFile(filepath.Join(gen, "00009.mem"), make([]byte, 99), 0o600) },
		"all gone":       os.RemoveAll,
		"a file":         func(gen string) error { return errors.Join(os.RemoveAll(gen), os.WriteFile(gen, nil, 0o600)) },
		"empty":          func(gen string) error { return errors.Join(os.RemoveAll(gen), os.Mkdir(gen, 0o700)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			write(t, dir, s.files...)
			if err := spoil(onlyGen(t, dir)); err != nil {
				t.Fatal(err)
			}
			x := mustOpen(t, Options{Dir: dir})
			if misses := checkNoneWrong(t, x, s.size); misses != s.size {
				t.Errorf("%d of %d entries are missing, want all", misses, s.size)
			}
			mustInsert(t, x, entries(0, 10))
			mustClose(t, x)
			onlyGen(t, dir)
			checkAllAtOnce(t, mustOpen(t, Options{Dir: dir}), 10)
		})
	}
}

// An old copy of the whole directory is an old index, and says so by its tag.
func TestOldCopy(t *testing.T) {
	dir, old := t.TempDir(), t.TempDir()
	fill(t, mustOpen(t, Options{Dir: dir}), 0, 100).close(t)
	write(t, old, readFiles(t, dir)...)
	fill(t, mustOpen(t, Options{Dir: dir}), 100, 200).close(t)
	x := mustOpen(t, Options{Dir: old})
	if tag, ok := x.Tag(); tag.N != 100 || !ok || x.Rebuilt() {
		t.Errorf("Tag() = %v, %v, Rebuilt() = %v, want the old tag", tag, ok, x.Rebuilt())
	}
	checkAll(t, x, 0, 100)
}

// Old copies of single files must not make an index that is whole to look at.
func TestMixedCopy(t *testing.T) {
	dir := t.TempDir()
	fill(t, mustOpen(t, Options{Dir: dir}), 0, 100).close(t)
	old := readFiles(t, dir)
	fill(t, mustOpen(t, Options{Dir: dir}), 100, 200).close(t)
	current := sample{"", 200, readFiles(t, dir)}
	for _, f := range old {
		t.Run(f.name, func(t *testing.T) {
			mixed := t.TempDir()
			write(t, mixed, current.files...)
			write(t, mixed, f)
			var o outcome
			use(t, current, mixed, &o)
			if o.short+o.flagged+o.failed > 0 {
				t.Errorf("%+v, want whole or rebuilt", o)
			}
		})
	}
}

// A value that is moved to another key, or comes from another repository, is a
// miss and raises the flag.
func TestWrongValueIsAMiss(t *testing.T) {
	x := mustOpen(t, Options{Dir: t.TempDir()})
	mustInsert(t, x, entries(0, 1))
	d := diskOf(t, x)
	for name, value := range map[string][]byte{
		"of another chunk":      d.sums.appendChunk(nil, id(2), place(1)),
		"of another repository": newSummer([16]byte{1}).appendChunk(nil, id(1), place(1)),
		"short":                 d.sums.appendChunk(nil, id(1), place(1))[1:],
		"empty":                 nil,
	} {
		if err := d.put(appendKey(nil, id(1)), value); err != nil {
			t.Fatal(err)
		}
		x.damaged.Store(false)
		if p, ok, err := x.Lookup(id(1)); ok || err != nil || p != (Place{}) || !x.Damaged() {
			t.Errorf("%s: Lookup = %+v, %v, %v, Damaged() = %v, want a miss and damage", name, p, ok, err, x.Damaged())
		}
	}
	if err := x.Reset(); err != nil || x.Damaged() {
		t.Errorf("Reset() = %v, Damaged() = %v", err, x.Damaged())
	}
}

// TestCloseWithoutDirectory: an index whose directory somebody removes is
// closed without waiting for Badger, which tries for ever to write there.
func TestCloseWithoutDirectory(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "index")
	x, err := Open(Options{Dir: dir, limits: new(frontLimits)})
	if err != nil {
		t.Fatal(err)
	}
	mustInsert(t, x, entries(0, 1000))
	if err := os.RemoveAll(dir); err != nil {
		t.Skip(err) // Windows keeps open files
	}
	begin := time.Now()
	if err := x.Close(); !errors.Is(err, ErrDamaged) {
		t.Errorf("Close = %v, want ErrDamaged", err)
	}
	if took := time.Since(begin); took > time.Minute {
		t.Errorf("Close took %v", took)
	}
}

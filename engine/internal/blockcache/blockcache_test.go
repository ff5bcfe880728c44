package blockcache

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func place(n int) Place { return Place{Pack: [16]byte{byte(n), byte(n >> 8), 1}, Offset: uint32(n)} }

func content(n, size int) []byte { return bytes.Repeat([]byte{byte(n)}, size) }

func TestCache(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "blocks")
	c := New(Options{Dir: dir, Limit: 1 << 20})
	if _, ok := c.Get(place(1), 10); ok {
		t.Error("an empty cache holds a block")
	}
	c.Put(place(1), content(1, 10))
	c.Put(place(2), content(2, 20))
	for _, c := range []*Cache{c, New(Options{Dir: dir, Limit: 1}), New(Options{Dir: dir, Limit: 1, ReadOnly: true})} {
		for n := 1; n <= 2; n++ {
			if data, ok := c.Get(place(n), 10*n); !ok || !bytes.Equal(data, content(n, 10*n)) {
				t.Errorf("block %d is %v, %v", n, data, ok)
			}
		}
	}
	if _, ok := c.Get(place(1), 11); ok {
		t.Error("a block of another length is taken for this one")
	}
	c.Drop(place(1))
	if _, ok := c.Get(place(1), 10); ok {
		t.Error("what was dropped is still there")
	}
	c.Drop(place(1))
	for path, mode := range modes(t, dir) {
		want := fs.FileMode(0o600)
		if mode.IsDir() {
			want = 0o700
		}
		if mode.Perm() != want {
			t.Errorf("%s has mode %v, want %v", path, mode, want)
		}
	}
}

func modes(t *testing.T, dir string) map[string]fs.FileMode {
	t.Helper()
	found := map[string]fs.FileMode{}
	if err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err == nil {
			found[path] = fi.Mode()
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return found
}

// TestNone: no directory or no limit is no cache, and that is no special case.
func TestNone(t *testing.T) {
	for _, o := range []Options{{}, {Dir: t.TempDir()}, {Limit: 1}, {Dir: t.TempDir(), Limit: -1}} {
		c := New(o)
		c.Put(place(1), content(1, 1))
		c.Drop(place(1))
		if _, ok := c.Get(place(1), 1); ok || c != nil {
			t.Errorf("%+v is a cache", o)
		}
	}
}

// TestReadOnlyWritesNothing, not even times, and drops nothing.
func TestReadOnlyWritesNothing(t *testing.T) {
	dir := t.TempDir()
	New(Options{Dir: dir, Limit: 100}).Put(place(1), content(1, 10))
	old := time.Now().Add(-time.Hour).Truncate(time.Second)
	path := New(Options{Dir: dir, Limit: 100}).path(place(1))
	if err := os.Chtimes(path, old, old); err != nil {
		t.Fatal(err)
	}
	c := New(Options{Dir: dir, Limit: 100, ReadOnly: true})
	c.Put(place(2), content(2, 10))
	c.Drop(place(1))
	if _, ok := c.Get(place(1), 10); !ok {
		t.Error("the block is gone")
	}
	if fi, err := os.Stat(path); err != nil || !fi.ModTime().Equal(old) || len(modes(t, dir)) != 3 {
		t.Errorf("the cache is %v, %v, %v", fi.ModTime(), modes(t, dir), err)
	}
	if _, ok := New(Options{Dir: dir, Limit: 100}).Get(place(1), 10); !ok {
		t.Error("the block is gone")
	}
	if fi, err := os.Stat(path); err != nil || fi.ModTime().Equal(old) {
		t.Errorf("use leaves no trace: %v, %v", fi.ModTime(), err)
	}
}

// TestLimit: what was used last stays, and two writers stay within the limit
// and a sixteenth for each.
func TestLimit(t *testing.T) {
	const size, limit = 1000, 160 * 1000
	dir := t.TempDir()
	a, b := New(Options{Dir: dir, Limit: limit}), New(Options{Dir: dir, Limit: limit})
	for n := range 400 {
		c := a
		if n%2 == 1 {
			c = b
		}
		c.Put(place(n), content(n, size))
		path := c.path(place(n))
		at := time.Now().Add(time.Duration(n-1000) * time.Minute) // as if it had been long ago
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
		if n > 0 { // the first is used all the time
			if _, ok := a.Get(place(0), size); !ok {
				t.Fatalf("after %d blocks the one used last is gone", n)
			}
		}
		if n%25 == 0 {
			if _, total := a.entries(); total > limit+2*limit/16 {
				t.Fatalf("%d bytes are kept, the limit is %d", total, limit)
			}
		}
	}
	entries, total := a.entries()
	if total < limit*3/4 {
		t.Errorf("only %d bytes are kept, the limit is %d", total, limit)
	}
	if _, ok := a.Get(place(399), size); !ok || len(entries) == 0 {
		t.Error("the newest block is gone")
	}
	if _, ok := a.Get(place(100), size); ok {
		t.Error("an old block is still there")
	}
	a.Put(place(5000), make([]byte, limit+1))
	if _, ok := a.Get(place(5000), limit+1); ok {
		t.Error("a block larger than the cache is kept")
	}
}

// TestLeftovers: temporary files of writers that are gone are removed.
func TestLeftovers(t *testing.T) {
	dir := t.TempDir()
	sub := filepath.Join(dir, "01")
	if err := os.Mkdir(sub, 0o700); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-2 * stale)
	for name, at := range map[string]time.Time{"tmp-old": old, "tmp-new": time.Now()} {
		path := filepath.Join(sub, name)
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	New(Options{Dir: dir, Limit: 100}).Put(place(1), content(1, 10))
	var names []string
	for path := range modes(t, dir) {
		names = append(names, path)
	}
	if all := strings.Join(names, " "); strings.Contains(all, "tmp-old") || !strings.Contains(all, "tmp-new") {
		t.Errorf("the cache holds %s", all)
	}
}

// TestInTheWay: whatever lies where the cache should be, nothing fails.
func TestInTheWay(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c := New(Options{Dir: filepath.Join(dir, "file"), Limit: 100})
	c.Put(place(1), content(1, 10))
	if _, ok := c.Get(place(1), 10); ok {
		t.Error("a file is a cache")
	}
	c = New(Options{Dir: filepath.Join(dir, "a", "b"), Limit: 100}) // no parent
	c.Put(place(1), content(1, 10))
	if _, ok := c.Get(place(1), 10); ok {
		t.Error("a cache without a parent was made")
	}
	c = New(Options{Dir: dir, Limit: 100})
	if err := os.MkdirAll(c.path(place(1)), 0o700); err != nil {
		t.Fatal(err)
	}
	c.Put(place(1), content(1, 10))
	if _, ok := c.Get(place(1), 10); ok {
		t.Error("a directory is a block")
	}
}

// TestConcurrently is for the race detector: every block that is found is whole.
func TestConcurrently(t *testing.T) {
	dir := t.TempDir()
	var wg sync.WaitGroup
	for w := range 4 {
		c := New(Options{Dir: dir, Limit: 50_000})
		for range 2 {
			wg.Go(func() {
				for i := range 100 {
					n := (i*7 + w) % 100
					if data, ok := c.Get(place(n), 1000); ok && !bytes.Equal(data, content(n, 1000)) {
						panic(fmt.Sprintf("block %d holds something else", n))
					}
					c.Put(place(n), content(n, 1000))
					if i%50 == 0 {
						c.Drop(place(n))
					}
				}
			})
		}
	}
	wg.Wait()
}

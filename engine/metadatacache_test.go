package engine_test

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cairn-backup/cairn/backend/meter"
	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/engine/enginetest"
	"github.com/cairn-backup/cairn/engine/source"
)

// blockFiles returns the files of the metadata caches in dir and their contents.
func blockFiles(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	if err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || !strings.Contains(path, "/blocks/") {
			return err
		}
		data, err := os.ReadFile(path)
		found[path] = string(data)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return found
}

// TestMetadataCache: with a cache trees are read from the store once; what lies
// in the cache is never believed without its seal; and the cache is no
// part of a check.
func TestMetadataCache(t *testing.T) {
	first, b := fresh(t)
	tree := map[string][]byte{}
	for i := range 800 {
		tree[fmt.Sprintf("d%02d/a rather long name of a file %04d", i%20, i)] = []byte(fmt.Sprint(i))
	}
	src := write(t, tree)
	snap := backUp(t, first, source.Dir(src), engine.BackupOptions{}).Snapshot
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	m := meter.New(b)
	// restored restores with a process of its own and returns how often the
	// store was read.
	restored := func(opts engine.Options) int64 {
		t.Helper()
		opts.CacheDir = dir
		r := open(t, m, opts)
		defer r.Close()
		before := m.Counts().Get.Requests
		same(t, src, restore(t, r, snap.ID))
		return m.Counts().Get.Requests - before
	}
	restored(engine.Options{})
	none := restored(engine.Options{})
	if len(blockFiles(t, dir)) != 0 {
		t.Fatal("a cache was made that nobody asked for")
	}
	with := engine.Options{MetadataCache: 64 << 20}
	if cold := restored(with); cold != none {
		t.Errorf("%d reads with an empty cache, %d without one", cold, none)
	}
	files := blockFiles(t, dir)
	warm := restored(with)
	if want := none - int64(len(files)); len(files) == 0 || warm != want {
		t.Errorf("%d reads with a cache of %d blocks, %d without one", warm, len(files), none)
	}
	objects, err := enginetest.Objects(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	all := strings.Join(slices.Collect(func(yield func(string) bool) {
		for _, data := range objects {
			if !yield(string(data)) {
				return
			}
		}
	}), "")
	for path, data := range files {
		if !strings.Contains(all, data) {
			t.Errorf("%s is not as it is stored", path)
		}
	}

	// Damaged in every way, the cache costs reads and nothing else.
	paths := slices.Sorted(maps.Keys(files))
	for name, damage := range map[string]func(string) string{
		"flipped":   func(s string) string { return s[:len(s)/2] + string(s[len(s)/2]^1) + s[len(s)/2+1:] },
		"truncated": func(s string) string { return s[:len(s)/2] },
		"empty":     func(string) string { return "" },
		"another":   func(string) string { return files[paths[0]] },
	} {
		for _, path := range paths {
			if err := os.WriteFile(path, []byte(damage(files[path])), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if name == "another" && len(paths) < 2 {
			continue
		}
		restored(engine.Options{MetadataCache: 64 << 20, ReadOnly: true})
		if n := restored(with); n <= warm {
			t.Errorf("%s: %d reads, no more than with a whole cache", name, n)
		}
		if got := blockFiles(t, dir); !maps.Equal(got, files) {
			t.Errorf("%s: the cache was not mended", name)
		}
	}

	// A check asks the store.
	r := open(t, m, engine.Options{CacheDir: dir, MetadataCache: 64 << 20})
	defer r.Close()
	for key, object := range objects {
		for _, data := range files {
			if at := strings.Index(string(object), data); at >= 0 {
				object[at+len(data)/2] ^= 1
			}
		}
		if err := b.Delete(t.Context(), key); err != nil {
			t.Fatal(err)
		}
		if err := b.Put(t.Context(), key, object); err != nil {
			t.Fatal(err)
		}
	}
	if report, err := r.Check(t.Context(), engine.CheckOptions{Depth: engine.DepthLog}); err == nil && len(report.Findings) == 0 {
		t.Error("a check of a store with damaged trees finds nothing, with a cache of them")
	}
	restored(with) // which the cache still holds
}

// TestMetadataCacheReadOnly: a process that only reads takes what is there, and
// writes nothing.
func TestMetadataCacheReadOnly(t *testing.T) {
	first, b := fresh(t)
	snap := backUp(t, first, source.Dir(write(t, someFiles())), engine.BackupOptions{}).Snapshot
	dir := t.TempDir()
	r := open(t, b, engine.Options{CacheDir: dir, MetadataCache: 1 << 20, ReadOnly: true})
	restore(t, r, snap.ID)
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("reading left %v, %v", left, err)
	}
	if _, err := engine.Open(t.Context(), b, engine.Passphrase("x"), engine.Options{MetadataCache: -1}); err == nil || !strings.Contains(err.Error(), "MetadataCache") {
		t.Errorf("a negative bound: %v", err)
	}
}

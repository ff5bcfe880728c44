package engine_test

import (
	"bytes"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"testing/fstest"

	"github.com/cairn-backup/cairn/backend/mem"
	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/engine/source"
)

// TestFS holds the view of a snapshot to the contract of io/fs, and reads a
// large file with holes and repeats at random places.
func TestFS(t *testing.T) {
	ctx := t.Context()
	src := filepath.Join(t.TempDir(), "root")
	if err := os.MkdirAll(filepath.Join(src, "dir", "empty"), 0o755); err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(3, 4))
	large := make([]byte, 3<<20)
	for i := range large {
		if i < 1<<20 || i > 2<<20 {
			large[i] = byte(rng.Uint32())
		}
	}
	copy(large[2<<20:], bytes.Repeat([]byte{7}, 500_000))
	files := map[string][]byte{"dir/small": []byte("hello"), "dir/none": nil, "large": large, "dir/medium": large[:70_000]}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(src, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	key := filepath.Join(t.TempDir(), "key")
	if err := engine.NewKeyFile(key); err != nil {
		t.Fatal(err)
	}
	r, err := engine.OpenOrInit(ctx, new(mem.Backend), engine.KeyFile(key), engine.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	report, err := r.Backup(ctx, source.Dir(src), engine.BackupOptions{})
	if err != nil {
		t.Fatal(err)
	}
	view, err := r.FS(ctx, report.Snapshot.ID)
	if err != nil {
		t.Fatal(err)
	}
	if err := fstest.TestFS(view, "root/dir/small", "root/dir/none", "root/dir/empty", "root/large"); err != nil {
		t.Error(err)
	}
	f, err := view.Open("root/large")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	at, ok := f.(io.ReaderAt)
	if !ok {
		t.Fatal("an open file is no io.ReaderAt")
	}
	for range 200 {
		off := rng.IntN(len(large))
		p := make([]byte, min(rng.IntN(200_000), len(large)-off))
		if n, err := at.ReadAt(p, int64(off)); n != len(p) || err != nil && err != io.EOF {
			t.Fatalf("ReadAt(%d bytes, %d) = %d, %v", len(p), off, n, err)
		}
		if !bytes.Equal(p, large[off:off+len(p)]) {
			t.Fatalf("ReadAt(%d bytes, %d): wrong bytes", len(p), off)
		}
	}
}

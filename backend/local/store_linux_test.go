package local

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cairn-backup/cairn/backend"
)

// mountTmpfs mounts a small file system and returns where.
func mountTmpfs(t *testing.T, options string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		t.Skipf("cannot mount a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return dir
}

func TestNoSpace(t *testing.T) {
	for _, m := range methods {
		t.Run(m.name, func(t *testing.T) {
			b := New(filepath.Join(mountTmpfs(t, "size=1m"), "repo"))
			defer b.Close()
			b.method.Store(int32(m.m))
			if err := b.Init(t.Context()); err != nil {
				t.Fatal(err)
			}
			data := bytes.Repeat([]byte("0123456789abcdef"), 100_000/16)
			var stored []backend.Key
			for i := range 20 {
				key := backend.Key(fmt.Sprintf("packs/%02d/1", i))
				err := b.Put(t.Context(), key, data)
				if err == nil {
					stored = append(stored, key)
					continue
				}
				if !errors.Is(err, backend.ErrNoSpace) {
					t.Errorf("Put into a full store = %v, want ErrNoSpace", err)
				}
				if _, err := b.Stat(t.Context(), key); !errors.Is(err, backend.ErrNotExist) {
					t.Errorf("Stat(%s) after a failed Put = %v, want ErrNotExist", key, err)
				}
			}
			if n := len(stored); n < 5 || n == 20 {
				t.Fatalf("%d objects stored", n)
			}
			for _, key := range stored {
				if got := read(t, b, key); !bytes.Equal(got, data) {
					t.Errorf("%s holds %d bytes, want %d", key, len(got), len(data))
				}
			}
			// Nothing of the failed ones takes space: one goes, one comes.
			if err := b.Delete(t.Context(), stored[0]); err != nil {
				t.Errorf("Delete in a full store = %v", err)
			}
			if err := b.Put(t.Context(), stored[0], data); err != nil {
				t.Errorf("Put after Delete = %v", err)
			}
		})
	}
}

func TestNoInodes(t *testing.T) {
	b := New(mountTmpfs(t, "nr_inodes=8"))
	defer b.Close()
	var err error
	for i := 0; err == nil && i < 20; i++ {
		err = b.Put(t.Context(), backend.Key(fmt.Sprintf("dir%d/1", i)), nil)
	}
	if !errors.Is(err, backend.ErrNoSpace) {
		t.Errorf("Put without inodes = %v, want ErrNoSpace", err)
	}
}

func TestReadOnly(t *testing.T) {
	dir := mountTmpfs(t, "size=1m")
	b := New(dir)
	defer b.Close()
	if err := b.Put(t.Context(), "packs/1", []byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Skipf("cannot remount: %v", err)
	}
	for _, m := range methods {
		b.method.Store(int32(m.m))
		for _, key := range []backend.Key{"packs/2", "log/1"} {
			if err := b.Put(t.Context(), key, nil); !errors.Is(err, backend.ErrReadOnly) {
				t.Errorf("%s: Put(%s) = %v, want ErrReadOnly", m.name, key, err)
			}
		}
	}
	if err := b.Delete(t.Context(), "packs/1"); !errors.Is(err, backend.ErrReadOnly) {
		t.Errorf("Delete = %v, want ErrReadOnly", err)
	}
	if err := b.Put(t.Context(), "packs/1", nil); !errors.Is(err, backend.ErrExist) {
		t.Errorf("Put of a taken key = %v, want ErrExist", err)
	}
	if got := read(t, b, "packs/1"); string(got) != "x" {
		t.Errorf("Get = %q, want x", got)
	}
}

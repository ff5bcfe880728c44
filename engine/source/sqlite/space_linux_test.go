package sqlite_test

import (
	"errors"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cairn-backup/cairn/engine/source/sqlite"
)

// TestNoSpace makes the copy where there is no space for it.
func TestNoSpace(t *testing.T) {
	path, full := filepath.Join(t.TempDir(), "a.db"), t.TempDir()
	if err := unix.Mount("tmpfs", full, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("cannot mount a tmpfs: %v", err)
	}
	defer func() {
		if err := unix.Unmount(full, 0); err != nil {
			t.Error(err)
		}
	}()
	db := makeSmall(t, path)
	mustExec(t, db, "INSERT INTO t(v) SELECT hex(randomblob(300000)) FROM t")
	s := sqlite.File(path)
	s.Dir = full
	if _, err := s.Open(t.Context()); !errors.Is(err, sqlite.ErrNoSpace) {
		t.Errorf("Open() = %v", err)
	}
	empty(t, full)
	// The database is not locked any more.
	mustExec(t, db, "INSERT INTO t(v) VALUES ('three')")
}

// TestRemovedAtOnce holds that a process that is killed while it reads the copy
// leaves nothing behind.
func TestRemovedAtOnce(t *testing.T) {
	path, temp := filepath.Join(t.TempDir(), "a.db"), t.TempDir()
	makeSmall(t, path)
	s := sqlite.File(path)
	s.Dir = temp
	v, err := s.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	empty(t, temp)
}

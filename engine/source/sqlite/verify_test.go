package sqlite_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/engine/source"
	"github.com/cairn-backup/cairn/engine/source/sqlite"
	"github.com/cairn-backup/cairn/engine/target"
)

// TestSwapVerifies: a database in WAL mode is exchanged for one that SQLite
// finds whole, and the old one's -wal and -shm go aside with it; a snapshot that
// is no whole database leaves the old one in place.
func TestSwapVerifies(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.db")
	db := makeSmall(t, path, "journal_mode(WAL)", "wal_autocheckpoint(0)")
	r := newRepository(t)
	good, err := r.Backup(t.Context(), sqlite.File(path), engine.BackupOptions{})
	if err != nil {
		t.Fatal(err)
	}
	mustExec(t, db, "INSERT INTO t(v) VALUES ('after the backup')")
	mustExec(t, db, "PRAGMA wal_checkpoint(TRUNCATE)")
	whole, err := os.ReadFile(path) // of this process' own database, and no lock is held
	if err != nil {
		t.Fatal(err)
	}
	for i := len(whole) / 2; i < len(whole); i++ { // what a plain copy of a file that is being written may be
		whole[i] = byte(i)
	}
	bad := filepath.Join(t.TempDir(), "a.db")
	if err := os.WriteFile(bad, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	torn, err := r.Backup(t.Context(), source.Dir(bad), engine.BackupOptions{})
	if err != nil {
		t.Fatal(err)
	}
	swap := target.Swap(path)
	swap.Verify, swap.Force = sqlite.Verify, true
	if _, err := r.Restore(t.Context(), torn.Snapshot.ID, swap, engine.RestoreOptions{}); !errors.Is(err, sqlite.ErrCorrupt) && !errors.Is(err, sqlite.ErrNotDatabase) {
		t.Errorf("Restore of a torn copy = %v, want ErrCorrupt", err)
	}
	rows := func() (n int) {
		if err := mustOpen(t, path).QueryRowContext(t.Context(), "SELECT count(*) FROM t").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := rows(); n != 3 {
		t.Errorf("after a restore that was refused there are %d rows, want 3", n)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+"-wal", []byte("of the old one"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Restore(t.Context(), good.Snapshot.ID, swap, engine.RestoreOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(path + "-wal"); err == nil {
		t.Error("the -wal file of the old database stayed beside the new one")
	}
	if n := rows(); n != 2 {
		t.Errorf("the restored database has %d rows, want 2", n)
	}
}

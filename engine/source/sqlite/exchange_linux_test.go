package sqlite_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/engine/source/sqlite"
	"github.com/cairn-backup/cairn/engine/target"
)

// TestSwapUnderWriter: a database in WAL mode that another process writes to is
// not exchanged: who restores is told which process it is, and the writer goes
// on as if nothing had been.
func TestSwapUnderWriter(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "bank.db")
	startWriter(t, path, "WAL")
	r := newRepository(t)
	report, err := r.Backup(t.Context(), sqlite.File(path), engine.BackupOptions{})
	if err != nil {
		t.Fatal(err)
	}
	old, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	quiesced := target.Swap(path) // by a hook that does not do what it promises
	quiesced.Quiesce = func(context.Context) error { return nil }
	for name, swap := range map[string]*target.SwapTarget{"bare": target.Swap(path), "quiesced": quiesced} {
		_, err = r.Restore(t.Context(), report.Snapshot.ID, swap, engine.RestoreOptions{})
		if !errors.Is(err, target.ErrInUse) || !errors.Is(err, target.ErrNotSwappable) {
			t.Errorf("%s: Restore under a writer = %v, want ErrInUse", name, err)
		}
		for _, left := range []string{".bank.db.cairn-new", ".bank.db.cairn-was", ".bank.db.cairn-old", ".bank.db.cairn-swap"} {
			if _, err := os.Lstat(filepath.Join(dir, left)); err == nil {
				t.Errorf("%s: %s is left", name, left)
			}
		}
	}
	now, err := os.Stat(path)
	if err != nil || !os.SameFile(old, now) {
		t.Errorf("another file stands at the path, %v", err)
	}
	before := oracle(t, cycleOf(t, r, path))
	if after := oracle(t, cycleOf(t, r, path)); after <= before {
		t.Errorf("the writer made %d transfers, and %d later: it does not go on", before, after)
	}
}

// cycleOf backs up a database and returns where it was restored to.
func cycleOf(t *testing.T, r *engine.Repository, path string) string {
	t.Helper()
	restored, _ := cycle(t, r, sqlite.File(path))
	return restored
}

// TestSwapUnderConnection exchanges a database in WAL mode by force while a
// connection to it is open, with changes that are in the -wal file alone. The
// restored database is whole, and stays so whatever the old connection does: what
// that writes, and removes when it is closed, are the old files.
func TestSwapUnderConnection(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.db")
	was := makeSmall(t, path, "journal_mode(WAL)", "wal_autocheckpoint(0)")
	r := newRepository(t)
	report, err := r.Backup(t.Context(), sqlite.File(path), engine.BackupOptions{})
	if err != nil {
		t.Fatal(err)
	}
	mustExec(t, was, "INSERT INTO t(v) VALUES ('in the old -wal alone')")
	swap := target.Swap(path)
	swap.Force, swap.Verify = true, sqlite.Verify
	if _, err := r.Restore(t.Context(), report.Snapshot.ID, swap, engine.RestoreOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, extra := range []string{"-wal", "-shm", "-journal"} {
		if _, err := os.Lstat(path + extra); err == nil {
			t.Errorf("%s stayed beside the restored database", extra)
		}
	}
	is := mustOpen(t, path, "journal_mode(WAL)", "wal_autocheckpoint(0)")
	mustExec(t, is, "INSERT INTO t(v) VALUES ('in the new -wal alone')")
	_, _ = was.ExecContext(t.Context(), "INSERT INTO t(v) VALUES ('too late')") // SQLite may refuse it
	mustClose(t, was)
	third := mustOpen(t, path)
	var rows int
	var verdict string
	if err := third.QueryRowContext(t.Context(), "SELECT count(*), (SELECT v FROM t ORDER BY id DESC LIMIT 1) FROM t").Scan(&rows, &verdict); err != nil {
		t.Fatal(err)
	}
	if rows != 3 || verdict != "in the new -wal alone" {
		t.Errorf("the restored database has %d rows, the last %q", rows, verdict)
	}
	if err := third.QueryRowContext(t.Context(), "PRAGMA integrity_check").Scan(&verdict); err != nil || verdict != "ok" {
		t.Errorf("integrity_check = %q, %v", verdict, err)
	}
	// What was there is whole beside it, its -wal with it.
	old := mustOpen(t, filepath.Join(dir, ".a.db.cairn-old", "a.db"))
	if err := old.QueryRowContext(t.Context(), "SELECT count(*) FROM t WHERE v = 'in the old -wal alone'").Scan(&rows); err != nil || rows != 1 {
		t.Errorf("the old database has %d of its last row, %v", rows, err)
	}
}

package sqlite_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cairn-backup/cairn/backend/mem"
	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/engine/source"
	"github.com/cairn-backup/cairn/engine/source/sqlite"
	"github.com/cairn-backup/cairn/engine/target"
	"github.com/cairn-backup/cairn/manifest"
)

// newRepository returns an empty repository in memory.
func newRepository(t *testing.T) *engine.Repository {
	t.Helper()
	key := filepath.Join(t.TempDir(), "key")
	if err := engine.NewKeyFile(key); err != nil {
		t.Fatal(err)
	}
	r, err := engine.OpenOrInit(t.Context(), new(mem.Backend), engine.KeyFile(key), engine.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mustClose(t, r) })
	return r
}

// cycle backs up and restores, and returns the path of the restored file.
func cycle(t *testing.T, r *engine.Repository, src source.Source) (string, engine.BackupReport) {
	t.Helper()
	report, err := r.Backup(t.Context(), src, engine.BackupOptions{Labels: map[string]string{"mine": "kept"}})
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "restored")
	if _, err := r.Restore(t.Context(), report.Snapshot.ID, target.Dir(dir), engine.RestoreOptions{}); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Fatalf("restored %v, %v, want one file", entries, err)
	}
	return filepath.Join(dir, entries[0].Name()), report
}

// TestLive backs up a database again and again while another process moves
// money in it, and vacuums it, at full speed.
func TestLive(t *testing.T) {
	for _, journal := range []string{"WAL", "DELETE", "TRUNCATE", "PERSIST"} {
		t.Run(journal, func(t *testing.T) {
			t.Parallel()
			rounds := 12
			if journal == "TRUNCATE" || journal == "PERSIST" || testing.Short() {
				rounds = 3
			}
			path, temp := filepath.Join(t.TempDir(), "bank.db"), t.TempDir()
			startWriter(t, path, journal)
			r := newRepository(t)
			src := sqlite.File(path)
			src.Dir = temp
			steps := 0
			src.Between(func() { // the writer gets its turn, if SQLite lets it
				steps++
				time.Sleep(time.Millisecond)
			})
			var last int64
			for round := range rounds {
				restored, report := cycle(t, r, src)
				n := oracle(t, restored)
				if n < last || n == 0 && round > 0 {
					t.Fatalf("round %d: the last transfer is %d, it was %d before", round, n, last)
				}
				last = n
				s := report.Snapshot
				if l := s.Labels; s.Kind != manifest.KindDatabase || l["sqlite.integrity"] != "ok" || l["sqlite.page_size"] != "4096" ||
					(l["sqlite.journal_mode"] == "wal") != (journal == "WAL") || l["mine"] != "kept" || s.Name != "bank.db" {
					t.Fatalf("the snapshot is %+v", s)
				}
				empty(t, temp)
			}
			if steps < 10*rounds || last < int64(rounds) {
				t.Errorf("%d rounds had %d steps, the writer made %d transfers: this test shows little", rounds, steps, last)
			}
		})
	}
}

// TestUncheckpointed backs up what is in the -wal file only.
func TestUncheckpointed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	db := makeSmall(t, path, "journal_mode(WAL)", "wal_autocheckpoint(0)")
	mustExec(t, db, "PRAGMA wal_checkpoint(TRUNCATE)")
	before, err := os.ReadFile(path) // of this process' own database, and no lock is held
	if err != nil {
		t.Fatal(err)
	}
	mustExec(t, db, "INSERT INTO t(v) VALUES ('only in the -wal file')")
	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	if _, err := tx.ExecContext(t.Context(), "INSERT INTO t(v) VALUES ('not committed')"); err != nil {
		t.Fatal(err)
	}
	restored, _ := cycle(t, newRepository(t), sqlite.File(path))
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(before, after) {
		t.Fatalf("the main file was changed (%v): this test shows nothing", err)
	}
	var all string
	if err := mustOpen(t, restored).QueryRowContext(t.Context(), "SELECT group_concat(v, ', ') FROM t").Scan(&all); err != nil || all != "one, two, only in the -wal file" {
		t.Errorf("restored %q, %v", all, err)
	}
}

func TestPageSizes(t *testing.T) {
	for _, size := range []string{"512", "1024", "8192", "65536"} {
		t.Run(size, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "a.db")
			db := makeSmall(t, path, "page_size("+size+")")
			mustExec(t, db, "INSERT INTO t(v) SELECT hex(randomblob(200000)) FROM t")
			restored, report := cycle(t, newRepository(t), sqlite.File(path))
			var got, text string
			db = mustOpen(t, restored)
			if err := db.QueryRowContext(t.Context(), "PRAGMA page_size").Scan(&got); err != nil || got != size {
				t.Errorf("the page size is %s, %v", got, err)
			}
			if err := db.QueryRowContext(t.Context(), "SELECT v FROM t WHERE id = 2").Scan(&text); err != nil || text != "two" {
				t.Errorf("the text is %q, %v", text, err)
			}
			if l := report.Snapshot.Labels; l["sqlite.page_size"] != size || l["sqlite.pages"] == "" {
				t.Errorf("labels are %v", l)
			}
		})
	}
}

func TestEmpty(t *testing.T) {
	dir := t.TempDir()
	nothing, vacant := filepath.Join(dir, "nothing"), filepath.Join(dir, "vacant")
	if err := os.WriteFile(nothing, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	db := makeSmall(t, vacant)
	mustExec(t, db, "DROP TABLE t")
	mustExec(t, db, "VACUUM")
	for _, path := range []string{nothing, vacant} {
		restored, _ := cycle(t, newRepository(t), sqlite.File(path))
		var n int
		if err := mustOpen(t, restored).QueryRowContext(t.Context(), "SELECT count(*) FROM sqlite_schema").Scan(&n); err != nil || n != 0 {
			t.Errorf("%s: %d tables, %v", path, n, err)
		}
	}
}

// TestUnchanged holds that a database that does not change has one and the same
// copy, and that metadata are those of the original.
func TestUnchanged(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a b?c#d%41.db") // an URI of SQLite would read this otherwise
	mustClose(t, makeSmall(t, path, "journal_mode(WAL)", "user_version(7)"))
	mtime := time.Date(2020, 1, 2, 3, 4, 5, 678, time.UTC)
	if err := errors.Join(os.Chmod(path, 0o640), os.Chtimes(path, mtime, mtime)); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(path, link); err != nil {
		t.Skip(err)
	}
	r := newRepository(t)
	restored, _ := cycle(t, r, sqlite.File(path))
	fi, err := os.Stat(restored)
	if err != nil || fi.Mode().Perm() != 0o640 || !fi.ModTime().Equal(mtime) {
		t.Errorf("restored %v %v, %v", fi.Mode(), fi.ModTime(), err)
	}
	if _, report := cycle(t, r, sqlite.File(path)); !report.Unchanged || report.Snapshot.Stats.New > 0 {
		t.Errorf("the second report is %+v", report)
	}
	restored, report := cycle(t, r, sqlite.File(link))
	if filepath.Base(restored) != "link" || report.Snapshot.Stats.Files != 1 {
		t.Errorf("restored %s: %+v", restored, report)
	}
	var version int
	if err := mustOpen(t, restored).QueryRowContext(t.Context(), "PRAGMA user_version").Scan(&version); err != nil || version != 7 {
		t.Errorf("user_version is %d, %v", version, err)
	}
}

// TestRefused lists what is no database, or none that can be copied.
func TestRefused(t *testing.T) {
	tests := []struct {
		name string
		make func(t *testing.T, path string)
		set  func(*sqlite.Source)
		want error
	}{
		{name: "missing", make: func(*testing.T, string) {}, want: fs.ErrNotExist},
		{name: "directory", make: func(t *testing.T, path string) {
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
		}, want: sqlite.ErrNotDatabase},
		{name: "text", make: put("hello"), want: sqlite.ErrNotDatabase},
		{name: "long text", make: put(strings.Repeat("hello\n", 5000)), want: sqlite.ErrNotDatabase},
		{name: "a header alone", make: put("SQLite format 3\x00" + strings.Repeat("\xff", 4080)), want: sqlite.ErrNotDatabase},
		{name: "locked", make: func(t *testing.T, path string) {
			db := makeSmall(t, path)
			mustExec(t, db, "PRAGMA locking_mode = EXCLUSIVE")
			mustExec(t, db, "INSERT INTO t(v) VALUES ('three')")
		}, set: func(s *sqlite.Source) { s.Wait = 10 * time.Millisecond }, want: sqlite.ErrLocked},
		{name: "corrupt page", make: func(t *testing.T, path string) {
			db := makeSmall(t, path)
			mustExec(t, db, "CREATE INDEX i ON t(v)")
			mustExec(t, db, "INSERT INTO t(v) SELECT hex(randomblob(3000)) FROM t")
			mustClose(t, db)
			damage(t, path, 2*4096, bytes.Repeat([]byte{0xee}, 4096))
		}, want: sqlite.ErrCorrupt},
		{name: "cut off", make: func(t *testing.T, path string) {
			db := makeSmall(t, path)
			mustExec(t, db, "INSERT INTO t(v) SELECT hex(randomblob(9000)) FROM t")
			mustClose(t, db)
			if err := os.Truncate(path, 3*4096); err != nil {
				t.Fatal(err)
			}
		}, want: sqlite.ErrCorrupt},
		{name: "index with other values", make: func(t *testing.T, path string) { disagree(t, path) }, want: sqlite.ErrCorrupt},
		{
			name: "no directory for the copy", make: func(t *testing.T, path string) { makeSmall(t, path) },
			set: func(s *sqlite.Source) { s.Dir += "/none" }, want: fs.ErrNotExist,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path, temp := filepath.Join(t.TempDir(), "a.db"), t.TempDir()
			tt.make(t, path)
			s := sqlite.File(path)
			s.Dir = temp
			if tt.set != nil {
				tt.set(s)
			}
			v, err := s.Open(t.Context())
			if err == nil {
				mustClose(t, v)
				t.Fatal("it was opened")
			}
			if !errors.Is(err, tt.want) || !errors.Is(err, source.ErrSource) {
				t.Errorf("Open() = %v, want %v", err, tt.want)
			}
			if s.Dir == temp {
				empty(t, temp)
			}
			t.Log(err)
		})
	}
}

func put(text string) func(*testing.T, string) {
	return func(t *testing.T, path string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func damage(t *testing.T, path string, at int64, with []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt(with, at)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

// disagree makes a database in which an index has other values than its table,
// which only the full check finds.
func disagree(t *testing.T, path string) {
	t.Helper()
	db := makeSmall(t, path)
	mustExec(t, db, "CREATE INDEX i ON t(v)")
	mustExec(t, db, "PRAGMA writable_schema = ON")
	mustExec(t, db, "CREATE TABLE other(v TEXT)")
	mustExec(t, db, "INSERT INTO other SELECT v || '!' FROM t")
	mustExec(t, db, "CREATE INDEX j ON other(v)")
	// Each gets the pages of the other.
	mustExec(t, db, "UPDATE sqlite_schema SET rootpage = (SELECT sum(rootpage) FROM sqlite_schema WHERE name IN ('i', 'j')) - rootpage WHERE name IN ('i', 'j')")
	mustClose(t, db)
}

func TestChecks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	disagree(t, path)
	for check, want := range map[sqlite.Check]string{sqlite.Quick: "quick_check ok", sqlite.None: "not checked"} {
		s := sqlite.File(path)
		s.Check = check
		v, err := s.Open(t.Context())
		if err != nil {
			t.Fatalf("check %d: %v", check, err)
		}
		if got := source.Labels(v)["sqlite.integrity"]; got != want {
			t.Errorf("check %d: %q, want %q", check, got, want)
		}
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestUnknownCollation holds that a check that cannot run is not taken for one
// that found damage.
func TestUnknownCollation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	db := makeSmall(t, path)
	mustExec(t, db, "CREATE INDEX i ON t(v COLLATE NOCASE)")
	mustExec(t, db, "PRAGMA writable_schema = ON")
	mustExec(t, db, "UPDATE sqlite_schema SET sql = replace(sql, 'NOCASE', 'icu_root') WHERE name = 'i'")
	mustClose(t, db)
	s := sqlite.File(path)
	_, err := s.Open(t.Context())
	if !errors.Is(err, sqlite.ErrUnchecked) || errors.Is(err, sqlite.ErrCorrupt) || !strings.Contains(err.Error(), "icu_root") {
		t.Errorf("Open() = %v", err)
	}
	s.Check = sqlite.None
	cycle(t, newRepository(t), s)
}

// TestHotJournal finds the journal of a writer that died.
func TestHotJournal(t *testing.T) {
	dir := t.TempDir()
	path, crashed := filepath.Join(dir, "a.db"), filepath.Join(dir, "crashed.db")
	db := makeSmall(t, path, "cache_size(1)", "synchronous(OFF)")
	mustExec(t, db, "INSERT INTO t(v) SELECT hex(randomblob(9000)) FROM t")
	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	if _, err := tx.ExecContext(t.Context(), "UPDATE t SET v = hex(randomblob(200000))"); err != nil {
		t.Fatal(err)
	}
	for _, extra := range []string{"", "-journal"} {
		p, err := os.ReadFile(path + extra)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(crashed+extra, p, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := sqlite.File(crashed).Open(t.Context()); !errors.Is(err, sqlite.ErrUnrecovered) {
		t.Errorf("Open() = %v", err)
	}
}

func TestCancel(t *testing.T) {
	path, temp := filepath.Join(t.TempDir(), "a.db"), t.TempDir()
	db := makeSmall(t, path)
	mustExec(t, db, "PRAGMA locking_mode = EXCLUSIVE")
	mustExec(t, db, "INSERT INTO t(v) VALUES ('three')")
	s := sqlite.File(path)
	s.Dir = temp
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	begin := time.Now()
	_, err := s.Open(ctx) // waits for the lock
	if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, source.ErrSource) {
		t.Errorf("Open() = %v", err)
	}
	if d := time.Since(begin); d > 5*time.Second {
		t.Errorf("it took %v", d)
	}
	empty(t, temp)
	mustExec(t, db, "PRAGMA locking_mode = NORMAL")
	mustExec(t, db, "INSERT INTO t(v) SELECT hex(randomblob(200000)) FROM t")
	ctx, cancel = context.WithCancel(t.Context())
	s.Between(cancel)
	if _, err := s.Open(ctx); !errors.Is(err, context.Canceled) || errors.Is(err, source.ErrSource) {
		t.Errorf("Open() cancelled in the copy = %v", err)
	}
	empty(t, temp)
}

func TestView(t *testing.T) {
	path, temp := filepath.Join(t.TempDir(), "a.db"), t.TempDir()
	makeSmall(t, path)
	s := sqlite.File(path)
	s.Dir = temp
	v, err := s.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var whole []byte
	for range 2 { // a backup that meets a conflict reads again
		f, err := v.OpenFile(t.Context(), "a.db")
		if err != nil {
			t.Fatal(err)
		}
		p, err := io.ReadAll(f)
		if err != nil || whole != nil && !bytes.Equal(p, whole) || !bytes.HasPrefix(p, []byte("SQLite format 3\x00")) {
			t.Fatalf("read %d bytes, %v", len(p), err)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
		whole = p
	}
	for n, err := range v.ReadDir(t.Context(), "") {
		if err != nil || n.Name != "a.db" || n.Size != uint64(len(whole)) || !n.Look.IsZero() {
			t.Errorf("node %+v, %v", n, err)
		}
	}
	if _, err := v.OpenFile(t.Context(), "b.db"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("OpenFile(b.db) = %v", err)
	}
	for _, err := range v.ReadDir(t.Context(), "a.db") {
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("ReadDir(a.db): %v", err)
		}
	}
	joined, err := source.Join(source.Dir(t.TempDir()), s, s).Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if l := source.Labels(joined); l["sqlite.integrity"] != "ok" || l["sqlite.integrity.2"] != "ok" {
		t.Errorf("the labels of a joined view are %v", l)
	}
	if err := errors.Join(v.Finish(t.Context()), v.Close(), v.Close(), joined.Close()); err != nil {
		t.Error(err)
	}
	empty(t, temp)
}

func Example() {
	src := sqlite.File("/var/lib/app/app.db")
	src.Dir = "/var/lib/app/cache" // space for a copy of the database, not encrypted
	backup := func(ctx context.Context, repo *engine.Repository) error {
		report, err := repo.Backup(ctx, src, engine.BackupOptions{})
		if errors.Is(err, sqlite.ErrLocked) {
			return fmt.Errorf("a long transaction is under way: %w", err)
		}
		fmt.Println(report.Snapshot.ID, report.Snapshot.Labels["sqlite.integrity"])
		return err
	}
	_ = backup
	// Output:
}

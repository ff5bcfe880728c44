package sqlite_test

import (
	"bufio"
	"context"
	"database/sql"
	"fmt"
	"io"
	"math/rand/v2"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	_ "modernc.org/sqlite"
)

// The test binary is also the writer: another process, which is killed in the
// end.
func TestMain(m *testing.M) {
	if path := os.Getenv("CAIRN_SQLITE_WRITER"); path != "" {
		if err := write(context.Background(), path, os.Getenv("CAIRN_SQLITE_JOURNAL")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// There are so many accounts, and each has this much at first.
const (
	accounts = 500
	each     = 1000
)

// open opens a database for writing, with pragmas as the driver takes them.
func open(path string, pragmas ...string) (*sql.DB, error) {
	q := "_pragma=busy_timeout(60000)&_txlock=immediate"
	for _, p := range pragmas {
		q += "&_pragma=" + p
	}
	u := url.URL{Scheme: "file", Path: filepath.ToSlash(path), RawQuery: q}
	db, err := sql.Open("sqlite", u.String())
	if err == nil {
		db.SetMaxOpenConns(1)
	}
	return db, err
}

func mustOpen(t *testing.T, path string, pragmas ...string) *sql.DB {
	t.Helper()
	db, err := open(path, pragmas...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mustClose(t, db) })
	return db
}

func mustExec(t *testing.T, db *sql.DB, query string, args ...any) {
	t.Helper()
	if _, err := db.ExecContext(t.Context(), query, args...); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

// write makes the accounts and moves money between them as fast as it can, and
// now and then vacuums. Each transaction writes to several pages, so that a
// copy that is not of one moment shows in the sum or in the check.
func write(ctx context.Context, path, journal string) error {
	db, err := open(path, "journal_mode("+journal+")", "synchronous(OFF)")
	if err != nil {
		return err
	}
	defer db.Close()
	err = inTx(ctx, db,
		"CREATE TABLE account(id INTEGER PRIMARY KEY, money INTEGER NOT NULL, fill BLOB)",
		"CREATE INDEX by_money ON account(money, id)",
		"CREATE TABLE transfer(id INTEGER PRIMARY KEY AUTOINCREMENT, a INTEGER, b INTEGER, amount INTEGER, note TEXT)",
		fmt.Sprintf("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<%d) INSERT INTO account SELECT i, %d, randomblob(900) FROM n", accounts, each))
	if err != nil {
		return err
	}
	fmt.Println("ready")
	for n := 1; ; n++ {
		if n%400 == 0 {
			if _, err := db.ExecContext(ctx, "VACUUM"); err != nil {
				return err
			}
		}
		a, b, amount := 1+rand.IntN(accounts), 1+rand.IntN(accounts), rand.IntN(100)
		err := inTx(ctx, db,
			fmt.Sprintf("UPDATE account SET money = money - %d WHERE id = %d", amount, a),
			fmt.Sprintf("UPDATE account SET money = money + %d, fill = randomblob(%d) WHERE id = %d", amount, 100+rand.IntN(1500), b),
			fmt.Sprintf("INSERT INTO transfer(a, b, amount, note) VALUES (%d, %d, %d, hex(randomblob(60)))", a, b, amount),
			"DELETE FROM transfer WHERE id = (SELECT max(id) FROM transfer) - 500")
		if err != nil {
			return err
		}
	}
}

// inTx runs queries in one transaction.
func inTx(ctx context.Context, db *sql.DB, queries ...string) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // does nothing after Commit
	for _, q := range queries {
		if _, err := tx.ExecContext(ctx, q); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// oracle fails the test if the database at path is corrupt or the sum is wrong.
// It returns the number of the last transfer.
func oracle(t *testing.T, path string) (last int64) {
	t.Helper()
	for _, extra := range []string{"-wal", "-shm", "-journal"} {
		if _, err := os.Lstat(path + extra); err == nil {
			t.Fatalf("%s%s exists", path, extra)
		}
	}
	db := mustOpen(t, path)
	var said string
	if err := db.QueryRowContext(t.Context(), "PRAGMA integrity_check").Scan(&said); err != nil || said != "ok" {
		t.Fatalf("integrity_check: %q, %v", said, err)
	}
	var count, sum, indexed int64
	err := db.QueryRowContext(t.Context(), "SELECT count(*), sum(money), (SELECT coalesce(max(id), 0) FROM transfer) FROM account").Scan(&count, &sum, &last)
	if err != nil || count != accounts || sum != accounts*each {
		t.Fatalf("%d accounts hold %d (%v), want %d and %d", count, sum, err, accounts, accounts*each)
	}
	if err := db.QueryRowContext(t.Context(), "SELECT sum(money) FROM account INDEXED BY by_money").Scan(&indexed); err != nil || indexed != sum {
		t.Fatalf("by the index the accounts hold %d (%v), want %d", indexed, err, sum)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	return last
}

// startWriter starts another process that writes to the database at path until
// the test ends.
func startWriter(t *testing.T, path, journal string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), "CAIRN_SQLITE_WRITER="+path, "CAIRN_SQLITE_JOURNAL="+journal)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ready := make(chan bool, 1)
	go func() { ready <- bufio.NewScanner(out).Scan() }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have failed, which Wait tells
		if err := cmd.Wait(); err != nil && stderr.Len() > 0 {
			t.Errorf("the writer: %v: %s", err, stderr.String())
		}
	})
	select {
	case ok := <-ready:
		if !ok {
			t.Fatal("the writer did not begin")
		}
	case <-time.After(time.Minute):
		t.Fatal("the writer is not ready after a minute")
	}
}

func mustClose(t *testing.T, c io.Closer) {
	t.Helper()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

// makeSmall makes a small database.
func makeSmall(t *testing.T, path string, pragmas ...string) *sql.DB {
	t.Helper()
	db := mustOpen(t, path, pragmas...)
	mustExec(t, db, "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT)")
	mustExec(t, db, "INSERT INTO t(v) VALUES ('one'), ('two')")
	return db
}

// empty fails the test if something is left in dir.
func empty(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) > 0 {
		t.Errorf("left in %s: %v, %v", filepath.Base(dir), entries, err)
	}
}

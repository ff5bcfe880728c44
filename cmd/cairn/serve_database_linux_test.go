package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A bank is an SQLite database in which money only moves: the sum of its accounts
// never changes, and every transfer is in its ledger.
type bank struct {
	db    *sql.DB
	moves atomic.Int64
}

const (
	accounts = 100
	wealth   = accounts * 1000
)

// openBank opens the bank at path, which is made if it is not there.
func openBank(t *testing.T, path string) *bank {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	b := &bank{db: db}
	b.must(t, "PRAGMA journal_mode = WAL")
	b.must(t, "PRAGMA busy_timeout = 20000")
	b.must(t, "CREATE TABLE IF NOT EXISTS account (id INTEGER PRIMARY KEY, balance INTEGER)")
	b.must(t, "CREATE TABLE IF NOT EXISTS ledger (id INTEGER PRIMARY KEY, source INTEGER, sink INTEGER, note BLOB)")
	b.must(t, fmt.Sprintf("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d) INSERT OR IGNORE INTO account SELECT i, 1000 FROM n", accounts))
	return b
}

func (b *bank) must(t *testing.T, statement string) {
	t.Helper()
	if _, err := b.db.ExecContext(t.Context(), statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

// trade moves money until ctx is done.
func (b *bank) trade(ctx context.Context) error {
	for ctx.Err() == nil {
		from, to, sum := rand.IntN(accounts)+1, rand.IntN(accounts)+1, rand.IntN(50)
		tx, err := b.db.BeginTx(context.WithoutCancel(ctx), nil)
		if err != nil {
			return err
		}
		for _, step := range []struct {
			statement string
			args      []any
		}{
			{"UPDATE account SET balance = balance - ? WHERE id = ?", []any{sum, from}},
			{"INSERT INTO ledger (source, sink, note) VALUES (?, ?, randomblob(500))", []any{from, to}},
			{"UPDATE account SET balance = balance + ? WHERE id = ?", []any{sum, to}},
		} {
			if _, err := tx.ExecContext(context.WithoutCancel(ctx), step.statement, step.args...); err != nil {
				return errors.Join(err, tx.Rollback())
			}
		}
		if err := tx.Commit(); err != nil {
			return err
		}
		b.moves.Add(1)
	}
	return nil
}

// audit holds that the bank is whole, closes it, and returns how many transfers
// are in its ledger.
func (b *bank) audit(t *testing.T) (moves int64) {
	t.Helper()
	var verdict string
	var sum, n int64
	err := errors.Join(
		b.db.QueryRowContext(t.Context(), "PRAGMA integrity_check").Scan(&verdict),
		b.db.QueryRowContext(t.Context(), "SELECT sum(balance), count(*) FROM account").Scan(&sum, &n),
		b.db.QueryRowContext(t.Context(), "SELECT count(*) FROM ledger").Scan(&moves),
		b.db.Close(),
	)
	if err != nil || verdict != "ok" || sum != wealth || n != accounts {
		t.Fatalf("%s: %d in %d accounts, %v", verdict, sum, n, err)
	}
	return moves
}

// TestServeDatabase backs up a database while a program writes to it, and restores
// it: each backup is the database between two transactions. While the program has
// it open it is not exchanged.
func TestServeDatabase(t *testing.T) {
	t.Parallel()
	repo, env := aRepository(t)
	path := filepath.Join(t.TempDir(), "bank.db")
	open := openBank(t, path)
	server := startChild(t, env, "-r", repo, "--data", path)
	ctx, stop := context.WithCancel(t.Context())
	var group sync.WaitGroup
	group.Go(func() {
		if err := open.trade(ctx); err != nil {
			t.Error(err)
		}
	})
	const backups = 4
	var ids []string
	var floors []int64 // transfers that were made before a backup was begun
	for range backups {
		for before := open.moves.Load(); open.moves.Load() < before+20 && !t.Failed(); {
			time.Sleep(time.Millisecond)
		}
		floors = append(floors, open.moves.Load())
		ids = append(ids, server.create(t))
	}
	code, body, err := post(t, server.url+"/backup/"+ids[0]+"/restore")
	if err != nil || code != 500 || !strings.Contains(body, "open in process") {
		t.Errorf("a restore under a program = %d %s, %v", code, body, err)
	}
	stop()
	group.Wait()
	if made, moves := open.moves.Load(), open.audit(t); moves != made {
		t.Errorf("%d transfers are in the ledger, and %d were made", moves, made)
	}
	last := int64(-1)
	for i, id := range ids {
		if code, body, err := post(t, server.url+"/backup/"+id+"/restore"); err != nil || code != 200 {
			t.Fatalf("restore = %d %s, %v", code, body, err)
		}
		moves := openBank(t, path).audit(t)
		if moves < floors[i] || moves < last {
			t.Errorf("backup %d has %d transfers, the one before %d, and %d were made before it", i, moves, last, floors[i])
		}
		last = moves
	}
	server.kill()
	checkClean(t, repo, env)
}

package main

import (
	"context"
	"database/sql"
	"strconv"

	"github.com/rogpeppe/go-internal/testscript"
)

// openDatabase opens a database by the driver that package sqlite links.
func openDatabase(ts *testscript.TestScript, file string) *sql.DB {
	db, err := sql.Open("sqlite", ts.MkAbs(file))
	ts.Check(err)
	db.SetMaxOpenConns(1)
	return db
}

// makelive FILE ROWS makes an SQLite database in WAL mode, and keeps it open
// until the script ends, so that what is new is in the -wal file alone.
func cmdMakeLive(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: makelive FILE ROWS")
	}
	db := openDatabase(ts, args[0])
	ts.Defer(func() { _ = db.Close() }) // the script is over
	for _, statement := range []string{
		"PRAGMA journal_mode = WAL",
		"CREATE TABLE t (v TEXT)",
		"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < " + args[1] + ") INSERT INTO t SELECT 'row ' || i FROM n",
	} {
		_, err := db.ExecContext(context.Background(), statement)
		ts.Check(err)
	}
}

// database FILE ROWS checks the integrity of a database and counts its rows.
func cmdDatabase(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: database FILE ROWS")
	}
	db := openDatabase(ts, args[0])
	defer db.Close() // only read
	var verdict string
	ts.Check(db.QueryRowContext(context.Background(), "PRAGMA integrity_check").Scan(&verdict))
	rows := 0
	ts.Check(db.QueryRowContext(context.Background(), "SELECT count(*) FROM t").Scan(&rows))
	if verdict != "ok" || strconv.Itoa(rows) != args[1] {
		ts.Fatalf("%s: %s, %d rows, want %s", args[0], verdict, rows, args[1])
	}
}

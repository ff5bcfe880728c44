// Command sqlite makes a real SQLite database and changes it, for the proof
// that a database comes back from a backup as it was.
//
//	sqlite make FILE BYTES       a new database of at least BYTES
//	sqlite rows FILE PERCENT     changes that share of the rows, in runs as an application would
//	sqlite pages FILE COUNT      changes COUNT rows on as many pages, all over the file
//	sqlite check FILE            the integrity check, and every row against its checksum
//
// It is a module of its own, so that the engine's does not depend on SQLite.
package main

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"strconv"

	_ "modernc.org/sqlite"
)

// rowSize is the size in bytes of the part of a row that is random: with the
// text beside it, two or three rows fill a page of 4 KiB.
const rowSize = 1024

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "sqlite:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) (err error) {
	if len(args) < 2 {
		return errors.New("usage: sqlite make|rows|pages|check FILE [NUMBER]")
	}
	n := int64(0)
	if len(args) > 2 {
		if n, err = strconv.ParseInt(args[2], 10, 64); err != nil {
			return err
		}
	}
	// The journal is deleted at each commit, so the file alone is the database.
	db, err := sql.Open("sqlite", "file:"+args[1]+"?_pragma=journal_mode(DELETE)&_pragma=synchronous(OFF)&_pragma=cache_size(-65536)")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	db.SetMaxOpenConns(1)
	switch args[0] {
	case "make":
		return fill(ctx, db, n)
	case "rows":
		return updateRows(ctx, db, n)
	case "pages":
		return updatePages(ctx, db, n)
	case "check":
		return check(ctx, db)
	}
	return fmt.Errorf("there is no command %q", args[0])
}

// row returns the columns of row id in its version v: a line of text that
// compresses, bytes that do not, and a checksum over both and the id.
func row(id, v int64) (note string, blob []byte, sum int64) {
	blob = make([]byte, rowSize)
	r := rand.NewChaCha8([32]byte{byte(id), byte(id >> 8), byte(id >> 16), byte(id >> 24), byte(v), 1})
	r.Read(blob)
	note = fmt.Sprintf("order %012d, version %06d: three boxes of nails, to be sent to the workshop by Thursday; ", id, v)
	for range 2 {
		note += note
	}
	return note, blob, checksum(id, note, blob)
}

func checksum(id int64, note string, blob []byte) int64 {
	h := crc32.NewIEEE()
	h.Write(binary.LittleEndian.AppendUint64([]byte(note), uint64(id)))
	h.Write(blob)
	return int64(h.Sum32())
}

// fill makes the table and adds rows until the file is large enough.
func fill(ctx context.Context, db *sql.DB, size int64) error {
	if _, err := db.ExecContext(ctx, `CREATE TABLE orders(id INTEGER PRIMARY KEY, stamp TEXT NOT NULL, note TEXT NOT NULL, data BLOB NOT NULL, sum INTEGER NOT NULL);
		CREATE INDEX orders_sum ON orders(sum)`); err != nil {
		return err
	}
	const batch = 5_000
	for id := int64(1); ; {
		err := inTx(ctx, db, "INSERT INTO orders VALUES(?, '00000000', ?, ?, ?)", func(s *sql.Stmt) error {
			for range batch {
				note, blob, sum := row(id, 0)
				if _, err := s.ExecContext(ctx, id, note, blob, sum); err != nil {
					return err
				}
				id++
			}
			return nil
		})
		if err != nil {
			return err
		}
		var pages, pageSize int64
		if err := db.QueryRowContext(ctx, "SELECT page_count, page_size FROM pragma_page_count, pragma_page_size").Scan(&pages, &pageSize); err != nil {
			return err
		}
		if pages*pageSize >= size {
			return nil
		}
	}
}

func inTx(ctx context.Context, db *sql.DB, query string, do func(*sql.Stmt) error) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() // does nothing after Commit
	s, err := tx.PrepareContext(ctx, query)
	if err != nil {
		return err
	}
	if err := errors.Join(do(s), s.Close()); err != nil {
		return err
	}
	return tx.Commit()
}

func count(ctx context.Context, db *sql.DB) (n int64, err error) {
	err = db.QueryRowContext(ctx, "SELECT max(id) FROM orders").Scan(&n)
	return n, err
}

// updateRows rewrites percent of the rows, in runs of twenty, text and index
// entries with them.
func updateRows(ctx context.Context, db *sql.DB, percent int64) error {
	n, err := count(ctx, db)
	if err != nil {
		return err
	}
	const runs = 20
	r := rand.New(rand.NewPCG(1, uint64(n)))
	return inTx(ctx, db, "UPDATE orders SET note=?, data=?, sum=? WHERE id=?", func(s *sql.Stmt) error {
		for range max(n*percent/100/runs, 1) {
			first := 1 + r.Int64N(n/runs)*runs
			for id := first; id < first+runs; id++ {
				note, blob, sum := row(id, 1)
				if _, err := s.ExecContext(ctx, note, blob, sum, id); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// updatePages changes one stamp on each of many pages that lie far from each
// other. A stamp has always the same length and is in no index, so nothing else
// of the file changes.
func updatePages(ctx context.Context, db *sql.DB, pages int64) error {
	n, err := count(ctx, db)
	if err != nil {
		return err
	}
	r := rand.New(rand.NewPCG(2, uint64(n)))
	return inTx(ctx, db, "UPDATE orders SET stamp=? WHERE id=?", func(s *sql.Stmt) error {
		for i := range pages {
			id := 1 + i*n/pages + r.Int64N(max(n/pages, 1))
			if _, err := s.ExecContext(ctx, fmt.Sprintf("%08d", 1+r.IntN(99_999_999)), id); err != nil {
				return err
			}
		}
		return nil
	})
}

// check lets SQLite check the file and then checks every row itself.
func check(ctx context.Context, db *sql.DB) (err error) {
	var said string
	if err := db.QueryRowContext(ctx, "PRAGMA integrity_check").Scan(&said); err != nil {
		return err
	}
	if said != "ok" {
		return fmt.Errorf("integrity_check: %s", said)
	}
	rows, err := db.QueryContext(ctx, "SELECT id, note, data, sum FROM orders")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var id, sum int64
		var note string
		var blob []byte
		if err := rows.Scan(&id, &note, &blob, &sum); err != nil {
			return err
		}
		if checksum(id, note, blob) != sum {
			return fmt.Errorf("row %d is not as it was written", id)
		}
	}
	return rows.Err()
}

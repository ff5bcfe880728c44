package sqlite

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	driver "modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"
)

const (
	// minVersion is 3.51.3, as sqlite3_libversion_number writes it.
	minVersion = 3_051_003
	// stepBytes is how much one step of a backup copies: a few milliseconds of
	// work, after which ctx is asked.
	stepBytes = 4 << 20
	// testStepBytes is the same for tests, whose databases are small.
	testStepBytes = 32 << 10
	// busyMillis is how long SQLite itself waits for a lock before ctx is asked.
	busyMillis = 100
	// maxFindings bounds what is told of a corrupt database, in lines.
	maxFindings = 5
)

// A copier makes one copy.
type copier struct {
	source   *Source
	from, to string // paths
	owner    uint32 // user of the database, where there are users
}

// run copies and checks, and returns what the snapshot records of it.
func (c *copier) run(ctx context.Context) (labels map[string]string, err error) {
	if c.spoils(ctx) {
		return nil, c.fail("open", ErrWALFiles)
	}
	db, err := sql.Open("sqlite", uri(c.from, "mode=ro&_pragma=busy_timeout("+strconv.Itoa(busyMillis)+")"))
	if err != nil {
		return nil, c.fail("open", err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, c.fail("open", err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	labels, err = c.begin(ctx, conn)
	if err != nil {
		return nil, err
	}
	pageSize, err := strconv.Atoi(labels[labelPageSize])
	if err != nil || pageSize <= 0 {
		return nil, c.fail("open", ErrCorrupt)
	}
	pages, err := c.copy(ctx, conn, pageSize)
	if err != nil {
		return nil, err
	}
	labels[labelPages] = strconv.Itoa(pages)
	// Writers that waited go on, and the -wal file can be checkpointed.
	if _, err := conn.ExecContext(ctx, "ROLLBACK"); err != nil {
		return nil, c.fail("read", err)
	}
	labels[labelIntegrity], err = c.check(ctx)
	return labels, err
}

// spoils reports whether SQLite would leave files beside the database that its
// owner cannot write to, and so cannot use it any more: a connection that only
// reads makes them if they are not there, and cannot remove them. For root
// SQLite gives them to the owner of the database.
func (c *copier) spoils(ctx context.Context) bool {
	user := os.Geteuid()
	if user <= 0 || uint32(user) == c.owner { //nolint:gosec // a user's number, -1 on Windows
		return false
	}
	if _, err := os.Stat(c.from + "-wal"); err == nil {
		return false
	}
	// Read as an immutable file, it gets no such files. If that fails, so will
	// what follows, and say why.
	db, err := sql.Open("sqlite", uri(c.from, "mode=ro&immutable=1"))
	if err != nil {
		return false
	}
	defer db.Close() // only read
	var versions []byte
	err = db.QueryRowContext(ctx, "SELECT substr(data, 19, 2) FROM sqlite_dbpage WHERE pgno = 1").Scan(&versions)
	return err == nil && bytes.Equal(versions, []byte{2, 2}) // of the file format: WAL
}

// Labels of a snapshot.
const (
	labelPageSize  = "sqlite.page_size"
	labelPages     = "sqlite.pages"
	labelJournal   = "sqlite.journal_mode"
	labelIntegrity = "sqlite.integrity"
	labelVersion   = "sqlite.version"
)

// begin opens the read transaction that the copy is made in. It ends with the
// connection at the latest.
func (c *copier) begin(ctx context.Context, conn *sql.Conn) (map[string]string, error) {
	var version, pageSize, journal string
	if err := conn.QueryRowContext(ctx, "SELECT sqlite_version()").Scan(&version); err != nil {
		return nil, c.fail("open", err)
	}
	if !recent(version) {
		return nil, c.fail("open", fmt.Errorf("version %s: %w", version, ErrOldVersion))
	}
	if _, err := conn.ExecContext(ctx, "BEGIN"); err != nil {
		return nil, c.fail("open", err)
	}
	// BEGIN takes no lock and looks at nothing; the first read does.
	err := c.patient(ctx, func() error {
		var n int
		return conn.QueryRowContext(ctx, "SELECT count(*) FROM (SELECT 1 FROM sqlite_schema LIMIT 1)").Scan(&n)
	})
	if err != nil {
		return nil, c.fail("open", err)
	}
	if err := conn.QueryRowContext(ctx, "PRAGMA page_size").Scan(&pageSize); err != nil {
		return nil, c.fail("open", err)
	}
	if err := conn.QueryRowContext(ctx, "PRAGMA journal_mode").Scan(&journal); err != nil {
		return nil, c.fail("open", err)
	}
	if journal != "wal" {
		journal = "rollback" // which of the rollback modes is each connection's own choice
	}
	return map[string]string{labelVersion: version, labelPageSize: pageSize, labelJournal: journal}, nil
}

// A backuper is the connection of the driver, which has no exported type.
type backuper interface {
	NewBackup(destination string) (*driver.Backup, error)
}

// copy copies all pages as the read transaction of conn sees them, and returns
// how many they are. Since that transaction lasts from step to step, no writer
// makes the backup begin anew; without it a stepped backup may never end.
func (c *copier) copy(ctx context.Context, conn *sql.Conn, pageSize int) (pages int, err error) {
	// Nothing of the copy needs to survive a crash.
	to := uri(c.to, "_pragma=journal_mode(OFF)&_pragma=synchronous(OFF)&_pragma=locking_mode(EXCLUSIVE)")
	err = conn.Raw(func(raw any) (err error) {
		from, ok := raw.(backuper)
		if !ok {
			return errors.New("the driver has no online backup")
		}
		b, err := from.NewBackup(to)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, b.Finish()) }()
		for more := true; more; {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if more, err = b.Step(int32(max(c.source.step()/pageSize, 1))); err != nil { //nolint:gosec // at most 8192
				return err
			}
		}
		pages = b.PageCount()
		return nil
	})
	if err != nil {
		return 0, c.fail("copy", err)
	}
	return pages, nil
}

// check lets SQLite check the copy and returns what the snapshot says of it.
func (c *copier) check(ctx context.Context) (said string, err error) {
	pragma, said := "integrity_check", "ok"
	switch c.source.Check {
	case None:
		return "not checked", nil
	case Quick:
		pragma, said = "quick_check", "quick_check ok"
	default:
	}
	// An immutable file is read without -wal and -shm files and without locks.
	db, err := sql.Open("sqlite", uri(c.to, "mode=ro&immutable=1"))
	if err != nil {
		return "", c.fail("check", err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	found, err := findings(ctx, db, fmt.Sprintf("PRAGMA %s(%d)", pragma, maxFindings))
	switch {
	case codeOf(err)&0xff == lib.SQLITE_ERROR: // of the statement: the file was not even looked at
		return "", c.fail("check", fmt.Errorf("%w: %w", err, ErrUnchecked))
	case err != nil:
		return "", c.fail("check", err)
	case len(found) != 1 || found[0] != "ok":
		text := strings.ReplaceAll(strings.Join(found, "; "), "\n", "; ")
		return "", c.fail("check", fmt.Errorf("%s: %w", text, ErrCorrupt))
	}
	return said, nil
}

// findings returns the rows of a query of one column.
func findings(ctx context.Context, db *sql.DB, query string) (lines []string, err error) {
	rows, err := db.QueryContext(ctx, query)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var line string
		if err := rows.Scan(&line); err != nil {
			return nil, err
		}
		lines = append(lines, line)
	}
	return lines, rows.Err()
}

// patient calls do again while it finds the database locked, as long as the
// source waits.
func (c *copier) patient(ctx context.Context, do func() error) error {
	wait := c.source.Wait
	if wait == 0 {
		wait = defaultWait
	}
	end := time.Now().Add(wait)
	for {
		err := do()
		if !locked(err) || !time.Now().Before(end) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Millisecond): // SQLite has waited already
		}
	}
}

// fail returns err as an error of the source, and of its class.
func (c *copier) fail(op string, err error) error {
	if class := classOf(err); class != nil && !errors.Is(err, class) {
		err = fmt.Errorf("%w: %w", err, class)
	}
	return c.source.fail(op, err)
}

// classOf returns the sentinel for an error of SQLite, or nil.
func classOf(err error) error {
	code := codeOf(err)
	switch code {
	case lib.SQLITE_READONLY_ROLLBACK, lib.SQLITE_READONLY_RECOVERY, lib.SQLITE_READONLY_CANTINIT:
		return ErrUnrecovered
	case lib.SQLITE_READONLY_DIRECTORY:
		return ErrWALFiles
	default:
	}
	switch code & 0xff {
	case lib.SQLITE_NOTADB:
		return ErrNotDatabase
	case lib.SQLITE_CORRUPT:
		return ErrCorrupt
	case lib.SQLITE_FULL:
		return ErrNoSpace
	case lib.SQLITE_BUSY, lib.SQLITE_LOCKED, lib.SQLITE_PROTOCOL:
		return ErrLocked
	default:
		return nil
	}
}

func locked(err error) bool { return errors.Is(classOf(err), ErrLocked) }

// codeOf returns the extended result code of SQLite in err, or 0.
func codeOf(err error) int {
	if e, ok := errors.AsType[*driver.Error](err); ok {
		return e.Code()
	}
	return 0
}

// recent reports whether a version, such as 3.51.3, is new enough.
func recent(version string) bool {
	n := 0
	for _, part := range append(strings.SplitN(version, ".", 4), "0", "0")[:3] {
		m, err := strconv.Atoi(part)
		if err != nil || m < 0 || m > 999 {
			return false
		}
		n = 1000*n + m
	}
	return n >= minVersion
}

// uri names the file at path, which is absolute, to SQLite, whatever bytes it
// is made of.
func uri(path, query string) string {
	path = filepath.ToSlash(path)
	if !strings.HasPrefix(path, "/") {
		path = "/" + path // C:/data
	}
	return (&url.URL{Scheme: "file", Path: path, RawQuery: query}).String()
}

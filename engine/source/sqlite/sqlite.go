// Package sqlite delivers a consistent copy of a live SQLite database. It links
// SQLite, in pure Go; a program that does not import it does not.
package sqlite

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"time"

	"github.com/cairn-backup/cairn/engine/source"
	"github.com/cairn-backup/cairn/manifest"
)

// Errors that a [Source] returns, found by errors.Is in a [source.Error]. A
// database that is not there is fs.ErrNotExist.
var (
	// ErrNotDatabase says that the file is no SQLite database, or an encrypted
	// one.
	ErrNotDatabase = errors.New("not an SQLite database")

	// ErrLocked says that another connection kept the database locked for all
	// of Wait.
	ErrLocked = errors.New("the database stayed locked by its writer; try again later or wait longer")

	// ErrUnrecovered says that a writer died and left a journal, which can be
	// rolled back only by a connection that may write.
	ErrUnrecovered = errors.New("its last writer did not finish; open the database once with its application, which recovers it")

	// ErrCorrupt says that the database is corrupt. Nothing is delivered.
	ErrCorrupt = errors.New("the database is corrupt; restore an earlier snapshot, or save what is readable with the .recover command of sqlite3")

	// ErrUnchecked says that the check could not be run, as with a collation
	// that only the application has.
	ErrUnchecked = errors.New("the check cannot be run; register what it lacks with the driver, or set Check to None")

	// ErrNoSpace says that the copy found no space. It needs as much as the
	// database is large.
	ErrNoSpace = errors.New("no space for the copy of the database; free some, or name another directory in Dir")

	// ErrWALFiles says that the database is in WAL mode, no application has it
	// open, and SQLite could not make its -wal and -shm files, or would make
	// them such that the owner of the database cannot write to them.
	ErrWALFiles = errors.New("in WAL mode SQLite makes files beside the database; run as its owner or as root, or while its application has it open")

	// ErrOldVersion says that the SQLite that was linked is older than 3.51.3,
	// which is the first in which a checkpoint cannot spoil a database in WAL
	// mode (https://sqlite.org/wal.html#walresetbug).
	ErrOldVersion = errors.New("the SQLite that is linked is older than 3.51.3; update modernc.org/sqlite")
)

// A Check says how a copy is checked before it is delivered.
type Check uint8

// The checks. Their time grows with the size of the database.
const (
	Full  Check = iota // PRAGMA integrity_check: tables, indexes, and that they agree
	Quick              // PRAGMA quick_check: all but that indexes agree with tables
	None               // no check
)

// A Source is a live SQLite database. Its fields are set before Open and not
// changed after.
//
// Open copies the database through SQLite's online backup in one read
// transaction, so that the copy is what one moment committed: frames of the
// -wal file are in it, uncommitted changes are not. In WAL mode writers go on
// meanwhile, and the -wal file grows, since nothing can be checkpointed past
// that moment; in the other journal modes they wait for the copy, not for the
// check and the backup.
//
// The database is opened for reading. In WAL mode SQLite needs to create, or
// find, the -shm and -wal files beside it, so the directory must be writable
// unless they are there, and they stay behind; ErrWALFiles otherwise, and if
// they would belong to another user than the database. A process that has the database open
// through another SQLite library (with cgo, for one) must not use this package
// on it: closing any descriptor of a file drops the POSIX locks that the whole
// process has on it (https://sqlite.org/howtocorrupt.html#multiple_copies_of_sqlite_linked_into_the_same_application).
// Nothing but SQLite opens the database here, for that reason.
//
// What is delivered is one file, a database by itself, with the mode, owner,
// times and extended attributes of the original. It differs from the original
// in the change counter and the schema cookie, which SQLite sets anew. It is
// read again by each backup, whatever the times say: in WAL mode a commit
// leaves them alone. The snapshot gets the labels sqlite.page_size (bytes),
// sqlite.pages, sqlite.journal_mode, sqlite.integrity and sqlite.version.
type Source struct {
	path string

	// Dir is the directory in which a directory for the copy is made, with mode
	// 0700. The copy is as large as the database and not encrypted; it is gone
	// after the backup, and, where open files can be removed, as soon as it is
	// made and checked. Default: os.TempDir, which may be in memory.
	Dir string

	// Check is how the copy is checked. Default: Full.
	Check Check

	// Wait is for how long a locked database is waited for. Default: 30 s.
	Wait time.Duration

	between func() // called before each step; only tests set it, and then steps are small
}

var _ source.Source = (*Source)(nil)

// File returns a source that is the database at path, the main file. If path is
// a symbolic link, it is what that leads to.
func File(path string) *Source { return &Source{path: path} }

// defaultWait is long beside a commit and short beside a backup.
const defaultWait = 30 * time.Second

// Open copies and checks the database. It takes as long as that takes; when ctx
// is done it ends within a second.
func (s *Source) Open(ctx context.Context) (source.View, error) {
	node, root, err := s.look(ctx)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(s.Dir, "cairn-sqlite-")
	if err != nil {
		return nil, &source.Error{Op: "copy", Path: s.path, Err: err} // with the directory's name
	}
	v := &view{source: s, root: root, node: node, dir: dir}
	if err := s.fill(ctx, v); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err() // however SQLite puts it
		}
		return nil, errors.Join(err, v.Close())
	}
	// A process that is killed from here on leaves no copy behind. Where an open
	// file cannot be removed, Close does it.
	if os.RemoveAll(dir) == nil {
		v.dir = ""
	}
	return v, nil
}

// look returns the node of the original, without Look, and its root.
func (s *Source) look(ctx context.Context) (n manifest.Node, root manifest.Root, err error) {
	v, err := source.Dir(s.path).Open(ctx)
	if err != nil {
		return n, root, err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	root = v.Info().Roots[0]
	for node, err := range v.ReadDir(ctx, "") {
		if err != nil {
			return n, root, err
		}
		n = node
	}
	if n.Kind != manifest.File {
		return n, root, s.fail("open", ErrNotDatabase)
	}
	if err := source.Complete(ctx, v, root.Name, &n); err != nil {
		return n, root, err
	}
	// The copy is neither linked to anything nor what the parent's look can
	// tell to be unchanged.
	n.Look, n.Link, n.Flags = manifest.Look{}, manifest.Node{}.Link, 0
	return n, root, nil
}

// fill makes the copy, checks it and opens it.
func (s *Source) fill(ctx context.Context, v *view) error {
	path, err := filepath.Abs(s.path)
	if err != nil {
		return s.fail("open", err)
	}
	c := copier{source: s, from: path, to: filepath.Join(v.dir, "copy.db"), owner: v.node.UID}
	if v.labels, err = c.run(ctx); err != nil {
		return err
	}
	if v.file, err = os.Open(c.to); err != nil {
		return s.fail("copy", err)
	}
	fi, err := v.file.Stat()
	if err != nil {
		return s.fail("copy", err)
	}
	v.node.Size = uint64(fi.Size()) //nolint:gosec // of a regular file
	return nil
}

// step returns how much one step copies, in bytes.
func (s *Source) step() int {
	if s.between == nil {
		return stepBytes
	}
	s.between()
	return testStepBytes
}

func (s *Source) fail(op string, err error) error {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		err = p.Err
	}
	return &source.Error{Op: op, Path: s.path, Err: err}
}

// A view shows the copy.
type view struct {
	source *Source
	root   manifest.Root
	node   manifest.Node
	labels map[string]string
	dir    string   // of the copy; "": it is removed already
	file   *os.File // the copy; nil after Close
}

var (
	_ source.View    = (*view)(nil)
	_ source.Labeler = (*view)(nil)
)

// Info describes the database.
func (v *view) Info() source.Info {
	return source.Info{Kind: manifest.KindDatabase, Name: v.root.Name, Roots: []manifest.Root{v.root}}
}

// Labels says what the copy is.
func (v *view) Labels() map[string]string { return maps.Clone(v.labels) }

// ReadDir yields the one file.
func (v *view) ReadDir(ctx context.Context, path string) iter.Seq2[manifest.Node, error] {
	return func(yield func(manifest.Node, error) bool) {
		switch {
		case ctx.Err() != nil:
			yield(manifest.Node{}, ctx.Err())
		case path != "":
			yield(manifest.Node{}, v.source.fail("read", fs.ErrNotExist))
		default:
			yield(v.node, nil)
		}
	}
}

// OpenFile opens the copy, any number of times.
func (v *view) OpenFile(ctx context.Context, path string) (io.ReadCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if path != v.root.Name {
		return nil, v.source.fail("open", fs.ErrNotExist)
	}
	return &reader{view: v, part: io.NewSectionReader(v.file, 0, int64(v.node.Size))}, nil //nolint:gosec // a file's size
}

// Finish does nothing: the copy does not change.
func (v *view) Finish(ctx context.Context) error { return ctx.Err() }

// Close removes the copy.
func (v *view) Close() error {
	var err error
	if v.file != nil {
		err = v.file.Close()
		v.file = nil
	}
	if v.dir != "" {
		err = errors.Join(err, os.RemoveAll(v.dir))
		v.dir = ""
	}
	if err != nil {
		return v.source.fail("close", err)
	}
	return nil
}

// A reader reads the copy from its begin.
type reader struct {
	view *view
	part *io.SectionReader
}

// Read reads on.
func (r *reader) Read(p []byte) (int, error) {
	n, err := r.part.Read(p)
	if err != nil && err != io.EOF { //nolint:errorlint // as io.Reader says
		err = r.view.source.fail("read", err)
	}
	return n, err
}

// Grain returns how finely the copy is compared with the one before.
func (r *reader) Grain() (int, error) { return source.DatabaseGrain, nil }

// Close does nothing: the view closes the copy.
func (r *reader) Close() error { return nil }

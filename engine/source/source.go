// Package source delivers what is to be backed up: directories, any fs.FS, or
// one stream, each as one consistent view.
//
//	source.Dir("/var/lib/app")                     // a directory, or a single file
//	source.Join(source.Dir(a), source.Dir(b))      // several roots in one snapshot
//	source.FS("assets", embedded)                  // any fs.FS
//	source.Stream("shop.sql", func(ctx context.Context, w io.Writer) error { … })
//	sqlite.File("/var/lib/app/app.db")             // package engine/source/sqlite
//
// # Directories
//
// [Dir] takes every entry as it is: links are entries and never followed, but for
// the root itself, if it is one (see [Followed]); sockets are left out.
// DirSource.Exclude and IgnoreFiles hold patterns as git reads them,
// ExcludeCaches leaves out what is in directories with a CACHEDIR.TAG,
// OneFileSystem what is mounted below, and Skip the repository and its cache,
// by device and inode, wherever they show up (see [LeftOut]).
//
// A directory that others write to is no consistent view: each file is read as it
// is at that moment, and one that changed while it was read is reported. A
// database is not backed up by reading its files: stop its writer, take
// a stream of its dump, or, for SQLite, package engine/source/sqlite.
//
// # Streams
//
// The producer of a [Stream] writes until it returns. If it returns an error
// nothing is published, and the error is found as itself by errors.Is and
// errors.As. An empty stream is [ErrEmptyStream] unless AllowEmpty is set.
//
// # Sources of one's own
//
// A [Source] opens a [View], which lists directories in name order and opens
// files. What goes wrong in it is an [Error], so that nobody takes it for
// trouble with the store. Finish, after the last read, may still say that
// what was read is not consistent. [Completer], [Labeler], [Again] and [Sparse]
// are optional.
package source

import (
	"context"
	"errors"
	"io"
	"iter"
	"path/filepath"

	"github.com/cairn-backup/cairn/manifest"
)

// Errors that the views of this package return, found by errors.Is. An entry
// that is not there (any more) is fs.ErrNotExist.
var (
	// ErrSource is the class of every error that a source made: [Error]
	// reports to be one. Errors of a context are not of this class.
	ErrSource = errors.New("source")

	// ErrChanged says that an entry is no longer of the kind that it was.
	ErrChanged = errors.New("changed while it was read")

	// ErrEmptyStream says that the producer of a stream delivered nothing.
	ErrEmptyStream = errors.New("stream is empty")

	// ErrStreamRead says that a stream, which can be read once, was opened
	// again, or that it was never read to its end.
	ErrStreamRead = errors.New("stream is read once, to its end")

	// ErrPattern says that an exclude pattern cannot match anything, or that
	// what names an ignore file is no name.
	ErrPattern = errors.New("bad exclude pattern")

	// ErrIgnoreFile says that the ignore files in force for a directory hold
	// more than is read of them, so that the innermost leaves nothing out.
	ErrIgnoreFile = errors.New("ignore files are too large")

	// ErrSkipped says that a source is itself one of the paths it must skip.
	ErrSkipped = errors.New("source is a directory that is to be left out")
)

// An Error is an error of a source, as opposed to one of the store. It unwraps
// to its cause, and errors.Is(err, ErrSource) reports true for it.
type Error struct {
	Op   string // what was done: "open", "read", "stat", ...
	Path string // as the operating system knows it, raw bytes
	Err  error
}

// Error returns operation, path and cause as one line.
func (e *Error) Error() string { return e.Op + " " + e.Path + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is reports whether target is [ErrSource].
func (e *Error) Is(target error) bool { return target == ErrSource }

// A Source can be backed up.
type Source interface {
	// Open returns one consistent view of the data. The caller closes it.
	Open(ctx context.Context) (View, error)
}

// Info says what a [View] shows.
type Info struct {
	Kind    manifest.Kind
	Name    string          // of the data set
	Roots   []manifest.Root // at least one, in the order they were given
	Profile string          // how content is cut; "" is the default profile
}

// A View is one look at a source. Its methods are safe for concurrent use;
// Close comes after all others have returned and every file is closed.
//
// A path is a root's Name, or that and the names of entries below it, joined
// by slashes. Names are raw bytes without slash and NUL.
type View interface {
	// Info never changes.
	Info() Info

	// ReadDir yields the entries of a directory in byte order of their
	// names. The path "" is the list of roots: one node for each, named as
	// its root. An entry that cannot be looked at is yielded as a node that
	// has only a name, with an error, and the iteration goes on. An error of
	// the directory itself comes with a node without name and ends it.
	// Sockets are yielded too. A view that is a [Completer] may leave out
	// what a node's Complete adds.
	ReadDir(ctx context.Context, path string) iter.Seq2[manifest.Node, error]

	// OpenFile opens a regular file. It never follows a symbolic link and
	// never waits for the other end of a pipe: what is not a regular file
	// (any more) is ErrChanged. Whether it is still the file that ReadDir
	// saw can be asked of what implements [Again].
	OpenFile(ctx context.Context, path string) (io.ReadCloser, error)

	// Finish comes after the last read and before the commit. An error says
	// that what was read is no consistent view and must not be published.
	Finish(ctx context.Context) error

	// Close releases everything.
	Close() error
}

// A Completer is a [View] whose ReadDir leaves out what costs a system call
// more, so that entries which did not change need none.
type Completer interface {
	// Complete adds extended attributes and the target of a symbolic link to
	// n, which ReadDir yielded for path. It changes nothing else.
	Complete(ctx context.Context, path string, n *manifest.Node) error
}

// Complete completes n if v is a [Completer], and else does nothing.
func Complete(ctx context.Context, v View, path string, n *manifest.Node) error {
	if c, ok := v.(Completer); ok {
		return c.Complete(ctx, path, n)
	}
	return nil
}

// A Labeler is a [View] that has something to say of what it shows, beyond what
// nodes hold.
type Labeler interface {
	// Labels returns labels for the snapshot: keys of at most 256 bytes, values
	// of at most 4096. They never change. The caller owns the map.
	Labels() map[string]string
}

// Labels returns the labels of v if it is a [Labeler], and else nil.
func Labels(v View) map[string]string {
	if l, ok := v.(Labeler); ok {
		return l.Labels()
	}
	return nil
}

// Again is what an open file may implement: another look at it.
type Again interface {
	// Again returns the node of the open file as it is now, without name,
	// extended attributes and content. Where it differs from the node that
	// ReadDir yielded in size, times or Look, the file was changed or replaced.
	Again() (manifest.Node, error)
}

// Sparse is what an open file may implement if it can tell its holes. Read
// continues where Seek went; NextData and ReadAt do not move that place.
type Sparse interface {
	io.Seeker
	io.ReaderAt

	// NextData returns the first range [start, end) of data, in bytes, at or
	// after off; what lies between off and start is a hole. When nothing but
	// a hole, or nothing at all, is left it returns io.EOF; the file may end
	// in that hole.
	NextData(off int64) (start, end int64, err error)
}

// rootOf returns the root that a path of the operating system is, with slashes.
func rootOf(path string) (manifest.Root, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return manifest.Root{}, &Error{Op: "open", Path: path, Err: err}
	}
	return manifest.UniqueNames([]string{filepath.ToSlash(abs)})[0], nil
}

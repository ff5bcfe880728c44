// Package target takes what is restored.
//
//	target.Dir("/tmp/copy")       // a directory, new or empty; with Overwrite over what is there
//	target.Swap("/var/lib/app")   // over live data, all or nothing
//	target.Parts(parts...)        // each root of a snapshot to a target of its own
//	target.Tar(w)                 // an archive
//
// # Which one
//
//	                             Dir        Dir, Overwrite       Swap
//	what may be there            nothing    anything             a directory or a file
//	what a failure leaves        nothing    each file old or new all of the old
//	what a crash leaves          a part     each file old or new all of the old, after Recover
//	space that it takes          the data   what differs         the data
//	what is fetched              all        what differs         all
//
// With Overwrite a file of 4 MiB or more that shares content with the old one is
// mended in place, and a crash leaves a mixture of it. Whatever was left, a
// second restore gives exactly the snapshot, with Delete.
//
// # Exchange
//
// [Swap] stages the restore beside the target, lets Verify look at it, calls
// Quiesce, exchanges, and calls Resume. [Recover] finishes or undoes what was
// interrupted: an application calls it when it starts. [Discard] removes what was
// there before. [SwapTarget] says which names lie beside the target meanwhile,
// and what is done about single files, databases and mount points. Refused
// before anything is staged, with the reason: a target that is no directory or
// file, that holds mount points, whose directory may not be written, that other
// processes have open ([ErrInUse]), and too little space ([ErrNoSpace]).
//
// # Safety
//
// Nothing outside a target is written, whatever a snapshot holds and whatever
// others rename meanwhile; links are never followed. What the user may not
// restore, such as owners, is left out and counted: see [SkippedBy].
//
// # Targets of one's own
//
// A [Target] begins a [Writer], which makes entries and ends with Commit or Abort.
// One that is a stream is [Sequential]; one over what was there before is an
// [Updater]. Errors are an [Error], so that nobody takes them for trouble with
// the store.
package target

import (
	"context"
	"errors"
	"io"
	"slices"

	"github.com/cairn-backup/cairn/manifest"
)

// Errors that targets return, found by errors.Is.
var (
	// ErrTarget is the class of every error that a target made: [Error]
	// reports to be one. Errors of a context are not of this class.
	ErrTarget = errors.New("target")

	// ErrNotEmpty says that the target holds something already.
	ErrNotEmpty = errors.New("target is not empty")

	// ErrNotDirectory says that the target, or what should be a directory in
	// it, is something else.
	ErrNotDirectory = errors.New("not a directory")

	// ErrNoSpace says that the target's file system, or the user's share of
	// it, is full or would be.
	ErrNoSpace = errors.New("no space left in the target")

	// ErrPath says that a path cannot be an entry of the target: it would
	// lead out of it, or has a name that the system cannot hold.
	ErrPath = errors.New("path is no entry of the target")

	// ErrUnsupported says that the target cannot hold such an entry.
	ErrUnsupported = errors.New("the target cannot hold this kind of entry")

	// ErrDone says that a writer was used after Commit or Abort.
	ErrDone = errors.New("the restore is done")

	// ErrOpenFiles says that files were open when Commit was called.
	ErrOpenFiles = errors.New("files are still open")
)

// An Error is an error of a target, as opposed to one of the store. It unwraps
// to its cause, and errors.Is(err, ErrTarget) reports true for it.
type Error struct {
	Op   string // what was done: "create", "write", ...
	Path string // as the operating system knows it, raw bytes
	Err  error
}

// Error returns operation, path and cause as one line.
func (e *Error) Error() string { return e.Op + " " + e.Path + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is reports whether target is [ErrTarget].
func (e *Error) Is(target error) bool { return target == ErrTarget }

// Need is how much a restore writes, at most.
type Need struct {
	Bytes   uint64 // of content, holes left out
	Entries uint64 // of every kind

	// Roots says how much of it each root is, for a snapshot of several; nil
	// if that is not known.
	Roots []RootNeed
}

// RootNeed is the need of one root.
type RootNeed struct {
	Root           string // its name in the snapshot
	Bytes, Entries uint64
}

// A Target can be restored to.
type Target interface {
	// Begin starts a restore. What speaks against it is found out here as far
	// as possible, with ErrNotEmpty, ErrNotDirectory and ErrNoSpace among the
	// errors, and then nothing has changed. The caller ends the restore with
	// Commit or Abort.
	Begin(ctx context.Context, need Need) (Writer, error)
}

// A Writer makes the entries of one restore. Create and Make are safe for
// concurrent use; Commit and Abort come after they have returned and every
// file is closed.
//
// A path is relative to the target: names joined by slashes, as raw bytes. ""
// is the target itself. A path with a name that is empty, "." or ".." is
// ErrPath. A directory above an entry that was not made yet is made, for the
// owner only, and may be given to Make later.
type Writer interface {
	// Create makes the regular file that n describes and returns it open. n's
	// metadata are set when it is closed. What is there already is
	// fs.ErrExist. The caller closes the file.
	Create(ctx context.Context, path string, n manifest.Node) (File, error)

	// Make makes an entry of any other kind. Directories get their metadata
	// at Commit, so that they can be filled. A node with a Link that an
	// earlier Create or Make had becomes a further name of that entry. Path
	// "" and a directory's node give metadata to the target itself.
	Make(ctx context.Context, path string, n manifest.Node) error

	// Commit makes everything durable and visible. After an error the caller
	// calls Abort.
	Commit(ctx context.Context) error

	// Abort removes what was made. It does nothing after Commit has succeeded
	// and when it is called again. It takes no context: it is what a cancelled
	// operation does.
	Abort() error
}

// A File is a regular file that is being restored. WriteAt may be called from
// several goroutines, at once for different ranges only. A range may be written
// again, and has what came last; what is never written is a hole.
// Writing beyond the size of the node is an error.
type File interface {
	io.WriterAt
	io.ReaderAt

	// Close gives the file its size and metadata and closes it. It comes once.
	Close() error
}

// Skipped counts what could not be restored since the user or the file system
// does not permit it. Each number is of entries.
type Skipped struct {
	Owners  uint64 // belong to someone else than in the snapshot
	Devices uint64 // device nodes that were not made
	Xattrs  uint64 // lack an extended attribute
}

// SkippedBy returns what w left out, if it can tell.
func SkippedBy(w Writer) Skipped {
	if s, ok := w.(interface{ Skipped() Skipped }); ok {
		return s.Skipped()
	}
	return Skipped{}
}

// Sparing returns t with these paths among those that it skips: see
// DirTarget.Skip and SwapTarget.Skip. A target that takes nothing away is
// returned as it is.
func Sparing(t Target, paths ...string) Target {
	switch t := t.(type) {
	case *DirTarget:
		c := *t
		c.Skip = slices.Concat(t.Skip, paths)
		return &c
	case *SwapTarget:
		c := *t
		c.Skip = slices.Concat(t.Skip, paths)
		return &c
	case *partsTarget:
		c := &partsTarget{parts: slices.Clone(t.parts)}
		for i := range c.parts {
			c.parts[i].Target = Sparing(c.parts[i].Target, paths...)
		}
		return c
	}
	return t
}

// AllOrNothing reports whether w exchanges what was there for what it is given,
// so that a part of a snapshot must not be committed: see [Swap].
func AllOrNothing(w Writer) bool {
	a, ok := w.(interface{ allOrNothing() bool })
	return ok && a.allOrNothing()
}

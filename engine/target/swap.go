package target

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/cairn-backup/cairn/manifest"
)

// Errors of [SwapTarget], [Recover] and [Discard].
var (
	// ErrNotSwappable says that the target cannot be exchanged. It is found
	// out before anything is written, as far as possible.
	ErrNotSwappable = errors.New("target cannot be exchanged")

	// ErrInUse says that another process has files of the target open, or
	// exchanges it at this moment. It comes with ErrNotSwappable.
	ErrInUse = errors.New("target is in use")

	// ErrSwapUnclear says that an interrupted exchange can neither be finished
	// nor undone, since something else stands at the target's path by now.
	// Nothing was touched: the error names what is where.
	ErrSwapUnclear = errors.New("an interrupted exchange cannot be resolved")

	// ErrResume says that the exchange was made, and that the application then
	// could not be resumed.
	ErrResume = errors.New("restored, but the application did not resume")
)

// A SwapTarget is a directory, or a single file, that is exchanged as a whole:
// at its path stands the old or the new one, complete, at every moment, whatever
// fails and whenever the process ends. Its fields are set before Begin and not
// changed after.
//
// # What happens
//
// Begin looks whether the exchange is possible, and stages the restore beside
// the target, where it is on the same file system. Commit makes what was staged
// durable, calls Verify and Quiesce, writes a recovery note, exchanges, tidies
// up, and calls Resume. A restore that fails or is cancelled before that removes
// what was staged. What a crash leaves is finished or undone by [Recover], which
// Begin calls as well.
//
// On Linux the exchange is one call (renameat2 with RENAME_EXCHANGE) where the
// file system knows it, and elsewhere two renames: then nothing is at the path
// for a moment, and a crash in it leaves it so until Recover.
//
// The target may be absent. If it is a symbolic link, what that leads to is
// exchanged.
//
// # Beside the target
//
// For /data/app these are, while they exist,
//
//	/data/.app.cairn-new    what is being restored
//	/data/.app.cairn-was    what was there, on its way out
//	/data/.app.cairn-old    what was there before the last exchange
//	/data/.app.cairn-swap   the recovery note
//	/data/.app.cairn-lock   held by the process that restores
//	/data/.app.cairn-last   the Record of the last exchange
//
// The old target is kept for one generation, since a process that has its files
// open goes on writing to them. [Discard] removes it, the next exchange replaces
// it, KeepNone does without.
//
// # A single file
//
// Where a snapshot has one root, and that is a file, it becomes the target
// itself: say, a database. With SQLite's name for them, the old file's -wal,
// -shm and -journal go aside together with it, in one noted step that has no
// atomic form: for a moment nothing is at the path. The new file has none.
//
// # A mount point
//
// cannot be renamed. Its children are exchanged inside it, one rename each,
// under the note; the names above lie in it then, as .cairn-new and so on. A
// lost+found directory stays where it is. The exchange is not atomic to those
// who look, but whole after a crash and Recover.
type SwapTarget struct {
	path string

	// NoOwner leaves every entry to the user who restores.
	NoOwner bool

	// Verify looks at the staged tree or file, whose path it is given, before
	// anything is exchanged; an error ends the restore. Every byte has been
	// verified by then: it is for what only the application knows. Default:
	// nothing.
	Verify func(ctx context.Context, staged string) error

	// Quiesce makes the application let go of its files, once everything is
	// ready; an error ends the restore. Default: nothing.
	Quiesce func(ctx context.Context) error

	// Resume makes the application go on. It is called once after every Quiesce
	// that returned nil, also where the exchange failed, with a context that is
	// not cancelled. Default: nothing.
	Resume func(ctx context.Context) error

	// KeepNone removes the old target after the exchange.
	KeepNone bool

	// Skip holds paths of files and directories that must not go with the old
	// target: the repository, above all. A target that holds one of them is
	// ErrNotSwappable. Those that do not exist are ignored.
	Skip []string

	// Force exchanges also what other processes have open. Without it, they are
	// looked for on Linux, as far as the user may: before staging if there is
	// no Quiesce, and before the exchange.
	Force bool

	// Record is text of the application's, at most 4 KiB, by which it knows this
	// exchange again: [SwapTarget.Recorded] returns that of the last one that
	// was made, whatever happened in between. Default: none is kept.
	Record string

	disk disk // nil: the real one
}

var _ Target = (*SwapTarget)(nil)

// Swap returns a target that exchanges the directory or file at path.
func Swap(path string) *SwapTarget { return &SwapTarget{path: path} }

// Begin refuses what cannot be exchanged, with [ErrNotSwappable], [ErrInUse] or
// [ErrNoSpace] and the reason, recovers from an interrupted exchange, and makes
// the directory to stage in.
func (s *SwapTarget) Begin(ctx context.Context, need Need) (Writer, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	d := s.disk
	if d == nil {
		d = osDisk{}
	}
	if len(s.Record) > maxRecord {
		return nil, swapError("begin", s.path, fmt.Errorf("the record has more than %d bytes", maxRecord))
	}
	at, err := locateSwap(s.path)
	if err != nil {
		return nil, swapError("begin", s.path, err)
	}
	if err := at.writable(); err != nil {
		return nil, swapError("begin", at.path, err)
	}
	lock, err := lockSwap(at)
	if err != nil {
		return nil, swapError("begin", at.path, err)
	}
	inner, err := s.stage(ctx, at, d, need)
	if err != nil {
		return nil, errors.Join(swapError("begin", at.path, err), lock.release())
	}
	return &swapWriter{target: s, at: at, disk: d, lock: lock, inner: inner}, nil
}

// stage recovers, and begins the restore beside the target.
func (s *SwapTarget) stage(ctx context.Context, at swapPlace, d disk, need Need) (Writer, error) {
	if err := recoverSwap(at, d); err != nil {
		return nil, err
	}
	if err := s.check(at, need); err != nil {
		return nil, err
	}
	if err := d.mkdir(at.stage); err != nil {
		return nil, err
	}
	dir := Dir(at.stage)
	dir.NoOwner = s.NoOwner
	inner, err := dir.Begin(ctx, need)
	if err != nil {
		return nil, errors.Join(err, d.removeAll(at.stage))
	}
	return inner, nil
}

// A swapPlace is where a target and what lies beside it are: absolute paths.
type swapPlace struct {
	path  string // of the target, no link
	dir   string // that holds what follows: the one above the target, or a mount point itself
	base  string // of path
	mount bool   // path is a mount point: its children are exchanged

	stage, was, old, note, lock, last string
}

// locateSwap resolves path, which may be absent or a link.
func locateSwap(path string) (swapPlace, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return swapPlace{}, err
	}
	for range 40 { // as many links as Linux follows
		dir, err := filepath.EvalSymlinks(filepath.Dir(abs))
		if err != nil {
			return swapPlace{}, err
		}
		abs = filepath.Join(dir, filepath.Base(abs))
		to, err := os.Readlink(abs)
		if err != nil {
			return placeOf(abs)
		}
		if !filepath.IsAbs(to) {
			to = filepath.Join(dir, to)
		}
		abs = filepath.Clean(to)
	}
	return swapPlace{}, errors.New("too many symbolic links")
}

func placeOf(path string) (swapPlace, error) {
	mount, err := isMount(path)
	if err != nil {
		return swapPlace{}, err
	}
	at := swapPlace{path: path, dir: filepath.Dir(path), base: filepath.Base(path), mount: mount}
	prefix := "." + shortName(at.base)
	if mount {
		at.dir, prefix = path, ""
	}
	beside := func(what string) string { return filepath.Join(at.dir, prefix+".cairn-"+what) }
	at.stage, at.was, at.old = beside("new"), beside("was"), beside("old")
	at.note, at.lock, at.last = beside("swap"), beside("lock"), beside("last")
	return at, nil
}

// own reports whether a name in a mount point is ours or the file system's.
func (at swapPlace) own(name string) bool {
	if name == "lost+found" {
		return true
	}
	for _, p := range []string{at.stage, at.was, at.old, at.note, at.lock, at.last, at.note + noteTemp} {
		if filepath.Base(p) == name {
			return true
		}
	}
	return false
}

func swapError(op, path string, err error) error {
	if known := (*Error)(nil); errors.As(err, &known) {
		return err
	}
	err = cause(err)
	if outOfSpace(err) && !errors.Is(err, ErrNoSpace) {
		err = fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	return &Error{Op: op, Path: path, Err: err}
}

// A swapWriter stages one restore and exchanges it.
type swapWriter struct {
	target *SwapTarget
	at     swapPlace
	disk   disk
	lock   *swapLock
	inner  Writer

	mu    sync.Mutex // guards what follows
	whole bool       // the target itself was made: it is a directory
	only  string     // the first file at the top
	more  bool       // there is something besides it
	done  bool

	staged string // what goes to the target's path, once it is finished and verified
}

var _ Writer = (*swapWriter)(nil)

// Skipped returns what was left out.
func (w *swapWriter) Skipped() Skipped { return SkippedBy(w.inner) }

// Create makes a file in the staged tree.
func (w *swapWriter) Create(ctx context.Context, path string, n manifest.Node) (File, error) {
	w.mu.Lock()
	if w.only == "" && !strings.Contains(path, "/") {
		w.only = path
	} else {
		w.more = true
	}
	w.mu.Unlock()
	return w.inner.Create(ctx, path, n)
}

// Make makes an entry in the staged tree.
func (w *swapWriter) Make(ctx context.Context, path string, n manifest.Node) error {
	w.mu.Lock()
	if path == "" {
		w.whole = true
	} else {
		w.more = true
	}
	w.mu.Unlock()
	return w.inner.Make(ctx, path, n)
}

// Commit exchanges the target for what was staged. It can be cancelled until
// Quiesce has returned.
func (w *swapWriter) Commit(ctx context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.done {
		return swapError("commit", w.at.path, ErrDone)
	}
	if err := w.verify(ctx); err != nil {
		return err
	}
	if w.target.Quiesce != nil {
		if err := w.target.Quiesce(ctx); err != nil {
			return swapError("quiesce", w.at.path, err)
		}
	}
	err := w.exchange(ctx, w.staged)
	if err == nil {
		w.done = true
		err = w.lock.release()
	}
	if w.target.Quiesce != nil && w.target.Resume != nil {
		if errResume := w.target.Resume(context.WithoutCancel(ctx)); errResume != nil {
			if w.done {
				errResume = fmt.Errorf("%w: %w", ErrResume, errResume)
			}
			err = errors.Join(err, errResume)
		}
	}
	if err != nil {
		return swapError("commit", w.at.path, err)
	}
	return nil
}

// prepare does what Commit does before Quiesce.
func (w *swapWriter) prepare(ctx context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.verify(ctx)
}

// verify finishes what was staged and has it verified, once.
func (w *swapWriter) verify(ctx context.Context) error {
	if w.staged != "" {
		return nil
	}
	staged, err := w.finishStaging(ctx)
	if err != nil {
		return swapError("commit", w.at.path, err)
	}
	if w.target.Verify != nil {
		if err := w.target.Verify(ctx, staged); err != nil {
			return swapError("verify", staged, err)
		}
	}
	w.staged = staged
	return nil
}

// finishStaging makes what was staged durable and returns the path of what goes
// to the target's.
func (w *swapWriter) finishStaging(ctx context.Context) (staged string, err error) {
	fi, err := os.Lstat(w.at.path)
	absent := errors.Is(err, fs.ErrNotExist)
	if err != nil && !absent {
		return "", err
	}
	single := w.only != "" && !w.more && !w.whole
	switch {
	case w.only == "" && !w.more && !w.whole:
		// Else what is there would give way to an empty directory.
		return "", fmt.Errorf("%w: nothing was restored for it", ErrNotSwappable)
	case !absent && fi.IsDir() && single && !w.at.mount:
		return "", fmt.Errorf("%w: it is a directory, and a single file was restored", ErrNotSwappable)
	case !absent && !fi.IsDir() && !single:
		return "", fmt.Errorf("%w: it is a file, and a directory was restored", ErrNotSwappable)
	}
	if err := w.inner.Commit(ctx); err != nil {
		return "", err
	}
	switch {
	case single && !w.at.mount:
		if w.only != w.at.base {
			if err := w.disk.rename(filepath.Join(w.at.stage, w.only), filepath.Join(w.at.stage, w.at.base)); err != nil {
				return "", err
			}
		}
		return filepath.Join(w.at.stage, w.at.base), w.disk.syncDir(w.at.stage)
	case w.whole:
		return w.at.stage, nil
	case absent: // several roots: nobody knows what the directory was like
		return w.at.stage, os.Chmod(w.at.stage, 0o755) //nolint:gosec // as mkdir does with the usual mask
	}
	return w.at.stage, copyMeta(w.at.path, w.at.stage)
}

// exchange does what cannot be cancelled.
func (w *swapWriter) exchange(ctx context.Context, staged string) error {
	if err := w.target.checkOpen(w.at); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	x := swapper{at: w.at, disk: w.disk}
	return x.run(staged, w.target)
}

// Abort removes what was staged.
func (w *swapWriter) Abort() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.done {
		return nil
	}
	w.done = true
	err := w.inner.Abort()
	// An exchange that could not be undone has left its note, and everything
	// is wanted still.
	if _, noNote := w.disk.lstat(w.at.note); errors.Is(noNote, fs.ErrNotExist) {
		err = w.disk.removeAll(w.at.stage)
	}
	if err := errors.Join(err, w.lock.release()); err != nil {
		return swapError("abort", w.at.path, err)
	}
	return nil
}

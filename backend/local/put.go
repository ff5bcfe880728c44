package local

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"time"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/backend/internal/rule"
)

// How an object gets its name.
//
// A Put must be atomic (the name never leads to a part of the object),
// exclusive (of two racing creators one fails) and durable (nil means that it
// survives a power cut). So the bytes go into a file that has no name or a
// temporary one; that file is fsynced; then one call of the file system gives
// it the final name, and fails if that is taken; then the directory is fsynced,
// or a power cut could take the name away again. A new directory's parent is
// fsynced before anything is put into it, for the same reason.
//
// The obvious ways lose. O_EXCL on the final name shows an empty file, and
// leaves it after a crash. Looking first and renaming then has two winners now
// and again. Rename alone overwrites.
//
// The call that gives the name is the first of these that the file system has:
//
//	unnamed  O_TMPFILE, then linkat(2): leaves nothing behind in any crash.
//	         Linux on ext4, XFS, Btrfs, tmpfs, ...
//	linked   a temporary name, then link(2): POSIX, NFS, NTFS.
//	renamed  a temporary name, then a rename that does not replace:
//	         RENAME_NOREPLACE, RENAME_EXCL, MoveFileEx. FAT, exFAT, SMB.
//
// An fsync that failed is never repeated. The kernel reports a lost write once
// and then forgets it; a second fsync would return nil for data that is gone.
// A temporary file is thrown away, and a file or directory that has a name is
// remembered in failed: nothing in it is called durable again by this Backend.
type method int32

const (
	unnamed method = iota
	linked
	renamed
	refused // none of them: the file system cannot keep the contract
)

const (
	// tempPrefix begins the names of temporary files. No key has a dot.
	tempPrefix = ".tmp-"
	// tempAge is how old a temporary file must be to count as left over. A
	// slow writer whose file is swept all the same gets an error, no harm.
	tempAge = 24 * time.Hour
)

// errNotObject is about a key at which there is a directory, a link, a device;
// or below which there would have to be a directory, and there is not.
var errNotObject = errors.New("name is taken by something that is no object")

// Put implements backend.Backend.
func (b *Backend) Put(ctx context.Context, key backend.Key, data []byte) error {
	if err := check(ctx, key); err != nil {
		return failure("put", key, err)
	}
	err := b.put(ctx, string(key), data)
	if errors.Is(err, fs.ErrNotExist) && !errors.Is(err, backend.ErrUnknownOutcome) {
		// Someone removed a directory that was there, or an object that was
		// in the way, while we looked.
		b.forgetDirs()
		err = b.put(ctx, string(key), data)
	}
	return failure("put", key, err)
}

func (b *Backend) put(ctx context.Context, name string, data []byte) error {
	if err := b.makeDirs(path.Dir(name)); err != nil {
		return err
	}
	if err := b.hasFailed(path.Dir(name)); err != nil {
		return err // rather than add what cannot be made durable
	}
	// Not needed for correctness; it spares writing a pack to throw it away.
	_, err := b.disk.lstat(name)
	if err == nil {
		return b.taken(name)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var causes []error
	for {
		m := method(b.method.Load())
		if m >= refused {
			return fmt.Errorf("%w: creating a file only if it is absent: %w", backend.ErrUnsupported, errors.Join(causes...))
		}
		err := b.publish(ctx, m, name, data)
		if !errors.Is(err, errNoMethod) {
			return err
		}
		causes = append(causes, err)
		b.method.CompareAndSwap(int32(m), int32(m+1))
	}
}

// makeDirs makes dir and what is missing above it, durably.
func (b *Backend) makeDirs(dir string) error {
	if dir == "." || b.knows(dir) {
		return nil
	}
	parent := path.Dir(dir)
	if err := b.makeDirs(parent); err != nil {
		return err
	}
	if err := b.disk.mkdir(dir); err != nil {
		if !errors.Is(err, fs.ErrExist) {
			return err
		}
		if info, err := b.disk.lstat(dir); err != nil {
			return err
		} else if !info.IsDir() {
			return fmt.Errorf("%w: %w: %s", backend.ErrInvalidKey, errNotObject, dir)
		}
	}
	// Also if it was there: whoever made it may not have come to this yet.
	if err := b.sync(parent, b.disk.syncDir); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.dirs[dir] = true
	return nil
}

func (b *Backend) knows(dir string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.dirs[dir]
}

func (b *Backend) forgetDirs() {
	b.mu.Lock()
	defer b.mu.Unlock()
	clear(b.dirs)
}

// publish makes name lead to data, in one of the three ways.
func (b *Backend) publish(ctx context.Context, m method, name string, data []byte) error {
	var err error
	if m == unnamed {
		err = b.publishUnnamed(ctx, name, data)
	} else {
		err = b.publishNamed(ctx, m, name, data)
	}
	if errors.Is(err, fs.ErrExist) {
		return b.taken(name)
	}
	if err != nil {
		return err
	}
	if err := b.sync(path.Dir(name), b.disk.syncDir); err != nil {
		// It has its name, and others may have seen it: no way back.
		return fmt.Errorf("%w: %w", backend.ErrUnknownOutcome, err)
	}
	return nil
}

func (b *Backend) publishUnnamed(ctx context.Context, name string, data []byte) error {
	f, err := b.disk.createUnnamed(path.Dir(name))
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // what counts is the fsync; without a name it is gone
	if err := fill(ctx, f, data); err != nil {
		return err
	}
	return unsure(b.disk.linkUnnamed(f, name))
}

func (b *Backend) publishNamed(ctx context.Context, m method, name string, data []byte) error {
	dir := path.Dir(name)
	b.sweep(dir)
	temp := path.Join(dir, tempPrefix+randomName())
	f, err := b.disk.createTemp(temp)
	if err != nil {
		return err
	}
	err = errors.Join(fill(ctx, f, data), f.Close())
	if err == nil {
		err = b.name(m, temp, name)
	}
	if err != nil || m == linked {
		// If this fails too, a later sweep finds the file.
		_ = b.disk.remove(temp)
	}
	return err
}

// name gives the file temp the final name.
func (b *Backend) name(m method, temp, name string) error {
	if m == renamed {
		err := b.disk.rename(temp, name)
		if errors.Is(err, fs.ErrNotExist) {
			// The rename, sent again to a server since its answer was lost,
			// does not find temp any more; or somebody removed it.
			return fmt.Errorf("%w: %w", backend.ErrUnknownOutcome, err)
		}
		return unsure(err)
	}
	err := b.disk.link(temp, name)
	// NFS sends a link again when its answer was lost, and then the link finds
	// itself in the way.
	if errors.Is(err, fs.ErrExist) && b.disk.sameFile(temp, name) {
		return nil
	}
	return unsure(err)
}

// fill writes data to a file without a final name and makes it durable.
func fill(ctx context.Context, f tempFile, data []byte) error {
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := backend.Ended(ctx); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return undurable(&syncError{err})
	}
	return backend.Ended(ctx) // the last moment to turn back
}

// unsure adds ErrUnknownOutcome to an error of the call that gives the name,
// unless the error says that the call did nothing. A server that went away may
// have done it before.
func unsure(err error) error {
	if err == nil || errors.Is(err, errNoMethod) {
		return err
	}
	if k := kind(err); k != nil && !errors.Is(k, backend.ErrUnavailable) {
		return err
	}
	return fmt.Errorf("%w: %w", backend.ErrUnknownOutcome, err)
}

// taken makes sure that what stands in the way is an object and durable, and
// returns ErrExist. Its creator may still be on the way to the fsync of the
// directory; and the file may have come here by a copy without any fsync.
func (b *Backend) taken(name string) error {
	info, err := b.disk.lstat(name)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%w: %w", backend.ErrInvalidKey, errNotObject)
	}
	if err := b.sync(name, b.disk.syncFile); err != nil {
		return err
	}
	if err := b.sync(path.Dir(name), b.disk.syncDir); err != nil {
		return err
	}
	return backend.ErrExist
}

// A syncError is an fsync that failed.
type syncError struct{ err error }

func (e *syncError) Error() string { return "fsync: " + e.err.Error() }
func (e *syncError) Unwrap() error { return e.err }

// undurable tells whoever would try again that it is of no use, and a person
// what to look at.
func undurable(err *syncError) error {
	advice := "look at the disk and at what the system logged about it, then run it again"
	if isNoSpace(err) {
		advice = "free some space, then run it again"
	}
	return &backend.TroubleError{Cause: backend.Undurable, Advice: advice, Err: err}
}

// sync runs do, which fsyncs name, unless that has failed before.
func (b *Backend) sync(name string, do func(string) error) error {
	if err := b.hasFailed(name); err != nil {
		return err
	}
	if rule.Off(rule.SyncDir) {
		do = func(string) error { return nil }
	}
	err := do(name)
	if failed, ok := errors.AsType[*syncError](err); ok {
		err = undurable(failed)
		b.mu.Lock()
		defer b.mu.Unlock()
		b.failed[name] = err
	}
	return err
}

// hasFailed returns an error if an fsync of name has failed before.
func (b *Backend) hasFailed(name string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.failed[name]; err != nil {
		return fmt.Errorf("an earlier fsync of %s failed: %w", name, err)
	}
	return nil
}

// sweep removes temporary files that a crash left in dir, once for each dir.
// It removes what it can: such files do no harm but for the space they take.
func (b *Backend) sweep(dir string) {
	b.mu.Lock()
	done := b.swept[dir]
	b.swept[dir] = true
	b.mu.Unlock()
	if done {
		return
	}
	infos, _ := b.disk.readDir(dir, func(name string) bool { return strings.HasPrefix(name, tempPrefix) })
	for _, info := range infos {
		if info.Mode().IsRegular() && time.Since(info.ModTime()) > tempAge {
			_ = b.disk.remove(path.Join(dir, info.Name()))
		}
	}
}

func randomName() string {
	name := make([]byte, 16)
	_, _ = rand.Read(name) // never fails
	return hex.EncodeToString(name)
}

package target

import (
	"io"
	"io/fs"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/cairn-backup/cairn/manifest"
)

// A file is a regular file that is being restored. It calls the system
// directly: os.File costs several calls more for each small file.
type file struct {
	writer *dirWriter
	parent *folder // referenced until Close
	name   string
	path   string
	meta   meta
	size   int64

	fd    atomic.Int64 // -1 after Close
	end   atomic.Int64 // of what was written, bytes
	wrote atomic.Int64 // bytes
}

// writeBehind is after how many bytes of a file the system is asked to begin to
// write them to the disk. Left alone, Linux begins after seconds, and a restore
// that takes no longer waits at its end for all of it.
const writeBehind = 32 << 20

// create makes the file name in parent. The file takes over the reference to
// parent, unless it fails.
//
// Nothing is allocated ahead: ext4 and XFS delay allocation until they know the
// size anyway, which is faster than turning reserved blocks into written ones,
// and reserving would fill holes. Space was asked for in Begin.
func (w *dirWriter) create(parent *folder, name, path string, n manifest.Node) (*file, error) {
	perm := n.Mode & 0o777
	if len(n.Xattrs) > 0 || !w.noOwner && w.superuser() && (int(n.UID) != w.uid || int(n.GID) != w.gid) {
		perm = 0o600 // until it belongs to whom it should, and can be finished
	}
	var fd int
	err := again(func() (err error) {
		const flags = unix.O_RDWR | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW | unix.O_CLOEXEC
		fd, err = unix.Openat(parent.fd, name, flags, perm)
		return err
	})
	if err != nil {
		return nil, err
	}
	f := &file{writer: w, parent: parent, name: name, path: path, meta: metaOf(n), size: int64(n.Size)}
	f.fd.Store(int64(fd))
	return f, nil
}

// WriteAt writes all of p at off.
func (f *file) WriteAt(p []byte, off int64) (int, error) {
	if off < 0 || off > f.size-int64(len(p)) {
		return 0, f.writer.fail("write", f.path, unix.EFBIG)
	}
	done := 0
	for done < len(p) {
		n, err := unix.Pwrite(int(f.fd.Load()), p[done:], off+int64(done))
		if err == unix.EINTR {
			continue
		}
		if err == nil && n == 0 {
			err = io.ErrShortWrite
		}
		if err != nil {
			return done, f.writer.fail("write", f.path, err)
		}
		done += n
	}
	if now := f.wrote.Add(int64(done)); now/writeBehind != (now-int64(done))/writeBehind {
		// Only a hint: what cannot be written is reported at the end.
		_ = unix.SyncFileRange(int(f.fd.Load()), 0, 0, unix.SYNC_FILE_RANGE_WRITE)
	}
	for end := off + int64(done); ; {
		old := f.end.Load()
		if end <= old || f.end.CompareAndSwap(old, end) {
			return done, nil
		}
	}
}

// ReadAt reads what was written.
func (f *file) ReadAt(p []byte, off int64) (int, error) {
	done := 0
	for done < len(p) {
		n, err := unix.Pread(int(f.fd.Load()), p[done:], off+int64(done))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return done, f.writer.fail("read", f.path, err)
		}
		if n == 0 {
			return done, io.EOF
		}
		done += n
	}
	return done, nil
}

// Close finishes the file.
func (f *file) Close() error {
	fd := int(f.fd.Swap(-1))
	if fd < 0 {
		return f.writer.fail("close", f.path, fs.ErrClosed)
	}
	defer f.writer.folders.release(f.parent)
	defer f.writer.open.Add(-1)
	err := f.finish(fd)
	// On Linux the descriptor is gone whatever close returns, EINTR too.
	if errClose := unix.Close(fd); err == nil && errClose != unix.EINTR {
		err = errClose
	}
	if err != nil {
		return f.writer.fail("close", f.path, err)
	}
	return nil
}

// Discard closes the file as it is. What it holds is to be removed, and need not
// be written to the disk first.
func (f *file) Discard() error {
	fd := int(f.fd.Swap(-1))
	if fd < 0 {
		return nil
	}
	defer f.writer.folders.release(f.parent)
	defer f.writer.open.Add(-1)
	if err := unix.Close(fd); err != nil && err != unix.EINTR {
		return f.writer.fail("close", f.path, err)
	}
	return nil
}

func (f *file) finish(fd int) error {
	if f.end.Load() != f.size { // it ends in a hole
		if err := again(func() error { return unix.Ftruncate(fd, f.size) }); err != nil {
			return err
		}
	}
	if err := f.writer.set(subject{fd: fd, dir: f.parent.fd, name: f.name}, manifest.File, f.meta); err != nil {
		return err
	}
	if f.writer.few {
		return f.writer.fsync(fd)
	}
	return nil
}

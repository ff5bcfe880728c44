package target

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/cairn-backup/cairn/manifest"
)

// ErrOrder says that a [Sequential] writer was not used in order.
var ErrOrder = errors.New("a stream is written in order")

// A Sequential is a Writer of a stream. Its caller makes one entry after the
// other, a directory before what is in it and the first name of a file before
// the others. It writes each file from its beginning to its end, leaving holes
// out, and closes it before the next call.
type Sequential interface {
	Writer

	// Sequential tells this Writer from others; it does nothing.
	Sequential()
}

// A Discarder is a File that can be closed without being finished.
type Discarder interface {
	// Discard comes in place of Close, where the file cannot be finished.
	Discard() error
}

// A TarTarget is a tar stream in the POSIX format of 2001 (PAX), which GNU tar
// and libarchive read. Names are raw bytes, times have nanoseconds, extended
// attributes are SCHILY.xattr records, as GNU tar writes and, with --xattrs,
// reads them; hard links lead to the first name. Holes are written as zeros.
//
// What was written when a restore fails is the beginning of an archive, without
// the two blocks that end one: tar says so.
type TarTarget struct {
	w io.Writer

	mu    sync.Mutex // guards begun
	begun bool
}

var _ Target = (*TarTarget)(nil)

// Tar returns a target that writes to w. It takes one restore. It does not close
// w; and whether what w took is durable is the caller's matter.
func Tar(w io.Writer) *TarTarget { return &TarTarget{w: w} }

// Begin writes nothing yet.
func (t *TarTarget) Begin(ctx context.Context, _ Need) (Writer, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.begun {
		return nil, &Error{Op: "begin", Path: "tar", Err: ErrDone}
	}
	t.begun = true
	buf := bufio.NewWriterSize(t.w, 256<<10)
	return &tarWriter{tar: tar.NewWriter(buf), buf: buf, links: map[uint64]string{}}, nil
}

// A tarWriter writes one stream. A mutex turns wrong use into errors.
type tarWriter struct {
	tar *tar.Writer
	buf *bufio.Writer

	mu     sync.Mutex // guards all that is here
	links  map[uint64]string
	file   *tarFile // open
	err    error    // that ended the stream, or ErrDone
	xattrs uint64
}

var _ Sequential = (*tarWriter)(nil)

// Sequential tells the engine to write in order.
func (*tarWriter) Sequential() {}

// Skipped returns what the format could not hold.
func (w *tarWriter) Skipped() Skipped {
	w.mu.Lock()
	defer w.mu.Unlock()
	return Skipped{Xattrs: w.xattrs}
}

func tarError(op, path string, err error) error {
	if known := (*Error)(nil); errors.As(err, &known) {
		return err
	}
	if outOfSpace(err) {
		err = fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	return &Error{Op: op, Path: path, Err: err}
}

// ready reports why no entry can be made now. The caller holds mu.
func (w *tarWriter) ready(ctx context.Context, path string) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case w.err != nil:
		return tarError("make", path, w.err)
	case w.file != nil:
		return tarError("make", path, fmt.Errorf("%w: %w", ErrOrder, ErrOpenFiles))
	case path != "" && !validTarPath(path):
		return tarError("make", path, ErrPath)
	}
	return nil
}

// validTarPath is like validPath, which refuses what this system cannot hold.
func validTarPath(p string) bool {
	for e := range strings.SplitSeq(p, "/") {
		if e == "" || e == "." || e == ".." || strings.ContainsRune(e, 0) {
			return false
		}
	}
	return true
}

// Make writes an entry that is no regular file, or a further name.
func (w *tarWriter) Make(ctx context.Context, path string, n manifest.Node) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.ready(ctx, path); err != nil {
		return err
	}
	h := tarHeader(path, n)
	first, further := w.links[n.Link]
	switch {
	case n.Link != 0 && further:
		// A link has the metadata of its first name. Records of its own would
		// only be given to the same file again.
		h = &tar.Header{Typeflag: tar.TypeLink, Name: path, Linkname: first, Mode: h.Mode, ModTime: h.ModTime, Format: tar.FormatPAX}
	case path == "" && n.Kind != manifest.Dir:
		return tarError("make", path, ErrNotDirectory)
	case n.Kind == manifest.Dir:
		h.Typeflag, h.Name = tar.TypeDir, path+"/"
		if path == "" {
			h.Name = "./"
		}
	case n.Kind == manifest.Symlink:
		h.Typeflag, h.Linkname = tar.TypeSymlink, n.Target
	case n.Kind == manifest.FIFO:
		h.Typeflag = tar.TypeFifo
	case n.Kind == manifest.CharDevice, n.Kind == manifest.BlockDevice:
		h.Typeflag = tar.TypeChar
		if n.Kind == manifest.BlockDevice {
			h.Typeflag = tar.TypeBlock
		}
		h.Devmajor, h.Devminor = int64(n.Device>>32), int64(n.Device&(1<<32-1))
	case n.Kind == manifest.File:
		return tarError("make", path, fmt.Errorf("a link to a file that was not created: %w", ErrUnsupported))
	default:
		return tarError("make", path, fmt.Errorf("%s: %w", n.Kind, ErrUnsupported))
	}
	if err := w.header(path, h); err != nil {
		return err
	}
	w.setFirst(n.Link, path)
	return nil
}

func (w *tarWriter) setFirst(link uint64, path string) {
	if _, known := w.links[link]; link != 0 && !known {
		w.links[link] = path
	}
}

// tarHeader returns what all kinds have in common.
func tarHeader(path string, n manifest.Node) *tar.Header {
	h := &tar.Header{
		Name: path, Mode: int64(n.Mode & 0o7777),
		Uid: int(n.UID), Gid: int(n.GID), Uname: n.Owner, Gname: n.Group,
		ModTime: n.MTime.Time(), Format: tar.FormatPAX,
	}
	if len(n.Xattrs) > 0 {
		h.PAXRecords = make(map[string]string, len(n.Xattrs))
	}
	for _, x := range n.Xattrs {
		// GNU tar's way with the one byte that cannot be in a key.
		key := strings.NewReplacer("%", "%25", "=", "%3D").Replace(x.Name)
		h.PAXRecords["SCHILY.xattr."+key] = string(x.Value)
	}
	return h
}

// header writes h. Where the attributes are more than a reader takes it leaves
// them out, and counts. An entry that the format cannot hold is an error and
// leaves the stream as it was.
func (w *tarWriter) header(path string, h *tar.Header) error {
	const most = 1<<20 - 64<<10 // archive/tar reads up to 1 MiB of records
	size := 0
	for k, v := range h.PAXRecords {
		size += len(k) + len(v) + 16
	}
	if size > most {
		h.PAXRecords = nil
		w.xattrs++
	}
	err := w.tar.WriteHeader(h)
	if err == nil {
		return nil
	}
	// An error of writing stays with the tar.Writer, one of the header does not.
	if flushErr := w.tar.Flush(); flushErr != nil {
		w.err = flushErr
		return tarError("write", path, flushErr)
	}
	return tarError("make", path, fmt.Errorf("%w: %w", ErrUnsupported, err))
}

// Create begins a regular file.
func (w *tarWriter) Create(ctx context.Context, path string, n manifest.Node) (File, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.ready(ctx, path); err != nil {
		return nil, err
	}
	if path == "" || n.Kind != manifest.File || n.Size > 1<<63-1 {
		return nil, tarError("create", path, fmt.Errorf("%s: %w", n.Kind, ErrUnsupported))
	}
	h := tarHeader(path, n)
	h.Typeflag, h.Size = tar.TypeReg, int64(n.Size)
	if err := w.header(path, h); err != nil {
		return nil, err
	}
	w.setFirst(n.Link, path)
	w.file = &tarFile{w: w, path: path, size: h.Size}
	return w.file, nil
}

// Commit ends the archive.
func (w *tarWriter) Commit(ctx context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.ready(ctx, ""); err != nil {
		return err
	}
	if err := errors.Join(w.tar.Close(), w.buf.Flush()); err != nil {
		w.err = err
		return tarError("commit", "tar", err)
	}
	w.err = ErrDone
	return nil
}

// Abort leaves the stream where it is.
func (w *tarWriter) Abort() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = ErrDone
	}
	return nil
}

// A tarFile is the file that is being written.
type tarFile struct {
	w    *tarWriter
	path string
	size int64
	at   int64 // guarded by w.mu
}

var _ interface {
	File
	Discarder
} = (*tarFile)(nil)

// ReadAt cannot read from a stream.
func (f *tarFile) ReadAt([]byte, int64) (int, error) {
	return 0, tarError("read", f.path, ErrUnsupported)
}

// WriteAt writes p at off, which must not lie before what was written, and zeros
// up to it.
func (f *tarFile) WriteAt(p []byte, off int64) (int, error) {
	f.w.mu.Lock()
	defer f.w.mu.Unlock()
	switch {
	case f.w.file != f:
		return 0, tarError("write", f.path, ErrDone)
	case off < f.at:
		return 0, tarError("write", f.path, ErrOrder)
	case off > f.size-int64(len(p)):
		return 0, tarError("write", f.path, errTooLong)
	}
	if err := f.zeros(off); err != nil {
		return 0, err
	}
	return f.write(p)
}

func (f *tarFile) write(p []byte) (int, error) {
	if f.w.err != nil {
		return 0, tarError("write", f.path, f.w.err)
	}
	n, err := f.w.tar.Write(p)
	f.at += int64(n)
	if err != nil {
		f.w.err = err
		return n, tarError("write", f.path, err)
	}
	return n, nil
}

// zeros writes zeros up to off.
func (f *tarFile) zeros(off int64) error {
	var buf []byte
	for f.at < off {
		if buf == nil {
			buf = make([]byte, min(off-f.at, 256<<10))
		}
		if _, err := f.write(buf[:min(int64(len(buf)), off-f.at)]); err != nil {
			return err
		}
	}
	return nil
}

// Close writes what is left of the file, as zeros.
func (f *tarFile) Close() error {
	f.w.mu.Lock()
	defer f.w.mu.Unlock()
	if f.w.file != f {
		return tarError("close", f.path, ErrDone)
	}
	f.w.file = nil
	return f.zeros(f.size)
}

// Discard ends the stream here: nothing can follow a file that is too short.
func (f *tarFile) Discard() error {
	f.w.mu.Lock()
	defer f.w.mu.Unlock()
	if f.w.file == f {
		f.w.file = nil
		if f.at < f.size && f.w.err == nil {
			f.w.err = ErrDone
		}
	}
	return nil
}

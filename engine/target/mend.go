package target

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"
	"sync"

	"github.com/cairn-backup/cairn/manifest"
)

// mendFrom is the size in bytes from which a file is mended in place, if parts
// of it are right. Smaller ones are written anew beside the old one and renamed
// over it, which is atomic and costs little.
const mendFrom = 4 << 20

// A span is a range of bytes of a file.
type span struct{ off, end int64 }

// An oldFile is a regular file in whose place there is something already. It
// begins as a look at what is there, and becomes a new file beside it, or the
// old one opened for writing, with the first byte that is not right.
type oldFile struct {
	writer *dirWriter
	parent *folder // referenced until Close
	name   string
	path   string
	node   manifest.Node
	info   fs.FileInfo // of what is there
	claim  bool        // its other names, if any, are those of the node

	mu      sync.Mutex // guards what follows; not held while content is read or written
	old     *os.File   // the old content; nil if it is of no use
	mend    bool       // Mend was called
	kept    []span     // sorted, not touching
	covered int64      // bytes kept, zeroed or written
	differs bool       // some content is not as it was
	temp    *file      // the new file
	tempAt  string     // its name
	inPlace *os.File   // the old file, for writing
	closed  bool
}

var _ Mender = (*oldFile)(nil)

// createOver returns a file in the place of fi. It takes over the reference to
// parent, unless it fails.
func (w *dirWriter) createOver(parent *folder, fi fs.FileInfo, path string, n manifest.Node) (File, error) {
	_, name := splitPath(path)
	f := &oldFile{writer: w, parent: parent, name: name, path: path, node: n, info: fi}
	if fi.Mode().IsRegular() {
		f.claim = w.over.claim(fi, n.Link)
		f.old = openOld(parent, name, fi)
	} else if fi.IsDir() && !w.over.remove {
		if empty, err := emptyDir(parent, name); err != nil || !empty {
			return nil, w.fail("create", path, errors.Join(err, errDirectory))
		}
	}
	w.open.Add(1)
	return f, nil
}

// errDirectory says what stands in the way of a file.
var errDirectory = errors.New("a directory that is not empty is in its place")

// openOld opens the old file to be read, or returns nil if that is not possible
// or another came into its place.
func openOld(parent *folder, name string, fi fs.FileInfo) *os.File {
	old, err := parent.root.OpenFile(name, os.O_RDONLY|dontWait, 0)
	if err != nil {
		return nil
	}
	if got, err := old.Stat(); err != nil || !os.SameFile(got, fi) {
		_ = old.Close() // nothing was written to it
		return nil
	}
	return old
}

func emptyDir(parent *folder, name string) (bool, error) {
	dir, err := parent.root.Open(name)
	if err != nil {
		return false, err
	}
	names, err := dir.Readdirnames(1)
	_ = dir.Close() // nothing was written to it
	if isEOF(err) {
		err = nil
	}
	return len(names) == 0, err
}

// Mend returns the size of the old content.
func (f *oldFile) Mend() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mend = true
	if f.old == nil {
		return 0
	}
	return f.info.Size()
}

// ReadAt reads the old content, or the new if Mend was not called.
func (f *oldFile) ReadAt(p []byte, off int64) (int, error) {
	f.mu.Lock()
	mend, old, temp := f.mend, f.old, f.temp
	f.mu.Unlock()
	switch {
	case temp != nil && !mend:
		return temp.ReadAt(p, off)
	case old == nil || !mend:
		return 0, io.EOF
	}
	n, err := old.ReadAt(p, off)
	if err != nil && !isEOF(err) {
		err = f.writer.fail("read", f.path, err)
	}
	return n, err
}

// Keep notes that a range is right.
func (f *oldFile) Keep(off, n int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.covered += n; n <= 0 {
		return nil
	}
	f.kept = addSpan(f.kept, span{off, off + n})
	return nil
}

// addSpan adds s, and joins what touches.
func addSpan(spans []span, s span) []span {
	i, _ := slices.BinarySearchFunc(spans, s, func(a, b span) int {
		switch {
		case a.end < b.off:
			return -1
		case a.off > b.end:
			return 1
		}
		return 0
	})
	j := i
	for ; j < len(spans) && spans[j].off <= s.end; j++ {
		s = span{min(s.off, spans[j].off), max(s.end, spans[j].end)}
	}
	return slices.Replace(spans, i, j, s)
}

// Zero makes a range zeros. What is zeros already, or a hole, is not touched.
func (f *oldFile) Zero(off, n int64) error {
	f.mu.Lock()
	old, size := f.old, f.info.Size()
	f.mu.Unlock()
	end := min(off+n, size)
	buf := make([]byte, min(max(end-off, 0), 256<<10))
	for at := off; old != nil && at < end; {
		next, err := nextData(old, at)
		if err != nil {
			return f.writer.fail("read", f.path, err)
		}
		if next > at {
			at = next
			continue
		}
		p := buf[:min(int64(len(buf)), end-at)]
		if _, err := old.ReadAt(p, at); err != nil {
			return f.writer.fail("read", f.path, err)
		}
		if len(bytes.TrimLeft(p, "\x00")) > 0 {
			if err := f.wipe(at, p); err != nil {
				return err
			}
		}
		at += int64(len(p))
	}
	f.mu.Lock()
	f.covered += n
	f.mu.Unlock()
	return nil
}

// wipe makes the range of p at off zeros; p was its content.
func (f *oldFile) wipe(off int64, p []byte) error {
	_, inPlace, err := f.begin()
	if err != nil || inPlace == nil {
		return err // a new file has a hole there
	}
	clear(p)
	if err := punch(inPlace, off, p); err != nil {
		return f.writer.fail("write", f.path, err)
	}
	return nil
}

// WriteAt writes all of p at off.
func (f *oldFile) WriteAt(p []byte, off int64) (int, error) {
	temp, inPlace, err := f.begin()
	if err != nil {
		return 0, err
	}
	n := len(p)
	switch {
	case temp != nil:
		n, err = temp.WriteAt(p, off)
	case inPlace == nil: // a dry run
	case off < 0 || off > int64(f.node.Size)-int64(len(p)):
		return 0, f.writer.fail("write", f.path, errTooLong)
	default:
		if n, err = inPlace.WriteAt(p, off); err != nil {
			err = f.writer.fail("write", f.path, err)
		}
	}
	f.mu.Lock()
	f.covered += int64(n)
	f.mu.Unlock()
	return n, err
}

// begin makes the file that is written to, the first time: the new one, or the
// old one in place. In a dry run there is neither.
func (f *oldFile) begin() (temp *file, inPlace *os.File, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.differs = true
	if f.temp != nil || f.inPlace != nil || f.writer.over.dry {
		return f.temp, f.inPlace, nil
	}
	if f.closed {
		return nil, nil, f.writer.fail("write", f.path, fs.ErrClosed)
	}
	if f.mendable() && f.openInPlace() {
		return nil, f.inPlace, nil
	}
	return f.temp, nil, f.makeTemp()
}

// mendable reports whether the old file is worth mending in place, by what is
// known so far. The caller holds mu.
func (f *oldFile) mendable() bool {
	_, names := inodeOf(f.info)
	return f.mend && len(f.kept) > 0 && names < 2 && f.info.Size() >= mendFrom && f.node.Size >= mendFrom
}

// openInPlace opens the old file for writing. It reports false where that is not
// possible, for one because a program runs from it.
func (f *oldFile) openInPlace() bool {
	perm := f.info.Mode().Perm()
	if perm&0o200 == 0 && !f.writer.superuser() && f.old.Chmod(perm|0o200) != nil {
		return false
	}
	h, err := f.parent.root.OpenFile(f.name, os.O_RDWR|dontWait, 0)
	if err != nil {
		return false
	}
	if got, err := h.Stat(); err != nil || !os.SameFile(got, f.info) {
		_ = h.Close() // nothing was written to it
		return false
	}
	f.inPlace = h
	return true
}

// makeTemp makes the new file beside the old one. The caller holds mu.
func (f *oldFile) makeTemp() error {
	w := f.writer
	name := tempName()
	w.folders.hold(f.parent)
	temp, err := w.create(f.parent, name, f.path, f.node)
	if err != nil {
		w.folders.release(f.parent)
		return w.fail("create", f.path, err)
	}
	w.open.Add(1)
	f.temp, f.tempAt = temp, name
	if w.inherits(f.path) {
		if err := f.parent.strip(name); err != nil {
			return w.fail("create", f.path, err)
		}
	}
	return nil
}

// Close puts the file in the place of the old one, or finishes that.
func (f *oldFile) Close() error {
	w := f.writer
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return w.fail("close", f.path, fs.ErrClosed)
	}
	f.closed = true
	defer w.folders.release(f.parent)
	defer w.open.Add(-1)
	size := int64(f.node.Size) //nolint:gosec // WriteAt and the manifest bound it
	same := f.mend && f.old != nil && f.covered == size && !f.differs && f.info.Size() == size
	settle := f.settleOther
	if same {
		settle = f.settleSame
	}
	what, err := settle()
	if f.old != nil {
		_ = f.old.Close() // nothing was written to it
	}
	if err != nil {
		return w.fail("close", f.path, err)
	}
	w.over.tell(f.path, manifest.File, what)
	return nil
}

// Discard removes the new file. What was written in place stays so.
func (f *oldFile) Discard() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil
	}
	f.closed = true
	w := f.writer
	defer w.folders.release(f.parent)
	defer w.open.Add(-1)
	err := f.dropTemp()
	if f.old != nil {
		_ = f.old.Close() // nothing was written to it
	}
	if err != nil {
		return w.fail("close", f.path, err)
	}
	return nil
}

// settleSame finishes a file whose content was right already.
func (f *oldFile) settleSame() (What, error) {
	w := f.writer
	if f.claim {
		_, names := inodeOf(f.info)
		adjust := w.adjust
		if names > 1 || w.over.dry {
			adjust = w.differs // the metadata of a file with several names may be someone else's
		}
		changed, err := adjust(f.parent, f.name, f.node)
		switch {
		case err != nil:
			return 0, err
		case !changed:
			return Unchanged, nil
		case names < 2:
			return Adjusted, nil
		}
	}
	if w.over.dry {
		return Adjusted, nil
	}
	return f.replace()
}

// settleOther finishes a file whose content was another.
func (f *oldFile) settleOther() (What, error) {
	switch {
	case f.writer.over.dry && f.mendable():
		return Mended, nil
	case f.writer.over.dry:
		return Replaced, nil
	}
	return f.replace()
}

// replace puts the new content, of which all was written, in place of the old.
func (f *oldFile) replace() (What, error) {
	switch {
	case f.mend && f.covered != int64(f.node.Size): //nolint:gosec // bounded by the manifest
		return 0, errors.Join(errUncovered, f.dropTemp())
	case f.inPlace != nil:
		return Mended, f.finishInPlace()
	}
	if f.temp == nil {
		if err := f.makeTemp(); err != nil {
			return 0, err
		}
	}
	return Replaced, f.finishTemp()
}

// errUncovered says that a caller of Mend has not done its part.
var errUncovered = errors.New("not all of the content was written, kept or zeroed")

// dropTemp gives up what was begun.
func (f *oldFile) dropTemp() error {
	switch {
	case f.temp != nil:
		_ = f.temp.Close() // it is removed
		return f.parent.root.Remove(f.tempAt)
	case f.inPlace != nil:
		return f.inPlace.Close()
	}
	return nil
}

func (f *oldFile) finishInPlace() error {
	err := f.inPlace.Truncate(int64(f.node.Size)) //nolint:gosec // bounded by the manifest
	if err == nil {
		err = syncFile(f.inPlace)
	}
	if err := errors.Join(err, f.inPlace.Close()); err != nil {
		return err
	}
	_, err = f.writer.adjust(f.parent, f.name, f.node)
	return err
}

// errMoving says that somebody writes to what a restore takes a part of.
var errMoving = errors.New("what was there was changed while it was compared and copied")

// copyKept copies what is right to the new file. It was compared before, so that
// it must not have changed since.
func (f *oldFile) copyKept() error {
	for _, s := range f.kept {
		n, err := io.Copy(io.NewOffsetWriter(f.temp, s.off), io.NewSectionReader(f.old, s.off, s.end-s.off))
		if err == nil && n < s.end-s.off {
			err = errMoving // it was cut short
		}
		if err != nil {
			return err
		}
	}
	if len(f.kept) == 0 {
		return nil
	}
	now, err := f.old.Stat()
	if err == nil && (now.Size() != f.info.Size() || !now.ModTime().Equal(f.info.ModTime())) {
		err = errMoving
	}
	return err
}

// finishTemp copies what is right to the new file and renames it over the old.
func (f *oldFile) finishTemp() error {
	if err := errors.Join(f.copyKept(), f.temp.Close()); err != nil {
		_ = f.parent.root.Remove(f.tempAt) // the first error tells more
		return err
	}
	return f.writer.replace(f.parent, f.tempAt, f.name, f.path)
}

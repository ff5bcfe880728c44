package pages

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/cairn-backup/cairn/chunk/seal"
	"github.com/cairn-backup/cairn/chunk/wire"
	"github.com/cairn-backup/cairn/engine/internal/keys"
)

// A Cache is where the files of fingerprints of one repository lie. The zero Cache
// has none: nothing is found in it, and nothing kept.
type Cache struct {
	Dir        string // need not exist
	Meta       seal.Key
	Repository keys.RepositoryID
	ReadOnly   bool
}

const (
	// keep is for how long a file is kept that no backup has written anew.
	keep   = 90 * 24 * time.Hour
	suffix = ".prints"

	frameSize = 4
	lastBit   = 1 << 31
)

var errFile = errors.New("no file of fingerprints")

func (c *Cache) path(name [16]byte) string {
	return filepath.Join(c.Dir, hex.EncodeToString(name[:])+suffix)
}

func (c *Cache) binding() seal.Binding {
	return seal.Binding{Repository: c.Repository, Number: number}
}

// Sweep removes files that were not written for long: of files that are gone, and
// what was left unfinished.
func (c *Cache) Sweep() {
	if c.Dir == "" || c.ReadOnly {
		return
	}
	entries, _ := os.ReadDir(c.Dir) // none if it cannot be read
	for _, e := range entries {
		if info, err := e.Info(); err == nil && time.Since(info.ModTime()) > keep {
			_ = os.Remove(filepath.Join(c.Dir, e.Name())) // a hint
		}
	}
}

// A Reader finds the records of one file, in the order of groups. Whatever is wrong
// with the file, there are no records from there on. A nil Reader has none.
type Reader struct {
	file   io.Closer
	in     *bufio.Reader
	open   *seal.Opener
	part   uint64 // number of the next
	final  bool   // that was the last
	buf    []byte // one part
	rest   *wire.Reader
	next   uint64 // group behind the last record
	record Record // the last that was read
	ok     bool   // there is one
}

// Open returns a Reader of the file of that name whose pages have grain bytes, or
// nil if there is none.
func (c *Cache) Open(name [16]byte, grain int) *Reader {
	if c.Dir == "" {
		return nil
	}
	f, err := os.Open(c.path(name))
	if err != nil {
		return nil
	}
	r, err := newReader(f, c, grain)
	if err != nil {
		_ = f.Close() // nothing was written to it
		return nil
	}
	r.file = f
	return r
}

// newReader reads the header and the first part.
func newReader(f io.Reader, c *Cache, grain int) (*Reader, error) {
	r := &Reader{in: bufio.NewReaderSize(f, seal.MaxHeader)}
	head, err := r.in.Peek(seal.MaxHeader)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	h, n, err := seal.ParseHeader(head)
	if err != nil {
		return nil, err
	}
	if h.Kind != seal.KindLocal {
		return nil, errFile
	}
	if r.open, err = seal.NewOpener(c.Meta, h, c.binding()); err != nil {
		return nil, err
	}
	_, _ = r.in.Discard(n) // it was peeked at
	if err := r.readPart(); err != nil {
		return nil, err
	}
	if r.rest.Uvarint(version) != version || r.rest.Uvarint(Group) != uint64(grain) || r.rest.Done() != nil { //nolint:gosec // not negative
		return nil, errFile
	}
	r.advance()
	return r, nil
}

// readPart reads and opens the next part.
func (r *Reader) readPart() error {
	var frame [frameSize]byte
	if r.final {
		return io.EOF
	}
	if _, err := io.ReadFull(r.in, frame[:]); err != nil {
		return err
	}
	length := binary.LittleEndian.Uint32(frame[:])
	last := seal.More
	if r.final = length&lastBit != 0; r.final {
		last = seal.Final
	}
	n := int(length &^ lastBit)
	if n > partLimit {
		return errFile
	}
	if cap(r.buf) < n {
		r.buf = make([]byte, n)
	}
	sealed := r.buf[:n]
	if _, err := io.ReadFull(r.in, sealed); err != nil {
		return err
	}
	plain, err := r.open.Open(sealed[:0], sealed, r.part, last)
	if err != nil {
		return err
	}
	r.part++
	r.rest = wire.NewReader(plain)
	return nil
}

// advance reads the next record.
func (r *Reader) advance() {
	for r.ok = false; r.rest.Len() == 0; {
		if r.readPart() != nil {
			r.final = true
			return
		}
	}
	record, err := readRecord(r.rest, r.next)
	if err != nil {
		r.final, r.rest = true, wire.NewReader(nil)
		return
	}
	r.record, r.ok, r.next = record, true, record.Group+1
}

// Find returns the record of a group. Groups must rise from call to call. The
// result is valid until the next call.
func (r *Reader) Find(group uint64) (Record, bool) {
	if r == nil {
		return Record{}, false
	}
	for r.ok && r.record.Group < group {
		r.advance()
	}
	return r.record, r.ok && r.record.Group == group
}

// Close closes the file.
func (r *Reader) Close() {
	if r != nil {
		_ = r.file.Close() // nothing was written to it
	}
}

// A Writer makes one file. What goes wrong with it shows nowhere: the file is a
// hint, and the next backup does without. A nil Writer makes none.
type Writer struct {
	cache *Cache
	name  [16]byte
	file  *os.File
	seal  *seal.Writer
	plain []byte // of the open part
	out   []byte // room for a sealed one
	next  uint64 // group behind the last record
	err   error  // the first; sticks
}

// Create begins a file, or returns nil if none can be made.
func (c *Cache) Create(name [16]byte, grain int) *Writer {
	if c.Dir == "" || c.ReadOnly {
		return nil
	}
	if err := os.Mkdir(c.Dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return nil
	}
	s, err := seal.NewWriter(c.Meta, seal.Template{Kind: seal.KindLocal}, c.binding())
	if err != nil {
		return nil
	}
	f, err := os.CreateTemp(c.Dir, "new-*"+suffix) // mode 0600
	if err != nil {
		return nil
	}
	w := &Writer{cache: c, name: name, file: f, seal: s}
	w.write(s.Header().Append(nil))
	w.plain = wire.AppendUvarint(w.plain, version)
	w.plain = wire.AppendUvarint(w.plain, uint64(grain)) //nolint:gosec // not negative
	w.flush(w.seal.Part, 0)
	return w
}

// Add appends a record, whose group comes behind that of the record before. It
// does not retain it.
func (w *Writer) Add(r Record) {
	if w == nil || w.err != nil {
		return
	}
	w.plain = r.append(w.plain, w.next)
	if w.next = r.Group + 1; len(w.plain) >= cut {
		w.flush(w.seal.Part, 0)
	}
}

// flush seals the open part and writes it.
func (w *Writer) flush(part func(dst, plain []byte) ([]byte, uint64, error), bits uint32) {
	if w.err != nil {
		return
	}
	length := uint32(len(w.plain)+seal.Overhead) | bits //nolint:gosec // a part
	w.out = binary.LittleEndian.AppendUint32(w.out[:0], length)
	if w.out, _, w.err = part(w.out, w.plain); w.err == nil {
		w.write(w.out)
	}
	w.plain = w.plain[:0]
}

func (w *Writer) write(p []byte) {
	if w.err == nil {
		_, w.err = w.file.Write(p)
	}
}

// Finish puts the file in the place of the one of that name. It does not sync:
// what a crash leaves fails to open.
func (w *Writer) Finish() {
	if w == nil || w.file == nil {
		return
	}
	w.flush(w.seal.Finish, lastBit)
	f := w.file
	w.file = nil
	err := errors.Join(w.err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), w.cache.path(w.name))
	}
	if err != nil {
		_ = os.Remove(f.Name()) // a hint
	}
}

// Abort removes the file. It does nothing after Finish.
func (w *Writer) Abort() {
	if w == nil || w.file == nil {
		return
	}
	_ = errors.Join(w.file.Close(), os.Remove(w.file.Name())) // a hint
	w.file = nil
}

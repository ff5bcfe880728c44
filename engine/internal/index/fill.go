package index

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/pb"
	"github.com/dgraph-io/ristretto/v2/z"
)

// Filling an empty index with very many entries goes by another way than Insert:
// they are spread over a file by their keys, sorted part by part, and handed to
// Badger as whole tables, each of which is written once. Inserted as they come, the
// folds of chunks being as good as random, they are merged again and again: see ADR 9.
const (
	// fillBytes is what the file and the database take for an entry, at most: 58,
	// and 20 in a list; 66, and the 20 again; and some room.
	fillBytes = 200

	fillParts = 256 // one for each first byte of a fold; one more is for lists
	fillBlock = 16 << 10

	fillPrefix = "fill-"
	recordHead = 1 + 2 // lengths of key and value
)

// ErrNotFilled says that a Filler came to nothing, and that Insert may be tried: its
// file cannot be written or read, or the index is not empty any more.
var ErrNotFilled = errors.New("the index was not filled")

// A Filler fills an empty index. Nothing of it can be seen before Finish. It is
// for one goroutine.
type Filler struct {
	x     *Index
	f     *front
	file  *os.File
	end   int64 // of the file
	parts []fillPart
	since int64 // written since room was looked for
}

// A fillPart is what has neighbouring keys, or lists as they came: blocks of the
// file, and the block that is not there yet.
type fillPart struct {
	blocks []fillRun
	open   []byte
}

type fillRun struct {
	off  int64
	size int
	sum  uint32 // Castagnoli
}

// Filler returns a Filler for about so many entries, or nil if only Insert can be
// used: the index is in memory or is not empty, or the disk has no room for a
// file beside it. It is worth it from some 100,000 entries on.
func (x *Index) Filler(entries uint64) *Filler {
	x.mu.RLock()
	defer x.mu.RUnlock()
	f, ok := x.store.(*front)
	if !ok || !f.empty() {
		return nil
	}
	if free, err := freeSpace(f.dir); err != nil || free < minFree+entries*fillBytes {
		return nil
	}
	file, err := os.CreateTemp(f.dir, fillPrefix+"*") // mode 0600
	if err != nil {
		return nil
	}
	return &Filler{x: x, f: f, file: file, parts: make([]fillPart, fillParts+1)}
}

// empty reports whether there are neither entries nor marks.
func (f *front) empty() bool {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.state.gen == 0 && len(f.state.segments) == 0 && f.state.records.len() == 0 && len(f.added) == 0
}

// InsertPack is as InsertPack of the index. After an error only Drop is left.
func (l *Filler) InsertPack(entries []Entry) error {
	record := make([]byte, recordHead, recordHead+keySize+valueSize)
	for _, e := range entries {
		if e.Place.Pack >= maxPack {
			return fmt.Errorf("insert %s: pack number %d is out of range", e.ID, e.Place.Pack)
		}
		record = appendKey(record[:recordHead], e.ID)
		record = l.f.sums.appendChunk(record, e.ID, e.Place)
		if err := l.add(int(record[recordHead+1]), record, keySize); err != nil {
			return err
		}
	}
	// Lists come by packs, that is nearly in the order of their keys.
	return l.f.sums.eachList(listsOf(entries), func(key, value []byte) error {
		record = append(append(record[:recordHead], key...), value...)
		return l.add(fillParts, record, len(key))
	})
}

// add adds a record, the head of which it fills in, to a part.
func (l *Filler) add(part int, record []byte, keyLen int) error {
	record[0] = byte(keyLen)
	binary.BigEndian.PutUint16(record[1:], uint16(len(record)-recordHead-keyLen)) //nolint:gosec // below maxEntry
	p := &l.parts[part]
	if len(p.open)+len(record) > fillBlock {
		if err := l.flush(p); err != nil {
			return err
		}
	}
	if p.open == nil {
		p.open = make([]byte, 0, fillBlock)
	}
	p.open = append(p.open, record...)
	return nil
}

func (l *Filler) flush(p *fillPart) error {
	if l.since += int64(len(p.open)); l.since > minFree/4 {
		l.since = 0
		if err := l.f.newDisk().room(); err != nil {
			return fmt.Errorf("%w: %w", ErrNotFilled, err)
		}
	}
	if _, err := l.file.WriteAt(p.open, l.end); err != nil {
		return fmt.Errorf("%w: %w", ErrNotFilled, err)
	}
	p.blocks = append(p.blocks, fillRun{l.end, len(p.open), crc32.Checksum(p.open, crcTable())})
	l.end += int64(len(p.open))
	p.open = p.open[:0]
	return nil
}

// read appends a block to buf.
func (l *Filler) read(buf []byte, b fillRun) ([]byte, error) {
	start := len(buf)
	buf = slices.Grow(buf, b.size)[:start+b.size]
	if _, err := l.file.ReadAt(buf[start:], b.off); err != nil {
		return buf, fmt.Errorf("%w: %w", ErrNotFilled, err)
	}
	if crc32.Checksum(buf[start:], crcTable()) != b.sum {
		return buf, fmt.Errorf("%w: its file was changed", ErrNotFilled)
	}
	return buf, nil
}

// Finish makes all of it visible, marks the segments that it is from as loaded, and
// ends the Filler. Others wait meanwhile, for about a second for each million
// entries. After an error the index is as it was.
func (l *Filler) Finish(ctx context.Context, from []SegmentID) error {
	defer l.Drop()
	return l.x.with("fill", func(s store) error {
		if s != store(l.f) {
			return ErrClosed
		}
		return l.f.fillFrom(ctx, l, from)
	})
}

// Drop ends the Filler.
func (l *Filler) Drop() {
	if l.file != nil {
		_ = l.file.Close()
		_ = os.Remove(l.file.Name()) // the next open tries again
	}
	l.file, l.parts = nil, nil
}

// removeFills removes what a process left that was killed while it filled.
func removeFills(dir string) {
	infos, _ := os.ReadDir(dir)
	for _, info := range infos {
		if strings.HasPrefix(info.Name(), fillPrefix) {
			_ = os.Remove(filepath.Join(dir, info.Name()))
		}
	}
}

// fillFrom makes a database of what l has, and of what came meanwhile.
func (f *front) fillFrom(ctx context.Context, l *Filler, from []SegmentID) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.state.gen != 0 {
		return fmt.Errorf("%w: others have filled it", ErrNotFilled)
	}
	before := maps.Clone(f.state.segments)
	for _, id := range from {
		f.state.segments[id] = true
	}
	f.changed = true
	if l.end == 0 && !slices.ContainsFunc(l.parts, func(p fillPart) bool { return len(p.open) > 0 }) {
		return nil
	}
	err := f.spillInto(func(d *disk) error { return d.fill(ctx, l) })
	if err != nil {
		f.state.segments = before
	}
	if errors.Is(err, ErrNoSpace) { // without the file there may be enough
		return fmt.Errorf("%w: %w", ErrNotFilled, err)
	}
	return err
}

// fill writes all of l into a database that is empty.
func (d *disk) fill(ctx context.Context, l *Filler) error {
	if err := d.fillTables(ctx, l); err != nil {
		return err
	}
	if err := d.put([]byte{kindSchema}, d.sums.schema()); err != nil { // the one that was there is gone
		return err
	}
	var buf []byte
	lists := l.parts[fillParts]
	for _, b := range lists.blocks {
		var err error
		if buf, err = l.read(buf[:0], b); err != nil {
			return err
		}
		if err := d.insertRecords(ctx, cutRecords(buf)); err != nil {
			return err
		}
	}
	return d.insertRecords(ctx, cutRecords(lists.open))
}

// fillTables writes all entries as tables of the lowest level. Each is a stream of
// its own and ends before Badger would end it: a table that cannot be written is
// then an error of the next Write, and not a panic in a goroutine of Badger's.
func (d *disk) fillTables(ctx context.Context, l *Filler) (err error) {
	sw := d.db.NewStreamWriter()
	defer func() {
		if err == nil {
			return
		}
		// Goroutines may be at work on tables, and a Close would take away what
		// they use, which ends the process.
		d.hung = errors.Is(err, errNoAnswer) || bounded(closeTimeout, func() error { sw.Cancel(); return nil }) != nil
	}()
	if err := d.write(func(*badger.DB) error { return sw.Prepare() }); err != nil {
		return err
	}
	t := fillTable{d: d, sw: sw, kvs: z.NewBuffer(2*fillTableSize, "index fill")}
	var buf []byte
	for i := range fillParts {
		buf = buf[:0]
		for _, b := range l.parts[i].blocks {
			if buf, err = l.read(buf, b); err != nil {
				return err
			}
		}
		buf = append(buf, l.parts[i].open...)
		for _, r := range sortRecords(buf) {
			if err := t.add(ctx, r); err != nil {
				return err
			}
		}
	}
	if err := t.end(ctx); err != nil {
		return err
	}
	return d.write(func(*badger.DB) error { return sw.Flush() })
}

// fillTableSize is how large a table is made, in bytes: Badger ends one at 0.95 of 4 MiB.
const fillTableSize = 3 << 20

// A fillTable is the table that is being made.
type fillTable struct {
	d      *disk
	sw     *badger.StreamWriter
	kvs    *z.Buffer
	stream uint32
	size   int // about, of the table
	last   []byte
}

func (t *fillTable) add(ctx context.Context, r []byte) error {
	key, value := cutRecord(r)
	if bytes.Compare(key, t.last) <= 0 {
		return fmt.Errorf("%w: its keys do not rise", ErrNotFilled) // Badger would panic
	}
	t.last = append(t.last[:0], key...)
	badger.KVToBuffer(&pb.KV{Key: key, Value: value, Version: 1, StreamId: t.stream}, t.kvs)
	if t.size += len(key) + len(value) + 24; t.size < fillTableSize {
		return nil
	}
	return t.end(ctx)
}

// end hands the table over.
func (t *fillTable) end(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if t.size == 0 {
		return nil
	}
	badger.KVToBuffer(&pb.KV{StreamId: t.stream, StreamDone: true}, t.kvs)
	if err := t.d.write(func(*badger.DB) error { return t.sw.Write(t.kvs) }); err != nil {
		return err // it may read them still
	}
	t.kvs.Reset()
	t.stream++
	t.size = 0
	return nil
}

// insertRecords inserts records as Insert does.
func (d *disk) insertRecords(ctx context.Context, records [][]byte) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	kept := bytes.Join(records, nil) // Badger keeps keys and values until they are written
	d.inserted.Add(int64(len(kept) / (keySize + valueSize)))
	return d.write(func(db *badger.DB) error {
		wb := db.NewWriteBatch()
		defer wb.Cancel()
		for _, r := range cutRecords(kept) {
			if err := wb.Set(cutRecord(r)); err != nil {
				return err
			}
		}
		return wb.Flush()
	})
}

// cutRecords cuts buf into its records.
func cutRecords(buf []byte) (records [][]byte) {
	for len(buf) > 0 {
		n := recordHead + int(buf[0]) + int(binary.BigEndian.Uint16(buf[1:]))
		records = append(records, buf[:n:n])
		buf = buf[n:]
	}
	return records
}

func cutRecord(r []byte) (key, value []byte) {
	end := recordHead + int(r[0])
	return r[recordHead:end:end], r[end:]
}

// sortRecords cuts buf into its records, sorts them by key, and leaves out all
// but the last of those with one key.
func sortRecords(buf []byte) [][]byte {
	records := cutRecords(buf)
	compare := func(a, b []byte) int {
		ka, _ := cutRecord(a)
		kb, _ := cutRecord(b)
		return bytes.Compare(ka, kb)
	}
	slices.SortStableFunc(records, compare)
	kept := records[:0]
	for i, r := range records {
		if i+1 == len(records) || compare(r, records[i+1]) != 0 {
			kept = append(kept, r)
		}
	}
	return kept
}

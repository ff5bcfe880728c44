package index

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/pb"
	"github.com/dgraph-io/ristretto/v2/z"
)

// Filling an empty index with very many entries goes by another way than Insert:
// they are spread over a file by their keys, sorted part by part, and given to
// Badger in order, which then writes each table once. Inserted as they come, the
// folds of chunks being as good as random, entries are merged again and again:
// four million took 30 CPU seconds, and sorted 4.5 (29 November 2026).
const (
	// fillBytes is what the file and the database take for each entry, at most,
	// lists included: 57 and 20, 66 and 20, and some room.
	fillBytes = 200

	chunkParts = 256 // one for each first byte of a fold
	listParts0 = 64  // for lists, by their packs
	fillBlock  = 16 << 10
	fillBatch  = 1 << 20 // bytes that are handed to Badger at once

	fillPrefix = "fill-"
	recordHead = 1 + 2
)

// A Filler fills an empty index. Nothing of it can be seen before Finish. It is
// for one goroutine.
type Filler struct {
	x     *Index
	f     *front
	packs uint64
	file  *os.File
	end   int64 // of the file
	parts []fillPart
	since int64 // written since room was looked for
}

// A fillPart is what has neighbouring keys: blocks of the file, and the block that
// is not there yet.
type fillPart struct {
	blocks []fillRun
	open   []byte
}

type fillRun struct {
	off  int64
	size int
}

// Filler returns a Filler for about so many entries of packs with numbers below
// packs, or nil if only Insert can be used: the index is in memory or is not empty, or
// the disk has no room for a file beside it. It is worth it from some 100,000 entries
// on.
func (x *Index) Filler(entries, packs uint64) *Filler {
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
	return &Filler{x: x, f: f, packs: max(packs, 1), file: file, parts: make([]fillPart, chunkParts+listParts0)}
}

// empty reports whether there are no entries and no marks.
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
	return l.f.sums.eachList(listsOf(entries), func(n neighbourhood, key, value []byte) error {
		record = append(append(record[:recordHead], key...), value...)
		return l.add(chunkParts+int(min(n.Pack*listParts0/l.packs, listParts0-1)), record, len(key)) //nolint:gosec // below listParts0
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
			return err
		}
	}
	if _, err := l.file.WriteAt(p.open, l.end); err != nil {
		return damage(err)
	}
	p.blocks = append(p.blocks, fillRun{l.end, len(p.open)})
	l.end += int64(len(p.open))
	p.open = p.open[:0]
	return nil
}

// Finish makes all of it visible, and ends the Filler. Others wait meanwhile, for
// about a second for each million entries.
func (l *Filler) Finish(ctx context.Context) error {
	defer l.Drop()
	return l.x.with("fill", func(s store) error {
		if s != store(l.f) {
			return ErrClosed
		}
		return l.f.fillFrom(ctx, l)
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

// sorted yields the records of part by rising key, the last of those with one key.
func (l *Filler) sorted(part int, buf []byte, yield func(key, value []byte) error) ([]byte, error) {
	p := l.parts[part]
	buf = buf[:0]
	for _, b := range p.blocks {
		start := len(buf)
		buf = slices.Grow(buf, b.size)[:start+b.size]
		if _, err := l.file.ReadAt(buf[start:], b.off); err != nil {
			return buf, damage(err)
		}
	}
	buf = append(buf, p.open...)
	l.parts[part] = fillPart{}
	type place struct {
		head uint64 // of the key, behind its kind
		at   int    // of the record
	}
	keyOf := func(at int) []byte { return buf[at+recordHead : at+recordHead+int(buf[at])] }
	var places []place
	for at := 0; at < len(buf); {
		key := keyOf(at)
		places = append(places, place{binary.BigEndian.Uint64(key[1:]), at})
		at += recordHead + len(key) + int(binary.BigEndian.Uint16(buf[at+1:]))
	}
	slices.SortFunc(places, func(a, b place) int {
		if a.head != b.head {
			return cmp.Compare(a.head, b.head)
		}
		return cmp.Or(bytes.Compare(keyOf(a.at), keyOf(b.at)), cmp.Compare(a.at, b.at))
	})
	for i, p := range places {
		key := keyOf(p.at)
		if i+1 < len(places) && bytes.Equal(key, keyOf(places[i+1].at)) {
			continue
		}
		start := p.at + recordHead + len(key)
		if err := yield(key, buf[start:start+int(binary.BigEndian.Uint16(buf[p.at+1:]))]); err != nil {
			return buf, err
		}
	}
	return buf, nil
}

// fillFrom makes a database of what l has, and of what came meanwhile.
func (f *front) fillFrom(ctx context.Context, l *Filler) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.state.gen != 0 {
		// Someone else needed a database meanwhile: what he has is newer.
		d, err := f.database()
		if err == nil {
			err = d.fillBehind(ctx, l)
		}
		return err
	}
	return f.spillInto(func(d *disk) error { return d.fillEmpty(ctx, l) })
}

// fillEmpty writes all of l into a database that is empty.
func (d *disk) fillEmpty(ctx context.Context, l *Filler) error {
	sw := d.db.NewStreamWriter()
	if err := d.write(func(*badger.DB) error { return sw.Prepare() }); err != nil {
		return err
	}
	flushed := false
	defer func() {
		if !flushed {
			_ = bounded(abandonTimeout, func() error { sw.Cancel(); return nil })
		}
	}()
	out := z.NewBuffer(2*fillBatch, "index fill")
	defer func() { _ = out.Release() }()
	hand := func() error {
		err := d.write(func(*badger.DB) error { return sw.Write(out) })
		out.Reset()
		return err
	}
	var buf []byte
	for part := range l.parts {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		var err error
		buf, err = l.sorted(part, buf, func(key, value []byte) error {
			badger.KVToBuffer(&pb.KV{Key: key, Value: value, Version: 1}, out)
			if out.LenNoPadding() < fillBatch {
				return nil
			}
			return hand()
		})
		if err != nil {
			return err
		}
	}
	if err := hand(); err != nil {
		return err
	}
	flushed = true
	if err := d.write(func(*badger.DB) error { return sw.Flush() }); err != nil {
		return err
	}
	return d.put([]byte{kindSchema}, d.sums.schema()) // Prepare has dropped it
}

// fillBehind inserts of l what the database does not have.
func (d *disk) fillBehind(ctx context.Context, l *Filler) error {
	var buf []byte
	for part := range l.parts {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		err := d.write(func(db *badger.DB) (err error) {
			wb := db.NewWriteBatch()
			defer wb.Cancel()
			buf, err = l.sorted(part, buf, func(key, value []byte) error {
				err := db.View(func(txn *badger.Txn) error {
					_, err := txn.Get(key)
					return err
				})
				if !errors.Is(err, badger.ErrKeyNotFound) {
					return err
				}
				d.inserted.Add(1)
				return wb.Set(slices.Clone(key), slices.Clone(value))
			})
			if err != nil {
				return err
			}
			return wb.Flush()
		})
		if err != nil {
			return err
		}
	}
	return nil
}

package index

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/dgraph-io/badger/v4"

	"github.com/cairn-backup/cairn/chunk"
)

const (
	// frontWhole is up to how many entries there is no database: 2.5 GiB of data
	// in chunks of 40 KiB, 3.5 MB of file. It is read in a millisecond, and
	// Badger is opened and closed in 20.
	frontWhole = 1 << 16
	// frontCache is how many entries are kept of an index that has a database:
	// above all the tree pages that the next backup asks for again.
	frontCache = 1 << 14
)

const lockName = "lock"

// frontLimits say how many entries a front has, at most.
type frontLimits struct {
	whole int // without a database
	cache int // with one
}

// A front is a store in a directory of which Badger is the last resort: opening
// and closing it takes more CPU time than all else that a backup of a few
// unchanged files does.
//
//	lock        held while the index is open
//	front       what is known without the database; see frontfile.go
//	front-tag   a newer tag
//	gen-<n>     the database behind, if there is one; see disk
//
// While the front is whole it has every entry, and there is no database. One
// with a database has all marks of segments, the tag, and the entries that were
// used last; a miss opens the database.
//
// The file is removed before the database is opened, and written again when that
// was closed in order: so it never says more, or anything else, than what lies
// behind it. Without it the database is opened at once, and is all there is.
type front struct {
	dir     string
	sums    *summer
	damaged *atomic.Bool
	lock    io.Closer
	rebuilt bool
	frontLimits

	opening sync.Mutex           // held by who opens the database
	db      atomic.Pointer[disk] // nil: not open
	near    nearby

	// mu guards what follows. Who asks the database holds it for reading, who
	// makes one or drops it for writing.
	mu      sync.RWMutex
	state   frontState
	top     uint64                   // number of the last database made here
	hung    bool                     // a database was left that Badger is at work in
	added   map[fold][valueSize]byte // newer than state.records
	changed bool                     // since the file was written, more than the tag
	moved   bool                     // the tag
}

var _ store = (*front)(nil)

// openFront opens the index in dir, or makes one.
func openFront(dir string, sums *summer, damaged *atomic.Bool, limits frontLimits) (_ *front, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	lock, err := acquire(filepath.Join(dir, lockName))
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = lock.Close() // err says why
		}
	}()
	removeFills(dir)
	f := &front{dir: dir, sums: sums, damaged: damaged, lock: lock, frontLimits: limits}
	d := f.newDisk()
	if err := d.room(); err != nil {
		return nil, err
	}
	gens, err := d.generations()
	if err != nil {
		return nil, err
	}
	var damage error
	f.state, damage = readFront(dir, sums)
	switch {
	case damage == nil && f.state.gen == 0:
		d.removeBut(0)
	case damage == nil && slices.Contains(gens, f.state.gen): // opened when it is needed
	case damage == nil:
		f.rebuilt = true // a front whose database is gone knows nothing
		f.clear(d)
	case len(gens) > 0:
		d.gen = gens[len(gens)-1]
		if d.openExisting() != nil || f.adopt(d) != nil {
			f.rebuilt = true
			f.clear(d)
		}
	default:
		f.rebuilt = !errors.Is(damage, fs.ErrNotExist)
		f.clear(d)
	}
	return f, nil
}

// adopt takes a database without a front, as a crash leaves it.
func (f *front) adopt(d *disk) (err error) {
	d.removeBut(d.gen)
	f.state = frontState{gen: d.gen}
	if f.state.segments, err = d.loaded(); err == nil {
		f.state.tag, f.state.tagged, err = d.tag()
	}
	f.added, f.changed = nil, true
	f.db.Store(d)
	return err
}

// clear drops everything. The caller holds mu, or nobody else has f.
func (f *front) clear(d *disk) {
	if open := f.db.Swap(nil); open != nil {
		open.abandon()
	}
	f.top = max(f.top, f.state.gen)
	f.state = frontState{segments: make(map[SegmentID]bool)}
	f.added, f.changed = nil, true
	f.near.clear()
	f.removeFiles()
	d.removeBut(0)
}

func (f *front) removeFiles() {
	for _, name := range []string{frontName, frontTagName} {
		_ = os.Remove(filepath.Join(f.dir, name)) // it is not there, most of the time
	}
}

// newDisk returns the disk of f, not open.
func (f *front) newDisk() *disk {
	return &disk{
		dir: f.dir, sums: f.sums, damaged: f.damaged, free: freeSpace,
		merge: func(db *badger.DB) error { return db.Flatten(1) }, patience: closeTimeout,
	}
}

// database opens the database behind. The caller holds mu.
func (f *front) database() (*disk, error) {
	f.opening.Lock()
	defer f.opening.Unlock()
	if d := f.db.Load(); d != nil {
		return d, nil
	}
	d := f.newDisk()
	if err := d.room(); err != nil {
		return nil, err
	}
	f.removeFiles()
	d.gen = f.state.gen
	if err := d.openExisting(); err != nil {
		return nil, damage(err)
	}
	f.db.Store(d)
	return d, nil
}

// value returns what the front has of a chunk, nil if nothing. The caller holds
// mu.
func (f *front) value(k fold) []byte {
	if v, ok := f.added[k]; ok {
		return v[:]
	}
	return f.state.records.get(k)
}

func (f *front) lookup(ids []chunk.ID, places []Place, found []bool) error {
	f.mu.RLock()
	var rest []int // of ids: not in the front
	for i, id := range ids {
		places[i], found[i] = Place{}, false
		value := f.value(foldOf(id))
		if value == nil {
			if f.state.gen != 0 {
				rest = append(rest, i)
			}
			continue
		}
		if places[i], found[i] = f.sums.place(id, value); !found[i] {
			f.damaged.Store(true)
		}
	}
	if len(rest) == 0 {
		f.mu.RUnlock()
		return nil
	}
	room := len(f.added) < f.cache
	err := f.ask(ids, places, found, rest)
	f.mu.RUnlock()
	if err == nil && room {
		f.keep(ids, places, found, rest)
	}
	return err
}

// ask asks the database for those of ids that rest names. The caller holds mu.
func (f *front) ask(ids []chunk.ID, places []Place, found []bool, rest []int) error {
	d, err := f.database()
	if err != nil {
		return err
	}
	if len(ids) == len(rest) {
		return d.lookup(ids, places, found)
	}
	asked := make([]chunk.ID, len(rest))
	for j, i := range rest {
		asked[j] = ids[i]
	}
	askedPlaces, askedFound := make([]Place, len(rest)), make([]bool, len(rest))
	if err := d.lookup(asked, askedPlaces, askedFound); err != nil {
		return err
	}
	for j, i := range rest {
		places[i], found[i] = askedPlaces[j], askedFound[j]
	}
	return nil
}

// keep keeps what the database had, as long as there is room.
func (f *front) keep(ids []chunk.ID, places []Place, found []bool, rest []int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, i := range rest {
		// Someone may have made it empty, or inserted, since the database answered.
		if found[i] && f.state.gen != 0 && len(f.added) < f.cache && f.value(foldOf(ids[i])) == nil {
			f.add(ids[i], places[i])
		}
	}
}

// add puts an entry into the front. The caller holds mu.
func (f *front) add(id chunk.ID, p Place) {
	if f.added == nil {
		f.added = make(map[fold][valueSize]byte)
	}
	var value [valueSize]byte
	f.sums.appendChunk(value[:0], id, p)
	f.added[foldOf(id)] = value
	f.changed = true
}

func (f *front) insert(entries []Entry) error {
	if done, err := f.insertWhole(entries); done || err != nil {
		return err
	}
	f.mu.RLock()
	d, err := f.database()
	if err == nil {
		err = d.insert(entries)
	}
	f.mu.RUnlock()
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range entries {
		// What is in the front already must not stay as it was.
		if len(f.added) < f.cache || f.value(foldOf(entries[i].ID)) != nil {
			f.add(entries[i].ID, entries[i].Place)
		}
	}
	return nil
}

// insertWhole inserts into a front that is whole and stays so, and reports
// whether it did. One that would grow too large gets a database.
func (f *front) insertWhole(entries []Entry) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.state.gen != 0 {
		return false, nil
	}
	if f.state.records.len()+len(f.added)+len(entries) > f.whole {
		return false, f.spill()
	}
	for i := range entries {
		f.add(entries[i].ID, entries[i].Place)
	}
	return true, nil
}

// spill makes a database of a front that is whole. The caller holds mu.
func (f *front) spill() error {
	return f.spillInto(func(*disk) error { return nil })
}

// spillInto is as spill, where fill comes before what the front has. The caller
// holds mu.
func (f *front) spillInto(fill func(*disk) error) error {
	d := f.newDisk()
	if err := d.room(); err != nil {
		return err
	}
	d.gen = f.top // one that was abandoned may still be at work in its directory
	f.changed = true
	f.removeFiles()
	if err := d.openFresh(); err != nil {
		return err
	}
	f.top = d.gen
	err := fill(d)
	if err == nil {
		err = f.spillTo(d)
	}
	if err != nil {
		d.abandon()
		if d.hung {
			f.hung = true
		} else {
			d.removeBut(0)
		}
		return err
	}
	f.state.gen = d.gen
	f.db.Store(d)
	f.trim()
	return nil
}

func (f *front) spillTo(d *disk) error {
	var batch []byte
	for k, value := range f.state.records.merged(f.added) {
		batch = append(append(append(batch, kindChunk), k...), value...)
		if len(batch) == batchSize*(keySize+valueSize) {
			if err := d.insertRaw(batch); err != nil {
				return err
			}
			batch = nil // the database keeps it
		}
	}
	if err := errors.Join(d.insertRaw(batch), f.spillLists(d)); err != nil {
		return err
	}
	for id := range f.state.segments {
		if err := d.markLoaded(id); err != nil {
			return err
		}
	}
	if f.state.tagged {
		return d.setTag(f.state.tag)
	}
	return nil
}

// trim makes one sorted row of all entries, and drops those beyond what a front
// with a database holds. The caller holds mu.
func (f *front) trim() {
	limit := f.whole
	if f.state.gen != 0 {
		limit = f.cache
	}
	// Older ones go first: they were not asked for in this process.
	old := max(0, limit-len(f.added))
	kept := make(records, 0, min(limit, f.state.records.len()+len(f.added))*recordSize)
	for k, value := range f.state.records.merged(f.added) {
		if _, isNew := f.added[fold(k)]; !isNew {
			if old == 0 {
				continue
			}
			old--
		} else if len(kept) == cap(kept) {
			break
		}
		kept = append(append(kept, k...), value...)
	}
	f.state.records, f.added = kept, nil
}

func (f *front) loaded() (map[SegmentID]bool, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	segments := make(map[SegmentID]bool, len(f.state.segments))
	for id := range f.state.segments {
		segments[id] = true
	}
	return segments, nil
}

func (f *front) markLoaded(id SegmentID) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if d := f.db.Load(); d != nil {
		if err := d.markLoaded(id); err != nil {
			return err
		}
	}
	f.state.segments[id] = true
	f.changed = true
	return nil
}

func (f *front) tag() (Tag, bool, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.state.tag, f.state.tagged, nil
}

func (f *front) setTag(t Tag) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if d := f.db.Load(); d != nil {
		if err := d.setTag(t); err != nil {
			return err
		}
	}
	f.state.tag, f.state.tagged, f.moved = t, true, true
	return nil
}

func (f *front) count() (n int64, err error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.state.gen != 0 {
		d, err := f.database()
		if err != nil {
			return 0, err
		}
		return d.count()
	}
	for range f.state.records.merged(f.added) {
		n++
	}
	return n, nil
}

func (f *front) reset() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := os.MkdirAll(f.dir, 0o700); err != nil {
		return err // someone may have deleted it while the index was open
	}
	f.clear(f.newDisk())
	return nil
}

func (f *front) close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	unlock := !f.hung // else another process would take away what is at work
	defer func() {
		if unlock { // last: no one may come in before the file is written
			_ = f.lock.Close()
		}
	}()
	if _, err := os.Lstat(f.dir); errors.Is(err, fs.ErrNotExist) && f.db.Load() == nil {
		return fmt.Errorf("%w: its directory was removed", ErrDamaged)
	}
	if d := f.db.Swap(nil); d != nil {
		f.changed = true // the file was removed
		if err := d.close(func(error) { _ = f.lock.Close() }); err != nil {
			unlock = unlock && !errors.Is(err, errNoAnswer)
			return err
		}
	}
	return f.save()
}

// save writes what is not yet in the files.
func (f *front) save() error {
	switch {
	case f.changed:
		f.trim()
		_, _ = rand.Read(f.state.name[:]) // never returns an error: it ends the program instead
		return replace(f.dir, frontName, f.state.append(nil, f.sums))
	case f.moved:
		return replace(f.dir, frontTagName, appendFrontTag(nil, f.sums, f.state.name, f.state.tag))
	}
	return nil
}

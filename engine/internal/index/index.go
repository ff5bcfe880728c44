// Package index maps chunk IDs to the places where the chunks lie.
//
// The index is a hint in every respect. Its files may be deleted, damaged, or
// replaced by an old copy of themselves; that costs time and never yields a
// wrong place: every value carries a hash over the repository, the chunk ID
// and the place, which is checked at each hit. It follows that a miss proves
// nothing, not even for a chunk of a segment that is marked loaded. A caller
// that must find a chunk answers a miss with Reset and loads again.
//
// In memory the index is a Go map. On disk it is one file while it is small, and
// a Badger database with such a file in front of it later: see front.go. Badger
// never meets unchecked bytes: see verify.go for why. For who asks for runs of
// chunks that were stored together there are lists of them: see near.go. An empty
// index is filled by a Filler: see fill.go.
package index

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/cairn-backup/cairn/chunk"
)

// Errors of Open.
var (
	// ErrLocked says that another process, or another Index of this one, has
	// the directory open.
	ErrLocked = errors.New("index is in use by another process")
	// ErrNoSpace says that the disk has so little room left that writing could
	// end the process. Open and Insert return it.
	ErrNoSpace = errors.New("too little disk space for the index")
)

// Errors of the methods of an Index.
var (
	// ErrDamaged says that the files of the index are damaged, or that Badger
	// panicked or hangs. Reset makes the index usable again, and empty.
	ErrDamaged = errors.New("index is damaged")
	// ErrClosed says that the index was closed.
	ErrClosed = errors.New("index is closed")
)

// A Place says where a chunk lies.
type Place struct {
	Pack    uint64 // pack number, given by the commit log; below 1<<40
	Check   uint32 // from the pack's ID: in another history the number names another pack
	Offset  uint32 // of the sealed block in the pack object, bytes
	Stored  uint32 // length of the sealed block, bytes
	Block   uint32 // part number under which the block was sealed at its birth
	Start   uint32 // of the chunk in the decompressed block, bytes
	Length  uint32 // of the chunk, bytes
	Foreign bool   // the block was born in another pack; the pack's footer names it
}

// An Entry is the place of one chunk.
type Entry struct {
	ID    chunk.ID
	Place Place
}

// A Tag is a log position and the hash of the record there: entries were taken
// from records up to that one and from no later one.
type Tag struct {
	N    uint64
	Hash [32]byte
}

// A SegmentID names an index segment.
type SegmentID [16]byte

// Options say where the index lives and whose it is.
type Options struct {
	// Dir is the directory of the index. It belongs to the index alone, and is
	// made with mode 0700 if it does not exist. Default: none, the index is in
	// memory and costs 100 to 150 bytes an entry.
	Dir string
	// Repository is bound into the hash of every value, so that no entry of
	// another repository is ever taken for one of this.
	Repository [16]byte
	// ReadOnly keeps the index in memory, whatever Dir says: Dir is neither
	// written nor read.
	ReadOnly bool

	limits *frontLimits // tests make them small
}

func (o Options) front() frontLimits {
	if o.limits != nil {
		return *o.limits
	}
	return frontLimits{whole: frontWhole, cache: frontCache}
}

// An Index maps chunk IDs to places. All methods are safe for concurrent use.
// A method that finds the files damaged returns an error that wraps
// ErrDamaged; Reset then makes an empty index of it.
type Index struct {
	rebuilt bool
	damaged atomic.Bool // a value did not match its hash

	queries sync.Pool // of *query

	// mu keeps Reset and Close away from the others: its writers replace the
	// store, its readers do their I/O under it.
	mu    sync.RWMutex
	store store // nil after Close
}

// A store keeps checked values by key. Its methods are safe for concurrent
// use, reset and close excepted.
type store interface {
	// lookup fills places and found, which are as long as ids.
	lookup(ids []chunk.ID, places []Place, found []bool) error
	insert(entries []Entry) error
	loaded() (map[SegmentID]bool, error)
	markLoaded(id SegmentID) error
	tag() (Tag, bool, error)
	setTag(t Tag) error
	count() (int64, error)
	// reset makes the store empty, in whatever state it is.
	reset() error
	close() error
}

// Open opens the index in opts.Dir, or makes an empty one. Files that are
// damaged, of another repository or of another version are removed, and
// Rebuilt then reports true. Open returns ErrLocked at once if another process
// has the directory open, ErrNoSpace, or the error of a disk that cannot be
// written.
func Open(opts Options) (*Index, error) {
	x := new(Index)
	sums := newSummer(opts.Repository)
	if opts.Dir == "" || opts.ReadOnly {
		x.store = newMemory(sums, &x.damaged)
		return x, nil
	}
	f, err := openFront(opts.Dir, sums, &x.damaged, opts.front())
	if err != nil {
		return nil, fmt.Errorf("open index %s: %w", opts.Dir, err)
	}
	x.store, x.rebuilt = f, f.rebuilt
	return x, nil
}

// Rebuilt reports whether Open found an index, could not use it, and put an
// empty one in its place.
func (x *Index) Rebuilt() bool { return x.rebuilt }

// Damaged reports whether, since Open or the last Reset, a value was found
// that does not match its hash. Lookups report such a value as a miss.
func (x *Index) Damaged() bool { return x.damaged.Load() }

// A query is a lookup of one chunk: what a store is handed is on the heap.
type query struct {
	id    [1]chunk.ID
	place [1]Place
	found [1]bool
}

// Lookup returns the place of a chunk, and whether the index has one.
func (x *Index) Lookup(id chunk.ID) (Place, bool, error) {
	q, ok := x.queries.Get().(*query)
	if !ok {
		q = new(query)
	}
	defer x.queries.Put(q)
	q.id[0] = id
	err := x.LookupMany(q.id[:], q.place[:], q.found[:])
	return q.place[0], q.found[0], err
}

// LookupMany sets places[i] and found[i] to what Lookup of ids[i] would
// return, all as of one moment. The slices must have one length. It costs less
// than as many Lookups. After an error places and found mean nothing.
func (x *Index) LookupMany(ids []chunk.ID, places []Place, found []bool) error {
	if len(places) != len(ids) || len(found) != len(ids) {
		panic("index: LookupMany with slices of different lengths")
	}
	return x.with("look up", func(s store) error { return s.lookup(ids, places, found) })
}

// Insert adds entries, in place of those that have the same ID; of several
// with one ID the last wins. They are visible to Lookup when Insert returns.
// After an error some may be in and some not. Memory is bounded whatever the
// number of entries. Insert does not retain entries.
func (x *Index) Insert(entries []Entry) error {
	for i := range entries {
		if p := entries[i].Place.Pack; p >= maxPack {
			return fmt.Errorf("insert %s: pack number %d is out of range", entries[i].ID, p)
		}
	}
	return x.with("insert", func(s store) error { return s.insert(entries) })
}

// Loaded returns the segments that were marked loaded. The caller owns the map.
func (x *Index) Loaded() (map[SegmentID]bool, error) {
	var segments map[SegmentID]bool
	err := x.with("list loaded segments", func(s store) (err error) {
		segments, err = s.loaded()
		return err
	})
	return segments, err
}

// MarkLoaded records that all entries of a segment are in. The caller has seen
// the Inserts of those entries return. A crash may undo the mark, and the mark
// with entries, but not entries without the mark.
func (x *Index) MarkLoaded(id SegmentID) error {
	return x.with("mark segment loaded", func(s store) error { return s.markLoaded(id) })
}

// Tag returns the last tag set, and whether there is one that can be read.
func (x *Index) Tag() (Tag, bool) {
	var tag Tag
	var ok bool
	err := x.with("read tag", func(s store) (err error) {
		tag, ok, err = s.tag()
		return err
	})
	return tag, ok && err == nil // without a tag the caller starts afresh, which is right
}

// SetTag records a tag. A crash may undo it, but not what came before it and
// leave it in place.
func (x *Index) SetTag(t Tag) error {
	return x.with("set tag", func(s store) error { return s.setTag(t) })
}

// Count returns the number of entries. It reads all keys: about 3 million a
// second.
func (x *Index) Count() (int64, error) {
	var n int64
	err := x.with("count", func(s store) (err error) {
		n, err = s.count()
		return err
	})
	return n, err
}

// Reset drops everything: entries, loaded segments and tag. It also mends a
// damaged index.
func (x *Index) Reset() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.store == nil {
		return ErrClosed
	}
	if err := x.store.reset(); err != nil {
		return fmt.Errorf("reset index: %w", err)
	}
	x.damaged.Store(false)
	return nil
}

// Close releases the directory. After a bulk load of a million entries and
// more it first merges the tables, which takes about a second for each two
// million; otherwise it takes milliseconds. If the merge takes longer than a
// quarter of an hour Close returns an error and leaves it to end by itself, with
// the directory locked until then. A second Close does nothing.
func (x *Index) Close() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.store == nil {
		return nil
	}
	s := x.store
	x.store = nil
	if err := s.close(); err != nil {
		return fmt.Errorf("close index: %w", err)
	}
	return nil
}

// with runs f on the store, which stays open meanwhile.
func (x *Index) with(what string, f func(store) error) error {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if x.store == nil {
		return ErrClosed
	}
	if err := f(x.store); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

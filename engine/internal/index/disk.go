package index

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"

	"github.com/cairn-backup/cairn/chunk"
)

const (
	// batchSize is the number of entries in a transaction. One WriteBatch for
	// all of five million took 90 MB more and half again the time.
	batchSize = 1000

	// bulk is the number of inserts after which Close merges all levels. What
	// compaction is left over otherwise runs at the next Open, in up to 480 MB.
	bulk = 1_000_000

	// minFree is the room that must be left on the disk before anything is
	// written, in bytes. Badger writes through memory maps of sparse files: on
	// a full disk that is a SIGBUS, which ends the process. It is what two
	// memtables and their compaction can take at once.
	minFree = 64 << 20

	// How long Badger may take for one thing. It retries for ever what it
	// cannot write or merge, and stalls its callers meanwhile.
	writeTimeout   = 2 * time.Minute
	closeTimeout   = 2 * time.Minute
	flattenTimeout = 15 * time.Minute
	abandonTimeout = 4 * time.Second

	genPrefix = "gen-"
)

// A disk is the database of an index, in a directory:
//
//	gen-<n>     a Badger database and, when it is closed in order, CLEAN
//
// Each new one has a number of its own, so that it does not depend on being able
// to remove files that a broken Badger may still have open.
type disk struct {
	dir     string
	sums    *summer
	damaged *atomic.Bool
	free    func(dir string) (uint64, error) // freeSpace

	merge    func(*badger.DB) error // merges all levels
	patience time.Duration          // with Close

	gen      uint64
	db       *badger.DB   // nil: not open
	hung     bool         // goroutines of Badger's are at work in it for ever
	inserted atomic.Int64 // since the last flatten
}

// openExisting opens the database d.gen if it is whole and ours.
func (d *disk) openExisting() error {
	path := d.path(d.gen)
	if err := guarded(func() error { return verify(path, verifyBudget) }); err != nil {
		return err
	}
	db, err := openBadger(path)
	if err != nil {
		return err
	}
	d.db = db
	value, err := d.get([]byte{kindSchema})
	if err == nil && string(value) != string(d.sums.schema()) {
		err = fmt.Errorf("%w: of another repository or version", ErrDamaged)
	}
	if err != nil {
		d.abandon()
	}
	return err
}

// openFresh makes an empty database and removes all others.
func (d *disk) openFresh() error {
	gens, err := d.generations()
	if err != nil {
		return err
	}
	d.gen++
	if len(gens) > 0 {
		d.gen = max(d.gen, gens[len(gens)-1]+1)
	}
	path := d.path(d.gen)
	if err := os.MkdirAll(path, 0o700); err != nil {
		return err
	}
	if d.db, err = openBadger(path); err == nil {
		err = d.put([]byte{kindSchema}, d.sums.schema())
	}
	if err != nil {
		d.abandon()
		_ = os.RemoveAll(path) // empty, and its number is not used again
		return err
	}
	d.inserted.Store(0)
	d.removeBut(d.gen)
	return nil
}

// openBadger opens a database that verify has found whole, or an empty
// directory. The options are those with which five million inserts took 140 MB
// instead of 930, at two thirds of the speed.
func openBadger(path string) (*badger.DB, error) {
	opts := badger.DefaultOptions(path).
		WithLogger(nil).
		WithMetricsEnabled(false).
		WithSyncWrites(false).
		WithDetectConflicts(false).
		WithNumGoroutines(1).
		WithCompression(options.None).
		WithBlockCacheSize(0).
		WithIndexCacheSize(0).
		WithMemTableSize(8 << 20).
		WithNumMemtables(2).
		WithBaseTableSize(4 << 20).
		WithBaseLevelSize(32 << 20).
		WithNumLevelZeroTables(4).
		WithNumLevelZeroTablesStall(8).
		WithNumCompactors(2).
		WithValueLogFileSize(16 << 20).
		WithChecksumVerificationMode(options.OnBlockRead). // 0.7 of the 5 µs of a hit
		WithCompactL0OnClose(false)                        // a small run closes in milliseconds
	opts.TableSizeMultiplier = 1

	var db *badger.DB
	err := bounded(closeTimeout, func() (err error) {
		db, err = badger.Open(opts)
		return err
	})
	if err != nil {
		return nil, err // and not db, which may be there and half open
	}
	return db, nil
}

func (d *disk) lookup(ids []chunk.ID, places []Place, found []bool) error {
	return d.view(func(txn *badger.Txn) error {
		key := make([]byte, 0, keySize)
		for i, id := range ids {
			places[i], found[i] = Place{}, false
			key = appendKey(key[:0], id)
			item, err := txn.Get(key)
			if errors.Is(err, badger.ErrKeyNotFound) {
				continue
			}
			if err != nil {
				return err
			}
			err = item.Value(func(value []byte) error {
				places[i], found[i] = d.sums.place(id, value)
				return nil
			})
			if err != nil {
				return err
			}
			if !found[i] {
				d.damaged.Store(true)
			}
		}
		return nil
	})
}

// insert waits for each batch before it makes the next, so that memory is
// bounded and the log has the batches in order.
func (d *disk) insert(entries []Entry) error {
	for batch := range slices.Chunk(entries, batchSize) {
		// One allocation for all keys and values. Badger keeps them until the
		// batch is written, so each batch has its own.
		buf := make([]byte, 0, len(batch)*(keySize+valueSize))
		for i := range batch {
			buf = appendKey(buf, batch[i].ID)
			buf = d.sums.appendChunk(buf, batch[i].ID, batch[i].Place)
		}
		if err := d.insertRaw(buf); err != nil {
			return err
		}
	}
	return nil
}

// insertRaw inserts one batch of keys and values, each behind the other. It
// takes ownership of batch.
func (d *disk) insertRaw(batch []byte) error {
	err := d.write(func(db *badger.DB) error {
		wb := db.NewWriteBatch()
		defer wb.Cancel()
		for kv := range slices.Chunk(batch, keySize+valueSize) {
			if err := wb.Set(kv[:keySize:keySize], kv[keySize:]); err != nil {
				return err
			}
		}
		return wb.Flush()
	})
	if err == nil {
		d.inserted.Add(int64(len(batch) / (keySize + valueSize)))
	}
	return err
}

func (d *disk) loaded() (map[SegmentID]bool, error) {
	segments := make(map[SegmentID]bool)
	err := d.each(kindSegment, func(item *badger.Item) error {
		var id SegmentID
		if copy(id[:], item.Key()[1:]) != len(id) {
			d.damaged.Store(true)
			return nil
		}
		return item.Value(func(value []byte) error {
			if d.sums.isSegment(id, value) {
				segments[id] = true
			} else {
				d.damaged.Store(true)
			}
			return nil
		})
	})
	return segments, err
}

func (d *disk) markLoaded(id SegmentID) error {
	return d.put(append([]byte{kindSegment}, id[:]...), d.sums.segment(id))
}

func (d *disk) tag() (Tag, bool, error) {
	value, err := d.get([]byte{kindTag})
	if err != nil || value == nil {
		return Tag{}, false, err
	}
	t, ok := d.sums.readTag(value)
	if !ok {
		d.damaged.Store(true)
	}
	return t, ok, nil
}

func (d *disk) setTag(t Tag) error {
	return d.put([]byte{kindTag}, d.sums.appendTag(nil, t))
}

func (d *disk) count() (n int64, err error) {
	err = d.each(kindChunk, func(*badger.Item) error {
		n++
		return nil
	})
	return n, err
}

// errNoAnswer says that Badger is still at work.
var errNoAnswer = errors.New("badger did not answer")

// close closes the database. After errNoAnswer Badger works on: late is called
// with the outcome once it has ended, and until then nobody may open the database.
func (d *disk) close(late func(error)) error {
	if d.db == nil {
		return nil
	}
	if _, err := os.Lstat(d.path(d.gen)); errors.Is(err, os.ErrNotExist) {
		// Badger would try for ever to write its last table.
		d.abandon()
		return fmt.Errorf("%w: its directory was removed", ErrDamaged)
	}
	limit := d.patience
	if d.inserted.Load() >= bulk {
		limit += flattenTimeout
	}
	done := make(chan error, 1)
	go func() { done <- guarded(d.finish) }()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-timer.C:
		go func() { late(<-done) }()
		return fmt.Errorf("%w: %w within %v", ErrDamaged, errNoAnswer, limit)
	}
}

// finish merges what was inserted, closes the database, and says that it is
// whole. One comes after the other, in one goroutine: a merge reads what Close has
// unmapped by then, in goroutines of Badger's, and that is the end of the process.
func (d *disk) finish() error {
	if d.inserted.Load() >= bulk {
		_ = d.merge(d.db) // only saves work at the next open
	}
	if err := d.db.Close(); err != nil {
		return err
	}
	return markClean(d.path(d.gen))
}

// abandon lets go of the database in whatever state it is. If Badger hangs its
// goroutines stay behind, at work on files that no one will read again.
func (d *disk) abandon() {
	if d.db != nil && !d.hung {
		_ = bounded(abandonTimeout, d.db.Close)
	}
	d.db = nil
}

func (d *disk) path(gen uint64) string {
	return filepath.Join(d.dir, genPrefix+strconv.FormatUint(gen, 10))
}

// generations returns the numbers of the databases in the directory, sorted.
func (d *disk) generations() ([]uint64, error) {
	if err := os.MkdirAll(d.dir, 0o700); err != nil {
		return nil, err // someone may have deleted it while the index was open
	}
	infos, err := os.ReadDir(d.dir)
	if err != nil {
		return nil, err
	}
	var gens []uint64
	for _, info := range infos {
		digits, ok := strings.CutPrefix(info.Name(), genPrefix)
		if n, err := strconv.ParseUint(digits, 10, 63); ok && err == nil && d.path(n) == filepath.Join(d.dir, info.Name()) {
			gens = append(gens, n)
		}
	}
	slices.Sort(gens)
	return gens, nil
}

// removeBut removes every database but the one of that number; 0 is none's. What
// cannot be removed today is removed at the next open, so errors do not matter.
func (d *disk) removeBut(gen uint64) {
	gens, _ := d.generations()
	for _, n := range gens {
		if n != gen {
			_ = os.RemoveAll(d.path(n))
		}
	}
}

// room returns ErrNoSpace if the disk is all but full.
func (d *disk) room() error {
	free, err := d.free(d.dir)
	if err == nil && free < minFree {
		return fmt.Errorf("%w: %d MiB free", ErrNoSpace, free>>20)
	}
	return nil // a file system that cannot say is no reason to stop
}

// get returns the value of key, nil if there is none.
func (d *disk) get(key []byte) ([]byte, error) {
	var value []byte
	err := d.view(func(txn *badger.Txn) error {
		item, err := txn.Get(key)
		if errors.Is(err, badger.ErrKeyNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		value, err = item.ValueCopy(nil)
		return err
	})
	return value, err
}

func (d *disk) put(key, value []byte) error {
	return d.write(func(db *badger.DB) error {
		return db.Update(func(txn *badger.Txn) error { return txn.Set(key, value) })
	})
}

// each calls f for every item of a kind, in key order.
func (d *disk) each(kind byte, f func(*badger.Item) error) error {
	return d.view(func(txn *badger.Txn) error {
		it := txn.NewIterator(badger.IteratorOptions{Prefix: []byte{kind}})
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			if err := f(it.Item()); err != nil {
				return err
			}
		}
		return nil
	})
}

// view runs f in a read transaction. Any error is one of Badger's and means
// damage.
func (d *disk) view(f func(*badger.Txn) error) error {
	db := d.db
	if db == nil {
		return fmt.Errorf("%w: not open", ErrDamaged)
	}
	err := guarded(func() error {
		txn := db.NewTransaction(false)
		defer txn.Discard()
		return f(txn)
	})
	return damage(err)
}

// write runs f, which waits for Badger to have written.
func (d *disk) write(f func(*badger.DB) error) error {
	db := d.db
	if db == nil {
		return fmt.Errorf("%w: not open", ErrDamaged)
	}
	if err := d.room(); err != nil {
		return err
	}
	return damage(bounded(writeTimeout, func() error { return f(db) }))
}

// damage makes an ErrDamaged of any other error. Badger's errors do not wrap
// their causes, so there is nothing to tell them apart by.
func damage(err error) error {
	if err == nil || errors.Is(err, ErrDamaged) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrDamaged, err)
}

// guarded runs f and turns a panic into ErrDamaged. That includes the fault
// that reading a map of a file gives when the file was cut short or its disk
// does not answer.
func guarded(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: badger panicked: %v", ErrDamaged, r)
		}
	}()
	return f()
}

// bounded is guarded with a limit to its time. It is the one place where a
// goroutine may be left behind: Badger cannot be interrupted, and a hang of
// the index must not become one of the backup.
func bounded(limit time.Duration, f func() error) error {
	done := make(chan error, 1)
	go func() { done <- guarded(f) }()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-timer.C:
		return fmt.Errorf("%w: %w within %v", ErrDamaged, errNoAnswer, limit)
	}
}

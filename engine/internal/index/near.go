package index

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"slices"
	"sync"

	"github.com/dgraph-io/badger/v4"

	"github.com/cairn-backup/cairn/chunk"
)

// What was stored together is asked for together: a file that is read again, or
// moved, has its chunks in a few packs, in runs. So a database keeps a list of
// the chunks of each stretch of a pack, and whoever finds two chunks in a stretch
// has its list at hand for those that follow, without asking Badger for each.
//
// A list says which pack holds a chunk and not where in it: that is all a backup
// wants to know, and 16 bytes a chunk. It is a hint as everything here is, and
// less: a chunk that was inserted again since, at another place, is still in the
// lists of the old one. So lists answer Near alone, and never Lookup.
const (
	// stretch is the length of the part of a pack that has one list, as a power of
	// two: 8 MiB, which are 200 chunks of 40 KiB that do not compress. Two lookups
	// and the reading of a list are shared by so many.
	stretch = 23
	// listPart is how many chunks a key of the database lists, and listParts how
	// many keys a list has at most: values stay small, see maxEntry. What is beyond
	// is in no list.
	listPart  = 240
	listParts = 32
	// nearLists is how many lists are at hand: one for each goroutine that reads
	// files, and some more. They take 16 * 3 KiB, or 2 MiB where files are tiny.
	nearLists = 16

	listHead = 4 + 1
	maxList  = listHead + listPart*foldSize + checkSize
)

// A Holder is a pack that holds a chunk.
type Holder struct {
	Pack  uint64 // number
	Check uint32 // as in Place
}

// A neighbourhood is a stretch of a pack.
type neighbourhood struct {
	Holder
	part uint16 // of the pack, from 0
}

func neighbourhoodOf(p Place) neighbourhood {
	return neighbourhood{Holder{p.Pack, p.Check}, uint16(p.Offset >> stretch)} //nolint:gosec // 9 bits
}

// key returns the key of a part of the list of n.
func (n neighbourhood) key(part int) []byte {
	key := append(make([]byte, 0, 9), kindList, byte(n.Pack>>32))
	key = binary.BigEndian.AppendUint32(key, uint32(n.Pack)) //nolint:gosec // the lower half
	key = binary.BigEndian.AppendUint16(key, n.part)
	return append(key, byte(part))
}

// A list is the folds of the chunks of a neighbourhood, one behind the other,
// rising.
type list struct {
	of    neighbourhood
	folds []byte // empty: nothing is known
}

func (l *list) has(f *fold) bool {
	lo, hi := 0, len(l.folds)/foldSize
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		switch c := bytes.Compare(l.folds[mid*foldSize:(mid+1)*foldSize], f[:]); {
		case c == 0:
			return true
		case c < 0:
			lo = mid + 1
		default:
			hi = mid
		}
	}
	return false
}

// nearby are the lists at hand.
type nearby struct {
	mu    sync.Mutex      // guards what follows
	lists []list          // the one used last comes first
	seen  []neighbourhood // of the last hits
	next  int             // of seen: the oldest
}

func (n *nearby) find(f fold) (Holder, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for i := range n.lists {
		if !n.lists[i].has(&f) {
			continue
		}
		l := n.lists[i]
		if i > 0 {
			copy(n.lists[1:], n.lists[:i])
			n.lists[0] = l
		}
		return l.of.Holder, true
	}
	return Holder{}, false
}

// wants reports whether the list of h is to be fetched: at the second of the last
// few hits that lies there, since one alone has no neighbours that anyone wants.
func (n *nearby) wants(h neighbourhood) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if slices.ContainsFunc(n.lists, func(l list) bool { return l.of == h }) {
		return false
	}
	if slices.Contains(n.seen, h) {
		return true
	}
	if len(n.seen) < nearLists {
		n.seen = append(n.seen, h)
		return false
	}
	n.seen[n.next] = h
	n.next = (n.next + 1) % len(n.seen)
	return false
}

// put puts a list in the place of the one that was not used for longest.
func (n *nearby) put(l list) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if slices.ContainsFunc(n.lists, func(o list) bool { return o.of == l.of }) {
		return // another goroutine was quicker
	}
	if len(n.lists) == nearLists {
		n.lists = n.lists[:nearLists-1]
	}
	n.lists = slices.Insert(n.lists, 0, l)
}

func (n *nearby) clear() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lists, n.seen, n.next = nil, nil, 0
}

// drop forgets what is at hand of a pack.
func (n *nearby) drop(pack uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lists = slices.DeleteFunc(n.lists, func(l list) bool { return l.of.Pack == pack })
}

// Near returns a pack that is said to hold the chunk by the lists at hand, which
// Gather fetches. It asks for nothing, so a miss says nothing. Lookup may name
// another pack, if the chunk is in several.
func (x *Index) Near(id chunk.ID) (h Holder, found bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if f, ok := x.store.(*front); ok {
		return f.near.find(foldOf(id))
	}
	return Holder{}, false // what is in memory is asked for nearly as fast
}

// Gather is told the place that Lookup found. Where several lie together it puts
// their neighbours at hand for Near.
func (x *Index) Gather(p Place) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if f, ok := x.store.(*front); ok {
		f.gather(neighbourhoodOf(p))
	}
}

// InsertPack is Insert for the chunks of one pack, in their order there. Unlike
// those of Insert they are listed for Near.
func (x *Index) InsertPack(entries []Entry) error {
	if err := x.Insert(entries); err != nil {
		return err
	}
	return x.with("insert list", func(s store) error {
		if f, ok := s.(*front); ok {
			return f.insertLists(entries)
		}
		return nil
	})
}

// DropLists makes Near name these packs for no chunk any more: something in them
// could not be read.
func (x *Index) DropLists(packs ...uint64) error {
	return x.with("drop lists", func(s store) error {
		if f, ok := s.(*front); ok {
			return f.dropLists(packs)
		}
		return nil
	})
}

// gather fetches a list if it is worth it. That it cannot be read does not matter:
// whoever asks Badger next meets what is wrong.
func (f *front) gather(n neighbourhood) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	d := f.db.Load()
	if d == nil || !f.near.wants(n) {
		return // without a database the front itself had it, and will have the others
	}
	folds, err := d.list(n)
	if err == nil {
		f.near.put(list{n, folds})
	}
}

// insertLists lists entries of one pack, which were inserted. While there is no
// database there are no lists: spill makes them.
func (f *front) insertLists(entries []Entry) error {
	f.mu.RLock()
	defer f.mu.RUnlock()
	d := f.db.Load()
	if d == nil {
		return nil
	}
	return d.insertLists(listsOf(entries))
}

// listsOf returns the lists of the chunks of one pack, which come in their order
// there.
func listsOf(entries []Entry) (lists []list) {
	for _, e := range entries {
		n := neighbourhoodOf(e.Place)
		if len(lists) == 0 || lists[len(lists)-1].of != n {
			lists = append(lists, list{of: n})
		}
		k, l := foldOf(e.ID), &lists[len(lists)-1]
		l.folds = append(l.folds, k[:]...)
	}
	return lists
}

// spillLists lists the entries of a front that was whole. Their values are not
// checked here, for which it takes IDs: one that is damaged names a pack number
// that does not go with the pack's check, which whoever asks Near compares.
func (f *front) spillLists(d *disk) error {
	byPlace := make(map[neighbourhood][]byte)
	for k, value := range f.state.records.merged(f.added) {
		n := neighbourhoodOf(readPlace(value))
		byPlace[n] = append(byPlace[n], k...)
	}
	lists := make([]list, 0, len(byPlace))
	for n, folds := range byPlace {
		lists = append(lists, list{n, folds})
	}
	slices.SortFunc(lists, func(a, b list) int {
		return cmp.Or(cmp.Compare(a.of.Pack, b.of.Pack), cmp.Compare(a.of.part, b.of.part))
	})
	for some := range slices.Chunk(lists, batchSize/4) {
		if err := d.insertLists(some); err != nil {
			return err
		}
	}
	return nil
}

func (f *front) dropLists(packs []uint64) error {
	f.mu.Lock() // nobody gathers meanwhile
	defer f.mu.Unlock()
	if f.state.gen == 0 {
		return nil
	}
	d, err := f.database()
	if err != nil {
		return err
	}
	for _, pack := range packs {
		f.near.drop(pack)
		if err := d.dropLists(pack); err != nil {
			return err
		}
	}
	return nil
}

// insertLists writes lists, whose folds it sorts.
func (d *disk) insertLists(lists []list) error {
	return d.write(func(db *badger.DB) error {
		wb := db.NewWriteBatch()
		defer wb.Cancel()
		err := d.sums.eachList(lists, wb.Set)
		if err != nil {
			return err
		}
		return wb.Flush()
	})
}

// eachList calls f with the keys and values that lists are stored as.
func (s *summer) eachList(lists []list, f func(key, value []byte) error) error {
	for _, l := range lists {
		folds := sortFolds(l.folds)
		parts := min((len(folds)+listPart-1)/listPart, listParts)
		for i := range parts {
			key := l.of.key(i)
			value := binary.BigEndian.AppendUint32(make([]byte, 0, maxList), l.of.Check)
			value = append(value, byte(parts))
			for _, f := range folds[i*listPart : min((i+1)*listPart, len(folds))] {
				value = append(value, f[:]...)
			}
			if err := f(key, s.appendCheck(value, kindList, key[1:], value)); err != nil {
				return err
			}
		}
	}
	return nil
}

func sortFolds(raw []byte) []fold {
	folds := make([]fold, 0, len(raw)/foldSize)
	for f := range slices.Chunk(raw, foldSize) {
		folds = append(folds, fold(f))
	}
	slices.SortFunc(folds, func(a, b fold) int { return bytes.Compare(a[:], b[:]) })
	return folds
}

// list returns the folds of a list, nil if there is none.
func (d *disk) list(n neighbourhood) (folds []byte, err error) {
	err = d.view(func(txn *badger.Txn) error {
		for i, parts := 0, 1; i < parts; i++ {
			key := n.key(i)
			item, err := txn.Get(key)
			if errors.Is(err, badger.ErrKeyNotFound) {
				return nil
			}
			if err != nil {
				return err
			}
			err = item.Value(func(value []byte) error {
				body, ok := d.sums.checked(kindList, key[1:], value, max(len(value)-checkSize, listHead))
				if !ok {
					d.damaged.Store(true)
					return nil
				}
				if binary.BigEndian.Uint32(body) == n.Check { // else it is of another history
					folds, parts = append(folds, body[listHead:]...), int(body[listHead-1])
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	return folds, err
}

// dropLists deletes the lists of a pack.
func (d *disk) dropLists(pack uint64) error {
	prefix := neighbourhood{Holder: Holder{Pack: pack}}.key(0)[:6]
	var keys [][]byte
	err := d.view(func(txn *badger.Txn) error {
		it := txn.NewIterator(badger.IteratorOptions{Prefix: prefix})
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			keys = append(keys, it.Item().KeyCopy(nil))
		}
		return nil
	})
	if err != nil || len(keys) == 0 {
		return err
	}
	return d.write(func(db *badger.DB) error {
		wb := db.NewWriteBatch()
		defer wb.Cancel()
		for _, key := range keys {
			if err := wb.Delete(key); err != nil {
				return err
			}
		}
		return wb.Flush()
	})
}

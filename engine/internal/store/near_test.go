package store

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cairn-backup/cairn/chunk"
	"github.com/cairn-backup/cairn/chunk/pack"
	"github.com/cairn-backup/cairn/engine/internal/index"
	"github.com/cairn-backup/cairn/engine/internal/log"
)

// largeIndex opens an index that has a database: it holds chunks that nobody
// stored, more than a front alone takes.
func largeIndex(t *testing.T, r *rig, dir string) *index.Index {
	t.Helper()
	x, err := index.Open(index.Options{Repository: r.id, Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = x.Close() })
	if n, err := x.Count(); err != nil || n > 0 {
		return x
	}
	entries := make([]index.Entry, 1<<16+1)
	for i := range entries {
		entries[i].ID = chunk.ID{0: 0xff, 1: 0xee}
		binary.LittleEndian.PutUint64(entries[i].ID[8:], uint64(i)) //nolint:gosec // an index
		entries[i].Place.Pack = 1 << 39
	}
	if err := x.Insert(entries); err != nil {
		t.Fatal(err)
	}
	return x
}

// A nearRun is a random history, and knows what every pack holds.
type nearRun struct {
	*rig
	t      *testing.T
	seed   uint64
	rng    *rand.Rand
	dir    string // of the index
	s      *Store
	chunks [][]byte
	ids    []chunk.ID
	holds  map[pack.ID]map[chunk.ID]bool
	near   int // answers without a lookup
	asked  int
}

func (n *nearRun) open() {
	x := largeIndex(n.t, n.rig, n.dir)
	n.s = n.rig.open(n.t, n.mem, func(o *Options) { o.Index = x })
}

// run returns a run of chunks.
func (n *nearRun) run() (from, to int) {
	from = n.rng.IntN(len(n.chunks))
	return from, min(len(n.chunks), from+1+n.rng.IntN(60))
}

func (n *nearRun) put() {
	from, to := n.run()
	n.rig.put(n.t, n.s, n.chunks[from:to]...)
}

// putTwice stores the same chunks in two sessions at once.
func (n *nearRun) putTwice(from, to int) {
	other := n.rig.open(n.t, n.mem)
	var sessions [2]*Session
	for i, s := range []*Store{n.s, other} {
		ss, err := s.Begin(n.t.Context(), SessionOptions{})
		if err != nil {
			n.t.Fatal(err)
		}
		defer ss.Abort(n.t.Context())
		sessions[i] = ss
	}
	for _, ss := range sessions {
		w := ss.Writer()
		for _, c := range n.chunks[from:to] {
			if _, _, err := w.Put(n.t.Context(), c); err != nil {
				n.t.Fatal(err)
			}
		}
		if err := errors.Join(w.Flush(n.t.Context()), ss.Drain(n.t.Context())); err != nil {
			n.t.Fatal(err)
		}
		if _, err := commit(n.t.Context(), ss); err != nil {
			n.t.Fatal(err)
		}
	}
}

// some returns the numbers of some live packs.
func (n *nearRun) some() (numbers []uint64) {
	_ = n.s.opts.Log.View(func(st *log.State) error {
		for number := range st.Live().All() {
			if n.rng.IntN(4) == 0 {
				numbers = append(numbers, number)
			}
		}
		return nil
	})
	return numbers
}

func (n *nearRun) doom() {
	some := log.RangesOf(n.some())
	if len(some) == 0 {
		return
	}
	n.append(func(st *log.State) []log.Effect {
		var forget log.Forget
		for snap := range st.Snapshots() {
			forget.IDs = append(forget.IDs, snap.Summary.ID)
		}
		effects := []log.Effect{log.Doom{Packs: some}}
		if len(forget.IDs) > 0 {
			effects = append([]log.Effect{forget}, effects...)
		}
		return effects
	})
}

func (n *nearRun) damage() {
	numbers := n.some()
	if len(numbers) == 0 {
		return
	}
	n.append(func(*log.State) []log.Effect {
		return []log.Effect{log.Damage{Pack: numbers[0], Blocks: log.Ranges{{First: 0, Last: 0}}}}
	})
}

func (n *nearRun) append(f func(*log.State) []log.Effect) {
	if err := n.s.opts.Log.Refresh(n.t.Context()); err != nil {
		n.t.Fatal(err)
	}
	_, err := n.s.opts.Log.Append(n.t.Context(), func(st *log.State) ([]log.Effect, error) { return f(st), nil })
	if err != nil {
		n.t.Fatal(err)
	}
}

func (n *nearRun) reopen() {
	if err := n.s.opts.Index.Close(); err != nil {
		n.t.Fatal(err)
	}
	n.open()
}

// ask asks for a run of chunks with lists and without, and compares both with what
// lies in the packs that the log knows.
func (n *nearRun) ask() {
	from, to := n.run()
	ss, err := n.s.Begin(n.t.Context(), SessionOptions{Dry: true}) // loads
	if err != nil {
		n.t.Fatal(err)
	}
	defer ss.Abort(n.t.Context())
	for i := from; i < to; i++ {
		id := n.ids[i]
		_, near := n.s.index().Near(id)
		number, found, err := n.s.stored(n.t.Context(), id)
		_, plain, plainErr := n.s.lookupStored(n.t.Context(), id)
		if err != nil || plainErr != nil {
			n.t.Fatal(err, plainErr)
		}
		n.asked++
		if near && found {
			n.near++
		}
		if plain && !found {
			n.t.Fatalf("seed %d: chunk %d is not found, and by a lookup it is", n.seed, i)
		}
		if found {
			n.mustHold(number, id)
		}
	}
}

// mustHold fails the test unless a snapshot may rely on that pack for the chunk.
func (n *nearRun) mustHold(number uint64, id chunk.ID) {
	info, live := n.s.packInfo(number)
	if !live {
		n.t.Fatalf("seed %d: pack %d is not live", n.seed, number)
	}
	if n.s.hurtPacks()[number] {
		n.t.Fatalf("seed %d: pack %d is damaged", n.seed, number)
	}
	if n.holds[info.ID] == nil {
		table, err := n.s.ReadTable(n.t.Context(), info)
		if err != nil {
			n.t.Fatal(err)
		}
		n.holds[info.ID] = make(map[chunk.ID]bool)
		for _, e := range Entries(number, PackTable{Pack: info.ID, Table: table}) {
			n.holds[info.ID][e.ID] = true
		}
	}
	if !n.holds[info.ID][id] {
		n.t.Fatalf("seed %d: pack %d does not hold chunk %s", n.seed, number, id.Short())
	}
}

// TestNearAnswersAreRight: whatever is stored, stored twice, doomed and damaged,
// lists find what lookups find, and name no pack that a snapshot may not rely on.
// The index is one for all repositories, which have one ID, so it also knows other
// histories: an old copy of a store.
func TestNearAnswersAreRight(t *testing.T) {
	dir := t.TempDir()
	near, asked := 0, 0
	for seed := range uint64(4) {
		n := &nearRun{
			rig: newRig(), t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 1)), dir: dir, holds: make(map[pack.ID]map[chunk.ID]bool),
		}
		n.settle = time.Minute
		n.open()
		for i := range 200 {
			n.chunks = append(n.chunks, random(uint64(i), 600))
			n.ids = append(n.ids, chunk.NewHasher(n.keys.Chunk).Sum(n.chunks[i]))
		}
		steps := []func(){n.put, n.put, func() { n.putTwice(n.run()) }, n.doom, n.damage, n.ask, n.ask, n.ask, n.ask, n.reopen}
		for range 80 {
			steps[n.rng.IntN(len(steps))]()
		}
		near, asked = near+n.near, asked+n.asked
		if err := n.s.opts.Index.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if near*4 < asked {
		t.Errorf("%d of %d chunks were found near others: the test tries too little", near, asked)
	}
}

// TestNearOfAnotherHistory: a pack number that names another pack now is no answer,
// as where a store was put back to an old state and the index is still at hand.
func TestNearOfAnotherHistory(t *testing.T) {
	dir := t.TempDir()
	r := newRig()
	x := largeIndex(t, r, dir)
	var all [][]byte
	for i := range uint64(8) {
		all = append(all, random(i, 600))
	}
	s := r.open(t, r.mem, func(o *Options) { o.Index = x })
	ids := r.put(t, s, all[:4]...)
	for range 2 {
		for _, id := range ids {
			if _, found, err := s.stored(t.Context(), id); !found || err != nil {
				t.Fatal(found, err)
			}
		}
	}
	if _, near := x.Near(ids[3]); !near {
		t.Fatal("no list is at hand: the test tries nothing")
	}
	other := newRig()
	s = other.open(t, other.mem, func(o *Options) { o.Index = x })
	other.put(t, s, all[4:]...)
	if _, live := s.packInfo(1); !live {
		t.Fatal("the other pack has another number")
	}
	for i, id := range ids {
		if number, found, err := s.stored(t.Context(), id); found || err != nil {
			t.Errorf("stored(%d) = %d, %v, %v in a history without it", i, number, found, err)
		}
	}
}

// TestUnreadablePackIsNotNear: a backup relies on the other copy where one could
// not be read, though nobody recorded the damage.
func TestUnreadablePackIsNotNear(t *testing.T) {
	n := &nearRun{rig: newRig(), t: t, dir: t.TempDir()}
	n.settle = time.Minute
	n.open()
	for i := range 10 {
		n.chunks = append(n.chunks, random(uint64(i), 600))
	}
	n.putTwice(0, len(n.chunks))
	id := chunk.NewHasher(n.keys.Chunk).Sum(n.chunks[0])
	x := n.s.index()
	ss, err := n.s.Begin(t.Context(), SessionOptions{Dry: true})
	if err != nil {
		t.Fatal(err)
	}
	defer ss.Abort(t.Context())
	p, found, err := x.Lookup(id)
	if err != nil || !found {
		t.Fatal(found, err)
	}
	x.Gather(p)
	x.Gather(p)
	first, found, err := n.s.stored(t.Context(), id)
	if _, near := x.Near(id); err != nil || !found || !near {
		t.Fatal(found, near, err)
	}
	if _, _, err := n.s.Again(t.Context(), []chunk.ID{id}, []index.Place{p}); err != nil {
		t.Fatal(err)
	}
	second, found, err := n.s.stored(t.Context(), id)
	if err != nil || !found || second == first {
		t.Errorf("stored = %d, %v, %v; want a pack other than %d", second, found, err, first)
	}
}

package index

import (
	"errors"
	"flag"
	"maps"
	"strconv"
	"testing"

	"pgregory.net/rapid"
)

// A pair is an index on disk beside one in memory, which is the model.
type pair struct {
	opts  Options
	disk  *Index
	model *Index
	ids   int // entries and segments are numbered below it
}

// TestModel does the same to an index on disk and to one in memory, and
// expects the same answers.
func TestModel(t *testing.T) {
	fewerChecks(t, scale(5, 5, 50))
	base := t.TempDir()
	rapid.Check(t, func(r *rapid.T) {
		limits := frontLimits{}
		if rapid.Bool().Draw(r, "front") {
			limits = frontLimits{whole: rapid.IntRange(0, 3000).Draw(r, "whole"), cache: rapid.IntRange(0, 200).Draw(r, "cache")}
		}
		opts := Options{Dir: base, Repository: [16]byte{1, 2, 3}, limits: &limits}
		disk, err := Open(opts)
		if err != nil {
			r.Fatal(err)
		}
		model, err := Open(Options{})
		if err != nil {
			r.Fatal(err)
		}
		p := &pair{opts: opts, disk: disk, model: model, ids: 3000}
		defer func() { _ = p.disk.Close() }()
		p.both(r, (*Index).Reset)
		r.Repeat(map[string]func(*rapid.T){
			"insert":   p.insert,
			"mark":     p.mark,
			"tag":      p.tag,
			"reset":    p.reset,
			"reopen":   p.reopen,
			"crash":    p.crash,
			"":         p.check,
			"checkAll": p.checkAll,
		})
		p.checkAll(r)
	})
}

// fewerChecks makes n the default of the flag rapid.checks for this test, in
// which a step may take 100 ms.
func fewerChecks(t *testing.T, n int) {
	t.Helper()
	f := flag.Lookup("rapid.checks")
	if f == nil || f.Value.String() != f.DefValue {
		return
	}
	if err := f.Value.Set(strconv.Itoa(n)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Value.Set(f.DefValue) })
}

func (p *pair) both(r *rapid.T, f func(*Index) error) {
	if err := errors.Join(f(p.disk), f(p.model)); err != nil {
		r.Fatal(err)
	}
}

func (p *pair) insert(r *rapid.T) {
	n := rapid.IntRange(0, 40).Draw(r, "n")
	if rapid.IntRange(0, 9).Draw(r, "many") == 0 {
		n += 1500 // more than a batch
	}
	from := rapid.IntRange(0, p.ids).Draw(r, "from")
	value := rapid.IntRange(0, 3).Draw(r, "value") * 1000000
	es := entries(0, n)
	for i := range es {
		es[i] = Entry{ID: id((from + i*7) % p.ids), Place: place(value + i)}
	}
	p.both(r, func(x *Index) error { return x.Insert(es) })
}

func (p *pair) mark(r *rapid.T) {
	s := segment(rapid.IntRange(0, p.ids).Draw(r, "segment"))
	p.both(r, func(x *Index) error { return x.MarkLoaded(s) })
}

func (p *pair) tag(r *rapid.T) {
	n := rapid.Uint64().Draw(r, "n")
	p.both(r, func(x *Index) error { return x.SetTag(Tag{N: n, Hash: id(int(n >> 1))}) })
}

func (p *pair) reset(r *rapid.T) {
	if rapid.IntRange(0, 3).Draw(r, "really") == 0 {
		p.both(r, (*Index).Reset)
	}
}

func (p *pair) reopen(r *rapid.T) {
	if err := p.disk.Close(); err != nil {
		r.Fatal(err)
	}
	p.open(r)
}

// crash reopens the index from its files as they lie, CLEAN excepted. What was
// not in the database is as it was when the index was opened.
func (p *pair) crash(r *rapid.T) {
	f, ok := p.disk.store.(*front)
	if !ok {
		r.Fatal("not on disk")
	}
	if f.db.Load() == nil {
		return
	}
	marks, _ := p.disk.Loaded()
	tag, tagged := p.disk.Tag()
	if err := f.leak(); err != nil {
		r.Fatal(err)
	}
	p.open(r)
	// Marks may be lost that were made before the database was opened.
	kept, err := p.disk.Loaded()
	if err != nil {
		r.Fatal(err)
	}
	for id := range kept {
		if !marks[id] {
			r.Fatalf("after a crash segment %x is loaded", id)
		}
	}
	for id := range marks {
		p.both(r, func(x *Index) error { return x.MarkLoaded(id) })
	}
	if tagged {
		p.both(r, func(x *Index) error { return x.SetTag(tag) })
	}
}

func (p *pair) open(r *rapid.T) {
	x, err := Open(p.opts)
	if err != nil {
		r.Fatal(err)
	}
	if p.disk = x; x.Rebuilt() {
		r.Fatal("Rebuilt() = true")
	}
}

// check compares some lookups, tags and segments.
func (p *pair) check(r *rapid.T) {
	p.compare(r, rapid.IntRange(0, p.ids).Draw(r, "at"), 20)
	got, ok := p.disk.Tag()
	want, tagged := p.model.Tag()
	if got != want || ok != tagged {
		r.Fatalf("Tag() = %v, %v, want %v, %v", got, ok, want, tagged)
	}
	segments, err := p.disk.Loaded()
	if err != nil {
		r.Fatal(err)
	}
	if marked, _ := p.model.Loaded(); !maps.Equal(segments, marked) {
		r.Fatalf("Loaded() = %v, want %v", segments, marked)
	}
}

func (p *pair) checkAll(r *rapid.T) {
	p.compare(r, 0, p.ids)
	got, err := p.disk.Count()
	if want, _ := p.model.Count(); got != want || err != nil {
		r.Fatalf("Count() = %d, %v, want %d", got, err, want)
	}
	if p.disk.Damaged() {
		r.Fatal("Damaged() = true")
	}
}

func (p *pair) compare(r *rapid.T, from, n int) {
	es := entries(from, from+n)
	places, found, err := lookupAll(p.disk, es)
	if err != nil {
		r.Fatal(err)
	}
	wantPlaces, wantFound, err := lookupAll(p.model, es)
	if err != nil {
		r.Fatal(err)
	}
	for i := range es {
		if places[i] != wantPlaces[i] || found[i] != wantFound[i] {
			r.Fatalf("Lookup(%d) = %+v, %v, want %+v, %v", from+i, places[i], found[i], wantPlaces[i], wantFound[i])
		}
	}
}

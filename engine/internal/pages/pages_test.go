package pages

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/cairn-backup/cairn/chunk"
	"github.com/cairn-backup/cairn/chunk/seal"
	"github.com/cairn-backup/cairn/chunk/wire"
)

// TestPlan: what stays and what is written are the pages that changed and all
// that was patched before, in order, disjoint and within what the format allows.
func TestPlan(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		grain := rapid.SampledFrom([]int{512, 1024, 4096, 16384, Group}).Draw(t, "grain")
		length := grain * rapid.IntRange(1, Group/grain).Draw(t, "pages")
		changed := rapid.SliceOfN(rapid.Bool(), length/grain, length/grain).Draw(t, "changed")
		if rapid.Bool().Draw(t, "few") {
			for i := range changed {
				changed[i] = changed[i] && i%7 == 0
			}
		}
		var old []Span
		for at := 0; at < length && len(old) < maxSpans; {
			at += grain * rapid.IntRange(0, 8).Draw(t, "gap")
			end := at + grain*rapid.IntRange(1, 3).Draw(t, "old")
			if end <= length {
				old = append(old, Span{at, end})
			}
			at = end
		}
		keep, write, ok := Plan(length, grain, changed, old)
		must := make([]bool, length/grain) // pages that a patch has to give
		stale := 0                         // of which patches before give the old bytes
		for _, o := range old {
			for i := o.Off / grain; i < o.End/grain; i++ {
				must[i] = true
			}
		}
		for i, c := range changed {
			must[i] = must[i] || c
		}
		least := 0
		for _, m := range must {
			if m {
				least += grain
			}
		}
		if !ok {
			if least <= length/4 && length == Group {
				t.Fatalf("written whole for %d bytes", least)
			}
			return
		}
		all := append([]Span(nil), write...)
		for _, i := range keep {
			all = append(all, old[i])
			for j := old[i].Off / grain; j < old[i].End/grain; j++ {
				if changed[j] {
					stale++
				}
			}
		}
		given := make([]bool, length/grain)
		sum := 0
		for _, s := range all {
			if s.Off >= s.End || s.End > length || s.Off%grain != 0 || s.End%grain != 0 {
				t.Fatalf("span %v of %d", s, length)
			}
			sum += s.End - s.Off
			for i := s.Off / grain; i < s.End/grain; i++ {
				if given[i] {
					t.Fatalf("page %d twice: %v of %v", i, write, keep)
				}
				given[i] = true
			}
		}
		for i := range must {
			if must[i] && !given[i] {
				t.Fatalf("page %d is in no patch: %v and %v of %v", i, write, keep, old)
			}
		}
		if stale > 0 || len(all) > maxSpans || 2*sum > length {
			t.Fatalf("%d changed pages in patches that stay, %d patches, %d of %d bytes", stale, len(all), sum, length)
		}
	})
}

// TestPlanCost: neighbours are one patch, and nothing is written that did not
// change unless it shares a patch with what did.
func TestPlanCost(t *testing.T) {
	changed := make([]bool, 64)
	for _, i := range []int{3, 4, 5, 20, 40} {
		changed[i] = true
	}
	old := []Span{{6 << 10, 7 << 10}, {19 << 10, 22 << 10}, {50 << 10, 51 << 10}}
	keep, write, ok := Plan(Group, 1024, changed, old)
	if got, want := fmt.Sprint(keep, write, ok), "[0 2] [{3072 6144} {19456 22528} {40960 41984}] true"; got != want {
		t.Errorf("Plan = %s, want %s", got, want)
	}
}

func testCache(t testing.TB) *Cache {
	t.Helper()
	return &Cache{Dir: filepath.Join(t.TempDir(), "pages"), Meta: seal.Key{1}, Repository: [16]byte{2}}
}

func someRecords(rng *rand.Rand, n int) (list []Record) {
	group := uint64(0)
	for range n {
		r := Record{Group: group, Prints: make([]byte, printSize*(1+rng.IntN(maxPages)))}
		for _, p := range [][]byte{r.Key[:], r.ID[:], r.Prints} {
			for i := range p {
				p[i] = byte(rng.Uint32())
			}
		}
		list = append(list, r)
		group += 1 + uint64(rng.IntN(3))*uint64(rng.IntN(1000))
	}
	return list
}

func save(c *Cache, name byte, grain int, list []Record) {
	w := c.Create([16]byte{name}, grain)
	for _, r := range list {
		w.Add(r)
	}
	w.Finish()
}

// TestFile finds what was written, in files of one part and of many, and nothing
// in what is damaged, of another grain, repository or key.
func TestFile(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for _, n := range []int{0, 1, 10, 3000} {
		c := testCache(t)
		list := someRecords(rng, n)
		save(c, 1, 1024, list)
		r := c.Open([16]byte{1}, 1024)
		if r == nil {
			t.Fatal("no file")
		}
		for i := range list {
			if rng.IntN(3) == 0 {
				continue
			}
			got, ok := r.Find(list[i].Group)
			if !ok || got.Key != list[i].Key || got.ID != list[i].ID || !bytes.Equal(got.Prints, list[i].Prints) {
				t.Fatalf("Find(%d) = %v, %t", list[i].Group, got, ok)
			}
			if again, ok := r.Find(list[i].Group); !ok || again.ID != got.ID {
				t.Fatalf("Find(%d) the second time: %t", list[i].Group, ok)
			}
			if i+1 < len(list) && list[i+1].Group > list[i].Group+1 {
				if _, ok := r.Find(list[i].Group + 1); ok {
					t.Fatalf("Find(%d) found what was not written", list[i].Group+1)
				}
			}
		}
		if _, ok := r.Find(1 << 60); ok {
			t.Error("found a group behind all")
		}
		r.Close()
	}
	c := testCache(t)
	save(c, 1, 1024, someRecords(rng, 5))
	other := *c
	other.Meta = seal.Key{9}
	foreign := *c
	foreign.Repository = [16]byte{9}
	for what, r := range map[string]*Reader{
		"another grain": c.Open([16]byte{1}, 4096), "another name": c.Open([16]byte{2}, 1024),
		"another key": other.Open([16]byte{1}, 1024), "another repository": foreign.Open([16]byte{1}, 1024),
		"no cache": new(Cache).Open([16]byte{1}, 1024),
	} {
		if r != nil {
			t.Errorf("%s: a file was opened", what)
		}
	}
	if _, ok := (*Reader)(nil).Find(0); ok || new(Cache).Create([16]byte{1}, 1024) != nil {
		t.Error("no cache holds something")
	}
}

// TestFileDamaged: whatever is changed or cut off, what is found was written.
func TestFileDamaged(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 2))
	c := testCache(t)
	list := someRecords(rng, 400)
	save(c, 1, 1024, list)
	path := c.path([16]byte{1})
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lost := 0
	for range 200 {
		p := bytes.Clone(whole)
		if rng.IntN(2) == 0 {
			p = p[:rng.IntN(len(p))]
		} else {
			p[rng.IntN(len(p))] ^= 1 << rng.IntN(8)
		}
		if err := os.WriteFile(path, p, 0o600); err != nil {
			t.Fatal(err)
		}
		r := c.Open([16]byte{1}, 1024)
		if r == nil {
			lost += len(list)
			continue
		}
		for _, want := range list {
			got, ok := r.Find(want.Group)
			if !ok {
				lost++
			} else if got.Key != want.Key || got.ID != want.ID || !bytes.Equal(got.Prints, want.Prints) {
				t.Fatalf("Find(%d) = %v", want.Group, got)
			}
		}
		r.Close()
	}
	if lost == 0 {
		t.Error("no damage was noticed")
	}
}

// TestUnfinished: a file that is not finished, or whose disk is full, leaves the
// one before alone.
func TestUnfinished(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	c := testCache(t)
	list := someRecords(rng, 3)
	save(c, 1, 1024, list)
	w := c.Create([16]byte{1}, 1024)
	w.Add(someRecords(rng, 1)[0])
	w.Abort()
	w = c.Create([16]byte{1}, 1024)
	_ = w.file.Close() // every write fails from here on
	w.Add(someRecords(rng, 1)[0])
	w.Finish()
	w.Abort()
	r := c.Open([16]byte{1}, 1024)
	if got, ok := r.Find(list[0].Group); !ok || got.ID != list[0].ID {
		t.Errorf("Find = %v, %t", got, ok)
	}
	r.Close()
	if left, _ := os.ReadDir(c.Dir); len(left) != 1 {
		t.Errorf("%d files are left, want 1", len(left))
	}
	old := time.Now().Add(-keep - time.Hour)
	if err := os.Chtimes(c.path([16]byte{1}), old, old); err != nil {
		t.Fatal(err)
	}
	save(c, 2, 1024, list)
	c.Sweep()
	if left, _ := os.ReadDir(c.Dir); len(left) != 1 || left[0].Name() != filepath.Base(c.path([16]byte{2})) {
		t.Errorf("a sweep left %v", left)
	}
}

// TestPrints: a fingerprint depends on the key, and on every bit of the page and its
// length.
func TestPrints(t *testing.T) {
	p, err := NewPrinter(chunk.Key{1})
	if err != nil {
		t.Fatal(err)
	}
	q, err := NewPrinter(chunk.Key{2})
	if err != nil {
		t.Fatal(err)
	}
	group := bytes.Repeat([]byte("page"), Group/4)
	all := p.Prints(nil, group, 1024)
	if len(all) != 64*printSize || !bytes.Equal(all[:printSize], all[printSize:2*printSize]) {
		t.Fatalf("%d bytes of fingerprints; equal pages have equal ones: %t", len(all), bytes.Equal(all[:printSize], all[printSize:2*printSize]))
	}
	if bytes.Equal(all, q.Prints(nil, group, 1024)) {
		t.Error("fingerprints do not depend on the key")
	}
	changed := make([]bool, 64)
	for bit := range 1024 * 8 {
		group[5*1024+bit/8] ^= 1 << (bit % 8)
		if !Changed(changed, all, p.Prints(nil, group, 1024)) {
			t.Fatal("fingerprints of other lengths")
		}
		for i, c := range changed {
			if c != (i == 5) {
				t.Fatalf("bit %d: page %d changed: %t", bit, i, c)
			}
		}
		group[5*1024+bit/8] ^= 1 << (bit % 8)
	}
	seen := map[string]int{}
	for n := 1; n <= 1024; n++ {
		seen[string(p.Prints(nil, make([]byte, n), 1024))] = n
	}
	if len(seen) != 1024 {
		t.Errorf("%d fingerprints of zeros of 1,024 lengths", len(seen))
	}
	if Changed(changed, all, all[printSize:]) || Changed(changed[1:], all, all) {
		t.Error("fingerprints of other lengths were compared")
	}
}

func FuzzRecord(f *testing.F) {
	for _, r := range someRecords(rand.New(rand.NewPCG(4, 4)), 3) {
		f.Add(r.append(nil, 0), uint64(0))
	}
	f.Fuzz(func(t *testing.T, data []byte, next uint64) {
		r := wire.NewReader(data)
		rec, err := readRecord(r, next)
		if err != nil {
			return
		}
		if rec.Group < next || len(rec.Prints) == 0 || len(rec.Prints) > maxPages*printSize {
			t.Fatalf("record %+v behind %d", rec, next)
		}
		if got := rec.append(nil, next); !bytes.Equal(got, data[:len(data)-r.Len()]) {
			t.Fatalf("%x encodes to %x", data, got)
		}
	})
}

// FuzzFile opens a file whose seal is right and whose parts are not.
func FuzzFile(f *testing.F) {
	c := &Cache{Meta: seal.Key{1}}
	head := wire.AppendUvarint(wire.AppendUvarint(nil, version), 1024)
	var records []byte
	next := uint64(0)
	for _, r := range someRecords(rand.New(rand.NewPCG(5, 5)), 4) {
		records = r.append(records, next)
		next = r.Group + 1
	}
	f.Add(head, records, 0)
	f.Add(head, records[:50], 3)
	f.Add([]byte{2, 1}, records, 0)
	f.Fuzz(func(t *testing.T, head, records []byte, cut int) {
		_, object, err := seal.Object(c.Meta, seal.Template{Kind: seal.KindLocal}, c.binding(), head, records, nil, records)
		if err != nil {
			return
		}
		if cut > 0 && cut < len(object) {
			object = object[:cut]
		}
		r, err := newReader(bytes.NewReader(object), c, 1024)
		if err != nil {
			return
		}
		for group := uint64(0); r.ok; group = r.record.Group + 1 {
			if got, ok := r.Find(group); ok && got.Group != group {
				t.Fatalf("Find(%d) = %d", group, got.Group)
			}
		}
	})
}

func BenchmarkPrints(b *testing.B) {
	p, err := NewPrinter(chunk.Key{1})
	if err != nil {
		b.Fatal(err)
	}
	group := make([]byte, Group)
	for _, grain := range []int{1024, 4096} {
		b.Run(fmt.Sprint(grain), func(b *testing.B) {
			var dst []byte
			b.SetBytes(Group)
			b.ReportAllocs()
			for b.Loop() {
				dst = p.Prints(dst[:0], group, grain)
			}
		})
	}
}

package engine_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/chunk/pack"
	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/engine/internal/layout"
	"github.com/cairn-backup/cairn/engine/target"
	"github.com/cairn-backup/cairn/manifest"
)

// A damage changes one object of a store. It reports false if it cannot.
type damage struct {
	name string
	do   func(objects map[backend.Key][]byte, key backend.Key, rng *rand.Rand) bool
}

// flip flips one bit of the byte that at chooses.
func flip(name string, at func(object []byte, rng *rand.Rand) int) damage {
	return damage{"bit flipped " + name, func(objects map[backend.Key][]byte, key backend.Key, rng *rand.Rand) bool {
		object := slices.Clone(objects[key])
		object[at(object, rng)] ^= 1 << rng.IntN(8)
		objects[key] = object
		return true
	}}
}

func damages() []damage {
	cut := func(name string, length func(n int) int) damage {
		return damage{name, func(objects map[backend.Key][]byte, key backend.Key, _ *rand.Rand) bool {
			objects[key] = objects[key][:length(len(objects[key]))]
			return true
		}}
	}
	return []damage{
		{"deleted", func(objects map[backend.Key][]byte, key backend.Key, _ *rand.Rand) bool {
			delete(objects, key)
			return true
		}},
		{"zeroed", func(objects map[backend.Key][]byte, key backend.Key, _ *rand.Rand) bool {
			objects[key] = make([]byte, len(objects[key]))
			return true
		}},
		{"swapped", swap},
		{"longer", func(objects map[backend.Key][]byte, key backend.Key, _ *rand.Rand) bool {
			objects[key] = append(slices.Clone(objects[key]), 0)
			return true
		}},
		cut("cut to nothing", func(int) int { return 0 }),
		cut("cut in half", func(n int) int { return n / 2 }),
		cut("cut by one byte", func(n int) int { return n - 1 }),
		{"cut anywhere", func(objects map[backend.Key][]byte, key backend.Key, rng *rand.Rand) bool {
			objects[key] = objects[key][:rng.IntN(len(objects[key]))]
			return true
		}},
		{"zeroed in a place", func(objects map[backend.Key][]byte, key backend.Key, rng *rand.Rand) bool {
			object := slices.Clone(objects[key])
			at := rng.IntN(len(object))
			clear(object[at:min(at+512, len(object))])
			objects[key] = object
			return true
		}},
		flip("in the magic", func([]byte, *rand.Rand) int { return 3 }),
		flip("in the kind", func([]byte, *rand.Rand) int { return 9 }),
		flip("in the salt", func([]byte, *rand.Rand) int { return 20 }),
		flip("in the middle", func(object []byte, _ *rand.Rand) int { return len(object) / 2 }),
		flip("at the end", func(object []byte, _ *rand.Rand) int { return len(object) - 1 }),
		flip("anywhere", func(object []byte, rng *rand.Rand) int { return rng.IntN(len(object)) }),
	}
}

// proveDamages are damages, and in the long run those at random places many
// times.
func proveDamages() []damage {
	all := damages()
	if os.Getenv("CAIRN_PROVE") == "" {
		return all
	}
	for _, d := range damages() {
		if strings.HasSuffix(d.name, "anywhere") || d.name == "zeroed in a place" {
			for range 20 {
				all = append(all, d)
			}
		}
	}
	return all
}

// swap puts another object of the same kind in the place of key.
func swap(objects map[backend.Key][]byte, key backend.Key, _ *rand.Rand) bool {
	prefix, _, ok := strings.Cut(string(key), "/")
	if !ok {
		return false
	}
	for _, other := range slices.Sorted(maps.Keys(objects)) {
		if other != key && strings.HasPrefix(string(other), prefix+"/") {
			objects[key], objects[other] = objects[other], objects[key]
			return true
		}
	}
	return false
}

// A specimen is a repository with objects of every kind.
type specimen struct {
	objects map[backend.Key][]byte
	cache   string
	want    map[manifest.ID]string // by snapshot, what it restores to
	padding map[backend.Key][2]int // of packs: bytes that mean nothing
	records int
	needs   map[manifest.ID][]backend.Key
}

// newSpecimen makes two snapshots that share nothing, a second key slot, and
// that many annotations; 256 bring a checkpoint.
func newSpecimen(t *testing.T, annotations int) *specimen {
	ctx := t.Context()
	s := &specimen{
		cache: filepath.Join(t.TempDir(), "cache"), want: make(map[manifest.ID]string),
		padding: make(map[backend.Key][2]int), needs: make(map[manifest.ID][]backend.Key),
	}
	b := storeOf(t, nil)
	r := open(t, b, engine.Options{Workers: 2, CacheDir: s.cache})
	for i := range uint64(2) {
		dir := write(t, map[string][]byte{"a/one": random(10+i, 60_000), "a/two": random(20+i, 1000), "b": random(30+i, 300)})
		before := objects(t, b)
		id := backUp(t, r, renamed(dir), engine.BackupOptions{Name: fmt.Sprint(i)}).Snapshot.ID
		s.want[id] = dir
		for key := range objects(t, b) {
			if _, old := before[key]; !old && !strings.HasPrefix(string(key), "log/") {
				s.needs[id] = append(s.needs[id], key)
			}
		}
	}
	if _, err := r.AddKey(ctx, secret, "second"); err != nil {
		t.Fatal(err)
	}
	id := slices.Collect(maps.Keys(s.want))[0]
	for i := range annotations {
		if err := r.Annotate(ctx, id, manifest.Annotation{Add: []string{fmt.Sprint(i % 3)}}); err != nil {
			t.Fatal(err)
		}
	}
	s.objects = objects(t, b)
	for key, object := range s.objects {
		if kindOf(key) == "log" {
			s.records++
		}
		if strings.HasPrefix(string(key), string(layout.Packs)) {
			s.padding[key] = paddingOf(t, r, key, object)
		}
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	return s
}

// paddingOf returns the range of random bytes between the last block and the
// footer.
func paddingOf(t *testing.T, r *engine.Repository, key backend.Key, object []byte) [2]int {
	t.Helper()
	_, table, err := r.PackTable(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	_, footer, _, err := pack.ReadPlace(object[:min(len(object), pack.HeadSize)])
	if err != nil {
		t.Fatal(err)
	}
	end := 0
	for _, b := range table.Blocks {
		end = max(end, int(b.Offset)+int(b.Stored))
	}
	return [2]int{end, int(footer)}
}

// kindOf is the first part of a key.
func kindOf(key backend.Key) string {
	kind, _, _ := strings.Cut(string(key), "/")
	return kind
}

// TestMutations damages every stored object in every way. Whatever is then
// done ends in a typed error or with the right data, and Check finds what
// matters; a snapshot that does not need the object is not hurt.
func TestMutations(t *testing.T) {
	t.Parallel()
	newSpecimen(t, 2).mutate(t, func(backend.Key) bool { return true })
	// A long log makes everything slow: only what there is in no short one.
	newSpecimen(t, 256).mutate(t, func(key backend.Key) bool {
		return kindOf(key) == "checkpoints" || key == layout.Record(100) || key == layout.Record(256)
	})
}

// mutate damages the objects that pick chooses.
func (s *specimen) mutate(t *testing.T, pick func(key backend.Key) bool) {
	for i, key := range slices.Sorted(maps.Keys(s.objects)) {
		if !pick(key) {
			continue
		}
		t.Run(string(key), func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(1, uint64(i)))
			for _, d := range proveDamages() {
				objects := maps.Clone(s.objects)
				if !d.do(objects, key, rng) {
					continue
				}
				m := &mutation{specimen: s, t: t, key: key, what: d.name, changed: objects}
				m.run()
				if rng.IntN(4) == 0 { // a cache on disk takes long to open
					m.what, m.warm = d.name+", warm", true
					m.run()
				}
			}
		})
	}
}

// A mutation is one damage, and what comes of it.
type mutation struct {
	*specimen
	t       *testing.T
	key     backend.Key
	what    string
	changed map[backend.Key][]byte
	warm    bool // with a cache
}

func (m *mutation) run() {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), 30*time.Second)
	defer cancel()
	opts := engine.Settle(engine.Options{Workers: 2}, 5*time.Second)
	if m.warm {
		opts.CacheDir = copyDir(m.t, m.cache)
	}
	disk := storeOf(m.t, m.changed)
	r, err := engine.Open(ctx, disk, secret, opts)
	if err != nil {
		m.typed("Open", err)
		if kind := kindOf(m.key); kind != "config" && kind != "keys" {
			m.t.Errorf("%s: Open = %v, though neither config nor a slot is damaged", m.what, err)
		}
		return
	}
	defer r.Close()
	report, err := r.Check(ctx, engine.CheckOptions{Depth: engine.DepthData, Record: true})
	m.typed("Check", err)
	found := len(report.Findings) > 0
	if err == nil && !found && m.matters() {
		m.t.Errorf("%s: Check found nothing", m.what)
	}
	if found && !m.differs() {
		m.t.Errorf("%s: Check found %+v", m.what, report.Findings)
	}
	m.addresses(report)
	visible := m.list(ctx, r)
	for id, dir := range m.want {
		m.restore(ctx, r, id, dir, visible[id])
	}
	if m.backUp(ctx, r) && err == nil {
		m.mended(ctx, r, visible)
	}
}

// addresses compares what the findings say with what was damaged.
func (m *mutation) addresses(report engine.CheckReport) {
	m.t.Helper()
	inPack := kindOf(m.key) == "packs"
	for _, f := range report.Findings {
		if inPack && m.what != "swapped" && m.what != "swapped, warm" && f.Object != string(m.key) {
			m.t.Errorf("%s: a finding is about %q: %+v", m.what, f.Object, f)
		}
		for _, id := range f.Snapshots {
			if inPack && m.what != "swapped" && m.what != "swapped, warm" && !slices.Contains(m.needs[id], m.key) {
				m.t.Errorf("%s: snapshot %s is said to be hurt, and does not need it: %+v", m.what, id, f)
			}
		}
		if f.ItemCount > 0 != (len(f.Snapshots) > 0) || f.Offset >= 0 != (f.Length > 0) {
			m.t.Errorf("%s: finding %+v", m.what, f)
		}
	}
}

// mended restores the older snapshot of the data that were backed up again:
// whatever was damaged of it is recorded and stored anew.
func (m *mutation) mended(ctx context.Context, r *engine.Repository, visible map[manifest.ID]bool) {
	m.t.Helper()
	dir := slices.Sorted(maps.Values(m.want))[0]
	for id, d := range m.want {
		if d != dir || !visible[id] || r.Problem() != nil {
			continue
		}
		dst := filepath.Join(m.t.TempDir(), "x")
		if _, err := r.Restore(ctx, id, target.Dir(dst), engine.RestoreOptions{}); err != nil {
			m.t.Errorf("%s: Restore after the same data were backed up again = %v", m.what, err)
			return
		}
		same(m.t, dir, dst)
		report, err := r.Check(ctx, engine.CheckOptions{Depth: engine.DepthData})
		m.typed("Check after the backup", err)
		for _, f := range report.Findings {
			if slices.Contains(f.Snapshots, id) {
				m.t.Errorf("%s: Check after the same data were backed up again: %+v", m.what, f)
			}
		}
	}
}

// list returns the visible snapshots. A damaged log may hide them, which then
// is the repository's Problem.
func (m *mutation) list(ctx context.Context, r *engine.Repository) map[manifest.ID]bool {
	m.t.Helper()
	visible := make(map[manifest.ID]bool)
	for snap, err := range r.Snapshots(ctx, manifest.Filter{}) {
		if err != nil {
			m.typed("Snapshots", err)
			break
		}
		visible[snap.ID] = true
	}
	for id := range m.want {
		if !visible[id] && r.Problem() == nil {
			m.t.Errorf("%s: a snapshot is not visible, and the log has no problem", m.what)
		}
	}
	return visible
}

func (m *mutation) restore(ctx context.Context, r *engine.Repository, id manifest.ID, dir string, visible bool) {
	m.t.Helper()
	dst := filepath.Join(m.t.TempDir(), "x")
	_, err := r.Restore(ctx, id, target.Dir(dst), engine.RestoreOptions{})
	if err != nil {
		m.typed("Restore", err)
		// An index segment is only the quick way to what the packs say.
		if visible && (kindOf(m.key) != "packs" || !slices.Contains(m.needs[id], m.key) && !strings.Contains(m.what, "swapped")) {
			m.t.Errorf("%s: Restore of a snapshot that does not need it = %v", m.what, err)
		}
		return
	}
	same(m.t, dir, dst)
}

// backUp backs up the first data set anew. What it reports as done restores: what
// is damaged was recorded. It reports whether there is a new snapshot.
func (m *mutation) backUp(ctx context.Context, r *engine.Repository) bool {
	m.t.Helper()
	dir := slices.Sorted(maps.Values(m.want))[0]
	report, err := r.Backup(ctx, renamed(dir), engine.BackupOptions{Name: "0"})
	if err != nil {
		m.typed("Backup", err)
		if r.Problem() == nil {
			m.t.Errorf("%s: Backup = %v", m.what, err)
		}
		return false
	}
	dst := filepath.Join(m.t.TempDir(), "x")
	if _, err := r.Restore(ctx, report.Snapshot.ID, target.Dir(dst), engine.RestoreOptions{}); err != nil {
		m.t.Errorf("%s: Restore of the new snapshot = %v", m.what, err)
		return true
	}
	same(m.t, dir, dst)
	return true
}

func (m *mutation) typed(what string, err error) {
	m.t.Helper()
	if err != nil && (!typed(err) || errors.Is(err, context.DeadlineExceeded)) {
		m.t.Errorf("%s: %s = %v, which is no error of a kind that a caller can tell", m.what, what, err)
	}
}

// differs reports whether the store is another.
func (m *mutation) differs() bool { return !maps.EqualFunc(m.changed, m.objects, slices.Equal) }

// matters reports whether the damage is one that anyone could find.
func (m *mutation) matters() bool {
	object, ok := m.changed[m.key]
	was := m.objects[m.key]
	switch kindOf(m.key) {
	case "keys":
		// What is behind the header only the holder of that slot's secret can
		// check, and a slot may be removed.
		return ok && len(object) < 48 || ok && !slices.Equal(object[:min(len(object), 10)], was[:10])
	case "packs":
		at := -1
		for i := range min(len(object), len(was)) {
			if object[i] != was[i] {
				at = i
				break
			}
		}
		p := m.padding[m.key]
		return len(object) != len(was) || at < p[0] || at >= p[1]
	case "checkpoints":
		return ok // without one a cold open takes longer, and that is all
	case "log":
		// That the store had a record more only the cache can know.
		return ok || m.warm || m.key != layout.Record(uint64(m.records))
	case "index":
		// What is behind its end no one reads.
		return len(object) < len(was) || !slices.Equal(object[:len(was)], was)
	}
	return m.differs()
}

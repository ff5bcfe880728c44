package engine_test

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"filippo.io/age"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/backend/mem"
	"github.com/cairn-backup/cairn/chunk"
	"github.com/cairn-backup/cairn/chunk/wire"
	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/engine/enginetest"
	"github.com/cairn-backup/cairn/engine/internal/keys"
	"github.com/cairn-backup/cairn/engine/internal/layout"
	"github.com/cairn-backup/cairn/engine/internal/log"
	"github.com/cairn-backup/cairn/engine/internal/pages"
	"github.com/cairn-backup/cairn/engine/source"
	"github.com/cairn-backup/cairn/manifest"
)

// A second golden repository of format 1 stands beside the one of cmd/cairn, which
// was made before databases were stored by pages. It has what the first lacks:
// groups with patches, patches that were kept beside new ones, groups that were
// written whole again, a collection that rewrote packs, a checkpoint, and a backup
// that was interrupted. In testdata/golden:
//
//	pages-v1.zip   the objects by key; cache/ has the fingerprints as of the last snapshot
//	pages-v1.key   a key that opens it
//	pages-v1.json  what is in it
//
// It is one file, since it takes 256 records to make a checkpoint. The repository's
// key and id are those of goldenSet, what was backed up is what goldenStates
// describes, and
//
//	go test ./engine -run TestGoldenPages -update-golden
//
// made it by the code as it was then. It refuses to make it again: what this test
// reads today it must read for ever.
var updateGolden = flag.Bool("update-golden", false, "make the golden repository of page files, if there is none")

const golden = "../testdata/golden/pages-v1"

func goldenSet() (*keys.Set, keys.RepositoryID) {
	return keys.Derive(keys.Root([]byte("the golden repository of pages ..."[:32]))), keys.RepositoryID([]byte("golden pages v1!"))
}

type goldenSnapshot struct {
	ID    string                `json:"id"`
	Tag   string                `json:"tag"`
	Tree  string                `json:"tree"`
	Files map[string]goldenFile `json:"files"`
}

type goldenFile struct {
	SHA256  string   `json:"sha256"`
	Extents []string `json:"extents"` // kind, offset, length, first, count, ID
}

// goldenStates returns what was backed up, one after the other, the last one
// without coming to its end: a database of pages of 1 KiB, and an image of 4 KiB.
func goldenStates() []fstest.MapFS {
	line := func(n, seed int) []byte {
		var b bytes.Buffer
		for i := 0; b.Len() < n; i++ {
			fmt.Fprintf(&b, "row %d of %d holds %d\n", i, seed, (i/32+seed)*7919%1009)
		}
		return b.Bytes()[:n]
	}
	db := line(1<<20+3*4096, 1) // the last group is short
	copy(db, "SQLite format 3\x00")
	binary.BigEndian.PutUint16(db[16:], 4096)
	image := line(6*65536, 2)
	clear(image[65536:131072])                    // a hole
	copy(image[4*65536:], image[3*65536:4*65536]) // a Repeat
	image = append(image, line(4096+1808, 3)...)  // no whole number of pages
	states := make([]fstest.MapFS, 0, 4)
	add := func(more fstest.MapFS) {
		at := time.Date(2026, 1, 2, 3, 4, len(states), 0, time.UTC)
		state := fstest.MapFS{
			"app.db":   {Data: bytes.Clone(db), Mode: 0o600, ModTime: at},
			"disk.img": {Data: bytes.Clone(image), Mode: 0o644, ModTime: at},
			"note":     {Data: fmt.Appendf(nil, "state %d", len(states)), Mode: 0o644, ModTime: at},
		}
		maps.Copy(state, more)
		states = append(states, state)
	}
	put := func(p []byte, at, n int) { copy(p[at:], line(n, at+len(states))) }
	add(nil)
	put(db, 5*1024, 100)             // one page
	put(db, 2*65536+3*1024+1000, 60) // two neighbours
	put(db, 4*65536, 9000)           // a seventh of a group
	put(db, len(db)-3000, 500)       // in the short group
	put(image, 3*65536+8192, 10)     // now there is no Repeat
	put(image, 5*65536+4096, 8192)   //
	add(nil)
	put(db, 5*1024, 100)            // again
	put(db, 9*1024, 100)            // and another, beside it
	put(db, 2*65536+20*1024, 60)    // what is patched already stays
	put(db, 4*65536+1024, 40_000)   // more than half
	put(image, 3*65536+16384, 10)   //
	clear(image[5*65536 : 6*65536]) // a hole
	add(nil)
	put(db, 7*65536, 100)
	put(db, 5*1024, 100)
	more := make(fstest.MapFS)
	for i := range 20 { // so many that the backup is recorded before its end
		more[fmt.Sprintf("m/%02d", i)] = &fstest.MapFile{Data: line(3000, 50+i), Mode: 0o644, ModTime: time.Unix(1_700_000_000, 0)}
	}
	more["z/last"] = &fstest.MapFile{Data: line(5000, 99), Mode: 0o644, ModTime: time.Unix(1_700_000_000, 0)}
	add(more)
	return states
}

func goldenSource(state fstest.MapFS) source.Source {
	return pagedSource{source.FS("data", state)}
}

func goldenIdentity(t *testing.T) engine.Secret {
	t.Helper()
	f, err := os.Open(golden + ".key")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	ids, err := age.ParseIdentities(f)
	if err != nil {
		t.Fatal(err)
	}
	return engine.Identity(ids...)
}

// A logReads counts the records that are read.
type logReads struct {
	backend.Backend
	n atomic.Int64
}

func (l *logReads) Get(ctx context.Context, key backend.Key, off, n int64) (io.ReadCloser, error) {
	if strings.HasPrefix(string(key), string(layout.Records)) {
		l.n.Add(1)
	}
	return l.Backend.Get(ctx, key, off, n)
}

func TestGoldenPages(t *testing.T) {
	if *updateGolden {
		makeGoldenPages(t)
	}
	t.Parallel()
	text, err := os.ReadFile(golden + ".json")
	if err != nil {
		t.Fatal(err)
	}
	var want []goldenSnapshot
	if err := json.Unmarshal(text, &want); err != nil {
		t.Fatal(err)
	}
	objects, cache := goldenObjects(t)
	b := &logReads{Backend: storeOf(t, objects)}
	r, err := engine.Open(t.Context(), b, goldenIdentity(t), engine.Options{Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := r.Problem(); err != nil {
		t.Fatal(err)
	}
	if n := b.n.Load(); n == 0 || n > 30 || r.Log().Head().N < 256 {
		t.Errorf("%d of %d records were read to open it, there is a checkpoint at 256", n, r.Log().Head().N)
	}
	whole(t, r)
	got := goldenSnapshots(t, r)
	a, _ := json.Marshal(got) // of strings
	c, _ := json.Marshal(want)
	if !bytes.Equal(a, c) {
		t.Errorf("the snapshots are\n%s\nwant those of %s.json", a, golden)
	}
	states, tags := goldenStates(), map[string]int{"first": 0, "third": 2}
	for _, s := range list(t, r) {
		goldenRestores(t, r, s.ID, states[tags[s.Tags[0]]])
	}
	goldenPrints(t, r, cache, states[2])

	// It is no museum piece: today's code goes on where the other was interrupted.
	report := backUp(t, r, goldenSource(states[3]), engine.BackupOptions{Host: "golden", User: "golden"})
	if !report.Resumed || report.Snapshot.Stats.New == 0 {
		t.Errorf("resumed: %t, with %d new bytes", report.Resumed, report.Snapshot.Stats.New)
	}
	goldenRestores(t, r, report.Snapshot.ID, states[3])
	whole(t, r)
}

func goldenRestores(t *testing.T, r *engine.Repository, id manifest.ID, state fstest.MapFS) {
	t.Helper()
	dir := restore(t, r, id)
	n := 0
	err := filepath.WalkDir(dir, func(at string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		n++
		name, _ := filepath.Rel(dir, at)
		p, err := os.ReadFile(at)
		if f := state[filepath.ToSlash(name)]; err == nil && (f == nil || !bytes.Equal(p, f.Data)) {
			t.Errorf("snapshot %v: %s has %d bytes that were not backed up", id.Short(), name, len(p))
		}
		return err
	})
	if err != nil || n != len(state) {
		t.Errorf("snapshot %v: %d files, want %d: %v", id.Short(), n, len(state), err)
	}
}

// goldenSnapshots returns what a repository shows, to the extent.
func goldenSnapshots(t *testing.T, r *engine.Repository) (all []goldenSnapshot) {
	t.Helper()
	for _, s := range list(t, r) {
		g := goldenSnapshot{ID: s.ID.String(), Tag: s.Tags[0], Tree: s.Tree.String(), Files: make(map[string]goldenFile)}
		view, err := r.FS(t.Context(), s.ID)
		if err != nil {
			t.Fatal(err)
		}
		err = manifest.Walk(t.Context(), goldenGetter{r}, s.Tree, func(at string, n manifest.Node) error {
			if n.Kind != manifest.File {
				return nil
			}
			p, err := readAll(view, at)
			f := goldenFile{SHA256: fmt.Sprintf("%x", sha256.Sum256(p))}
			for e, err := range manifest.Extents(t.Context(), goldenGetter{r}, n.Content, 0) {
				if err != nil {
					return err
				}
				f.Extents = append(f.Extents, fmt.Sprint(e.Kind, e.Offset, e.Length, e.First, e.Count, " ", e.ID))
			}
			g.Files[at] = f
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, g)
	}
	return all
}

type goldenGetter struct{ r *engine.Repository }

func (g goldenGetter) Chunk(ctx context.Context, id chunk.ID) ([]byte, error) {
	return g.r.ReadChunk(ctx, id)
}

// goldenPrints compares the fingerprints with what docs/format.md says of them.
func goldenPrints(t *testing.T, r *engine.Repository, files map[string][]byte, state fstest.MapFS) {
	t.Helper()
	set, id := goldenSet()
	hash := chunk.NewHasher(set.Chunk)
	print, err := pages.NewPrinter(set.Chunk)
	if err != nil {
		t.Fatal(err)
	}
	snaps := list(t, r)
	last := snaps[len(snaps)-1]
	cache := pages.Cache{Dir: t.TempDir(), Meta: set.Meta, Repository: id, ReadOnly: true}
	for name, p := range files {
		if err := os.WriteFile(filepath.Join(cache.Dir, name), p, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	patched := 0
	err = manifest.Walk(t.Context(), goldenGetter{r}, last.Tree, func(at string, n manifest.Node) error {
		grain := map[string]int{"data/app.db": 1024, "data/disk.img": 4096}[at]
		if grain == 0 {
			return nil
		}
		name := hash.Sum(wire.AppendText(wire.AppendBytes([]byte("cairn v1 page fingerprints"), last.Group[:]), at))
		known := cache.Open([16]byte(name[:16]), grain)
		if known == nil {
			return fmt.Errorf("there is no file %x of fingerprints of %s", name[:16], at)
		}
		defer known.Close()
		data := state[path.Base(at)].Data
		for e, err := range manifest.PatchedExtents(t.Context(), goldenGetter{r}, n.Content, 0) {
			if err != nil {
				return err
			}
			if e.Kind == manifest.Hole {
				continue
			}
			key := e.ID
			if len(e.Patches) > 0 {
				patched++
				p := append([]byte("cairn v1 patched group"), e.ID[:]...)
				for _, patch := range e.Patches {
					p = binary.LittleEndian.AppendUint64(p, patch.Offset-e.Offset)
					p = binary.LittleEndian.AppendUint64(p, patch.Length)
					p = append(p, patch.ID[:]...)
				}
				key = hash.Sum(p)
			}
			group := data[e.Offset : e.Offset+e.Length/max(e.Count, 1)]
			got, ok := known.Find(e.Offset / pages.Group)
			want := pages.Record{Group: e.Offset / pages.Group, Key: key, ID: hash.Sum(group), Prints: print.Prints(nil, group, grain)}
			if !ok || got.Group != want.Group || got.Key != want.Key || got.ID != want.ID || !bytes.Equal(got.Prints, want.Prints) {
				t.Errorf("%s: the record of the group at %d is\n%v, %t, want\n%v", at, e.Offset, got, ok, want)
			}
		}
		return nil
	})
	if err != nil || patched == 0 {
		t.Errorf("fingerprints of %d patched groups: %v", patched, err)
	}
}

// goldenObjects reads the golden file.
func goldenObjects(t *testing.T) (objects map[backend.Key][]byte, cache map[string][]byte) {
	t.Helper()
	z, err := zip.OpenReader(golden + ".zip")
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	objects, cache = make(map[backend.Key][]byte), make(map[string][]byte)
	for _, f := range z.File {
		in, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		p, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		if name, ok := strings.CutPrefix(f.Name, "cache/"); ok {
			cache[name] = p
		} else {
			objects[backend.Key(f.Name)] = p
		}
	}
	return objects, cache
}

// makeGoldenPages makes the golden repository. It never makes it again.
func makeGoldenPages(t *testing.T) {
	t.Helper()
	if _, err := os.Stat(golden + ".zip"); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("%s.zip is there: it is frozen", golden)
	}
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	b := goldenEmpty(t, engine.Identity(identity))
	opts := engine.Tuned(engine.Options{Workers: 1, CacheDir: t.TempDir()}, engine.Limits{Block: 32 << 10, Pack: 16 << 10, Publish: 1, Partial: 1000})
	r, err := engine.Open(t.Context(), b, engine.Identity(identity), opts)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	states := goldenStates()
	var ids []manifest.ID
	for i, tag := range []string{"first", "second", "third"} {
		report := backUp(t, r, goldenSource(states[i]), engine.BackupOptions{Host: "golden", User: "golden", Tags: []string{tag}, Time: time.Date(2026, 1, 2, 3, 4, 5+i, 0, time.UTC)})
		ids = append(ids, report.Snapshot.ID)
	}
	cache := make(map[string][]byte)
	found, err := filepath.Glob(filepath.Join(opts.CacheDir, "*", "pages", "*"))
	if err != nil || len(found) != 2 {
		t.Fatalf("files of fingerprints: %q, %v", found, err)
	}
	for _, at := range found {
		if cache[filepath.Base(at)], err = os.ReadFile(at); err != nil {
			t.Fatal(err)
		}
	}
	forget(t, r, ids[1])
	if report := gc(t, r, atOnce); report.Repacked.Objects == 0 {
		t.Fatalf("nothing was rewritten: %+v", report)
	}
	for i := 0; r.Log().Head().N < 257; i++ {
		note := fmt.Sprint("note ", i)
		if err := r.Annotate(t.Context(), ids[0], manifest.Annotation{Note: &note}); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	opts = engine.Tuned(engine.Options{Workers: 1}, engine.Limits{Block: 500, Pack: 500, Publish: 1, Partial: 1000})
	if r, err = engine.Open(t.Context(), b, engine.Identity(identity), opts); err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	ctx, cancel := context.WithCancel(t.Context())
	src := enginetest.Watch(goldenSource(states[3]))
	src.OnOpen = func(at string) error {
		if strings.HasSuffix(at, "last") {
			cancel()
		}
		return nil
	}
	if _, err := r.Backup(ctx, src, engine.BackupOptions{Host: "golden", User: "golden"}); !errors.Is(err, context.Canceled) {
		t.Fatalf("the last backup was not interrupted: %v", err)
	}
	partial := false
	_ = r.Log().View(func(st *log.State) error { // the function returns nil
		for s := range st.Sessions() {
			partial = partial || len(s.Partial) > 0
		}
		return nil
	})
	if !partial {
		t.Fatal("the interrupted backup left no partial tree")
	}
	text, err := json.MarshalIndent(goldenSnapshots(t, r), "", "")
	if err != nil {
		t.Fatal(err)
	}
	all := objects(t, b)
	for name, p := range cache {
		all[backend.Key("cache/"+name)] = p
	}
	for name, p := range map[string][]byte{".json": append(text, '\n'), ".key": []byte(identity.String() + "\n"), ".zip": zipped(t, all)} {
		if err := os.WriteFile(golden+name, p, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// goldenEmpty returns a new repository with keys that are always the same.
func goldenEmpty(t *testing.T, by engine.Secret) *mem.Backend {
	t.Helper()
	set, id := goldenSet()
	own, err := engine.OwnSecret(t.Context(), by)
	if err != nil {
		t.Fatal(err)
	}
	name, slot, err := keys.SealSlot(set.Root(), id, own, "golden")
	if err != nil {
		t.Fatal(err)
	}
	config, err := keys.NewConfig(set, time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC).Unix()).Seal(set.Meta, id)
	if err != nil {
		t.Fatal(err)
	}
	return storeOf(t, map[backend.Key][]byte{layout.Slot(name): slot, layout.Config: config})
}

func zipped(t *testing.T, files map[backend.Key][]byte) []byte {
	t.Helper()
	var out bytes.Buffer
	z := zip.NewWriter(&out)
	for _, key := range slices.Sorted(maps.Keys(files)) {
		// What is encrypted does not compress.
		w, err := z.CreateHeader(&zip.FileHeader{Name: string(key), Method: zip.Store})
		if err == nil {
			_, err = w.Write(files[key])
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

package engine_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/backend/mem"
	"github.com/cairn-backup/cairn/backend/retry"
	"github.com/cairn-backup/cairn/chunk/wire"
	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/engine/progress"
	"github.com/cairn-backup/cairn/engine/target"
)

// asked writes down every request.
type asked struct {
	backend.Backend
	mu  sync.Mutex // guards all
	all []string
}

func (a *asked) note(op string, key backend.Key) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.all = append(a.all, op+" "+string(key))
}

// take returns the requests since the last call.
func (a *asked) take() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := a.all
	a.all = nil
	return all
}

// Name implements backend.Namer.
func (a *asked) Name() string { return "asked" }

func (a *asked) Put(ctx context.Context, key backend.Key, data []byte) error {
	a.note("put", key)
	return a.Backend.Put(ctx, key, data)
}

func (a *asked) Get(ctx context.Context, key backend.Key, off, n int64) (io.ReadCloser, error) {
	a.note("get", key)
	return a.Backend.Get(ctx, key, off, n)
}

func (a *asked) Stat(ctx context.Context, key backend.Key) (backend.Info, error) {
	a.note("stat", key)
	return a.Backend.Stat(ctx, key)
}

func (a *asked) List(ctx context.Context, prefix backend.Key) iter.Seq2[backend.Info, error] {
	a.note("list", prefix)
	return a.Backend.List(ctx, prefix)
}

func (a *asked) Delete(ctx context.Context, key backend.Key) error {
	a.note("delete", key)
	return a.Backend.Delete(ctx, key)
}

// withPrefix returns those of requests that begin so.
func withPrefix(requests []string, prefixes ...string) []string {
	var found []string
	for _, r := range requests {
		if slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(r, p) }) {
			found = append(found, r)
		}
	}
	return found
}

// TestRequests counts what is paid for: requests of a machine whose cache has
// config, key slots and position in the log.
func TestRequests(t *testing.T) {
	b := &asked{Backend: mem.New()}
	dir := write(t, someFiles())
	opts := engine.Options{CacheDir: t.TempDir(), MetadataCache: 64 << 20}
	// One run as a program does it: open, back up, close.
	run := func() []string {
		t.Helper()
		r := open(t, b, opts)
		backUp(t, r, renamed(dir), engine.BackupOptions{})
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		return b.take()
	}
	first := run()
	settle(t)
	run()
	for n := range 3 {
		if got := run(); len(got) > 3 {
			t.Errorf("unchanged backup %d makes %d requests, want at most 3: %q", n, len(got), got)
		}
	}
	update(t, dir, map[string][]byte{"a/new": random(9, 5000)})
	got := run()
	if n := len(got) - len(withPrefix(got, "put packs/")); n > 8 || len(withPrefix(got, "list")) > 0 {
		t.Errorf("a small backup makes %d requests beside its packs, want at most 8 and no listing: %q", n, got)
	}
	t.Logf("first: %q", first)
	t.Logf("small: %q", got)

	// Another machine.
	opts.CacheDir = t.TempDir()
	other := run()
	if lists := withPrefix(other, "list"); len(lists) > 3 {
		t.Errorf("the first open of another machine lists %q", lists)
	}
	t.Logf("other machine: %q", other)
	if again := run(); len(again) > 3 {
		t.Errorf("and its second run makes %d requests: %q", len(again), again)
	}
}

// TestRequestsElsewhere: a restore on a machine that has never seen the repository
// asks for what it needs, once, and guesses nothing.
func TestRequestsElsewhere(t *testing.T) {
	f := &far{asked: asked{Backend: mem.New()}}
	opts := engine.Options{CacheDir: t.TempDir(), MetadataCache: 64 << 20}
	files := someFiles()
	for i := range 1000 { // several blocks of pages
		files[fmt.Sprintf("many/%d/%x", i%30, random(uint64(1000+i), 100))] = nil
	}
	dir := write(t, files)
	const backups = 5
	for n := range uint64(backups) {
		update(t, dir, map[string][]byte{"a/new": random(50+n, 50_000)})
		r := open(t, f, opts)
		backUp(t, r, renamed(dir), engine.BackupOptions{})
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
	f.take()
	opts.CacheDir = t.TempDir()
	r, err := engine.Open(t.Context(), f, secret, opts)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	snap, err := r.Snapshot(t.Context(), "latest")
	if err != nil {
		t.Fatal(err)
	}
	same(t, dir, restore(t, r, snap.ID))
	got := f.take()
	t.Logf("%q", got)

	want := map[string]int{"list keys/": 1, "list checkpoints/": 1, "list log/0000000000000000": 1}
	for info, err := range f.Backend.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		want["get "+string(info.Key)] = 1
	}
	// What is behind the last record is asked for by Open, and by Snapshot: another
	// machine may have been faster.
	want[fmt.Sprintf("get log/%020d", len(withPrefix(slices.Collect(maps.Keys(want)), "get log/"))+1)] = 2
	for _, request := range got {
		if want[request]--; want[request] < 0 {
			t.Errorf("%q is asked for too often", request)
		}
	}
}

// knownFile is what a cache keeps of what opens a repository.
type knownFile struct {
	Saved  int64    `cbor:"1,keyasint"`
	Config []byte   `cbor:"2,keyasint"`
	Slots  [][]byte `cbor:"3,keyasint"`
}

func readKnown(t *testing.T, path string) knownFile {
	t.Helper()
	var k knownFile
	data, err := os.ReadFile(path)
	if err == nil {
		err = wire.Unmarshal(data, &k)
	}
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// TestKnown: what is kept of config and slots is a hint.
func TestKnown(t *testing.T) {
	dir := write(t, map[string][]byte{"file": random(1, 5000)})
	disk := mem.New()
	b := &asked{Backend: disk}
	cache := t.TempDir()
	opts := engine.Options{CacheDir: cache}
	visit := func() []string {
		t.Helper()
		r := open(t, b, opts)
		list(t, r)
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		return b.take()
	}
	r := open(t, b, opts)
	backUp(t, r, renamed(dir), engine.BackupOptions{})
	slot, err := r.AddKey(t.Context(), engine.Passphrase("second"), "second")
	if err != nil {
		t.Fatal(err)
	}
	_ = r.Close()
	visit()
	known := func(requests []string) bool { return len(withPrefix(requests, "get config", "list keys/")) == 0 }
	if got := visit(); !known(got) {
		t.Errorf("a second visit asks %q", got)
	}

	files, err := filepath.Glob(filepath.Join(cache, "*", "known-*"))
	if err != nil || len(files) != 1 {
		t.Fatalf("files %q, %v", files, err)
	}
	good, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(good); i += 7 { // cut and flipped
		bad := slices.Clone(good)
		bad[i] ^= 1 << (i % 8)
		if i%2 == 0 {
			bad = bad[:i]
		}
		if err := os.WriteFile(files[0], bad, 0o600); err != nil {
			t.Fatal(err)
		}
		visit()
	}

	// A secret that is not kept is looked for in the store, and found wrong there.
	if _, err := engine.Open(t.Context(), b, engine.Passphrase("wrong"), opts); !errors.Is(err, engine.ErrWrongKey) {
		t.Errorf("Open with a wrong passphrase = %v", err)
	}
	// A slot that comes in later does not prolong the day of the others.
	day := readKnown(t, files[0])
	day.Saved -= 20 * 3600
	aged, err := wire.Marshal(day)
	if err == nil {
		err = os.WriteFile(files[0], aged, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	r, err = engine.Open(t.Context(), b, engine.Passphrase("second"), opts)
	if err != nil {
		t.Fatal(err)
	}
	_ = r.Close()
	if got := readKnown(t, files[0]); got.Saved != day.Saved || len(got.Slots) < 2 {
		t.Errorf("%d slots are kept since %d, want both since %d", len(got.Slots), got.Saved, day.Saved)
	}
	// One that was removed on this machine opens no more.
	r = open(t, b, opts)
	if err := r.RemoveKey(t.Context(), slot); err != nil {
		t.Fatal(err)
	}
	_ = r.Close()
	if _, err := engine.Open(t.Context(), b, engine.Passphrase("second"), opts); !errors.Is(err, engine.ErrWrongKey) {
		t.Errorf("Open with a removed passphrase = %v", err)
	}

	// Another repository was made at the same place: nothing of the old one is
	// believed.
	visit()
	for info, err := range disk.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		if err := disk.Delete(t.Context(), info.Key); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := engine.Open(t.Context(), b, secret, opts); !errors.Is(err, engine.ErrNoRepository) {
		t.Errorf("Open where the repository was = %v", err)
	}
	r = open(t, b, opts)
	backUp(t, r, renamed(dir), engine.BackupOptions{})
	whole(t, r)
	_ = r.Close()
	visit()
	if got := visit(); !known(got) {
		t.Errorf("a visit of the new repository asks %q", got)
	}
}

// flaky fails the first Put of each pack.
type flaky struct {
	backend.Backend
	seen sync.Map
}

func (f *flaky) Put(ctx context.Context, key backend.Key, data []byte) error {
	if _, again := f.seen.LoadOrStore(key, true); !again && strings.HasPrefix(string(key), "packs/") {
		return &backend.OpError{Op: "put", Key: key, Kind: backend.ErrUnavailable, Err: errors.New("not now")}
	}
	return f.Backend.Put(ctx, key, data)
}

// TestTicks: what an operation asked of the store is in its progress, too.
func TestTicks(t *testing.T) {
	opts := engine.Tuned(engine.Options{Retry: retry.Policy{First: time.Millisecond}}, small)
	r := open(t, &flaky{Backend: mem.New()}, opts)
	var last progress.Tick
	watch := func(e progress.Event) {
		if tick, ok := e.(progress.Tick); ok {
			last = tick
		}
	}
	dir := write(t, someFiles())
	report := backUp(t, r, renamed(dir), engine.BackupOptions{Progress: watch})
	if last.Requests != report.Traffic.Requests() || last.Requests == 0 {
		t.Errorf("the last tick of a backup has %d requests, its report %d", last.Requests, report.Traffic.Requests())
	}
	if last.Retries != report.Traffic.Retries || last.Retries < 5 {
		t.Errorf("the last tick of a backup has %d retries, its report %d", last.Retries, report.Traffic.Retries)
	}
	restored, err := r.Restore(t.Context(), report.Snapshot.ID, target.Dir(filepath.Join(t.TempDir(), "x")), engine.RestoreOptions{Progress: watch})
	if err != nil || last.Requests != restored.Requests || last.Requests == 0 {
		t.Errorf("the last tick of a restore has %d requests, its report %d, %v", last.Requests, restored.Requests, err)
	}
}

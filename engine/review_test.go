package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/backend/mem"
	"github.com/cairn-backup/cairn/chunk/seal"
	"github.com/cairn-backup/cairn/engine/internal/layout"
	"github.com/cairn-backup/cairn/engine/internal/log"
	"github.com/cairn-backup/cairn/engine/internal/store"
	"github.com/cairn-backup/cairn/engine/progress"
	"github.com/cairn-backup/cairn/engine/source"
	"github.com/cairn-backup/cairn/engine/target"
	"github.com/cairn-backup/cairn/manifest"
)

func newKeyFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key")
	if err := NewKeyFile(path); err != nil {
		t.Fatal(err)
	}
	return path
}

// openSmall opens or makes a repository on b, with packs of about 64 KiB.
func openSmall(t *testing.T, b backend.Backend, key string) *Repository {
	t.Helper()
	r, err := OpenOrInit(t.Context(), b, KeyFile(key), Options{Workers: 4, tuning: tuning{limits: store.Limits{Pack: 64 << 10, Block: 64 << 10}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

func noise(seed uint64, n int) []byte {
	rng := rand.New(rand.NewPCG(seed, 7))
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(rng.Uint32())
	}
	return p
}

func keysOf(t *testing.T, b backend.Backend, prefix backend.Key) (keys []backend.Key) {
	t.Helper()
	for info, err := range b.List(t.Context(), prefix) {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, info.Key)
	}
	return keys
}

// cloneStore returns a store with the same objects.
func cloneStore(t *testing.T, b backend.Backend) *mem.Backend {
	t.Helper()
	c := mem.New()
	for info, err := range b.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		p, err := backend.ReadAll(t.Context(), b, info.Key, 1<<30)
		if err == nil {
			err = c.Put(t.Context(), info.Key, p)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// A memSource is one directory, "data", with these files.
type memSource struct {
	files map[string][]byte // by path below it
	links map[string]uint64 // Node.Link
	open  func(ctx context.Context, path string) error
}

func (s *memSource) Open(context.Context) (source.View, error) { return s, nil }
func (s *memSource) Finish(context.Context) error              { return nil }
func (s *memSource) Close() error                              { return nil }

func (s *memSource) Info() source.Info {
	return source.Info{Kind: manifest.KindFiles, Name: "data", Roots: []manifest.Root{{Name: "data", Path: "/data"}}}
}

func (s *memSource) ReadDir(ctx context.Context, dir string) iter.Seq2[manifest.Node, error] {
	return func(yield func(manifest.Node, error) bool) {
		if dir == "" {
			yield(manifest.Node{Name: "data", Kind: manifest.Dir, Mode: 0o755}, nil)
			return
		}
		nodes := map[string]manifest.Node{}
		for path, data := range s.files {
			rest, in := strings.CutPrefix("data/"+path, dir+"/")
			if name, _, below := strings.Cut(rest, "/"); in && below {
				nodes[name] = manifest.Node{Name: name, Kind: manifest.Dir, Mode: 0o755}
			} else if in {
				nodes[name] = manifest.Node{Name: name, Kind: manifest.File, Mode: 0o644, Size: uint64(len(data)), Link: s.links[path]}
			}
		}
		for _, name := range slices.Sorted(maps.Keys(nodes)) {
			if ctx.Err() != nil {
				yield(manifest.Node{}, ctx.Err())
				return
			}
			if !yield(nodes[name], nil) {
				return
			}
		}
	}
}

func (s *memSource) OpenFile(ctx context.Context, path string) (io.ReadCloser, error) {
	if s.open != nil {
		if err := s.open(ctx, path); err != nil {
			return nil, err
		}
	}
	return &memFile{Reader: bytes.NewReader(s.files[strings.TrimPrefix(path, "data/")])}, nil
}

// A memFile is a file whose blocks of 512 zeros are holes.
type memFile struct{ *bytes.Reader }

func (f *memFile) Close() error { return nil }

func (f *memFile) NextData(off int64) (start, end int64, err error) {
	var block [512]byte
	data := func(at int64) bool {
		n, _ := f.ReadAt(block[:], at)
		return bytes.ContainsFunc(block[:n], func(r rune) bool { return r != 0 })
	}
	for start = off; start < f.Size() && !data(start); {
		start += int64(len(block))
	}
	if start >= f.Size() {
		return 0, 0, io.EOF
	}
	for end = start; end < f.Size() && data(end); {
		end += int64(len(block))
	}
	return start, min(end, f.Size()), nil
}

// TestSkipRestoresTheRest says that with Skip a restore of a repository that
// lost a pack writes all that can be read, and names all that cannot.
func TestSkipRestoresTheRest(t *testing.T) {
	sparse := make([]byte, 12000*1024) // its list of extents has pages in several packs
	for at := 0; at < len(sparse); at += 1024 {
		copy(sparse[at:at+512], noise(uint64(at), 512))
	}
	big := noise(1, 1<<20)
	src := &memSource{
		files: map[string][]byte{"big": big, "d/link": big, "d/small": noise(2, 1000), "sparse": sparse, "tiny": noise(3, 100)},
		links: map[string]uint64{"big": 1, "d/link": 1},
	}
	whole, key := mem.New(), newKeyFile(t)
	r := openSmall(t, whole, key)
	rep, err := r.Backup(t.Context(), src, BackupOptions{})
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[seal.Kind]int{}
	for _, info := range packsOf(t, r) {
		if kinds[info.Kind]++; info.Kind == seal.KindDataPack && kinds[info.Kind]%40 != 1 {
			continue
		}
		for _, segments := range []bool{true, false} {
			t.Run(fmt.Sprintf("%v %d segments %v", info.Kind, kinds[info.Kind], segments), func(t *testing.T) {
				b := cloneStore(t, whole)
				remove(t, b, layout.Pack(info.ID))
				if !segments {
					remove(t, b, keysOf(t, b, layout.Segments)...)
				}
				dst := filepath.Join(t.TempDir(), "out")
				report, err := openSmall(t, b, key).Restore(t.Context(), rep.Snapshot.ID, target.Dir(dst), RestoreOptions{OnError: Skip})
				if !errors.Is(err, ErrIncomplete) {
					if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "list page") { // that of the top
						t.Error(err)
					}
					return
				}
				compareAllBut(t, src, dst, report.Problems)
			})
		}
	}
	if kinds[seal.KindMetaPack] < 3 {
		t.Errorf("%v packs: too few to try anything", kinds)
	}
}

// compareAllBut compares the files in dst with those of src, those excepted
// that are named as problems or lie in a directory that is.
func compareAllBut(t *testing.T, src *memSource, dst string, problems []progress.Problem) {
	t.Helper()
	missed := map[string]bool{}
	for _, p := range problems {
		missed[p.Path] = true
	}
	for path, want := range src.files {
		if missed[path] || missed[filepath.Dir(path)] || missed[""] {
			continue
		}
		got, err := os.ReadFile(filepath.Join(dst, path))
		if err != nil || !bytes.Equal(want, got) {
			t.Errorf("%s differs and is not named: %v", path, problems)
		}
	}
}

func packsOf(t *testing.T, r *Repository) (infos []log.PackInfo) {
	t.Helper()
	_ = r.log.View(func(st *log.State) error {
		for _, info := range st.Packs() {
			infos = append(infos, info)
		}
		return nil
	})
	return infos
}

func remove(t *testing.T, b backend.Backend, keys ...backend.Key) {
	t.Helper()
	for _, key := range keys {
		if err := b.Delete(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
}

// TestPathsThatAreNotThere says that a restore of several paths is incomplete
// if any of them names nothing.
func TestPathsThatAreNotThere(t *testing.T) {
	r := openSmall(t, mem.New(), newKeyFile(t))
	src := &memSource{files: map[string][]byte{"a": {1}, "d/b": {2}, "d/c": {3}}}
	rep, err := r.Backup(t.Context(), src, BackupOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		paths []string
		want  error
	}{
		{[]string{"a", "d/b"}, nil},
		{[]string{"d", "d/b"}, nil},
		{[]string{"d/?", "/"}, nil},
		{[]string{"a", "none"}, ErrIncomplete},
		{[]string{"d/none", "d"}, ErrIncomplete},
		{[]string{"none"}, ErrIncomplete},
	} {
		dst := target.Dir(filepath.Join(t.TempDir(), "out"))
		if _, err := r.Restore(t.Context(), rep.Snapshot.ID, dst, RestoreOptions{Paths: c.paths}); !errors.Is(err, c.want) {
			t.Errorf("%q: %v, want %v", c.paths, err, c.want)
		}
	}
}

// TestFailedRestoreLeavesNothingOpen counts descriptors.
func TestFailedRestoreLeavesNothingOpen(t *testing.T) {
	if _, err := os.ReadDir("/proc/self/fd"); err != nil {
		t.Skip(err)
	}
	b := mem.New()
	r := openSmall(t, b, newKeyFile(t))
	src := &memSource{files: map[string][]byte{}}
	for i := range 20 {
		src.files[fmt.Sprint(i)] = noise(uint64(i), 400_000)
	}
	rep, err := r.Backup(t.Context(), src, BackupOptions{})
	if err != nil {
		t.Fatal(err)
	}
	packs := packsOf(t, r)
	remove(t, b, layout.Pack(packs[len(packs)/2].ID))
	count := func() int {
		fds, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(fds)
	}
	before := count()
	for range 5 {
		dst := filepath.Join(t.TempDir(), "out")
		if _, err := r.Restore(t.Context(), rep.Snapshot.ID, target.Dir(dst), RestoreOptions{}); !errors.Is(err, ErrCorrupt) {
			t.Fatal(err)
		}
		if _, err := os.Lstat(dst); err == nil {
			t.Error("the target is still there")
		}
	}
	if after := count(); after > before {
		t.Errorf("%d descriptors were open, %d are", before, after)
	}
}

// TestFirstErrorEndsBackup says that a file that cannot be read ends a backup at
// once and not only when all the other directories are read, and is its error.
func TestFirstErrorEndsBackup(t *testing.T) {
	for _, bad := range []string{"a/0bad", "m/0bad", "z/0bad"} {
		src := &memSource{files: map[string][]byte{bad: noise(1, 1000)}}
		for i := range 200 {
			src.files[fmt.Sprintf("a/%d", i)] = noise(uint64(i), 1000)
			src.files[fmt.Sprintf("y/%d", i)] = noise(uint64(i), 1000)
		}
		var opened atomic.Int64
		src.open = func(ctx context.Context, path string) error {
			if path == "data/"+bad {
				return &source.Error{Op: "open", Path: path, Err: os.ErrPermission}
			}
			opened.Add(1)
			time.Sleep(5 * time.Millisecond)
			return ctx.Err()
		}
		_, err := openSmall(t, mem.New(), newKeyFile(t)).Backup(t.Context(), src, BackupOptions{})
		if !errors.Is(err, source.ErrSource) || errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v, want the error of the source", bad, err)
		}
		if n := opened.Load(); n > 100 {
			t.Errorf("%s: %d files were opened", bad, n)
		}
	}
}

// onList calls f once, before the packs are listed.
type onList struct {
	backend.Backend
	f func()
}

func (b *onList) List(ctx context.Context, prefix backend.Key) iter.Seq2[backend.Info, error] {
	if f := b.f; f != nil && prefix == layout.Packs {
		b.f = nil
		f()
	}
	return b.Backend.List(ctx, prefix)
}

// TestCheckWhileOthersWrite says that a snapshot that is published during a
// check is no damage.
func TestCheckWhileOthersWrite(t *testing.T) {
	b, key := &onList{Backend: mem.New()}, newKeyFile(t)
	src := &memSource{files: map[string][]byte{"a": noise(1, 100_000)}}
	r, other := openSmall(t, b, key), openSmall(t, b.Backend, key)
	if _, err := r.Backup(t.Context(), src, BackupOptions{}); err != nil {
		t.Fatal(err)
	}
	b.f = func() {
		src.files["b"] = noise(2, 100_000)
		if _, err := other.Backup(t.Context(), src, BackupOptions{}); err != nil {
			t.Error(err)
		}
	}
	report, err := r.Check(t.Context(), CheckOptions{Depth: DepthData})
	if err != nil || len(report.Findings) > 0 {
		t.Errorf("%v, findings %v", err, report.Findings)
	}
}

// badClose is a source whose view cannot be closed properly.
type badClose struct{ *memSource }

func (s badClose) Open(context.Context) (source.View, error) { return s, nil }
func (s badClose) Close() error                              { return errors.New("cannot close") }

// TestCloseAfterCommit says that once a snapshot is visible no error says that
// there is none.
func TestCloseAfterCommit(t *testing.T) {
	r := openSmall(t, mem.New(), newKeyFile(t))
	rep, err := r.Backup(t.Context(), badClose{&memSource{files: map[string][]byte{"a": {1}}}}, BackupOptions{})
	if err != nil {
		t.Error(err)
	}
	if _, err := r.Snapshot(t.Context(), rep.Snapshot.ID.String()); err != nil {
		t.Error(err)
	}
}

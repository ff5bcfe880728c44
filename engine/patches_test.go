//go:build unix

package engine_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/chunk"
	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/engine/target"
	"github.com/cairn-backup/cairn/manifest"
)

// A patchedFile is content made by hand: what a file holds, and the extents that
// give it.
type patchedFile struct {
	bytes []byte
	plan  []patchedExtent
}

type patchedExtent struct {
	manifest.Extent // without ID
	data            []byte
}

// grow appends an extent of every kind but a patch.
func (f *patchedFile) grow(rng *rand.Rand) {
	n := 1 + rng.IntN(40_000)
	if rng.IntN(2) == 0 {
		n = 65_536
	}
	e := manifest.Extent{Kind: manifest.Data, Length: uint64(n)}
	data := random(rng.Uint64(), n)
	switch times := 2 + rng.IntN(3); rng.IntN(6) {
	case 0:
		e, data = manifest.Extent{Kind: manifest.Hole, Length: uint64(n)}, nil
		f.bytes = append(f.bytes, make([]byte, n)...)
	case 1:
		e = manifest.Extent{Kind: manifest.Repeat, Length: uint64(n * times), Count: uint64(times)}
		f.bytes = append(f.bytes, bytes.Repeat(data, times)...)
	default:
		f.bytes = append(f.bytes, data...)
	}
	f.plan = append(f.plan, patchedExtent{e, data})
	if e.Kind == manifest.Data {
		f.patch(rng, n)
	}
}

// patch patches the last extent, of n bytes; sometimes all of it.
func (f *patchedFile) patch(rng *rand.Rand, n int) {
	page := []int{1, 512, 1000, 1024, 4096}[rng.IntN(5)]
	base := len(f.bytes) - n
	at := 0
	for range rng.IntN(17) {
		if at += rng.IntN(3); at*page >= n {
			return
		}
		count := min(1+rng.IntN(3), n/page-at)
		if count <= 0 {
			return
		}
		if rng.IntN(20) == 0 {
			count = n/page - at
		}
		data := random(rng.Uint64(), count*page)
		copy(f.bytes[base+at*page:], data)
		f.plan = append(f.plan, patchedExtent{manifest.Extent{
			Kind: manifest.Patch, First: uint64(at), Count: uint64(count), Length: uint64(len(data)),
		}, data})
		at += count
	}
}

func (f *patchedFile) save(t testing.TB, r *engine.Repository) manifest.ID {
	t.Helper()
	id, err := r.SaveFile(t.Context(), "disk", func(put func([]byte) (chunk.ID, error)) (extents []manifest.Extent, err error) {
		for _, e := range f.plan {
			if e.Kind != manifest.Hole {
				if e.ID, err = put(e.data); err != nil {
					return nil, err
				}
			}
			extents = append(extents, e.Extent)
		}
		return extents, nil
	})
	if err != nil {
		t.Fatalf("SaveFile: %v", err)
	}
	return id
}

// saveSome stores some of the patches ahead, so that a restore comes to them before
// it comes to what they patch.
func (f *patchedFile) saveSome(t testing.TB, r *engine.Repository, rng *rand.Rand) {
	t.Helper()
	var some patchedFile
	for _, e := range f.plan {
		if e.Kind == manifest.Patch && rng.IntN(3) == 0 {
			some.plan = append(some.plan, patchedExtent{manifest.Extent{Kind: manifest.Data, Length: e.Length}, e.data})
		}
	}
	if len(some.plan) > 0 {
		some.save(t, r)
	}
}

// TestPatchesAreRead reads content with patches in every way that content is
// read, and compares with what it was made of.
func TestPatchesAreRead(t *testing.T) {
	r, _ := fresh(t)
	few(t, 12, func(rt *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 7))
		var f patchedFile
		for range 1 + rng.IntN(40) {
			f.grow(rng)
		}
		f.saveSome(t, r, rng)
		id := f.save(t, r)
		readsAt(t, r, id, "disk", f.bytes, rng)
		streams(t, r, id, f.bytes)
		restoresOver(t, r, id, f.bytes, rng)
		mends(t, r, id, &f)
		fits(t, r, id)
	})
	whole(t, r)
}

// TestLostPatchLeavesZeros: a file that lacks a patch is incomplete, and where the
// patch belongs it has zeros, not what was there before; whichever was stored first.
func TestLostPatchLeavesZeros(t *testing.T) {
	base, patch := random(1, 65_536), random(2, 4096)
	chunks := map[string]patchedFile{
		"base":  {plan: []patchedExtent{{manifest.Extent{Kind: manifest.Data, Length: 65_536}, base}}},
		"patch": {plan: []patchedExtent{{manifest.Extent{Kind: manifest.Data, Length: 4096}, patch}}},
	}
	both := patchedFile{plan: []patchedExtent{
		chunks["base"].plan[0], {manifest.Extent{Kind: manifest.Patch, First: 3, Count: 1, Length: 4096}, patch},
	}}
	want := bytes.Clone(base)
	clear(want[3*4096 : 4*4096])
	for _, order := range [][]string{{"base", "patch"}, {"patch", "base"}} {
		t.Run(order[0]+" first", func(t *testing.T) {
			r, b := fresh(t)
			var packs []backend.Key
			for _, name := range order {
				f := chunks[name]
				f.save(t, r)
				data, _ := packKeys(t, r)
				packs = append(packs, slices.DeleteFunc(data, func(key backend.Key) bool { return slices.Contains(packs, key) })...)
			}
			id := both.save(t, r)
			if err := b.Delete(t.Context(), packs[slices.Index(order, "patch")]); err != nil {
				t.Fatal(err)
			}
			dir := filepath.Join(t.TempDir(), "restored")
			report, err := r.Restore(t.Context(), id, target.Dir(dir), engine.RestoreOptions{OnError: engine.Skip})
			if !errors.Is(err, engine.ErrIncomplete) || len(report.Problems) != 1 {
				t.Fatalf("Restore = %v, %+v", err, report.Problems)
			}
			got, err := os.ReadFile(filepath.Join(dir, "disk"))
			if err != nil || !bytes.Equal(got, want) {
				at := 0
				for at < min(len(got), len(want)) && got[at] == want[at] {
					at++
				}
				t.Fatalf("%d bytes, wrong at %d, %v", len(got), at, err)
			}
		})
	}
}

// readsAt reads random ranges by io/fs, small ones one behind the other as well.
func readsAt(t testing.TB, r *engine.Repository, id manifest.ID, name string, want []byte, rng *rand.Rand) {
	t.Helper()
	view, err := r.FS(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := readAll(view, name); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("read: %v, the right bytes: %t", err, bytes.Equal(got, want))
	}
	f, err := view.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	at := 0
	for range 60 {
		if at += rng.IntN(3000); rng.IntN(3) == 0 || at > len(want) {
			at = rng.IntN(len(want) + 1)
		}
		p := make([]byte, 1+rng.IntN([]int{500, 9000, 300_000}[rng.IntN(3)]))
		n, err := f.(io.ReaderAt).ReadAt(p, int64(at))
		if end := min(at+len(p), len(want)); n != end-at || !bytes.Equal(p[:n], want[at:end]) || (err == nil) != (n == len(p)) {
			t.Fatalf("ReadAt(%d bytes, %d) = %d, %v; the right bytes: %t", len(p), at, n, err, bytes.Equal(p[:n], want[at:end]))
		}
		at += n
	}
}

func streams(t testing.TB, r *engine.Repository, id manifest.ID, want []byte) {
	t.Helper()
	var out bytes.Buffer
	if _, err := r.Restore(t.Context(), id, target.Tar(&out), engine.RestoreOptions{}); err != nil {
		t.Fatal(err)
	}
	tr := tar.NewReader(&out)
	for {
		h, err := tr.Next()
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			break
		}
	}
	if got, err := io.ReadAll(tr); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("tar: %v, the right bytes: %t", err, bytes.Equal(got, want))
	}
}

// restoresOver restores to nothing, over the same, and over what differs a
// little: what is right already is kept, and said to be.
func restoresOver(t testing.TB, r *engine.Repository, id manifest.ID, want []byte, rng *rand.Rand) {
	t.Helper()
	dir := restore(t, r, id)
	path := filepath.Join(dir, "disk")
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("restored: %v, the right bytes: %t", err, bytes.Equal(got, want))
	}
	over := func(dry bool) engine.RestoreReport { return restoreOver(t, r, id, dir, dry) }
	for _, dry := range []bool{true, false} {
		if rep := over(dry); rep.Changes.Unchanged != 1 || rep.Changes.Replaced+rep.Changes.Mended != 0 {
			t.Fatalf("over the same, dry run %t: %+v", dry, rep.Changes)
		}
	}
	other := bytes.Clone(want)
	at := rng.IntN(len(other))
	end := min(at+1+rng.IntN(30_000), len(other))
	for i := at; i < end; i++ {
		other[i] ^= 0x55
	}
	update(t, dir, map[string][]byte{"disk": other})
	for _, dry := range []bool{true, false} {
		rep := over(dry)
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) == !dry {
			t.Fatalf("over another file, dry run %t: %v, the right bytes: %t", dry, err, bytes.Equal(got, want))
		}
		if rep.Changes.Unchanged != 0 || rep.Changes.Replaced+rep.Changes.Mended != 1 {
			t.Fatalf("over another file, dry run %t: %+v", dry, rep.Changes)
		}
	}
}

// restoreOver restores to dir whatever is there.
func restoreOver(t testing.TB, r *engine.Repository, id manifest.ID, dir string, dry bool) engine.RestoreReport {
	t.Helper()
	dst := target.Dir(dir)
	dst.Overwrite, dst.DryRun = target.Changed, dry
	report, err := r.Restore(t.Context(), id, dst, engine.RestoreOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// mends restores over what the file would be without its patches, of which
// everything but what they replace is kept.
func mends(t testing.TB, r *engine.Repository, id manifest.ID, f *patchedFile) {
	t.Helper()
	var old []byte
	patches, base := 0, 0
	for _, e := range f.plan {
		if e.Kind != manifest.Patch {
			base = len(old)
		}
		switch e.Kind {
		case manifest.Hole:
			old = append(old, make([]byte, e.Length)...)
		case manifest.Patch:
			at := base + int(e.First*(e.Length/e.Count))
			if !bytes.Equal(old[at:at+len(e.data)], e.data) { // one byte may be the same by chance
				patches += len(e.data)
			}
		default:
			old = append(old, bytes.Repeat(e.data, max(int(e.Count), 1))...)
		}
	}
	dir := write(t, map[string][]byte{"disk": old})
	report := restoreOver(t, r, id, dir, false)
	if got, err := os.ReadFile(filepath.Join(dir, "disk")); err != nil || !bytes.Equal(got, f.bytes) {
		t.Fatalf("mended: %v, the right bytes: %t", err, bytes.Equal(got, f.bytes))
	}
	holes := 0
	for _, e := range f.plan {
		if e.Kind == manifest.Hole {
			holes += int(e.Length)
		}
	}
	if want := len(f.bytes) - patches - holes; report.BytesKept != uint64(want) {
		t.Fatalf("%d bytes were kept, want %d", report.BytesKept, want)
	}
}

// fits restores where the room is just what the content takes: patches take none.
func fits(t testing.TB, r *engine.Repository, id manifest.ID) {
	t.Helper()
	snap, err := r.Snapshot(t.Context(), id.String())
	if err != nil {
		t.Fatal(err)
	}
	need, err := r.Need(t.Context(), snap)
	if err != nil || need.Bytes > snap.Stats.Bytes {
		t.Fatalf("need %d bytes for a file of %d: %v", need.Bytes, snap.Stats.Bytes, err)
	}
}

// part returns some of the extents, with their patches.
func (f *patchedFile) part(rng *rand.Rand) (some patchedFile) {
	taken, length := false, 0
	for _, e := range f.plan {
		if e.Kind != manifest.Patch {
			taken = e.Kind == manifest.Data && rng.IntN(2) == 0
			length = int(e.Length)
		}
		if !taken {
			continue
		}
		some.plan = append(some.plan, e)
		if e.Kind == manifest.Data {
			some.bytes = append(some.bytes, e.data...)
		} else {
			copy(some.bytes[len(some.bytes)-length+int(e.First*(e.Length/e.Count)):], e.data)
		}
	}
	return some
}

// TestPatchesAreChecked counts what a check asks for.
func TestPatchesAreChecked(t *testing.T) {
	r, _ := fresh(t)
	rng := rand.New(rand.NewPCG(5, 5))
	var f patchedFile
	for range 30 {
		f.grow(rng)
	}
	f.save(t, r)
	want, patches := uint64(0), 0
	for _, e := range f.plan {
		if e.Kind != manifest.Hole {
			want++
		}
		if e.Kind == manifest.Patch {
			patches++
		}
	}
	report, err := r.Check(t.Context(), engine.CheckOptions{})
	if err != nil || patches == 0 || report.Chunks != want {
		t.Fatalf("Check asked for %d chunks, want %d of which %d are patches: %v", report.Chunks, want, patches, err)
	}
}

// TestPatchesSurviveCollection: what only patches name is in use.
func TestPatchesSurviveCollection(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	r, _ := fresh(t)
	var files []patchedFile
	var ids []manifest.ID
	for range 6 {
		var f patchedFile
		if n := len(files); n > 0 {
			f = files[n-1].part(rng)
		}
		for range 12 {
			f.grow(rng)
		}
		files, ids = append(files, f), append(ids, f.save(t, r))
	}
	if err := r.Delete(t.Context(), ids[1], ids[2], ids[4]); err != nil {
		t.Fatal(err)
	}
	if report := gc(t, r, atOnce); report.Deletes() == 0 || report.Repacked.Bytes == 0 {
		t.Fatalf("the collection did too little: %+v", report)
	}
	for _, i := range []int{0, 3, 5} {
		readsAt(t, r, ids[i], "disk", files[i].bytes, rng)
	}
	whole(t, r)
}

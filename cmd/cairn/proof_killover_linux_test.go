package main

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// overWorld is a snapshot, and what stands where it is restored to: files that
// are the same, others, missing ones and more, and large ones that share chunks
// with those of the snapshot.
type overWorld struct {
	program
	id     string
	before string // a directory with what is there
	old    tree
	want   tree
	large  string // a file that is mended in place
	whole  time.Duration
}

func newOverWorld(t *testing.T) *overWorld {
	t.Helper()
	p := newProgram(t)
	w := &overWorld{program: p, before: p.at("before"), large: "large"}
	src := p.at("src")
	fillTree(t, src, scale[int64](4, 8, 40)*mib, 6)
	fillTree(t, filepath.Join(src, "lot"), mib, 7)
	must(t, os.WriteFile(filepath.Join(src, w.large), bytes.Repeat([]byte("a page of a database, as it was, or so it seems\n"), 1<<18), 0o644))
	p.exits(0, "init")
	w.id = p.backup(src)
	w.want = readTree(t, src)

	copyTree(t, src, w.before)
	must(t, os.RemoveAll(filepath.Join(w.before, "d1")))
	fillTree(t, filepath.Join(w.before, "d2"), mib, 8)
	fillTree(t, filepath.Join(w.before, "more"), mib, 9)
	f, err := os.OpenFile(filepath.Join(w.before, w.large), os.O_RDWR, 0)
	must(t, err)
	for off := int64(0); off < 12*mib; off += mib {
		_, err := f.WriteAt([]byte("changed"), off)
		must(t, err)
	}
	must(t, f.Close())
	w.old = readTree(t, w.before)
	return w
}

// reset puts what was there before to where the restore goes, and returns that.
func (w *overWorld) reset() string {
	w.t.Helper()
	target := w.at("place/target")
	must(w.t, os.RemoveAll(filepath.Dir(target)))
	copyTree(w.t, w.before, target)
	return target
}

// late is a moment of the part of a restore in which something is written, or
// right behind it.
func (w *overWorld) late(r *rand.Rand) time.Duration {
	return w.whole/4 + time.Duration(r.Int64N(int64(w.whole)*4/5))
}

// TestKillOverwrite kills restores over content. Every file is the old one or
// the new one, but for a large one that is mended in place and what is not
// finished under a name of its own; and a second restore gives the snapshot,
// nothing more and nothing less.
func TestKillOverwrite(t *testing.T) {
	t.Parallel()
	r := seeded(t)
	w := newOverWorld(t)
	args := func(target string) []string {
		return []string{"restore", w.id, "--target", target, "--overwrite=changed", "--delete"}
	}
	w.whole = w.exits(0, args(w.reset())...).took
	killed, halfway := 0, 0
	for round := 0; round < scale(2, 4, 25) || killed == 0 && round < 30; round++ {
		target := w.reset()
		res := w.start(args(target)...).killAfter(w.late(r))
		if res.code == -1 {
			killed++
		} else {
			w.whole = w.whole * 3 / 4 // it was measured when the machine had more to do
		}
		olds, news := w.eachIsOldOrNew(target)
		if olds > 0 && news > 0 {
			halfway++
		}
		w.exits(0, args(target)...)
		w.want.compare(t, "a second restore", readTree(t, target))
	}
	t.Logf("%d were killed in time, %d of them halfway", killed, halfway)
	if killed == 0 {
		t.Error("none was killed in time: nothing is shown")
	}
}

// eachIsOldOrNew compares the content of each file with the old and the new one
// and counts those that differ between the two.
func (w *overWorld) eachIsOldOrNew(target string) (olds, news int) {
	w.t.Helper()
	for path, got := range contents(w.t, target) {
		if path == w.large || strings.HasPrefix(filepath.Base(path), ".cairn-") {
			continue
		}
		old, hasOld := readFile(filepath.Join(w.before, path))
		want, hasNew := readFile(filepath.Join(w.at("src"), path))
		switch {
		case hasOld && hasNew && bytes.Equal(old, want) && bytes.Equal(got, old):
		case hasOld && bytes.Equal(got, old):
			olds++
		case hasNew && bytes.Equal(got, want):
			news++
		case !hasOld: // it was new, and is not finished
		default:
			w.t.Errorf("%s is neither the old nor the new one", path)
		}
	}
	return olds, news
}

func readFile(path string) ([]byte, bool) {
	data, err := os.ReadFile(path)
	return data, err == nil
}

// contents reads the files of a tree.
func contents(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	files := make(map[string][]byte)
	must(t, filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		files[rel], err = os.ReadFile(path)
		return err
	}))
	return files
}

// TestKillInPlace kills restores in place. After swap --recover the old tree or
// the new one stands there, whole; before it, one of the two or, where names
// cannot be exchanged, nothing. A second restore gives the snapshot.
func TestKillInPlace(t *testing.T) {
	t.Parallel()
	r := seeded(t)
	w := newOverWorld(t)
	src := w.at("src")
	must(t, os.Rename(src, w.at("copy")))
	args := []string{"restore", w.id, "--in-place"}
	put := func() {
		must(t, os.RemoveAll(src))
		must(t, os.RemoveAll(w.at(".src.cairn-old")))
		copyTree(t, w.before, src)
	}
	put()
	w.whole = w.exits(0, args...).took
	olds, news := 0, 0
	for round := 0; round < scale(2, 4, 25) || olds == 0 && round < 30; round++ {
		put()
		if res := w.start(args...).killAfter(w.late(r)); res.code != -1 {
			w.whole = w.whole * 3 / 4
		}
		old, err := os.ReadFile(filepath.Join(src, w.large))
		must(t, err)
		w.exits(0, "swap", "--recover", src)
		now, err := os.ReadFile(filepath.Join(src, w.large))
		must(t, err)
		if !bytes.Equal(old, now) {
			t.Error("what stood there was exchanged after the kill")
		}
		got := contents(t, src)
		switch {
		case sameContents(got, contents(t, w.before)):
			olds++
		case sameContents(got, contents(t, w.at("copy"))):
			news++
		default:
			t.Fatal("what stands there is neither the old nor the new tree")
		}
		w.exits(0, args...)
		w.want.compare(t, "a second restore", readTree(t, src))
	}
	t.Logf("%d times the old tree, %d times the new one", olds, news)
	if olds == 0 {
		t.Error("none was killed in time: nothing is shown")
	}
}

func sameContents(a, b map[string][]byte) bool {
	if len(a) != len(b) {
		return false
	}
	for path, data := range a {
		if other, there := b[path]; !there || !bytes.Equal(data, other) {
			return false
		}
	}
	return true
}

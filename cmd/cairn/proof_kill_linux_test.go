package main

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestKillBackup kills a backup at random moments. After each the repository
// holds no damage, what had been reported as done is restored as it was, and
// the next backup completes and stores again no more than what no record named
// when the first was killed.
func TestKillBackup(t *testing.T) {
	t.Parallel()
	r := seeded(t)
	p := newProgram(t)
	size := scale[int64](80, 96, 160) * mib
	fillTree(t, p.at("small"), 2*mib, 1)
	fillTree(t, p.at("large"), size, 2)
	small, large := readTree(t, p.at("small")), readTree(t, p.at("large"))

	p.exits(0, "init")
	whole := p.run("backup", "--json", p.at("large"))
	once := p.packBytes() // what the large tree takes if nothing happens
	must(t, os.RemoveAll(p.repo))
	t.Logf("whole backup: %v, %d MiB of packs", whole.took, once/mib)

	p.exits(0, "init")
	first := p.backup(p.at("small"))
	before := p.packBytes()
	must(t, os.Rename(p.repo, p.at("base")))
	must(t, os.Rename(p.cache, p.at("basecache")))
	published, killed := 0, 0
	for round := range scale(3, 6, 120) {
		k := killRound{program: p, first: first, small: small, large: large, whole: whole.took, before: before, once: once}
		k.run(round, killMoment(r, round, whole.took, once))
		if k.killed {
			killed++
		}
		if k.recorded > 0 {
			published++
		}
		if t.Failed() {
			t.Fatalf("round %d", round)
		}
	}
	t.Logf("%d were killed in time, %d of them after a record", killed, published)
	if killed == 0 || killed >= 4 && published == 0 {
		t.Errorf("%d were killed in time, %d of them after a record: nothing is shown", killed, published)
	}
}

// A moment is when to kill: once so many bytes of packs are stored, if that is
// not 0, and after a while.
type moment struct {
	bytes int64
	after time.Duration
}

// killMoment is a random moment of a backup that takes some time. Every other
// one is told by what is stored, since on a busy machine time tells little.
func killMoment(r *rand.Rand, round int, whole time.Duration, packs int64) moment {
	if round%2 == 0 {
		return moment{packs*65/100 + r.Int64N(packs*35/100), time.Duration(r.Int64N(int64(30 * time.Millisecond)))}
	}
	return moment{0, time.Duration(r.Int64N(int64(whole)))}
}

type killRound struct {
	program
	first        string // a snapshot of the small tree that was there before
	small, large tree
	whole        time.Duration // that a backup of the large tree takes
	before, once int64         // bytes of packs: at first, and that the large tree takes

	killed   bool
	recorded int64 // bytes of packs that records of the unfinished backup named after the kill
}

func (k *killRound) run(round int, m moment) {
	t := k.t
	copyTree(t, k.at("base"), k.repo)
	copyTree(t, k.at("basecache"), k.cache)
	defer func() {
		must(t, os.RemoveAll(k.repo))
		must(t, os.RemoveAll(k.cache))
	}()
	done := []string{k.first}
	s := k.start("backup", "--json", k.at("large"))
	for k.packBytes()-k.before < m.bytes && time.Since(s.begin) < k.whole {
		time.Sleep(time.Millisecond)
	}
	r := s.killAfter(m.after)
	k.killed = r.code != 0
	if k.killed && r.code != -1 {
		t.Fatalf("killed at %v: %v", m, r)
	}
	lost := k.check()
	ids := k.snapshots()
	if k.killed && len(ids) == 1 {
		k.recorded = k.packBytes() - k.before - lost
	}
	// The limit is 64 MiB that wait to be recorded, two packs of at most 20 MiB
	// that are put meanwhile, and as much again while a record is written.
	if limit := int64(64+4*20+8) * mib; lost > limit {
		t.Errorf("killed at %v: %d MiB are stored that no record names, want at most %d", m, lost/mib, limit/mib)
	}
	if round%3 == 2 {
		must(t, os.RemoveAll(k.cache)) // caches are hints
	}
	k.restores(k.first, k.small)
	if r.reported() {
		id := snapshotOfOutput(t, r)
		done = append(done, id)
		k.restores(id, k.large)
	} else if len(ids) == 2 {
		// Recorded, and killed before it could say so: as good as the others.
		done = ids
	}
	second := k.backup(k.at("large"))
	done = append(done, second)
	if got := k.snapshots(); !sameIDs(got, done) {
		t.Errorf("killed at %v: the snapshots are %v, want %v", m, got, done)
	}
	// Pads and the trees of the two runs differ: some per cent.
	total, limit := k.packBytes()-k.before, k.once+lost+k.once*4/100+4*mib
	t.Logf("round %d: killed at %v: %d MiB recorded, %d MiB not, %d MiB in the end", round, m, k.recorded/mib, lost/mib, total/mib)
	if total > limit {
		t.Errorf("killed at %v: %d MiB of packs in the end, want at most %d", m, total/mib, limit/mib)
	}
	k.exits(0, "check")
	k.restores(second, k.large) // which reads every byte that counts
}

// TestKillRestore kills restores. What they leave is a partial target, which no
// other restore touches; a new one to a new place is right.
func TestKillRestore(t *testing.T) {
	t.Parallel()
	r := seeded(t)
	p := newProgram(t)
	fillTree(t, p.at("src"), scale[int64](10, 30, 200)*mib, 3)
	want := readTree(t, p.at("src"))
	p.exits(0, "init")
	id := p.backup(p.at("src"))
	whole := p.exits(0, "restore", id, "--target", p.at("whole")).took
	for range scale(2, 4, 20) {
		target := p.at("target")
		res := p.start("restore", id, "--target", target).killAfter(time.Duration(r.Int64N(int64(whole))))
		if res.code == -1 && exists(filepath.Join(target, "d0")) {
			p.says(1, "not empty", "restore", id, "--target", target)
		}
		p.restores(id, want)
		must(t, os.RemoveAll(target))
	}
	p.check()
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// TestKillInit kills inits. A second one completes, or finds a repository that
// opens with the key that the first had written.
func TestKillInit(t *testing.T) {
	t.Parallel()
	r := seeded(t)
	p := newProgram(t)
	fillTree(t, p.at("src"), mib/2, 4)
	want := readTree(t, p.at("src"))
	whole := p.exits(0, "init").took
	for range scale(3, 5, 30) {
		must(t, os.RemoveAll(p.repo))
		must(t, os.RemoveAll(p.key))
		p.start("init").killAfter(time.Duration(r.Int64N(int64(whole) * 5 / 4)))
		if res := p.run("init"); res.code != 0 && res.code != 1 {
			t.Fatalf("init after a killed one: %v", res)
		}
		p.restores(p.backup(p.at("src")), want)
		p.check()
	}
}

// TestKillChange kills what changes a repository in one step: the step is taken
// or it is not.
func TestKillChange(t *testing.T) {
	t.Parallel()
	r := seeded(t)
	p := newProgram(t)
	fillTree(t, p.at("src"), mib, 5)
	want := readTree(t, p.at("src"))
	p.exits(0, "init")
	kept := p.backup(p.at("src"))
	rounds := scale(2, 3, 15)
	whole := p.exits(0, "key", "list").took * 2

	t.Run("delete", func(t *testing.T) {
		p := p
		p.t = t
		for range rounds {
			id := p.backup(p.at("src"))
			res := p.start("delete", id).killAfter(time.Duration(r.Int64N(int64(whole))))
			left := p.snapshots()
			if n := len(left); n > 2 || n == 2 && (left[1] != id || res.code == 0) || left[0] != kept {
				t.Fatalf("after a killed delete of %s: %v; %v", id, left, res)
			}
			if len(left) == 2 {
				p.restores(id, want)
				p.exits(0, "delete", id)
			}
			p.check()
		}
		p.restores(kept, want)
	})
	t.Run("key add", func(t *testing.T) {
		p := p
		p.t = t
		second := p
		second.key = p.at("second")
		for range rounds {
			res := p.start("key", "add", "--new-key-file", second.key).killAfter(time.Duration(r.Int64N(int64(whole))))
			switch opened := second.run("snapshots"); {
			case opened.code == 0:
			case res.code == 0:
				t.Fatalf("a key was added and opens nothing: %v", opened)
			case opened.code != exitWrongKey && opened.code != exitUsage:
				t.Fatalf("a key that was being added: %v", opened)
			}
			p.exits(0, "key", "list")
			p.check()
			must(t, os.RemoveAll(second.key))
		}
		p.exits(0, "key", "add", "--new-key-file", second.key)
		second.restores(kept, want)
	})
}

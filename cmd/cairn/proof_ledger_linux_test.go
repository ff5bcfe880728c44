package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// envPercent is how much of its full length a proof has that can be shortened,
// in per cent, where everything is to be proven. What it writes says how much
// was done.
const envPercent = "CAIRN_PERCENT"

// rounds is scale, of which CAIRN_PERCENT leaves a part.
func rounds(t *testing.T, short, normal, full int) int {
	t.Helper()
	n := scale(short, normal, full)
	s := os.Getenv(envPercent)
	if s == "" || os.Getenv(envProve) == "" {
		return n
	}
	percent, err := strconv.Atoi(s)
	must(t, err)
	return max(1, n*percent/100)
}

// A ledger runs the program on one data set that changes, and knows what the
// repository must hold of it: by what commands reported, and by nothing else.
type ledger struct {
	program
	rng  *rand.Rand
	src  string
	host string
	done map[string]tree // snapshots that were reported, by id
	// open are the trees of backups that did not come to say how they ended, and
	// wanted the snapshots that a command was to delete.
	open   []tree
	wanted map[string]bool

	order  []string // of the snapshots in done
	story  []string // what the last commands did
	counts map[string]int
}

func newLedger(p program, rng *rand.Rand, name string) *ledger {
	l := &ledger{
		program: p, rng: rng, src: p.at(name), host: name, done: make(map[string]tree), wanted: make(map[string]bool),
		counts: make(map[string]int),
	}
	fillTree(p.t, l.src, 3*mib, byte(rng.Uint32()))
	return l
}

// change changes the data set: some files get other content, some go, some come.
func (l *ledger) change() {
	files, err := filepath.Glob(filepath.Join(l.src, "*", "*"))
	must(l.t, err)
	for range 1 + l.rng.IntN(8) {
		path := files[l.rng.IntN(len(files))]
		data := make([]byte, 100+l.rng.IntN(40_000))
		for i := range data {
			data[i] = byte(l.rng.Uint32())
		}
		switch l.rng.IntN(4) {
		case 0:
			path = filepath.Join(filepath.Dir(path), fmt.Sprintf("new%d", l.rng.IntN(50)))
			must(l.t, os.WriteFile(path, data, 0o600))
		case 1:
			if len(files) > 30 {
				_ = os.Remove(path) // it may be gone
			}
		default:
			must(l.t, os.WriteFile(path, data, 0o600))
		}
	}
}

// tell keeps what a command did, for whoever has to find out what went wrong.
func (l *ledger) tell(r result) result {
	l.story = append(l.story, r.String())
	l.story = l.story[max(0, len(l.story)-8):]
	return r
}

// A runner runs a command to whatever end.
type runner func(args ...string) result

// backs backs the data set up.
func (l *ledger) backs(run runner) result {
	l.t.Helper()
	want := readTree(l.t, l.src)
	r := l.tell(run("backup", "--json", "--host", l.host, l.src))
	l.counts["backup"]++
	switch {
	case r.reported() && !strings.Contains(r.stdout, `"error"`):
		id := snapshotOfOutput(l.t, r)
		l.done[id], l.order = want, append(l.order, id)
	case r.code == 0:
		l.t.Fatalf("a backup ended well and reported nothing: %v", r)
	default:
		l.open = append(l.open, want)
	}
	return r
}

// forgets keeps the newest snapshots, or deletes one of the older.
func (l *ledger) forgets(run runner) result {
	l.t.Helper()
	args := []string{"forget", "--keep-last", "2", "--host", l.host}
	old := slices.DeleteFunc(slices.Clone(l.order[:max(0, len(l.order)-2)]), func(id string) bool { return l.wanted[id] })
	if len(old) > 0 && l.rng.IntN(2) == 0 {
		old = old[:1]
		args = []string{"delete", old[0]}
	}
	for _, id := range old {
		l.wanted[id] = true
	}
	l.counts["forget"]++
	return l.tell(run(args...))
}

// collects frees what it may, without any delay.
func (l *ledger) collects(run runner) result {
	l.t.Helper()
	l.counts["gc"]++
	return l.tell(run("gc", "--spare", "0", "--keep-deleted", "0", "--dead-share", "1%", "--walk", "--sweep"))
}

// restoresOne restores one of the snapshots and compares it, if run comes to
// its end.
func (l *ledger) restoresOne(run runner) result {
	l.t.Helper()
	there := slices.DeleteFunc(slices.Clone(l.order), func(id string) bool { return l.wanted[id] })
	id := there[l.rng.IntN(len(there))]
	dir, err := os.MkdirTemp(l.dir, "restored-")
	must(l.t, err)
	defer os.RemoveAll(dir)
	r := run("restore", id, "--target", dir)
	l.counts["restore"]++
	if r.code == 0 {
		l.done[id].compare(l.t, "snapshot "+id[:8], readTree(l.t, dir))
	}
	return r
}

// settle finds out what became of commands that did not say how they ended, and
// fails if anything is missing that was reported, or there that nobody made.
func (l *ledger) settle() {
	l.t.Helper()
	there := l.snapshotsOf(l.host)
	for _, id := range slices.Clone(l.order) {
		if slices.Contains(there, id) {
			continue
		}
		if !l.wanted[id] {
			l.t.Fatalf("snapshot %s was reported, nobody deleted it, and it is not there: %v of %v\n%s", id, there, l.order, strings.Join(l.story, "\n"))
		}
		delete(l.done, id)
		l.order = slices.DeleteFunc(l.order, func(o string) bool { return o == id })
	}
	clear(l.wanted)
	for _, id := range there {
		if _, known := l.done[id]; !known {
			l.adopt(id)
		}
	}
	l.open = nil
}

// snapshotsOf returns the ids of one host's snapshots, oldest first.
func (l *ledger) snapshotsOf(host string) (ids []string) {
	l.t.Helper()
	doc := lastDocument[struct{ Snapshots []struct{ ID, Host string } }](l.t, l.exits(0, "snapshots", "--json"))
	for _, s := range doc.Snapshots {
		if s.Host == host {
			ids = append(ids, s.ID)
		}
	}
	return ids
}

// adopt takes a snapshot for done that no command reported: it must be what one
// of the interrupted backups read.
func (l *ledger) adopt(id string) {
	l.t.Helper()
	dir, err := os.MkdirTemp(l.dir, "restored-")
	must(l.t, err)
	defer os.RemoveAll(dir)
	l.exits(0, "restore", id, "--target", dir)
	got := readTree(l.t, dir)
	for _, want := range l.open {
		if want.equal(got) {
			l.done[id], l.order = want, append(l.order, id)
			l.counts["unreported"]++
			return
		}
	}
	l.t.Fatalf("snapshot %s is there, and none of %d interrupted backups read that", id, len(l.open))
}

// whole checks the repository and restores every snapshot.
func (l *ledger) whole() {
	l.t.Helper()
	l.settle()
	l.check()
	for _, id := range l.order {
		l.restores(id, l.done[id])
		l.counts["compared"]++
	}
}

// someMoment is a random moment of a command that takes about so long.
func (l *ledger) someMoment(whole time.Duration) time.Duration {
	return time.Duration(l.rng.Int64N(int64(whole) * 11 / 10))
}

// equal reports whether got is tr.
func (tr tree) equal(got tree) bool {
	if len(tr) != len(got) {
		return false
	}
	for path, want := range tr {
		if g, ok := got[path]; !ok || !g.is(want) {
			return false
		}
	}
	return true
}

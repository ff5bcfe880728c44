package main

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestSoak runs cycles of change, backup, restore, deletion and collection on
// one repository, in several processes at once, each of which has a data set of
// its own. Every snapshot that is restored is compared with what was backed up,
// and in the end all that are left.
func TestSoak(t *testing.T) {
	t.Parallel()
	p := inMemory(t)
	rng := seeded(t)
	p.exits(0, "init")
	const workers = 3
	cycles := rounds(t, 2, 3, 700)
	ledgers := make([]*ledger, workers)
	for i := range ledgers {
		own := p
		own.cache = p.at(fmt.Sprintf("cache%d", i%2)) // two of them share one
		ledgers[i] = newLedger(own, rand.New(rand.NewPCG(rng.Uint64(), 1)), fmt.Sprintf("data%d", i))
	}
	t.Run("processes", func(t *testing.T) { // which ends when all of them have
		for i, l := range ledgers {
			t.Run(strconv.Itoa(i), func(t *testing.T) {
				t.Parallel()
				l.t = t
				for n := range cycles {
					l.cycle(i, n)
				}
			})
		}
	})
	if t.Failed() {
		return
	}
	total := make(map[string]int)
	for _, l := range ledgers {
		l.t = t
		l.settle()
		for _, id := range l.order {
			l.restores(id, l.done[id])
			l.counts["compared in the end"]++
		}
		for what, n := range l.counts {
			total[what] += n
		}
	}
	p.check()
	t.Logf("%d cycles: %v", workers*cycles, total)
	t.Attr("rounds", strconv.Itoa(workers*cycles))
	t.Attr("counts", countsLine(total))
}

// staleGC is what a collection says of which nothing was left to do.
var staleGC = regexp.MustCompile("changed since the plan was made")

// cycle is one cycle of one of several processes.
func (l *ledger) cycle(worker, n int) {
	l.t.Helper()
	must := func(r result) {
		l.t.Helper()
		if r.code != 0 {
			l.t.Fatal(r)
		}
	}
	l.change()
	must(l.backs(l.run))
	if l.rng.IntN(3) == 0 {
		must(l.restoresOne(l.run))
	}
	if l.rng.IntN(3) == 0 {
		must(l.forgets(l.run))
		l.settle()
	}
	// A collection may find that the others were faster with all that it planned.
	if (n+worker)%3 == 0 {
		if r := l.collects(l.run); r.code != 0 && !staleGC.MatchString(r.stderr) {
			l.t.Fatal(r)
		} else if r.code != 0 {
			l.counts["stale gc"]++
		}
	}
	// So may a check that a busy machine keeps from its end for long enough.
	if l.rng.IntN(40) == 0 {
		if r := l.run("check", "--read-data"); r.code == 0 {
			l.counts["check"]++
		} else if r.code == 1 && strings.Contains(r.stderr, "packs are collected again and again") {
			l.counts["overtaken check"]++
		} else {
			l.t.Fatal(r)
		}
	}
}

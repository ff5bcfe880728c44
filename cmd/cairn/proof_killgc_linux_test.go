package main

import (
	"fmt"
	"os"
	"testing"
	"time"
)

// TestKillAny kills backups, deletions, collections and restores at random
// moments. After each the repository holds no damage, what had been reported as
// done is there, and what was restored is what was backed up.
func TestKillAny(t *testing.T) {
	t.Parallel()
	p := inMemory(t)
	l := newLedger(p, seeded(t), "src")
	p.exits(0, "init")
	steps := []struct {
		name string
		do   func(runner) result
	}{{"backup", l.backs}, {"forget", l.forgets}, {"gc", l.collects}, {"restore", l.restoresOne}}
	took := make(map[string]time.Duration)
	for range 4 { // unharmed, so that there is something of everything
		l.change()
		for _, s := range steps {
			r := s.do(p.run)
			if r.code != 0 {
				t.Fatal(r)
			}
			took[s.name] = max(took[s.name], r.took)
		}
		l.settle()
	}
	killed, tried, want := 0, 0, rounds(t, 6, 20, 1000)
	for ; killed < want && tried < 10*want; tried++ {
		s := steps[tried%len(steps)]
		moment := l.someMoment(took[s.name])
		r := s.do(func(args ...string) result { return p.start(args...).killAfter(moment) })
		if r.code == -1 {
			killed++
			l.counts["killed "+s.name]++
		} else if r.code != 0 {
			t.Fatal(r)
		}
		l.settle()
		if tried%8 == 7 || r.code == -1 && s.name == "gc" {
			l.whole()
		}
		switch s.name {
		case "restore":
			l.change()
			if l.rng.IntN(4) == 0 {
				must(t, os.RemoveAll(p.cache)) // caches are hints
			}
			if r := l.backs(p.run); r.code != 0 { // so that there always is a whole one
				t.Fatal(r)
			}
		case "gc":
			if r := l.collects(p.run); r.code != 0 {
				t.Fatal(r)
			}
		}
	}
	l.whole()
	l.report(t, killed)
	if killed < want {
		t.Errorf("only %d of %d commands were killed in time", killed, tried)
	}
}

// report says what happened, for people and for docs/reliability.md.
func (l *ledger) report(t *testing.T, rounds int) {
	t.Helper()
	t.Logf("%d rounds: %v", rounds, l.counts)
	t.Attr("rounds", fmt.Sprint(rounds))
	t.Attr("counts", countsLine(l.counts))
}

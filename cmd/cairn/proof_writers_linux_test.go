package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestWriters lets several processes write into one repository at once. There
// are no locks, so all of them succeed, and all that they say is there is there.
func TestWriters(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name       string
		processes  int
		sameSource bool
		sameCache  bool
	}{
		{"two, other sources, other caches", 2, false, false},
		{"two, other sources, one cache", 2, false, true},
		{"two, one source, other caches", 2, true, false},
		{"two, one source, one cache", 2, true, true},
		{"three, other sources, other caches", 3, false, false},
		{"three, other sources, one cache", 3, false, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newProgram(t)
			var sources []string
			var want []tree
			for i := range tt.processes {
				if tt.sameSource {
					i = 0
				}
				sources = append(sources, p.at(fmt.Sprintf("src%d", i)))
				if !exists(sources[len(sources)-1]) {
					fillTree(t, sources[i], scale[int64](4, 4, 150)*mib, byte(10+i))
					// A part that all of them have.
					fillTree(t, filepath.Join(sources[i], "same"), mib, 9)
				}
				want = append(want, readTree(t, sources[len(sources)-1]))
			}
			p.exits(0, "init")
			var all []string
			restored := make(map[string]tree)
			for range scale(1, 2, 5) {
				var running []*started
				for i := range tt.processes {
					q := p
					if !tt.sameCache {
						q.cache = p.at(fmt.Sprintf("cache%d", i))
					}
					running = append(running, q.start("backup", "--json", sources[i]))
				}
				for i, s := range running {
					r := s.wait()
					if r.code != 0 {
						t.Fatal(r)
					}
					id := snapshotOfOutput(t, r)
					all = append(all, id)
					restored[id] = want[i]
				}
				// Next time there is something new.
				for i, src := range sources {
					path := filepath.Join(src, fmt.Sprintf("new%d", len(all)))
					if !exists(path) { // of several processes on one source
						must(t, os.WriteFile(path, []byte(strings.Repeat(src, 10_000)), 0o600))
					}
					want[i] = readTree(t, src)
				}
			}
			if got := p.snapshots(); !sameIDs(got, all) {
				t.Errorf("snapshots %v, want %v", got, all)
			}
			p.check()
			must(t, os.RemoveAll(p.cache))
			for id, tr := range restored {
				p.restores(id, tr)
			}
		})
	}
}

// TestWritersRaceForInit starts several inits at once. One makes the repository,
// the others say that there is one, and its key opens it.
func TestWritersRaceForInit(t *testing.T) {
	t.Parallel()
	for range scale(2, 3, 40) {
		p := newProgram(t)
		var running []*started
		keys := make(map[*started]program)
		for i := range 3 {
			q := p
			q.key = p.at(fmt.Sprintf("key%d", i))
			s := q.start("init")
			running = append(running, s)
			keys[s] = q
		}
		var owner program
		won := 0
		for _, s := range running {
			switch r := s.wait(); {
			case r.code == 0:
				won++
				owner = keys[s]
			case r.code != 1 || !strings.Contains(r.stderr, "already"):
				t.Fatalf("an init that lost: %v", r)
			}
		}
		if won != 1 {
			t.Fatalf("%d of 3 inits made the repository", won)
		}
		fillTree(t, p.at("src"), 100_000, 8)
		owner.restores(owner.backup(p.at("src")), readTree(t, p.at("src")))
		owner.check()
		for _, q := range keys {
			if q.key != owner.key && exists(q.key) {
				q.exits(exitWrongKey, "snapshots")
			}
		}
	}
}

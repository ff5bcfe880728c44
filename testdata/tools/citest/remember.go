package main

import (
	"fmt"
	"strings"
	"time"
)

// resume takes over what passed in earlier runs.
func (t *tally) resume(j *journal, fuzzTime time.Duration) {
	t.journal = j
	for key, r := range j.tests {
		o := r.Outcome
		t.outcomes[key] = &o
		t.passed++
		t.kept++
		for name, sub := range r.Subtests {
			t.outcomes[testKey{key.pkg, name}] = &sub
			t.passed++
			t.kept++
		}
	}
	for key, r := range j.fuzzed {
		if r.For >= fuzzTime {
			t.fuzzed[key] = r.Outcome
			t.passed++
			t.kept++
		}
	}
	if t.kept > 0 {
		fmt.Fprintf(t.out, "kept: %d tests and fuzz targets passed in earlier runs\n", t.kept)
	}
}

// remember keeps a test that passed, with its subtests. One of which a part was
// skipped is run again: the next time what it lacks may be there.
func (t *tally) remember(key testKey) {
	o := t.outcomes[key]
	if o.Action == "skip" {
		t.unsure[key.pkg] = true
	}
	if o.Action != "pass" || strings.Contains(key.test, "/") {
		return
	}
	subtests := make(map[string]outcome)
	for other, sub := range t.outcomes {
		if other.pkg != key.pkg || !strings.HasPrefix(other.test, key.test+"/") {
			continue
		}
		if sub.Action != "pass" {
			return
		}
		subtests[other.test] = *sub
	}
	t.journal.add(record{Package: key.pkg, Test: key.test, Settings: t.journal.settings, Outcome: *o, Subtests: subtests})
}

// rememberPackage keeps that all of a package passed. Where it failed although
// no test did and none was running, what passed may have broken the rest, and
// counts no more.
func (t *tally) rememberPackage(e event) {
	switch e.Action {
	case "pass":
		if !t.unsure[e.Package] && !t.partly {
			t.journal.add(record{Package: e.Package, Settings: t.journal.settings})
		}
	case "fail":
		for key := range t.running {
			if key.pkg == e.Package {
				return
			}
		}
		for _, name := range t.failures {
			if strings.HasPrefix(name, e.Package+" ") {
				return
			}
		}
		t.journal.add(record{Package: e.Package, Drop: true})
	}
}

// rememberFuzzed keeps that a target was fuzzed so long.
func (t *tally) rememberFuzzed(key testKey, took, budget time.Duration) {
	o := outcome{Action: "pass", Elapsed: took.Seconds(), When: time.Now().UTC(), Commit: t.journal.commit}
	t.fuzzed[key] = o
	t.passed++
	t.journal.add(record{Package: key.pkg, Fuzz: key.test, For: budget, Outcome: o})
}

package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"sort"
	"strings"
)

// An event is a line of go test -json; see go doc test2json.
type event struct {
	Action     string
	Package    string
	ImportPath string // of build-output and build-fail
	Test       string
	Output     string
	Elapsed    float64
	Key, Value string // of an attribute
}

type testKey struct{ pkg, test string }

// A tally counts tests, subtests included, and keeps what those that failed
// or were skipped printed.
type tally struct {
	out                     io.Writer
	passed, failed, skipped int
	output                  map[testKey]*strings.Builder // of what still runs
	build                   map[string]*strings.Builder  // by import path
	skips                   []string                     // one line each, with the reason
	failures                []string                     // names
	outcomes                map[testKey]*outcome
	fuzzed                  map[testKey]outcome
	running                 map[testKey]bool
	unsure                  map[string]bool // packages in which something was skipped
	journal                 *journal
	kept                    int  // of passed, by earlier runs
	partly                  bool // only some tests are run
}

func newTally(out io.Writer) *tally {
	return &tally{
		out: out, output: map[testKey]*strings.Builder{}, build: map[string]*strings.Builder{}, outcomes: map[testKey]*outcome{},
		fuzzed: map[testKey]outcome{}, running: map[testKey]bool{}, unsure: map[string]bool{}, journal: new(journal),
	}
}

func (t *tally) ok() bool { return t.failed == 0 && t.passed > 0 }

// read takes events until the end of r. Lines that are no event are shown.
func (t *tally) read(r io.Reader) error {
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) == nil && e.Action != "" {
				t.add(e)
			} else {
				fmt.Fprintf(t.out, "%s", line)
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (t *tally) add(e event) {
	key := testKey{e.Package, e.Test}
	switch e.Action {
	case "run":
		t.running[key] = true
	case "output":
		keep(t.output, key, e.Output)
	case "build-output":
		keep(t.build, e.ImportPath, e.Output)
	case "build-fail":
		t.fail(e.ImportPath+" (build)", text(t.build, e.ImportPath))
	case "attr":
		t.attr(key, e)
	case "pass", "fail", "skip":
		t.end(key, e)
	}
}

func (t *tally) end(key testKey, e event) {
	said := text(t.output, key)
	delete(t.output, key)
	if e.Test == "" {
		t.endPackage(e, said)
		return
	}
	delete(t.running, key)
	t.keepOutcome(key, e, said)
	t.remember(key)
	switch e.Action {
	case "pass":
		t.passed++
	case "skip":
		t.skipped++
		t.skips = append(t.skips, fmt.Sprintf("%s %s: %s", e.Package, e.Test, reason(said)))
	case "fail":
		t.fail(e.Package+" "+e.Test, said)
	}
}

// endPackage shows a line for each package. A package that failed without a
// failed test (a panic, a time-out, a build that failed) counts as one failure.
func (t *tally) endPackage(e event, said string) {
	t.rememberPackage(e)
	switch e.Action {
	case "pass":
		fmt.Fprintf(t.out, "ok    %s  %.1fs\n", e.Package, e.Elapsed)
	case "skip":
		fmt.Fprintf(t.out, "-     %s  no tests\n", e.Package)
	case "fail":
		fmt.Fprintf(t.out, "FAIL  %s  %.1fs\n", e.Package, e.Elapsed)
		for _, name := range t.failures {
			if strings.HasPrefix(name, e.Package+" ") {
				return
			}
		}
		// What tests that never ended printed holds the stack of a panic.
		for key, b := range t.output {
			if key.pkg == e.Package {
				said += b.String()
			}
		}
		t.fail(e.Package+" (package)", said)
	}
}

func (t *tally) fail(name, said string) {
	t.failed++
	t.failures = append(t.failures, name)
	fmt.Fprintf(t.out, "--- FAIL: %s\n%s", name, said)
}

// summary prints what was skipped and what failed, and last the counts.
func (t *tally) summary() {
	sort.Strings(t.skips)
	for _, s := range t.skips {
		fmt.Fprintln(t.out, "skipped:", s)
	}
	for _, f := range t.failures {
		fmt.Fprintln(t.out, "failed:", f)
	}
	fmt.Fprintf(t.out, "%d passed, %d failed, %d skipped\n", t.passed, t.failed, t.skipped)
}

// reason returns what a skipped test said, without the runner's own lines.
func reason(said string) string {
	var words []string
	for line := range strings.Lines(said) {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "=== ") && !strings.HasPrefix(line, "--- ") {
			words = append(words, line)
		}
	}
	if len(words) == 0 {
		return "no reason given"
	}
	return strings.Join(words, " ")
}

func keep[K comparable](m map[K]*strings.Builder, key K, s string) {
	if m[key] == nil {
		m[key] = new(strings.Builder)
	}
	m[key].WriteString(s)
}

func text[K comparable](m map[K]*strings.Builder, key K) string {
	if m[key] == nil {
		return ""
	}
	return m[key].String()
}

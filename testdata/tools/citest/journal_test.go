package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// runOf feeds events to a tally that goes on with the journal at path.
func runOf(t *testing.T, path, settings, events string) *tally {
	t.Helper()
	j := newJournal()
	j.commit, j.settings = "c", settings
	if err := j.open(path); err != nil {
		t.Fatal(err)
	}
	tally := newTally(new(strings.Builder))
	tally.resume(j, time.Second)
	if err := tally.read(strings.NewReader(strings.TrimSpace(events) + "\n")); err != nil {
		t.Fatal(err)
	}
	if err := j.close(); err != nil {
		t.Fatal(err)
	}
	return tally
}

func TestJournal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "journal")
	first := runOf(t, path, "s", `
{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"attr","Package":"p","Test":"TestA","Key":"rounds","Value":"9"}
{"Action":"pass","Package":"p","Test":"TestA/sub"}
{"Action":"pass","Package":"p","Test":"TestA","Elapsed":2}
{"Action":"fail","Package":"p","Test":"TestB"}
{"Action":"skip","Package":"p","Test":"TestC"}
{"Action":"skip","Package":"p","Test":"TestD/sub"}
{"Action":"pass","Package":"p","Test":"TestD"}
{"Action":"fail","Package":"p"}
{"Action":"pass","Package":"q","Test":"TestA"}
{"Action":"pass","Package":"q"}
{"Action":"pass","Package":"cut","Test":"TestA"}
{"Action":"run","Package":"cut","Test":"TestB"}`)
	if first.kept != 0 {
		t.Errorf("%d are kept of nothing", first.kept)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteString(`{"Package":"p","Te`) // cut off
	if err != nil || f.Close() != nil {
		t.Fatal(err)
	}
	again := runOf(t, path, "s", `{"Action":"pass","Package":"cut","Test":"TestB"}`)
	if got := again.journal.passed("p"); !slices.Equal(got, []string{"TestA"}) {
		t.Errorf("of p %q passed", got)
	}
	if again.kept != 4 || again.passed != 5 || again.failed != 0 {
		t.Errorf("%d are kept, %d passed, %d failed; want 4, 5, 0", again.kept, again.passed, again.failed)
	}
	if o := *again.outcomes[testKey{"p", "TestA"}]; o.Attrs["rounds"] != "9" || o.Commit != "c" || o.When.IsZero() {
		t.Errorf("what was kept is %+v", o)
	}
	if !again.journal.whole["q"] || again.journal.whole["p"] || again.journal.whole["cut"] {
		t.Errorf("as a whole passed %v", again.journal.whole)
	}
	third := runOf(t, path, "s", "")
	if got := third.journal.passed("cut"); len(got) != 2 {
		t.Errorf("of cut %q passed", got)
	}
	if other := runOf(t, path, "other settings", ""); other.kept != 0 {
		t.Errorf("%d are kept of other settings", other.kept)
	}
}

// TestJournalDrops: where a package fails by what no test did, none of it counts.
func TestJournalDrops(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	runOf(t, path, "s", `
{"Action":"pass","Package":"p","Test":"TestA"}
{"Action":"fail","Package":"p"}
{"Action":"run","Package":"q","Test":"TestA"}
{"Action":"pass","Package":"q","Test":"TestA"}
{"Action":"run","Package":"q","Test":"TestB"}
{"Action":"fail","Package":"q"}`)
	j := runOf(t, path, "s", "").journal
	if got := j.passed("p"); len(got) > 0 {
		t.Errorf("of a package that failed %q count", got)
	}
	if got := j.passed("q"); !slices.Equal(got, []string{"TestA"}) {
		t.Errorf("of a package whose TestB ended it %q count", got)
	}
}

func TestJournalFuzz(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	first := runOf(t, path, "s", "")
	if err := first.journal.open(path); err != nil {
		t.Fatal(err)
	}
	first.rememberFuzzed(testKey{"p", "FuzzLong"}, time.Minute, time.Minute)
	first.rememberFuzzed(testKey{"p", "FuzzShort"}, time.Millisecond, time.Millisecond)
	if err := first.journal.close(); err != nil {
		t.Fatal(err)
	}
	again := runOf(t, path, "other", "")
	if _, long := again.fuzzed[testKey{"p", "FuzzLong"}]; !long || len(again.fuzzed) != 1 {
		t.Errorf("fuzzed are %v", again.fuzzed)
	}
}

func TestIsChanged(t *testing.T) {
	for status, want := range map[string]bool{
		"": false, " M docs/r.md\n": false, "M  docs/r.md\n": false, "MM docs/r.md\n M a.go\n": true, "?? new.go\n": true, " M x/docs/r.md\n": true,
	} {
		if got := isChanged([]byte(status), "docs/r.md"); got != want {
			t.Errorf("isChanged(%q) = %t", status, got)
		}
	}
}

func TestTreeName(t *testing.T) {
	tree := strings.Join([]string{
		"100644 blob 01\ta.go", "100644 blob 02\tdocs/r.md", "100644 blob 03\tengine/a_test.go", "100644 blob 04\tengine/log/a_test.go",
		"100644 blob 05\ttestdata/tools/main.go", "100644 blob 06\ttestdata/embed/a_test.go", "100644 blob 07\tengine/log/a.go", "",
	}, "\n")
	name := treeName([]byte(tree), "engine", "docs/r.md")
	for blob, counts := range map[string]bool{"01": true, "02": false, "03": true, "04": false, "05": false, "06": true, "07": true} {
		other := strings.Replace(tree, "blob "+blob, "blob ff", 1)
		if got := treeName([]byte(other), "engine", "docs/r.md") != name; got != counts {
			t.Errorf("what %s is counts: %t, want %t", blob, got, counts)
		}
	}
}

// TestJournalOfTree: what another tree has passed does not count.
func TestJournalOfTree(t *testing.T) {
	file := filepath.Join(t.TempDir(), "journal")
	for _, tree := range []string{"100644 blob 01\ta.go\n", "100644 blob 02\ta.go\n"} {
		j := newJournal()
		j.tree = []byte(tree)
		if err := j.open(file); err != nil {
			t.Fatal(err)
		}
		if got := j.passed("p"); len(got) > 0 {
			t.Errorf("with %q of p %q passed", tree, got)
		}
		j.add(record{Package: "p", Test: "TestA"})
		if err := j.close(); err != nil {
			t.Fatal(err)
		}
		again := newJournal()
		again.tree = []byte(tree)
		if err := again.open(file); err != nil {
			t.Fatal(err)
		}
		if got := again.passed("p"); !slices.Equal(got, []string{"TestA"}) {
			t.Errorf("with %q again of p %q passed", tree, got)
		}
		_ = again.close() // it was only read
	}
}

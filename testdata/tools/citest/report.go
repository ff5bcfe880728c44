package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"runtime"
	"slices"
	"sort"
	"strings"
	"time"
)

// An outcome is how one test ended.
type outcome struct {
	Action  string            // "pass", "fail" or "skip"
	Elapsed float64           // seconds
	Why     string            `json:",omitempty"` // if it was skipped
	Attrs   map[string]string `json:",omitempty"` // what it said by testing.T.Attr
	Order   []string          `json:",omitempty"` // of Attrs
	When    time.Time         // it ended
	Commit  string
}

// A proof is a test that docs/reliability.md tells of.
type proof struct{ pkg, test, shows string }

// sections are the parts of the page. Every figure in it comes from the run;
// what is typed here only says what a test shows.
var sections = []struct {
	title, text string
	proofs      []proof
}{
	{"Simulation of the real code", `Writers, collectors, forgetters by name and by policy, readers and checkers run the real engine on one store in memory. A scheduler, led by a
seed, lets one call at a time happen: it delays, loses replies, lets writes happen late or never, says "exists" after its own success, lists what
is stale, breaks bodies off, crashes processes, and stops them for ever. After every write a model that reads log and packs by itself
checks V1 to V4, V14 and V18: every visible snapshot resolves by stored data alone and is what was backed up; nothing is visible that
nobody made; what a record names is durable before it; nothing is deleted that no durable record dooms; no index segment
is lost; no policy forgets the newest of its group. In some schedules stored packs go bad, are cut short or vanish: snapshots may lack only what that
hurts, and only until a check has recorded it and a backup has stored it again; in the end that is done, and every snapshot is whole, but for
patched groups of pages, which a backup after damage writes in another form. The run fails if one of the events that it must have seen did not happen.`, []proof{
		{"engine", "TestSimulation", "many schedules"},
		{"engine", "TestSimulationRepeats", "a seed gives the same schedule each time"},
	}},
	{"Mutants", `Each safety rule, switched off in a build of its own, must make a test fail; with every rule on the same build passes. The model of the
protocol has seven mutants. Six are the first six here; the log is never truncated, so that "truncated without a check of the boundary" has
no counterpart: nothing may be added to a log whose last record is not there takes its place.`, []proof{
		{"engine", "TestMutants", "every rule is missed"},
	}},
	{"Crash", `Crashes before and after every write, kill -9 of the program at random moments, and power cut under the program on real file
systems, whose kernel drops them without flushing the journal. Each is followed by a check without findings and a restore of every snapshot
that had been reported as done.`, []proof{
		{"engine", "TestCrash", "every write of backup, annotate, delete and keys, in memory"},
		{"engine", "TestCrashLocal", "the same on the local backend"},
		{"engine", "TestGCCrash", "every write of a collection"},
		{"engine", "TestForgetCrash", "every write of a forget"},
		{"cmd/cairn", "TestKillAny", "kill -9 of backup, forget, gc and restore"},
		{"cmd/cairn", "TestKillBackup", "kill -9 of large backups, which are gone on with"},
		{"cmd/cairn", "TestKillRestore", "kill -9 of restores"},
		{"cmd/cairn", "TestKillInit", "kill -9 of init"},
		{"cmd/cairn", "TestKillChange", "kill -9 of what changes a repository in one step"},
		{"cmd/cairn", "TestPowerLoss/ext4", "power loss on ext4"},
		{"cmd/cairn", "TestPowerLoss/xfs", "power loss on xfs"},
		{"cmd/cairn", "TestPowerLossRestored", "power loss right behind the report of a restore, on both"},
		{"backend/local", "TestPowerLoss", "power loss under single writes"},
		{"backend/local", "TestPowerCut", "power cut before every system call, simulated"},
	}},
	{"Damage", `Stored objects are changed, cut, emptied, swapped and deleted: a typed error or the right data, never a panic, a hang or a wrong byte.`, []proof{
		{"engine", "TestMutations", "every object of a repository"},
		{"cmd/cairn", "TestBadRepository", "the program on damaged repositories"},
	}},
	{"Faults of the disk", `Full disks, failing calls, lost permissions and read-only file systems, in the real program.`, []proof{
		{"cmd/cairn", "TestFullDisk", "a full file system"},
		{"cmd/cairn", "TestFillsUp", "a file system that fills up, at each step"},
		{"cmd/cairn", "TestSystemFaults", "system calls that fail, injected"},
		{"cmd/cairn", "TestTakenAway", "what is taken away at each step"},
		{"cmd/cairn", "TestReadOnlyRepository", "a read-only repository"},
		{"cmd/cairn", "TestPermissionDenied", "no permission"},
	}},
	{"Soak", `Cycles of change, backup, restore, deletion and collection on the local backend, in several processes at once; what is restored is
compared with what was backed up, and in the end all that is left.`, []proof{
		{"cmd/cairn", "TestSoak", "many cycles"},
		{"engine", "TestManyWriters", "several writers in one process"},
		{"cmd/cairn", "TestWriters", "several writers, as processes"},
	}},
}

// writeReport writes the page about what this run has proven.
func writeReport(ctx context.Context, path string, t *tally, began time.Time) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# Reliability\n\nWritten by `.ci/prove`, from what its run reported: no figure here was typed. What the tests are is in the code;\nthe invariants V1 to V19 are those of [design.md](design.md).\n\n")
	figures(ctx, &b, t, began)
	fmt.Fprintln(&b, "\nWhat passed once is not run again as long as nothing is committed after it on which it can depend: this page, the tools that ran it, and the tests of other packages do not count. When and at which commit each test ran is in its row.")
	for _, s := range sections {
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n", s.title, s.text)
		fmt.Fprintln(&b, "| test | shows | result | seconds | when (UTC) | commit |\n|---|---|---|---:|---|---|")
		var more bytes.Buffer
		for _, p := range s.proofs {
			o := t.find(p)
			fmt.Fprintf(&b, "| `%s` `%s` | %s | %s | %s | %s |\n", p.pkg, p.test, p.shows, o.result(), o.seconds(), o.place())
			o.details(&more, p)
		}
		_, _ = more.WriteTo(&b) // to memory
	}
	t.fuzzTable(&b)
	fmt.Fprintf(&b, "\n## Again\n\n`CAIRN_SEED` repeats the random moments of kills; a schedule of the simulation is repeated by\n`CAIRN_SIM_SEED=N go test ./engine -run '^TestSimulation$' -v`, which prints every call.\n")
	return os.WriteFile(path, b.Bytes(), 0o644)
}

func figures(ctx context.Context, w io.Writer, t *tally, began time.Time) {
	fmt.Fprintln(w, "| | |\n|---|---|")
	row := func(name, value string) { fmt.Fprintf(w, "| %s | %s |\n", name, value) }
	row("commit", t.journal.commit)
	row("this run begun", began.UTC().Format("2006-01-02 15:04:05 MST"))
	row("it took", time.Since(began).Round(time.Second).String())
	row("Go", runtime.Version()+" "+runtime.GOOS+"/"+runtime.GOARCH)
	row("machine", fmt.Sprintf("%d processors, Linux %s", runtime.NumCPU(), said(ctx, "uname", "-r")))
	row("tests", fmt.Sprintf("%d passed, %d failed, %d skipped", t.passed, t.failed, t.skipped))
	row("of them passed in earlier runs", fmt.Sprint(t.kept))
}

// find returns how the test of p ended; an empty outcome if it did not run.
func (t *tally) find(p proof) outcome {
	for key, o := range t.outcomes {
		if key.test == p.test && strings.HasSuffix(key.pkg, "/"+p.pkg) {
			return *o
		}
	}
	return outcome{}
}

func (o outcome) result() string {
	switch o.Action {
	case "pass":
		return "passed"
	case "fail":
		return "**failed**"
	case "skip":
		return "skipped: " + o.Why
	}
	return "not part of this run"
}

func (o outcome) seconds() string {
	if o.Action == "" || o.Action == "skip" {
		return ""
	}
	return fmt.Sprintf("%.0f", o.Elapsed)
}

// place says when and at which commit a test ran.
func (o outcome) place() string {
	if o.When.IsZero() {
		return " | "
	}
	return fmt.Sprintf("%s | %.12s", o.When.Format("2006-01-02 15:04"), o.Commit)
}

// fuzzTable lists the fuzz targets.
func (t *tally) fuzzTable(w io.Writer) {
	if len(t.fuzzed) == 0 {
		return
	}
	fmt.Fprintf(w, "\n## Fuzzing\n\nNew inputs for every decoder and round trip, on top of those that are kept with the tests.\n\n| target | result | seconds | when (UTC) | commit |\n|---|---|---:|---|---|\n")
	keys := slices.SortedFunc(maps.Keys(t.fuzzed), func(a, b testKey) int {
		return cmp.Or(strings.Compare(a.pkg, b.pkg), strings.Compare(a.test, b.test))
	})
	for _, key := range keys {
		o := t.fuzzed[key]
		_, pkg, _ := strings.Cut(key.pkg, "/cairn/")
		fmt.Fprintf(w, "| `%s` `%s` | %s | %s | %s |\n", pkg, key.test, o.result(), o.seconds(), o.place())
	}
}

// details writes what a test said by its attributes.
func (o outcome) details(w io.Writer, p proof) {
	if len(o.Order) == 0 {
		return
	}
	var mutants []string
	fmt.Fprintf(w, "\n`%s`:", p.test)
	first := " "
	for _, key := range o.Order {
		switch value := o.Attrs[key]; {
		case strings.HasPrefix(key, "mutant-"):
			mutants = append(mutants, strings.TrimPrefix(key, "mutant-")+"|"+value)
		case key == "events" || key == "counts":
			fmt.Fprintf(w, "\n\n| event | times |\n|---|---:|\n")
			for _, e := range strings.Split(value, ", ") {
				if n, what, ok := strings.Cut(e, " "); ok {
					fmt.Fprintf(w, "| %s | %s |\n", what, n)
				}
			}
		default:
			fmt.Fprintf(w, "%s%s %s", first, key, value)
			first = ", "
		}
	}
	if len(mutants) == 0 {
		fmt.Fprintln(w)
		return
	}
	fmt.Fprintf(w, " %d mutants, each of them noticed\n\n| rule | what is wrong then | noticed by | which says |\n|---|---|---|---|\n", len(mutants))
	for _, m := range mutants {
		parts := strings.SplitN(m, "|", 4)
		for len(parts) < 4 {
			parts = append(parts, "")
		}
		fmt.Fprintf(w, "| %s | %s | `%s` | %s |\n", parts[0], parts[1], parts[2], strings.ReplaceAll(parts[3], "|", "\\|"))
	}
}

// keepOutcome remembers how a test ended.
func (t *tally) keepOutcome(key testKey, e event, said string) {
	o := t.outcome(key)
	o.Action, o.Elapsed, o.When, o.Commit = e.Action, e.Elapsed, time.Now().UTC(), t.journal.commit
	if e.Action == "skip" {
		o.Why = reason(said)
	}
	sort.SliceStable(o.Order, func(i, j int) bool { return plain(o.Order[i]) && !plain(o.Order[j]) })
}

// plain reports whether an attribute is a single figure, not a table.
func plain(key string) bool { return key != "events" && key != "counts" }

func (t *tally) outcome(key testKey) *outcome {
	o := t.outcomes[key]
	if o == nil {
		o = &outcome{Attrs: make(map[string]string)}
		t.outcomes[key] = o
	}
	return o
}

func (t *tally) attr(key testKey, e event) {
	o := t.outcome(key)
	if _, ok := o.Attrs[e.Key]; !ok {
		o.Order = append(o.Order, e.Key)
	}
	o.Attrs[e.Key] = e.Value
}

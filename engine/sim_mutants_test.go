package engine_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// A mutant is a program in which one safety rule is switched off, and the test
// that must fail by it.
type mutant struct {
	rule string // as in the packages called rule
	what string
	dir  string // of the test's package
	test string
	says string // a pattern of what it says
}

const bySimulation = `seed \d+: step \d+: V\d+: [^\n]*`

// mutants are the seven of the protocol's model, and the others that this code
// could have. The model's "truncate without boundary check" has no counterpart:
// the log is never truncated; what takes its place is that no record is added to
// a log whose last record is not there.
var mutants = []mutant{
	{"rely", "nothing is validated at the commit", ".", "TestSimulation", bySimulation},
	{"derive", "validated, then appended without the records that came since", ".", "TestSimulation", bySimulation},
	{"needed", "a collection dooms what it planned, whatever landed since", ".", "TestSimulation", bySimulation},
	{"doom", "deleted before the doom is recorded", ".", "TestSimulation", bySimulation},
	{"own", "a session's own packs are not looked for among the doomed", ".", "TestSimulation", bySimulation},
	{"landed", "packs are rewritten without a look at what landed meanwhile", ".", "TestSimulation", bySimulation},
	{"confirm", "appended without having read the record before", "internal/log", "TestAppendReadsTheHead", `append_test.go:[^\n]*`},
	{"index", "the index is trusted at the commit", ".", "TestSimulation", bySimulation},
	{"inherit", "the parent's needs are not inherited", ".", "TestSimulation", bySimulation},
	{"base", "a group that is patched is not among the needs", ".", "TestSimulation", bySimulation},
	{"walk", "successors are trusted without the walk of the chunks", ".", "TestSimulation", bySimulation},
	{"succeed", "a needed pack is doomed without successors", ".", "TestSimulation", bySimulation},
	{"live", "\"no longer doomed\" in place of \"live\"", ".", "TestSimulation", bySimulation},
	{"plan", "a forget planned at an older record is carried out", ".", "TestForgetStale", `forget_test.go:[^\n]*`},
	{"durable", "deleted for a record that was not made durable", ".", "TestGCDurable", `gcpolicy_test.go:[^\n]*`},
	{"salt", "a key is used twice", "../chunk/seal", "TestNothingRepeats", `seal_test.go:[^\n]*`},
	{"number", "a nonce is used twice", "../chunk/seal", "TestPartsAreOrdered", `seal_test.go:[^\n]*`},
	{"sync-dir", "the directory is not synced", "../backend/local", "TestPowerCut", `crash_test.go:[^\n]*`},
	{"verify", "a block is not opened again before it is published", "../chunk/pack", "TestAddVerifies", `pack_test.go:[^\n]*`},
	{"kind", "objects are not bound to their kind", "../chunk/seal", "TestObjectIsBound", `seal_test.go:[^\n]*`},
}

// TestMutants builds the tests with the rules that can be switched off, and
// switches them off one at a time: each must make its test fail, and with all of
// them on every test passes.
func TestMutants(t *testing.T) {
	if os.Getenv("CAIRN_PROVE") == "" {
		t.Skip("it takes a build of its own, and two minutes: .ci/prove runs it")
	}
	t.Parallel()
	built, sound := make(map[string]string), make(map[string]bool)
	for _, m := range mutants {
		bin, ok := built[m.dir]
		if !ok {
			bin = filepath.Join(t.TempDir(), fmt.Sprintf("mutants%d.test", len(built)))
			cmd := exec.CommandContext(t.Context(), "go", "test", "-c", "-tags", "cairnmutants", "-o", bin, "./"+m.dir)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("build the tests of %s: %v\n%s", m.dir, err, out)
			}
			built[m.dir] = bin
		}
		if key := bin + m.test; !sound[key] {
			if out, err := m.run(t, bin, ""); err != nil {
				t.Fatalf("%s fails with every rule on: %v\n%s", m.test, err, out)
			}
			sound[key] = true
		}
		out, err := m.run(t, bin, m.rule)
		said := regexp.MustCompile(m.says).FindString(out)
		if err == nil || said == "" {
			t.Errorf("%s does not notice that %s (%v): %s", m.test, m.what, err, out)
			continue
		}
		t.Attr("mutant-"+m.rule, fmt.Sprintf("%s|%s|%s", m.what, m.test, strings.TrimSpace(said)))
		t.Logf("%s: %s", m.rule, said)
	}
}

// run runs the test of m with a rule switched off, or none.
func (m mutant) run(t *testing.T, bin, rule string) (out string, err error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), bin, "-test.run", "^"+m.test+"$", "-test.timeout=10m")
	cmd.Dir = m.dir
	env := os.Environ()
	cmd.Env = append(env, "CAIRN_PROVE=", "CAIRN_SIM_SEED=", "CAIRN_SIM_FIRST=", "CAIRN_SCHEDULES="+simMutantSchedules, "CAIRN_MUTANT="+rule)
	b, err := cmd.CombinedOutput()
	return string(b), err
}

// simMutantSchedules is enough for each mutant to be noticed several times over.
const simMutantSchedules = "600"

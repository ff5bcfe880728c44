package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// A journal keeps what passed, so that a run that is cut off is gone on with: one
// line of JSON for each finished test, fuzz target and package, with the hash of
// what is committed that it can depend on. Where the work tree is not what is
// committed, nothing is kept, and nothing taken.
type journal struct {
	file     *os.File // nil: nothing is kept
	tree     []byte   // what git ls-tree says
	report   string
	names    map[string]string // of treeName, by package
	commit   string
	settings string // what else a result depends on
	tests    map[testKey]record
	fuzzed   map[testKey]record
	whole    map[string]bool // packages of which every test passed
	err      error           // the first of writing
}

// A record is a line of the journal. One with neither Test nor Fuzz says that
// the package as a whole passed, or with Drop, that nothing of it counts.
type record struct {
	Package  string
	Tree     string             // treeName of the package
	Test     string             `json:",omitempty"`
	Fuzz     string             `json:",omitempty"`
	Drop     bool               `json:",omitempty"`
	Settings string             `json:",omitempty"` // of tests
	For      time.Duration      `json:",omitempty"` // of fuzzing
	Outcome  outcome            //                     of Test or Fuzz
	Subtests map[string]outcome `json:",omitempty"`
}

// settingNames are the environment variables that change what a test does.
var settingNames = []string{"CAIRN_PROVE", "CAIRN_SCHEDULES", "CAIRN_PERCENT", "CAIRN_SEED", "CAIRN_SIM_FIRST", "CAIRN_SIM_SEED"}

func newJournal() *journal {
	return &journal{
		names: make(map[string]string),
		tests: make(map[testKey]record), fuzzed: make(map[testKey]record), whole: make(map[string]bool),
	}
}

// openJournal opens the journal in dir, which need not exist. report is not part
// of what is proven.
func openJournal(ctx context.Context, dir, report string, o options) (*journal, error) {
	j := newJournal()
	j.report = report
	j.commit = said(ctx, "git", "rev-parse", "HEAD")
	if dir == "" {
		return j, nil
	}
	status, err := exec.CommandContext(ctx, "git", "status", "--porcelain").Output()
	if err != nil {
		return nil, fmt.Errorf("git status: %w", err)
	}
	if isChanged(status, report) {
		fmt.Fprintln(os.Stdout, "nothing is kept: the work tree is not what is committed")
		return j, nil
	}
	if j.tree, err = exec.CommandContext(ctx, "git", "ls-tree", "-r", "HEAD").Output(); err != nil {
		return nil, fmt.Errorf("git ls-tree: %w", err)
	}
	j.settings = fmt.Sprintf("%s %s/%s race=%t", runtime.Version(), runtime.GOOS, runtime.GOARCH, o.race)
	for _, name := range settingNames {
		if v := os.Getenv(name); v != "" {
			j.settings += " " + name + "=" + v
		}
	}
	return j, j.open(filepath.Join(dir, "passed.jsonl"))
}

// isChanged reports whether git status --porcelain lists anything but report.
func isChanged(status []byte, report string) bool {
	for line := range strings.Lines(string(status)) {
		if line = strings.TrimSpace(line); len(line) > 2 && strings.TrimSpace(line[2:]) != filepath.ToSlash(report) {
			return true
		}
	}
	return false
}

// modulePath begins the names of the packages.
const modulePath = "github.com/cairn-backup/cairn"

// name returns treeName of a package.
func (j *journal) name(pkg string) string {
	name, ok := j.names[pkg]
	if !ok {
		name = treeName(j.tree, strings.TrimPrefix(strings.TrimPrefix(pkg, modulePath), "/"), j.report)
		j.names[pkg] = name
	}
	return name
}

// treeName returns the hash of those lines of git ls-tree on which a test of the
// package in dir can depend: all but the report, the module of these tools, and
// the tests of other packages, which are no part of this one. What lies below
// testdata is read by tests of anyone.
func treeName(tree []byte, dir, report string) string {
	h := sha256.New()
	for line := range bytes.Lines(tree) {
		_, file, _ := strings.Cut(strings.TrimSpace(string(line)), "\t")
		switch {
		case file == filepath.ToSlash(report), strings.HasPrefix(file, "testdata/tools/"):
		case strings.HasSuffix(file, "_test.go") && path.Dir(file) != dir && !strings.HasPrefix(file, "testdata/"):
		default:
			h.Write(line)
		}
	}
	return fmt.Sprintf("%x", h.Sum(nil)[:12])
}

// open reads the file, and opens it for more.
func (j *journal) open(name string) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var r record
		if json.Unmarshal(lines.Bytes(), &r) == nil { // else the run was cut off while it wrote
			j.take(r)
		}
	}
	if err := lines.Err(); err != nil {
		return errors.Join(err, f.Close())
	}
	_, err = f.WriteString("\n") // behind a line that was cut off
	j.file = f
	return err
}

// take counts a record, if it is one of this run's settings and of what is
// committed now.
func (j *journal) take(r record) {
	switch {
	case r.Tree != j.name(r.Package):
	case r.Drop:
		delete(j.whole, r.Package)
		for key := range j.tests {
			if key.pkg == r.Package {
				delete(j.tests, key)
			}
		}
	case r.Fuzz != "":
		if old := j.fuzzed[testKey{r.Package, r.Fuzz}]; r.For >= old.For {
			j.fuzzed[testKey{r.Package, r.Fuzz}] = r
		}
	case r.Settings != j.settings:
	case r.Test == "":
		j.whole[r.Package] = true
	default:
		j.tests[testKey{r.Package, r.Test}] = r
	}
}

// add writes a record. It is on the disk before the next test ends.
func (j *journal) add(r record) {
	if j.file == nil {
		return
	}
	r.Tree = j.name(r.Package)
	line, err := json.Marshal(r)
	if err == nil {
		_, err = j.file.Write(append(line, '\n'))
	}
	if err == nil {
		err = j.file.Sync()
	}
	j.err = errors.Join(j.err, err)
}

// close closes it, and returns what went wrong while it was written.
func (j *journal) close() error {
	if j.file == nil {
		return nil
	}
	return errors.Join(j.err, j.file.Close())
}

// passed returns the names of the tests of a package that need not run again.
func (j *journal) passed(pkg string) (names []string) {
	for key := range j.tests {
		if key.pkg == pkg {
			names = append(names, key.test)
		}
	}
	return names
}

// said returns what a command says, or "unknown".
func said(ctx context.Context, name string, args ...string) string {
	out, err := exec.CommandContext(ctx, name, args...).Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

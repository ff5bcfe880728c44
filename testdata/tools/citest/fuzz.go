package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"time"
)

// A fuzzed package has at least one fuzz target in the files that belong to
// this system.
type fuzzed struct {
	dir, path string
	targets   []string
}

var target = regexp.MustCompile(`(?m)^func (Fuzz\w*)\(\w+ \*testing\.F\)`)

// fuzzTargets finds the targets in the source, so that only packages that
// have some are built for fuzzing.
func fuzzTargets(ctx context.Context, packages []string) ([]fuzzed, error) {
	out, err := exec.CommandContext(ctx, "go", append([]string{"list", "-json=Dir,ImportPath,TestGoFiles,XTestGoFiles"}, packages...)...).Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	var found []fuzzed
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct {
			Dir, ImportPath           string
			TestGoFiles, XTestGoFiles []string
		}
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return found, nil
		} else if err != nil {
			return nil, fmt.Errorf("go list: %w", err)
		}
		f := fuzzed{dir: p.Dir, path: p.ImportPath}
		for _, name := range append(p.TestGoFiles, p.XTestGoFiles...) {
			src, err := os.ReadFile(filepath.Join(p.Dir, name))
			if err != nil {
				return nil, err
			}
			for _, m := range target.FindAllSubmatch(src, -1) {
				f.targets = append(f.targets, string(m[1]))
			}
		}
		if len(f.targets) > 0 {
			found = append(found, f)
		}
	}
}

// runFuzz builds each fuzzed package once and runs its targets one by one.
func runFuzz(ctx context.Context, o options, t *tally, out io.Writer) error {
	found, err := fuzzTargets(ctx, o.packages)
	if err != nil {
		return err
	}
	tmp, err := os.MkdirTemp("", "cairn-fuzz-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	binary := filepath.Join(tmp, "fuzz.test")
	for _, p := range found {
		p.targets = slices.DeleteFunc(p.targets, func(name string) bool { _, done := t.fuzzed[testKey{p.path, name}]; return done })
		if len(p.targets) == 0 {
			continue
		}
		build := exec.CommandContext(ctx, "go", "test", "-c", "-fuzz=.", "-o", binary, p.path)
		if said, err := build.CombinedOutput(); ctx.Err() != nil {
			return ctx.Err()
		} else if err != nil {
			t.fail(p.path+" (build for fuzzing)", string(said))
			continue
		}
		for _, name := range p.targets {
			start := time.Now()
			said, err := runTarget(ctx, o, p.dir, binary, name)
			if errors.Is(err, errDeadline) {
				said, err = runTarget(ctx, o, p.dir, binary, name)
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				t.fail(p.path+" "+name+" (fuzzing)", said)
				continue
			}
			t.rememberFuzzed(testKey{p.path, name}, time.Since(start), o.fuzzTime)
			fmt.Fprintf(out, "ok    %s  %s fuzzed  %.1fs\n", p.path, name, time.Since(start).Seconds())
		}
	}
	return ctx.Err()
}

// errDeadline is the race of Go 1.26 at the end of -fuzztime
// (go.dev/issue/75804): "context deadline exceeded" and no failing input. The
// target is run once more then.
var errDeadline = errors.New("the fuzzing engine ran into its own deadline")

func runTarget(ctx context.Context, o options, dir, binary, name string) (string, error) {
	cmd := exec.CommandContext(ctx, binary, "-test.run=^$", "-test.fuzz=^"+name+"$", "-test.fuzztime="+o.fuzzTime.String(),
		"-test.fuzzminimizetime=5s", "-test.timeout="+o.timeout.String(), "-test.fuzzcachedir="+filepath.Join(filepath.Dir(binary), "corpus", name))
	cmd.Dir = dir
	said, err := cmd.CombinedOutput()
	if err != nil && ctx.Err() == nil && isDeadline(said) {
		return string(said), errDeadline
	}
	return string(said), err
}

func isDeadline(said []byte) bool {
	return bytes.Contains(said, []byte("context deadline exceeded")) &&
		!bytes.Contains(said, []byte("Failing input written")) && !bytes.Contains(said, []byte("panic:"))
}

// Command citest runs what .ci/test promises: it starts the servers of object
// stores, runs every test under the race detector, then every fuzz target for a
// few seconds. It lists what was
// skipped and why, and its last line counts what ran:
//
//	812 passed, 0 failed, 2 skipped
//
// It exits 1 if anything failed or nothing ran. It is run in the root of the
// module that it tests.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

type options struct {
	fuzzTime time.Duration // a target; 0: no fuzzing
	race     bool
	timeout  time.Duration // of one package's tests
	packages []string
	servers  bool   // start those of object stores
	minio    bool   // and that one too
	tests    string // a pattern of those that are run; "": all
	report   string // where to write what was proven; "": nowhere
	keep     string // the directory of the journal; "": none
}

func main() {
	var o options
	flag.DurationVar(&o.fuzzTime, "fuzztime", 3*time.Second, "how long each fuzz target runs; 0 runs none")
	flag.BoolVar(&o.race, "race", true, "use the race detector")
	flag.DurationVar(&o.timeout, "timeout", 20*time.Minute, "how long the tests of one package may take")
	flag.BoolVar(&o.servers, "servers", true, "start the servers of object stores that tests run against")
	flag.BoolVar(&o.minio, "minio", false, "start MinIO, too")
	flag.StringVar(&o.tests, "run", "", "run only the tests that match this pattern")
	flag.StringVar(&o.report, "report", "", "write what the run has proven to this file")
	flag.StringVar(&o.keep, "keep", "", "keep what passes in this directory, and run nothing again that has passed before on the same code")
	flag.Parse()
	o.packages = flag.Args()
	if len(o.packages) == 0 {
		o.packages = []string{"./..."}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	t := newTally(os.Stdout)
	began := time.Now()
	j, err := openJournal(ctx, o.keep, o.report, o)
	if err == nil {
		t.resume(j, o.fuzzTime)
		err = errors.Join(run(ctx, o, t, os.Stdout), j.close())
	}
	if o.report != "" {
		err = errors.Join(err, writeReport(context.WithoutCancel(ctx), o.report, t, began)) // also of a run that was cut off
	}
	if err != nil {
		fmt.Fprintln(os.Stdout, "citest:", err)
	}
	t.summary()
	if err != nil || !t.ok() {
		os.Exit(1)
	}
}

func run(ctx context.Context, o options, t *tally, out io.Writer) error {
	if o.servers {
		stop, err := startServers(ctx, o, out)
		if err != nil {
			return err
		}
		defer stop()
	}
	if err := runTests(ctx, o, t); err != nil {
		return err
	}
	if o.fuzzTime <= 0 {
		return nil
	}
	return runFuzz(ctx, o, t, out)
}

// runTests runs what has not passed before: packages of which some has, one by
// one without that, and then the others together.
func runTests(ctx context.Context, o options, t *tally) error {
	t.partly = o.tests != ""
	if len(t.journal.tests) == 0 {
		return runPackages(ctx, o, t, o.packages)
	}
	out, err := exec.CommandContext(ctx, "go", append([]string{"list"}, o.packages...)...).Output()
	if err != nil {
		return fmt.Errorf("go list: %w", err)
	}
	var others []string
	for _, pkg := range strings.Fields(string(out)) {
		passed := t.journal.passed(pkg)
		switch {
		case t.journal.whole[pkg]:
		case len(passed) == 0:
			others = append(others, pkg)
		default:
			slices.Sort(passed)
			if err := runPackages(ctx, o, t, []string{pkg}, "-skip=^("+strings.Join(passed, "|")+")$"); err != nil {
				return err
			}
		}
	}
	if len(others) == 0 {
		return nil
	}
	return runPackages(ctx, o, t, others)
}

// runPackages runs go test and feeds its events to t. That tests fail is no
// error of it.
func runPackages(ctx context.Context, o options, t *tally, packages []string, more ...string) error {
	args := append([]string{"test", "-json", "-timeout=" + o.timeout.String()}, more...)
	if o.race {
		args = append(args, "-race")
	}
	if o.tests != "" {
		args = append(args, "-count=1", "-run="+o.tests)
	}
	cmd := exec.CommandContext(ctx, "go", append(args, packages...)...)
	cmd.Stderr = os.Stderr
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	if err := t.read(pipe); err != nil {
		return fmt.Errorf("read the events of go test: %w", err)
	}
	// An exit status that no event explains must not pass for success.
	if err := cmd.Wait(); err != nil && t.ok() {
		return fmt.Errorf("go test: %w", err)
	}
	return nil
}

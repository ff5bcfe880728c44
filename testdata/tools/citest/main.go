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
	flag.Parse()
	o.packages = flag.Args()
	if len(o.packages) == 0 {
		o.packages = []string{"./..."}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	t := newTally(os.Stdout)
	began := time.Now()
	err := run(ctx, o, t, os.Stdout)
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

// runTests runs go test and feeds its events to t. That tests fail is no
// error of it.
func runTests(ctx context.Context, o options, t *tally) error {
	args := []string{"test", "-json", "-timeout=" + o.timeout.String()}
	if o.race {
		args = append(args, "-race")
	}
	if o.tests != "" {
		args = append(args, "-count=1", "-run="+o.tests)
	}
	cmd := exec.CommandContext(ctx, "go", append(args, o.packages...)...)
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

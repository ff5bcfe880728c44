// Command cairnbench measures whole operations of Cairn beside other backup
// programs, on data that it makes itself.
//
//	go run ./cmd/cairnbench                          # every data set, a tenth of its size
//	go run ./cmd/cairnbench --only src,db --scale 1  # two of them, whole
//	go run ./cmd/cairnbench --dir /mnt/bench --tools borg --until first
//	go run ./cmd/cairnbench s3                       # beside restic, through an S3 server
//
// It makes each data set from a seed, and then lets the tools take turns,
// operation by operation: init, a first backup, one of unchanged data, one after
// a change, deleting all snapshots but the newest, collecting what they alone
// needed, a restore, and a check of every byte. Each restore is compared with
// the source, byte for byte. What counts is CPU seconds: wall time depends on
// what else the machine does.
//
// A key file opens Cairn's repository, so that no time goes into stretching a
// passphrase. From the CPU time of the others that of a minimal command is
// subtracted, which is little else than stretching the passphrase.
//
// How the cost grows with what there is, chunks, files, entries of a directory,
// snapshots and the size of a sparse file, is measured apart, for Cairn alone:
//
//	go run ./cmd/cairnbench grow --chunks 1e6,1e7,5e7
//
// With --dir a run that was interrupted goes on where it was, and --tools and
// --until do a part of it: the next run with the same --dir does the rest.
//
// With the word s3 it builds the S3 server of the tests, counts requests, and
// restores a large file over a line with a latency.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is the whole program. It returns the exit code: 0 done, 1 failed, 2 usage.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	err := command(ctx, args, stdout, stderr)
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return 0
	}
	_, _ = fmt.Fprintln(stderr, "cairnbench:", err) // nowhere left to complain
	if _, ok := errors.AsType[*usageError](err); ok {
		return 2
	}
	return 1
}

// A usageError is a mistake in the command line.
type usageError struct{ error }

func (e *usageError) Unwrap() error { return e.error }

func command(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) > 0 {
		switch args[0] {
		case kernelArg:
			return runKernel(ctx, args[1:])
		case lineArg:
			return runLine(ctx, args[1:], os.Stdin, stdout)
		case growStepArg:
			return runGrowStep(ctx, args[1:], stdout)
		case "grow":
			o, err := parseGrow(args[1:], stderr)
			if err != nil {
				return &usageError{err}
			}
			return grow(ctx, o, stdout, stderr)
		case s3Arg:
			o, err := parseS3(args[1:], stderr)
			if err != nil {
				return &usageError{err}
			}
			return runS3(ctx, o, stdout, stderr)
		}
	}
	o, err := parse(args, stderr)
	if err != nil {
		return &usageError{err}
	}
	return bench(ctx, o, stdout, stderr)
}

// options are what the command line says.
type options struct {
	dir      string
	paths    map[string]string // of tools, by their names
	scale    float64
	rounds   int
	backups  int // of a history
	sets     []string
	tools    []string
	until    op
	noGoroot bool
	json     bool
	level    string // of Cairn's compression; "": its default
}

func parse(args []string, stderr io.Writer) (options, error) {
	o := options{paths: make(map[string]string)}
	var only, tools, until string
	f := flag.NewFlagSet("cairnbench", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar(&o.dir, "dir", "", "work in `DIR`, and go on where an earlier run in it ended (default: a directory for temporary files, which is removed)")
	for _, name := range toolNames() {
		if name == "kernels" {
			continue
		}
		usage := "measure the " + name + " at `PATH` (default: that of the search path)"
		if name == "cairn" {
			usage = "measure the cairn at `PATH` (default: built from this checkout)"
		}
		f.Func(name, usage, func(path string) error { o.paths[name] = path; return nil })
	}
	f.Float64Var(&o.scale, "scale", 0.1, "size of the data sets; 1 is the full size")
	f.IntVar(&o.rounds, "rounds", 2, "how often everything is measured, with new repositories; medians are shown")
	f.StringVar(&only, "only", strings.Join(defaultSets(), ","), "comma-separated data sets of "+strings.Join(setNames(), ", "))
	f.StringVar(&tools, "tools", strings.Join(toolNames(), ","), "comma-separated tools")
	f.BoolVar(&o.noGoroot, "no-goroot", false, "generate the source tree instead of copying that of the Go toolchain")
	f.IntVar(&o.backups, "history", 100, "how many backups the set history has")
	f.StringVar(&until, "until", "", "end after this `operation`, to go on another time: needs --dir")
	f.StringVar(&o.level, "compression", "", "the `level` of Cairn's compression (default: its own)")
	f.BoolVar(&o.json, "json", false, "print JSON: every single measurement and the medians")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	o.until = op(until)
	o.sets, o.tools = strings.Split(only, ","), strings.Split(tools, ",")
	return o, errors.Join(
		check(f.NArg() == 0, "unexpected argument %q", f.Arg(0)),
		check(o.scale > 0 && o.scale <= 100, "--scale must lie above 0 and at most at 100"),
		check(o.rounds > 0, "--rounds must be at least 1"),
		check(o.backups > 2, "--history must be at least 3"),
		check(until == "" || slices.Contains(ops(), o.until), "no operation %q", until),
		check(until == "" || o.dir != "", "--until needs --dir"),
		known("data set", o.sets, setNames()),
		known("tool", o.tools, toolNames()),
	)
}

func check(ok bool, format string, args ...any) error { //nolint:revive // ok is what is checked, no mode
	if ok {
		return nil
	}
	return fmt.Errorf(format, args...)
}

func known(what string, names, all []string) error {
	var errs []error
	for _, name := range names {
		errs = append(errs, check(slices.Contains(all, name), "no %s %q: there are %s", what, name, strings.Join(all, ", ")))
	}
	return errors.Join(errs...)
}

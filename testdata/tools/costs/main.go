// Command costs compares what the stages of a backup cost with what they cost
// when testdata/costs.txt was written: bytes and allocations of one operation
// exactly, and the instructions of kernels that run in one goroutine within 5 %,
// counted by valgrind. It is no matter of the machine's speed or load. It is run
// in the root of the module that it measures.
//
//	(cd testdata/tools && go build -o /tmp/costs ./costs) && /tmp/costs
//	/tmp/costs -renew   # after a change that is meant
//
// Figures of another release of Go are not compared, and without valgrind, or on
// a processor without AVX2 or one that valgrind does not know, no instructions are.
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
	"path/filepath"
	"runtime"
	"strings"
)

// tolerance is by how much more or fewer instructions may differ.
const tolerance = 0.05

func main() {
	var o options
	flag.StringVar(&o.file, "file", filepath.Join("testdata", "costs.txt"), "where the expected costs are")
	flag.BoolVar(&o.renew, "renew", false, "write the file anew")
	flag.StringVar(&o.only, "only", "", "measure only what has this in its name")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, o, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "costs:", err)
		os.Exit(1)
	}
}

type options struct {
	file  string
	renew bool
	only  string
}

func run(ctx context.Context, o options, out io.Writer) error {
	if o.renew && o.only != "" {
		return errors.New("-renew measures everything")
	}
	dir, err := os.MkdirTemp("", "cairn-costs-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	m := &measurer{dir: dir, only: o.only, instructions: canCount(out), out: out}
	got, err := m.measure(ctx)
	if err != nil {
		return err
	}
	if o.renew {
		if !m.instructions {
			return errors.New("instructions could not be counted: nothing is written")
		}
		return os.WriteFile(o.file, format(got), 0o644)
	}
	text, err := os.ReadFile(o.file)
	if err != nil {
		return err
	}
	want, release, err := parse(string(text))
	if err != nil {
		return fmt.Errorf("%s: %w", o.file, err)
	}
	if release != goRelease() {
		fmt.Fprintf(out, "%s is of %s, this is %s: nothing is compared; renew it\n", o.file, release, goRelease())
		return nil
	}
	if o.only != "" {
		want = filter(want, o.only)
	}
	diffs := compare(want, got)
	fmt.Fprintf(out, "%d costs compared, %d differ\n", len(want), len(diffs))
	if len(diffs) > 0 {
		return fmt.Errorf("%s\nif that is meant: (cd testdata/tools && go build -o /tmp/costs ./costs) && /tmp/costs -renew", strings.Join(diffs, "\n"))
	}
	return nil
}

// goRelease returns the release of Go without the patch: allocations and
// instructions depend on it.
func goRelease() string {
	parts := strings.SplitN(runtime.Version(), ".", 3)
	return strings.Join(parts[:min(2, len(parts))], ".")
}

// canCount reports whether instructions can be counted as for the file, and says
// why not.
func canCount(out io.Writer) bool {
	if _, err := exec.LookPath("valgrind"); err != nil {
		fmt.Fprintln(out, "valgrind is not installed: instructions are not compared (Debian: apt-get install valgrind)")
		return false
	}
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil || runtime.GOARCH != "amd64" || !strings.Contains(string(info), " avx2 ") {
		fmt.Fprintln(out, "this is no amd64 processor with AVX2, as which valgrind shows itself: instructions are not compared")
		return false
	}
	return true
}

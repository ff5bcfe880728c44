package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
)

// A suite is the benchmarks of one package that are deterministic.
type suite struct {
	path    string // of the package, below the module
	pattern string
	times   int // operations; fixed, since what is made once is divided by them
}

func suites() []suite {
	return []suite{
		{"./cmd/internal/kernel", "^BenchmarkKernel$", 20},
		{"./manifest", "^Benchmark(NodeAppend|DecodeNode|DirWriter|Lookup|Extents)$", 5},
	}
}

// counted is the suite of which instructions are counted: all of its kernels.
const counted = "./cmd/internal/kernel"

// runs is how often allocations are measured: the least counts, since what the
// runtime does by itself now and then only adds.
const runs = 3

// A cost is what one operation takes.
type cost struct {
	bytes, allocs int64
	instructions  int64 // 0: not counted
}

// A measurer measures all suites.
type measurer struct {
	dir          string // of test binaries
	only         string
	instructions bool
	out          io.Writer // for what is left out

	mu  sync.Mutex // guards got
	got map[string]cost
}

func (m *measurer) measure(ctx context.Context) (map[string]cost, error) {
	m.got = make(map[string]cost)
	for _, s := range suites() {
		binary := filepath.Join(m.dir, strings.ReplaceAll(strings.Trim(s.path, "./"), "/", "-")+".test")
		if out, err := exec.CommandContext(ctx, "go", "test", "-c", "-o", binary, s.path).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("build %s: %w\n%s", s.path, err, out)
		}
		found, err := allocations(ctx, binary, s)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.path, err)
		}
		for name, c := range found {
			if strings.Contains(name, m.only) {
				m.got[name] = c
			}
		}
		if s.path == counted && m.instructions {
			switch err := m.count(ctx, binary); {
			case errors.Is(err, errUncountable):
				m.uncountable(err)
			case err != nil:
				return nil, err
			}
		}
	}
	return m.got, nil
}

// uncountable leaves the instructions out, and says why.
func (m *measurer) uncountable(err error) {
	fmt.Fprintf(m.out, "%v: instructions are not compared\n", err)
	m.instructions = false
	for name, c := range m.got {
		c.instructions = 0
		m.got[name] = c
	}
}

// benchmark returns the command that runs some benchmarks, without what the
// runtime does at its own times. RDTSCP, with which the runtime reads its clock,
// is off: valgrind announces it on every processor with AVX2 and executes it only
// where the machine shows it too.
func benchmark(ctx context.Context, argv []string, pattern string, times int) *exec.Cmd {
	argv = append(argv, "-test.run=^$", "-test.bench="+pattern, fmt.Sprintf("-test.benchtime=%dx", times), "-test.benchmem", "-test.cpu=1")
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), "GOGC=off", "GOMAXPROCS=1", "GODEBUG=asyncpreemptoff=1,cpu.rdtscp=off")
	return cmd
}

var benchLine = regexp.MustCompile(`(?m)^Benchmark(\S+)\s.*?\s(\d+) B/op\s+(\d+) allocs/op`)

// allocations runs a suite and returns the costs of each benchmark.
func allocations(ctx context.Context, binary string, s suite) (map[string]cost, error) {
	least := make(map[string]cost)
	for range runs {
		out, err := benchmark(ctx, []string{binary}, s.pattern, s.times).CombinedOutput()
		if err != nil {
			return nil, fmt.Errorf("%w\n%s", err, out)
		}
		for _, line := range benchLine.FindAllStringSubmatch(string(out), -1) {
			bytes, err1 := strconv.ParseInt(line[2], 10, 64)
			allocs, err2 := strconv.ParseInt(line[3], 10, 64)
			if err := errors.Join(err1, err2); err != nil {
				return nil, err
			}
			c, ok := least[line[1]]
			if !ok || allocs < c.allocs || allocs == c.allocs && bytes < c.bytes {
				least[line[1]] = cost{bytes: bytes, allocs: allocs}
			}
		}
	}
	if len(least) == 0 {
		return nil, errors.New("no benchmark ran")
	}
	return least, nil
}

// count counts the instructions of every benchmark of m.got.
func (m *measurer) count(ctx context.Context, binary string) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.NumCPU())
	names := make([]string, 0, len(m.got))
	for name := range m.got {
		names = append(names, name)
	}
	for _, name := range names {
		g.Go(func() error {
			n, err := instructions(ctx, binary, name)
			if err != nil {
				return fmt.Errorf("instructions of %s: %w", name, err)
			}
			m.mu.Lock()
			defer m.mu.Unlock()
			c := m.got[name]
			c.instructions = n
			m.got[name] = c
			return nil
		})
	}
	return g.Wait()
}

// enough is so many instructions that the start of a process, which differs by
// some 100,000, does not matter.
const enough = 20_000_000

// instructions returns those of one operation: what more operations take beyond
// what one takes, so that the preparation falls out.
func instructions(ctx context.Context, binary, name string) (int64, error) {
	one, err := total(ctx, binary, name, 1)
	if err != nil {
		return 0, err
	}
	for times := 3; ; times = 3 + (times-1)*8 {
		more, err := total(ctx, binary, name, times)
		if err != nil {
			return 0, err
		}
		if more-one >= enough || times > 100 {
			return (more - one) / int64(times-1), nil
		}
	}
}

// errUncountable says that valgrind does not know an instruction that the program
// executes on this processor.
var errUncountable = errors.New("valgrind cannot count on this processor")

var unrecognised = regexp.MustCompile(`(?i)(?:unhandled instruction bytes|Unrecognised instruction at)[^\n]*`)

var collected = regexp.MustCompile(`Collected : (\d+)`)

// total returns the instructions of a process that runs a benchmark. One that
// dies under valgrind, as happens to processes of Go now and then, is started
// again.
func total(ctx context.Context, binary, name string, times int) (int64, error) {
	var out []byte
	var err error
	for range 4 {
		argv := []string{"valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", binary}
		out, err = benchmark(ctx, argv, exactly(name), times).CombinedOutput()
		if found := collected.FindSubmatch(out); err == nil && found != nil {
			return strconv.ParseInt(string(found[1]), 10, 64)
		}
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		if unknown := unrecognised.Find(out); unknown != nil {
			return 0, fmt.Errorf("%w: %s", errUncountable, unknown)
		}
	}
	return 0, fmt.Errorf("valgrind counted nothing: %w\n%s", err, out)
}

// exactly returns the pattern of one benchmark.
func exactly(name string) string {
	parts := strings.Split("Benchmark"+name, "/")
	for i, p := range parts {
		parts[i] = "^" + regexp.QuoteMeta(p) + "$"
	}
	return strings.Join(parts, "/")
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// growOptions are what the command line of grow says.
type growOptions struct {
	dir       string
	cairn     string
	parts     []string
	chunks    sizes
	files     sizes
	entries   sizes
	snapshots sizes
	sparse    sizes // GiB
	restored  int64 // MiB
	json      bool
}

// sizes are numbers such as 1e6, separated by commas.
type sizes []uint64

// String is the text that Set takes.
func (s *sizes) String() string {
	words := make([]string, len(*s))
	for i, n := range *s {
		words[i] = strconv.FormatUint(n, 10)
	}
	return strings.Join(words, ",")
}

// Set takes text in place of what was there.
func (s *sizes) Set(text string) error {
	*s = nil
	for word := range strings.SplitSeq(text, ",") {
		n, err := strconv.ParseFloat(word, 64)
		if err != nil || n < 1 || n > 1e12 {
			return fmt.Errorf("%q is no number from 1 to 1e12", word)
		}
		*s = append(*s, uint64(n))
	}
	return nil
}

// growParts are what is measured, in this order.
func growParts() []string { return []string{"chunks", "files", "directory", "snapshots", "sparse"} }

func parseGrow(args []string, stderr io.Writer) (growOptions, error) {
	o := growOptions{
		chunks: sizes{1e6, 1e7}, files: sizes{1e5, 1e6}, entries: sizes{1e5, 1e6}, snapshots: sizes{1e3, 1e4}, sparse: sizes{20, 200},
	}
	var parts string
	f := flag.NewFlagSet("cairnbench grow", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar(&o.dir, "dir", "", "work in an empty or new `DIR`, which stays empty (default: a directory for temporary files)")
	f.StringVar(&o.cairn, "cairn", "", "measure the cairn at `PATH` (default: built from this checkout); the part chunks always measures this checkout")
	f.StringVar(&parts, "parts", strings.Join(growParts(), ","), "comma-separated parts")
	f.Var(&o.chunks, "chunks", "comma-separated `numbers` of chunks in the index; 5e7 take 8 GB of disk")
	f.Var(&o.files, "files", "comma-separated `numbers` of files, a hundred a directory")
	f.Var(&o.entries, "entries", "comma-separated `numbers` of empty files in one directory")
	f.Var(&o.snapshots, "snapshots", "comma-separated `numbers` of snapshots")
	f.Var(&o.sparse, "sparse", "comma-separated sizes of a sparse file, in `GiB`; one MiB in each is data")
	f.Int64Var(&o.restored, "restored", 1024, "`MiB` that are backed up and restored among the chunks")
	f.BoolVar(&o.json, "json", false, "print JSON")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	o.parts = strings.Split(parts, ",")
	return o, errors.Join(
		check(f.NArg() == 0, "unexpected argument %q", f.Arg(0)),
		check(o.restored >= 1, "--restored must be at least 1"),
		known("part", o.parts, growParts()),
	)
}

// A growth is what was measured of one part at one size.
type growth struct {
	Part    string   `json:"part"`
	Size    uint64   `json:"size"`
	Figures []figure `json:"figures"`
}

// A figure is one measured number. Its name ends in its unit.
type figure struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
}

// A grower measures how the cost grows.
type grower struct {
	opts growOptions
	dir  string
	self string
	tool cairn
	say  func(format string, args ...any)
}

// grow makes the working directory, measures and prints.
func grow(ctx context.Context, o growOptions, stdout, stderr io.Writer) (err error) {
	dir := o.dir
	if dir == "" {
		dir = os.TempDir()
	} else if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if dir, err = os.MkdirTemp(dir, "cairnbench-grow-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, removeAll(dir)) }()
	g := &grower{opts: o, dir: dir, say: func(format string, args ...any) {
		_, _ = fmt.Fprintf(stderr, format+"\n", args...) // progress, for who watches
	}}
	if g.self, err = os.Executable(); err != nil {
		return err
	}
	t, err := findCairn(ctx, options{paths: map[string]string{"cairn": o.cairn}}, dir)
	if err != nil {
		return err
	}
	g.tool = t.(cairn) //nolint:errcheck // findCairn returns nothing else
	all, err := g.all(ctx)
	if err != nil {
		return err
	}
	about := machine(ctx, []tool{t})
	if o.json {
		e := json.NewEncoder(stdout)
		e.SetIndent("", "  ")
		return e.Encode(struct {
			About    map[string]string `json:"about"`
			Growth   []growth          `json:"growth"`
			Exponent []exponent        `json:"exponents"`
		}{about, all, exponents(all)})
	}
	return writeGrowth(stdout, about, all)
}

// all measures every part at every size.
func (g *grower) all(ctx context.Context) (all []growth, err error) {
	measure := map[string]func(context.Context, string, uint64) ([]figure, error){
		"chunks": g.chunks, "files": g.files, "directory": g.directory, "snapshots": g.snapshots, "sparse": g.sparse,
	}
	lists := map[string]sizes{
		"chunks": g.opts.chunks, "files": g.opts.files, "directory": g.opts.entries, "snapshots": g.opts.snapshots, "sparse": g.opts.sparse,
	}
	for _, part := range growParts() {
		if !slices.Contains(g.opts.parts, part) {
			continue
		}
		for _, n := range lists[part] {
			dir := filepath.Join(g.dir, part)
			if err := os.Mkdir(dir, 0o700); err != nil {
				return nil, err
			}
			figures, err := measure[part](ctx, dir, n)
			if err = errors.Join(err, removeAll(dir)); err != nil {
				return nil, fmt.Errorf("%s of %d: %w", part, n, err)
			}
			all = append(all, growth{part, n, figures})
		}
	}
	return all, nil
}

// step runs a step in a process of its own, so that its memory can be told, and
// returns its figures with what in front of their names.
func (g *grower) step(ctx context.Context, what string, s growStep) ([]figure, error) {
	args, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(g.self, growStepArg, string(args)) //nolint:noctx // execute ends it
	cmd.Env = environment()
	u, err := execute(ctx, cmd)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.Step, err)
	}
	var figures []figure
	if err := json.Unmarshal(u.out, &figures); err != nil {
		return nil, fmt.Errorf("%s: %w", s.Step, err)
	}
	for i := range figures {
		figures[i].Name = what + ": " + figures[i].Name
		g.say("%s %g", figures[i].Name, figures[i].Value)
	}
	return figures, nil
}

// run runs a command of cairn and returns what it cost.
func (g *grower) run(ctx context.Context, what string, j job, args ...string) ([]figure, error) {
	u, err := execute(ctx, g.tool.cairn(j, args...))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	g.say("%s: %.2f s CPU, %.2f s wall, %d MiB", what, u.cpu(), u.wall.Seconds(), u.peak>>20)
	return []figure{
		{what + ": CPU s", u.cpu()},
		{what + ": wall s", u.wall.Seconds()},
		{what + ": peak MiB", float64(u.peak) / (1 << 20)},
	}, nil
}

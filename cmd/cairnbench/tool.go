package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// errNotInstalled says that a tool is not on this machine.
var errNotInstalled = errors.New("not installed")

// A tool is a backup program.
type tool interface {
	name() string
	// version returns the line with which the tool names itself.
	version() string
	// command returns the command that does o. It runs in the directory that
	// is to be backed up, so that what is restored equals that directory.
	command(p place, o op, data string) *exec.Cmd
	// keyCPU returns the CPU seconds of o that go into deriving the key from
	// a passphrase.
	keyCPU(ctx context.Context, p place, o op) (float64, error)
}

func toolNames() []string { return []string{"cairn", "restic"} }

// findTool returns a tool that is ready, or errNotInstalled.
func findTool(ctx context.Context, name string, o options, scratch string) (tool, error) {
	switch name {
	case "cairn":
		return findCairn(ctx, o.cairn, scratch)
	case "restic":
		return findRestic(ctx)
	}
	return nil, fmt.Errorf("no tool %q", name)
}

// A place is where a tool has its things, in one round.
type place struct{ dir string }

// newPlace makes a new, empty place.
func newPlace(scratch, tool string) (place, error) {
	dir, err := os.MkdirTemp(scratch, tool+"-")
	if err != nil {
		return place{}, err
	}
	p := place{dir: dir}
	return p, errors.Join(os.Mkdir(p.repo(), 0o700), os.Mkdir(p.cache(), 0o700))
}

func (p place) repo() string     { return filepath.Join(p.dir, "repo") }
func (p place) cache() string    { return filepath.Join(p.dir, "cache") }
func (p place) key() string      { return filepath.Join(p.dir, "key") }
func (p place) restored() string { return filepath.Join(p.dir, "restored") }

// environment returns that of this process without what steers the tools, and
// with more.
func environment(more ...string) []string {
	env := slices.DeleteFunc(os.Environ(), func(s string) bool {
		return strings.HasPrefix(s, "CAIRN_") || strings.HasPrefix(s, "RESTIC_")
	})
	return append(env, more...)
}

// cairn is the program of this repository, with its defaults and a key file.
type cairn struct{ path, says string }

// findCairn returns the cairn at path, or builds one if path is empty.
func findCairn(ctx context.Context, path, scratch string) (tool, error) {
	if path == "" {
		path = filepath.Join(scratch, "cairn")
		build := exec.CommandContext(ctx, "go", "build", "-o", path, "github.com/cairn-backup/cairn/cmd/cairn")
		if out, err := build.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("go build: %w\n%s", err, out)
		}
	}
	path, err := filepath.Abs(path) // commands run elsewhere
	if err != nil {
		return nil, err
	}
	says, err := firstLine(exec.CommandContext(ctx, path, "version"))
	if err != nil {
		return nil, fmt.Errorf("%s version: %w", path, err)
	}
	return cairn{path: path, says: says}, nil
}

func (c cairn) name() string    { return "cairn" }
func (c cairn) version() string { return c.says }

// keyCPU returns 0: nothing is derived from a key file.
func (c cairn) keyCPU(context.Context, place, op) (float64, error) { return 0, nil }

func (c cairn) command(p place, o op, data string) *exec.Cmd {
	args := []string{"--quiet", "--repo", p.repo(), "--cache-dir", p.cache(), "--key-file", p.key()}
	switch o {
	case opInit:
		args = append(args, "init")
	case opFirst, opUnchanged, opChanged:
		args = append(args, "backup", ".")
	case opRestore:
		args = append(args, "restore", "latest", "--target", p.restored())
	case opCheck:
		args = append(args, "check", "--read-data")
	}
	cmd := exec.Command(c.path, args...) //nolint:noctx // execute ends it
	cmd.Dir, cmd.Env = data, environment()
	return cmd
}

// restic is restic with its defaults and a passphrase.
type restic struct{ path, says string }

func findRestic(ctx context.Context) (tool, error) {
	path, err := exec.LookPath("restic")
	if err != nil {
		return nil, errNotInstalled
	}
	says, err := firstLine(exec.CommandContext(ctx, path, "version"))
	if err != nil {
		return nil, fmt.Errorf("%s version: %w", path, err)
	}
	return restic{path: path, says: says}, nil
}

func (r restic) name() string    { return "restic" }
func (r restic) version() string { return r.says }

// keyRuns is how often the key derivation is measured beside each operation.
const keyRuns = 3

// keyCPU returns the median over some runs of a command that does little but
// derive the key. That the program starts and reads two small files is taken
// off as well.
func (r restic) keyCPU(ctx context.Context, p place, o op) (float64, error) {
	if o == opInit {
		return 0, nil // it tries how expensive it may be, which is its own choice
	}
	var cpu []float64
	for range keyRuns {
		u, err := execute(ctx, r.restic(p, p.dir, "cat", "config"))
		if err != nil {
			return 0, err
		}
		cpu = append(cpu, u.cpu())
	}
	return median(cpu), nil
}

func (r restic) command(p place, o op, data string) *exec.Cmd {
	switch o {
	case opInit:
		return r.restic(p, data, "init")
	case opRestore:
		return r.restic(p, data, "restore", "latest", "--target", p.restored())
	case opCheck:
		return r.restic(p, data, "check", "--read-data")
	case opFirst, opUnchanged, opChanged:
	}
	return r.restic(p, data, "backup", ".")
}

func (r restic) restic(p place, dir string, args ...string) *exec.Cmd {
	args = append([]string{"--quiet", "--repo", p.repo(), "--cache-dir", p.cache()}, args...)
	cmd := exec.Command(r.path, args...) //nolint:noctx // execute ends it
	cmd.Dir, cmd.Env = dir, environment("RESTIC_PASSWORD=cairnbench")
	return cmd
}

func firstLine(cmd *exec.Cmd) (string, error) {
	out, err := cmd.Output()
	line, _, _ := strings.Cut(string(out), "\n")
	return line, err
}

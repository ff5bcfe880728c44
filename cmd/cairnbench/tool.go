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

// A tool is a backup program, or a floor: something that no backup program can
// be cheaper than.
type tool interface {
	name() string
	// version returns the line with which the tool names itself.
	version() string
	// commands returns what does j.op, one command after another; none if the
	// tool has no such operation. Backups run in the directory that is to be
	// backed up, so that what is restored equals that directory.
	commands(ctx context.Context, j job) ([]*exec.Cmd, error)
	// keyCommand returns a command that does little else than deriving the key
	// from a passphrase; nil if the tool derives none.
	keyCommand(j job) *exec.Cmd
	// startCommand returns a command that does nothing but start.
	startCommand(j job) *exec.Cmd
}

// A meanwhiler can back up while another process of it collects.
type meanwhiler interface {
	tool
	// meanwhile returns a backup of j.data by another process of another machine.
	meanwhile(j job) *exec.Cmd
}

// A job is an operation of a tool.
type job struct {
	place
	op     op
	data   string // the directory that is backed up
	number int    // of the backup, from 1; for other operations: of the backups so far
	doomed []int  // the numbers of the backups that opDelete deletes
}

// tag names a backup in tools whose backups have names.
func tag(number int) string { return fmt.Sprintf("b%03d", number) }

func toolNames() []string {
	return []string{"cairn", "restic", "borg", "kopia", "duplicacy", "cp", "tar", "kernels"}
}

// findTool returns a tool that is ready, or errNotInstalled.
func findTool(ctx context.Context, name string, o options, scratch string) (tool, error) {
	switch name {
	case "cairn":
		return findCairn(ctx, o, scratch)
	case "kernels":
		return findKernels()
	}
	path := o.paths[name]
	if path == "" {
		path = name
	}
	path, err := exec.LookPath(path)
	if errors.Is(err, exec.ErrNotFound) {
		return nil, errNotInstalled
	}
	if err != nil {
		return nil, err
	}
	if path, err = filepath.Abs(path); err != nil { // commands run elsewhere
		return nil, err
	}
	version := "--version"
	if name == "restic" {
		version = "version"
	}
	says, err := firstLine(exec.CommandContext(ctx, path, version))
	if err != nil && name != "duplicacy" { // it has no such flag, and shows its version with the help
		return nil, fmt.Errorf("%s %s: %w", path, version, err)
	}
	p := program{label: name, path: path, says: says, asks: version}
	if says == "" {
		p.says = path
	}
	switch name {
	case "restic":
		return restic{p}, nil
	case "borg":
		return borg{p}, nil
	case "kopia":
		return kopia{p}, nil
	case "duplicacy":
		return duplicacy{p}, nil
	case "cp":
		return copier{p}, nil
	default:
		return tarrer{p}, nil
	}
}

// A program is what all tools have.
type program struct {
	label, path, says string
	asks              string // the argument that makes it tell its version
}

func (p program) name() string    { return p.label }
func (p program) version() string { return p.says }

func (p program) startCommand(j job) *exec.Cmd { return p.run(j.data, nil, p.asks) }

// keyCommand returns nil: most derive no key.
func (p program) keyCommand(job) *exec.Cmd { return nil }

// run returns the command with some arguments, in dir.
func (p program) run(dir string, env []string, args ...string) *exec.Cmd {
	cmd := exec.Command(p.path, args...) //nolint:noctx // execute ends it
	cmd.Dir, cmd.Env = dir, environment(env...)
	return cmd
}

// A place is where a tool has its things, in one round.
type place struct{ dir string }

// newPlace makes an empty place in dir.
func newPlace(dir string) (place, error) {
	p := place{dir: dir}
	return p, errors.Join(
		os.MkdirAll(p.repo(), 0o700), os.Mkdir(p.cache(), 0o700), os.Mkdir(p.restored(), 0o700),
		os.Mkdir(filepath.Join(dir, "aside"), 0o700),
	)
}

func (p place) repo() string     { return filepath.Join(p.dir, "repo") }
func (p place) cache() string    { return filepath.Join(p.dir, "cache") }
func (p place) key() string      { return filepath.Join(p.dir, "key") }
func (p place) restored() string { return filepath.Join(p.dir, "restored") }

// passphrase opens the repositories of tools that want one.
const passphrase = "cairnbench"

// environment returns that of this process without what steers the tools, and
// with more.
func environment(more ...string) []string {
	env := slices.DeleteFunc(os.Environ(), func(s string) bool {
		for _, prefix := range []string{"CAIRN_", "RESTIC_", "BORG_", "KOPIA_", "DUPLICACY_", "ZSTD_", "TAR_OPTIONS"} {
			if strings.HasPrefix(s, prefix) {
				return true
			}
		}
		return false
	})
	return append(env, more...)
}

func firstLine(cmd *exec.Cmd) (string, error) {
	out, err := cmd.Output()
	line, _, _ := strings.Cut(string(out), "\n")
	return line, err
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
)

// cairn is the program of this repository, with its defaults and a key file.
type cairn struct {
	program
	level string // of compression; "": the default
}

// findCairn returns the cairn at the path that o says, or builds one.
func findCairn(ctx context.Context, o options, scratch string) (tool, error) {
	path := o.paths["cairn"]
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
	c := cairn{program: program{label: "cairn", path: path, says: says, asks: "version"}, level: o.level}
	if c.level != "" {
		c.says += ", compression " + c.level
	}
	return c, nil
}

func (c cairn) commands(ctx context.Context, j job) ([]*exec.Cmd, error) {
	switch j.op {
	case opInit:
		return one(c.cairn(j, "init")), nil
	case opFirst, opUnchanged, opChanged, opHistory:
		return one(c.cairn(j, c.compressed("backup", ".")...)), nil
	case opRestore:
		ids, err := c.snapshots(ctx, j)
		if err != nil || len(ids) == 0 {
			return nil, errors.Join(err, errors.New("there is no snapshot"))
		}
		return one(c.cairn(j, "restore", ids[len(ids)-1], "--target", j.restored())), nil
	case opCheck:
		return one(c.cairn(j, "check", "--read-data")), nil
	case opDelete:
		ids, err := c.snapshots(ctx, j)
		if err == nil {
			ids, err = pick(ids, j.doomed)
		}
		return one(c.cairn(j, append([]string{"delete"}, ids...)...)), err
	case opCollect:
		// Both times are a day by default, and everything here is seconds old. A
		// backup that runs meanwhile may have to store again what it just stored.
		return one(c.cairn(j, c.compressed("gc", "--keep-deleted", "0", "--spare", "1s")...)), nil
	}
	return nil, nil
}

// compressed adds the level to the arguments of what stores data.
func (c cairn) compressed(args ...string) []string {
	if c.level != "" {
		args = append(args, "--compression", c.level)
	}
	return args
}

// meanwhile backs up as another machine does, with another cache.
func (c cairn) meanwhile(j job) *exec.Cmd {
	other := filepath.Join(j.dir, "cache-meanwhile")
	return c.run(j.data, nil, "--quiet", "--repo", j.repo(), "--cache-dir", other, "--key-file", j.key(), "backup", ".", "--host", otherHost)
}

// otherHost is what meanwhile backs up as.
const otherHost = "other"

// snapshots returns the ids of all but those of otherHost, oldest first.
func (c cairn) snapshots(ctx context.Context, j job) ([]string, error) {
	var doc struct{ Snapshots []struct{ ID, Host string } }
	if err := list(ctx, c.cairn(j, "snapshots"), &doc); err != nil {
		return nil, err
	}
	var ids []string
	for _, s := range doc.Snapshots {
		if s.Host != otherHost {
			ids = append(ids, s.ID)
		}
	}
	return ids, nil
}

func (c cairn) cairn(j job, args ...string) *exec.Cmd {
	args = append([]string{"--json", "--no-progress", "--repo", j.repo(), "--cache-dir", j.cache(), "--key-file", j.key()}, args...)
	return c.run(j.data, nil, args...)
}

func one(cmd *exec.Cmd) []*exec.Cmd { return []*exec.Cmd{cmd} }

// list runs a command that prints JSON, and decodes what it prints.
func list(ctx context.Context, cmd *exec.Cmd, into any) error {
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() }) // it may have ended by itself
	defer stop()
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("%s: %w", cmd, err)
	}
	return json.Unmarshal(out, into)
}

// pick returns the ids of the backups with these numbers, counted from 1.
func pick(ids []string, numbers []int) ([]string, error) {
	var all []string
	for _, n := range numbers {
		if n > len(ids) {
			return nil, fmt.Errorf("there are %d snapshots, and number %d is wanted", len(ids), n)
		}
		all = append(all, ids[n-1])
	}
	return all, nil
}

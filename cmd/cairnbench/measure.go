package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// A usage is what a process cost.
type usage struct {
	wall, user, system time.Duration
	peak               int64  // resident memory at its highest, bytes; 0 where the system does not tell
	out                []byte // the last of what it printed
}

// plus returns what two processes cost, one after the other.
func (u usage) plus(more usage) usage {
	u.wall, u.user, u.system = u.wall+more.wall, u.user+more.user, u.system+more.system
	u.peak, u.out = max(u.peak, more.peak), more.out
	return u
}

// cpu returns the CPU seconds.
func (u usage) cpu() float64 { return (u.user + u.system).Seconds() }

// maxOutput bounds what is kept of a command's output, in bytes.
const maxOutput = 64 << 10

// execute runs a command to its end, or kills it when ctx ends. The error
// holds what the command said last.
//
// On Linux the peak of a process counts from before its exec, when it still was
// this one: this program must stay small, and what can not is a process of its own
// (lineProcess).
func execute(ctx context.Context, cmd *exec.Cmd) (usage, error) {
	var out, complaints tail
	cmd.Stdout, cmd.Stderr = &out, &complaints
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		return usage{}, err
	}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() }) // it may have ended by itself
	err := cmd.Wait()
	u := usage{wall: time.Since(begin), user: cmd.ProcessState.UserTime(), system: cmd.ProcessState.SystemTime(), peak: peak(cmd.ProcessState), out: out.Bytes()}
	if !stop() {
		return u, context.Cause(ctx)
	}
	if err != nil {
		return u, fmt.Errorf("%w\n%s%s", err, out.Bytes(), complaints.Bytes())
	}
	return u, nil
}

// A tail keeps the last bytes that were written to it.
type tail struct{ bytes.Buffer }

func (t *tail) Write(p []byte) (int, error) {
	n, err := t.Buffer.Write(p)
	t.Next(max(0, t.Len()-maxOutput))
	return n, err
}

// size returns the bytes of all files under dir.
func size(dir string) (n int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		info, err := e.Info()
		if err == nil {
			n += info.Size()
		}
		return err
	})
	return n, err
}

// removeAll removes dir, also where a restored directory may not be written.
func removeAll(dir string) error {
	err := os.RemoveAll(dir)
	if err == nil {
		return nil
	}
	_ = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error { // the second try tells
		if err == nil && e.IsDir() {
			err = os.Chmod(path, 0o700) //nolint:gosec // a directory that goes away
		}
		return err
	})
	return errors.Join(os.RemoveAll(dir))
}

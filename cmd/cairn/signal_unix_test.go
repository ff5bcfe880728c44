//go:build unix

package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// asProgram makes the test binary act as cairn; see TestMain.
const asProgram = "CAIRN_TEST_AS_PROGRAM"

// wait10 is a shell script that says that it started and lives for some ten
// seconds.
const wait10 = "echo started >&2; i=0; while [ $i -lt 100 ]; do sleep 0.1; i=$((i+1)); done"

// newRepo makes a repository and returns the environment that opens it.
func newRepo(t *testing.T) []string {
	t.Helper()
	dir := t.TempDir()
	env := []string{
		"HOME=" + dir, "PATH=" + os.Getenv("PATH"), asProgram + "=1",
		"CAIRN_REPO=" + filepath.Join(dir, "repo"), "CAIRN_KEY_FILE=" + filepath.Join(dir, "key"),
	}
	if code := run(t.Context(), []string{"init"}, stdio{in: strings.NewReader(""), out: io.Discard, err: io.Discard}, env); code != 0 {
		t.Fatalf("cairn init exits with %d", code)
	}
	return env
}

// TestSignal: SIGINT and SIGTERM end a backup with 130 and publish nothing.
func TestSignal(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		t.Run(sig.String(), func(t *testing.T) {
			t.Parallel()
			env := newRepo(t)
			cmd, stderr := startStream(t, env, "trap 'exit 0' TERM; "+wait10)
			if err := cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			if code := waitCode(t, cmd); code != exitInterrupted {
				t.Errorf("exit code %d, want %d; stderr:\n%s", code, exitInterrupted, read(t, stderr))
			}
			if said := read(t, stderr); !strings.Contains(said, "cairn: interrupted; nothing was published\nhint: run it again") {
				t.Errorf("stderr says %q", said)
			}
			var out bytes.Buffer
			if code := run(t.Context(), []string{"snapshots", "--json"}, stdio{in: strings.NewReader(""), out: &out, err: io.Discard}, env); code != 0 || out.String() != `{"schema":1,"snapshots":[]}`+"\n" {
				t.Errorf("cairn snapshots after that: %d, %s", code, out.String())
			}
		})
	}
}

// TestSignalWhileReadingStdin: a backup of a pipe that says nothing ends as well.
func TestSignalWhileReadingStdin(t *testing.T) {
	t.Parallel()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, "-v", "backup", "--stdin", "x")
	cmd.Env = newRepo(t)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// More than the pipe and one read hold: once it is written, it is being read.
	if _, err := stdin.Write(make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if code := waitCode(t, cmd); code != exitInterrupted {
		t.Errorf("exit code %d, want %d", code, exitInterrupted)
	}
	if d := time.Since(start); d > 10*time.Second {
		t.Errorf("it took %v", d)
	}
}

// TestSecondSignal: what does not end by the first signal ends by the second.
func TestSecondSignal(t *testing.T) {
	t.Parallel()
	cmd, stderr := startStream(t, newRepo(t), "trap '' TERM; "+wait10)
	start := time.Now()
	for range 2 {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		time.Sleep(200 * time.Millisecond) // signals that come together are one
	}
	if code := waitCode(t, cmd); code != exitInterrupted {
		t.Errorf("exit code %d, want %d; stderr:\n%s", code, exitInterrupted, read(t, stderr))
	}
	if d := time.Since(start); d > 4*time.Second {
		t.Errorf("it took %v, although a producer that ignores SIGTERM is only killed after five seconds", d)
	}
}

// startStream starts a backup of what a shell script prints, and returns once
// the script has said "started" on stderr, which goes to the file that is
// returned: the script may outlive the program and hold it open.
func startStream(t *testing.T, env []string, script string) (cmd *exec.Cmd, stderr string) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	stderr = filepath.Join(t.TempDir(), "stderr")
	f, err := os.Create(stderr)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd = exec.CommandContext(t.Context(), exe, "backup", "--stdin", "x", "--", "sh", "-c", script)
	cmd.Env = env
	cmd.Stderr = f
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for range 600 {
		if strings.Contains(read(t, stderr), "started") {
			return cmd, stderr
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatalf("the script did not start within a minute: %s", read(t, stderr))
	return nil, ""
}

func read(t *testing.T, path string) string {
	t.Helper()
	p, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(p)
}

func waitCode(t *testing.T, cmd *exec.Cmd) int {
	t.Helper()
	err := cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode()
}

// TestCancelled: a context that is done ends every command with 130.
func TestCancelled(t *testing.T) {
	env := newRepo(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, args := range [][]string{{"backup", t.TempDir()}, {"snapshots"}, {"check"}, {"stats"}} {
		if code := run(ctx, args, stdio{in: strings.NewReader(""), out: io.Discard, err: io.Discard}, env); code != exitInterrupted {
			t.Errorf("cairn %q exits with %d, want %d", args, code, exitInterrupted)
		}
	}
}

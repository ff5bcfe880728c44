//go:build unix

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// TestNoCoreDump: a process that has read a passphrase and is killed by a
// signal that dumps memory leaves no dump, wherever the system puts them and
// whatever limit it was started with. The same signal makes another process
// dump, else there is nothing to see.
func TestNoCoreDump(t *testing.T) {
	dir := t.TempDir()
	const unlimited = `ulimit -c unlimited; exec "$@"`
	dumped := func(t *testing.T, cmd *exec.Cmd) bool {
		t.Helper()
		_ = cmd.Wait() // it was killed
		status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
		if !ok || !status.Signaled() || status.Signal() != syscall.SIGABRT {
			t.Fatalf("the process ended otherwise: %v", cmd.ProcessState)
		}
		return status.CoreDump()
	}
	control := exec.CommandContext(t.Context(), "sh", "-c", unlimited, "sh", "sh", "-c", "kill -ABRT $$")
	control.Dir = dir
	if err := control.Start(); err != nil {
		t.Fatal(err)
	}
	if !dumped(t, control) {
		t.Skip("this system dumps no memory")
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, trace := range []string{"GOTRACEBACK=crash", "GOTRACEBACK=single"} {
		work := filepath.Join(dir, trace)
		if err := os.Mkdir(work, 0o700); err != nil {
			t.Fatal(err)
		}
		// It waits for the command's output when it has opened the repository.
		cmd := exec.CommandContext(t.Context(), "sh", "-c", unlimited, "sh", exe, "backup", "--stdin", "x", "--", "sh", "-c", "echo started >&2; exec sleep 3")
		cmd.Dir = work
		cmd.Env = append(slices.DeleteFunc(newRepo(t), func(kv string) bool { return strings.HasPrefix(kv, "CAIRN_KEY_FILE") }),
			"CAIRN_PASSPHRASE=correct-horse-battery-staple", trace)
		repo := exec.CommandContext(t.Context(), exe, "-r", filepath.Join(work, "repo"), "init")
		cmd.Env = append(cmd.Env, "CAIRN_REPO="+filepath.Join(work, "repo"))
		repo.Env = cmd.Env
		if out, err := repo.CombinedOutput(); err != nil {
			t.Fatalf("cairn init: %v: %s", err, out)
		}
		said, err := cmd.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 8)
		if _, err := said.Read(buf); err != nil || string(buf[:7]) != "started" {
			t.Fatalf("stderr begins with %q, %v", buf, err)
		}
		if err := cmd.Process.Signal(syscall.SIGABRT); err != nil {
			t.Fatal(err)
		}
		if trace == "GOTRACEBACK=single" { // the runtime prints a trace and exits by itself
			_ = cmd.Wait()
			if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.CoreDump() {
				t.Errorf("%s: memory was dumped", trace)
			}
		} else if dumped(t, cmd) {
			t.Errorf("%s: memory was dumped", trace)
		}
		entries, err := os.ReadDir(work)
		if err != nil || len(entries) != 1 {
			t.Errorf("%s: the directory holds %v, %v", trace, entries, err)
		}
	}
}

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestProofManyEntries backs up one directory of very many entries, again with
// one more, and restores it. However many they are, memory stays bounded: only
// the names of a directory are held at once.
func TestProofManyEntries(t *testing.T) {
	entries, limit := 10_000, int64(250<<20)
	if os.Getenv(envProve) != "" {
		entries, limit = 1_000_000, 350<<20 // names of a million take 40 MiB, and garbage as much
	}
	work := t.TempDir()
	if dir, err := os.MkdirTemp("/dev/shm", "cairn"); err == nil { // a disk takes minutes
		t.Cleanup(func() { _ = os.RemoveAll(dir) })
		work = dir
	}
	src := filepath.Join(work, "src")
	must(t, os.Mkdir(src, 0o700))
	dir, err := unix.Open(src, unix.O_DIRECTORY, 0)
	must(t, err)
	defer unix.Close(dir)
	create := func(name string) {
		fd, err := unix.Openat(dir, name, unix.O_CREAT|unix.O_WRONLY, 0o600)
		must(t, err)
		must(t, unix.Close(fd))
	}
	for i := range entries {
		create(fmt.Sprintf("entry-%07d", (i*7919)%entries))
	}
	env := newRepo(t)
	exe, err := os.Executable()
	must(t, err)
	cairn := func(args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), exe, args...)
		cmd.Env = env
		var said strings.Builder
		cmd.Stderr = &said
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("cairn %s: %v\n%s", strings.Join(args, " "), err, said.String())
		}
		usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
		if !ok || usage.Maxrss<<10 > limit {
			t.Errorf("cairn %s takes %d MiB of memory, want %d at most", strings.Join(args, " "), usage.Maxrss>>10, limit>>20)
		}
		t.Logf("cairn %s: %v CPU, %d MiB", args[0], cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime(), usage.Maxrss>>10)
		return string(out)
	}
	lists := func(want int) {
		t.Helper()
		if got := strings.Count(cairn("ls", "latest"), "entry-"); got != want {
			t.Errorf("the snapshot lists %d entries, want %d", got, want)
		}
	}
	cairn("backup", src)
	create("entry-more")
	if out := cairn("backup", src); !strings.Contains(out, fmt.Sprintf("  %s files, 0 B  ", count(entries+1))) {
		t.Errorf("the second backup says %s", out)
	}
	lists(entries + 1)
	if doc := cairn("ls", "latest", "--json"); !json.Valid([]byte(doc)) || strings.Count(doc, `"name":"entry-`) != entries+1 {
		t.Errorf("the listing in JSON has %d entries or is none", strings.Count(doc, `"name":"entry-`))
	}
	out := filepath.Join(work, "out")
	cairn("restore", "latest", "--target", out)
	restored, err := os.Open(out)
	must(t, err)
	defer restored.Close()
	names, err := restored.Readdirnames(-1)
	if err != nil || len(names) != entries+1 {
		t.Errorf("%d entries are restored, %v, want %d", len(names), err, entries+1)
	}
}

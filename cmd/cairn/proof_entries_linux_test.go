package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

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
	// What a command prints goes to a file: it would be in the memory of the test.
	stdout := filepath.Join(work, "stdout")
	cairn := func(args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), exe, args...)
		cmd.Env = env
		var said strings.Builder
		cmd.Stderr = &said
		out, err := os.Create(stdout)
		must(t, err)
		defer out.Close()
		cmd.Stdout = out
		must(t, cmd.Start())
		peak := peakMemory(cmd.Process.Pid)
		if err := cmd.Wait(); err != nil {
			t.Fatalf("cairn %s: %v\n%s", strings.Join(args, " "), err, said.String())
		}
		if most := <-peak; most == 0 || most > limit {
			t.Errorf("cairn %s takes %d bytes of memory, want %d at most", strings.Join(args, " "), most, limit)
		} else {
			t.Logf("cairn %s: %v CPU, %d MiB", args[0], cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime(), most>>20)
		}
	}
	cairn("backup", src)
	create("entry-more")
	cairn("backup", src)
	if out, err := os.ReadFile(stdout); !strings.Contains(string(out), fmt.Sprintf("  %s files, 0 B  ", count(entries+1))) {
		t.Errorf("the second backup says %s, %v", out, err)
	}
	cairn("ls", "latest")
	if got := entryLines(t, stdout); got != entries+1 {
		t.Errorf("the snapshot lists %d entries, want %d", got, entries+1)
	}
	cairn("ls", "latest", "--json")
	if got := entryNames(t, stdout); got != entries+1 {
		t.Errorf("the listing in JSON has %d entries, want %d", got, entries+1)
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

// peakMemory sends the most memory that a process has had, in bytes, when it has
// ended. It asks again and again: what the system says of a process at its end
// counts the memory of the one that started it, too.
func peakMemory(pid int) <-chan int64 {
	peak := make(chan int64, 1)
	go func() { // ends with the process
		var most int64
		for {
			status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
			_, rest, found := strings.Cut(string(status), "\nVmHWM:")
			if err != nil || !found { // a process that has ended has no memory
				peak <- most << 10
				return
			}
			var kib int64
			if _, err := fmt.Sscan(rest, &kib); err == nil {
				most = kib
			}
			time.Sleep(2 * time.Millisecond)
		}
	}()
	return peak
}

// entryLines counts the lines of a listing that are of entries.
func entryLines(t *testing.T, path string) (n int) {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if strings.Contains(lines.Text(), "entry-") {
			n++
		}
	}
	must(t, lines.Err())
	return n
}

// entryNames counts the strings of a JSON document that are names of entries.
func entryNames(t *testing.T, path string) (n int) {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	doc := json.NewDecoder(bufio.NewReader(f))
	for {
		token, err := doc.Token()
		if errors.Is(err, io.EOF) {
			return n
		}
		must(t, err)
		if name, ok := token.(string); ok && strings.HasPrefix(name, "entry-") {
			n++
		}
	}
}

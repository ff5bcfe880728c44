package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// peakAim is the most resident memory, in MiB, that a command may take at its
// defaults on two processors.
const peakAim = 150

// TestPeakMemory backs up, restores and checks so much that every buffer is in
// use. The memory is that of the program as a process of its own.
func TestPeakMemory(t *testing.T) {
	p := newProgram(t)
	p.extra = append(p.extra, "GOMAXPROCS=2")
	src := p.at("src")
	if err := os.Mkdir(src, 0o700); err != nil {
		t.Fatal(err)
	}
	size := scale(32, 64, 768) << 20
	random := make([]byte, 1<<20)
	for name, compressible := range map[string]bool{"random": false, "text": true} {
		f, err := os.Create(filepath.Join(src, name))
		if err != nil {
			t.Fatal(err)
		}
		fill := rand.NewChaCha8([32]byte{byte(len(name))})
		for range size / len(random) {
			_, _ = fill.Read(random) // it never fails
			if compressible {
				for i, c := range random {
					random[i] = "etaoinsh rdlucm\n"[c&15]
				}
			}
			if _, err := f.Write(random); err != nil {
				t.Fatal(err)
			}
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{
		{"init"}, {"backup", src}, {"restore", "latest", "--target", p.at("out")}, {"check", "--read-data"},
	} {
		peak := peakOf(t, p, args...)
		t.Logf("%s: %d MiB", args[0], peak)
		if peak > peakAim {
			t.Errorf("%s took %d MiB, the aim is %d", args[0], peak, peakAim)
		}
	}
}

// peakOf runs a command and returns its peak resident memory in MiB. What wait
// tells of it counts from before the exec, when the process was this one.
func peakOf(t *testing.T, p program, args ...string) int {
	t.Helper()
	cmd := p.cmd(append([]string{"--quiet"}, args...)...)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	peak := 0
	for {
		peak = max(peak, highWater(cmd.Process.Pid))
		select {
		case err := <-ended:
			if err != nil {
				t.Fatalf("%q: %v\n%s", args, err, said.Bytes())
			}
			return peak
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// highWater returns the peak resident memory of a process in MiB so far, 0 if it
// has ended.
func highWater(pid int) int {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range bytes.Lines(status) {
		if f := bytes.Fields(line); len(f) > 1 && string(f[0]) == "VmHWM:" {
			kib, _ := strconv.Atoi(string(f[1])) // the system writes numbers
			return kib >> 10
		}
	}
	return 0
}

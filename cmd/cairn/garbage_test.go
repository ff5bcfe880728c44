package main

import (
	"math"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"time"
)

func TestPercent(t *testing.T) {
	for _, tt := range []struct {
		live uint64 // MiB
		want int
	}{{0, 2400}, {1, 2400}, {8, 300}, {24, 100}, {48, 50}, {96, 25}, {100, 25}, {1000, 25}} {
		if got := percent(tt.live << 20); got != tt.want {
			t.Errorf("percent(%d MiB) = %d, want %d", tt.live, got, tt.want)
		}
	}
}

// TestPaceGarbageChild is the child of TestPaceGarbage: it counts the
// collections in the first 16 MiB of garbage, and in 200 later on.
func TestPaceGarbageChild(t *testing.T) {
	if os.Getenv("CAIRN_PACE_TEST_CHILD") == "" {
		t.Skip("runs as the child of TestPaceGarbage")
	}
	var m runtime.MemStats
	var kept []byte
	runtime.ReadMemStats(&m)
	before := m.NumGC
	paceGarbage()
	litter := func(n int) uint32 {
		for range n {
			kept = make([]byte, 1<<20)
		}
		runtime.ReadMemStats(&m)
		return m.NumGC - before
	}
	if n := litter(16); n != 0 {
		t.Errorf("%d collections after 16 MiB, want none", n)
	}
	for litter(1) == 0 {
	}
	for limit := int64(0); limit != math.MaxInt64; limit = debug.SetMemoryLimit(-1) {
		time.Sleep(time.Millisecond) // the cleanup runs beside
	}
	first := litter(0)
	// A collection goes on beside, and on a busy machine for long.
	if n := litter(200) - first; n < 1 || n > 40 {
		t.Errorf("%d collections in 200 MiB, want about 8", n)
	}
	if p := debug.SetGCPercent(100); p < 100 || p > 2400 {
		t.Errorf("%d %% of garbage, want 24 MiB of what lives", p)
	}
	runtime.KeepAlive(kept)
}

func TestPaceGarbage(t *testing.T) {
	run := func(env ...string) string {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestPaceGarbageChild$", "-test.v")
		for _, kv := range os.Environ() {
			if !strings.HasPrefix(kv, "GOGC=") && !strings.HasPrefix(kv, "GOMEMLIMIT=") && !strings.HasPrefix(kv, "GODEBUG=") {
				cmd.Env = append(cmd.Env, kv)
			}
		}
		cmd.Env = append(append(cmd.Env, "CAIRN_PACE_TEST_CHILD=1"), env...)
		out, _ := cmd.CombinedOutput() // what it says tells
		return string(out)
	}
	if out := run(); !strings.Contains(out, "--- PASS: TestPaceGarbageChild") {
		t.Error(out)
	}
}

package main

import (
	"math"
	"os"
	"runtime"
	"runtime/debug"
	gauge "runtime/metrics"
)

const (
	// firstCollection is how much memory the process has at its first
	// collection, in bytes: a command that does little ends before it. Each
	// collection takes 1 to 3 ms of CPU time, since the program's own tables are
	// scanned, too.
	firstCollection = 32 << 20
	// garbage is how much garbage may lie before the next collection, in bytes,
	// as long as less than four times as much lives. What lives is mostly a few
	// large buffers, which cost nothing to scan.
	garbage = 24 << 20
)

// paceGarbage makes the garbage collector let a fixed amount of garbage lie
// where little lives, in place of a share of it, unless the environment says
// otherwise.
func paceGarbage() {
	if os.Getenv("GOGC") != "" || os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(firstCollection)
	afterCollection(func() { debug.SetMemoryLimit(math.MaxInt64) })
}

// A cycle becomes garbage at once, so that its cleanup tells the end of a
// collection. It must not be a tiny object: those share their memory.
type cycle struct{ _ [64]byte }

// afterCollection runs first after the next collection, and after each one sets
// how much garbage may lie until the next.
func afterCollection(first func()) {
	runtime.AddCleanup(new(cycle), func(struct{}) {
		live := []gauge.Sample{{Name: "/gc/heap/live:bytes"}}
		gauge.Read(live)
		debug.SetGCPercent(percent(live[0].Value.Uint64()))
		first()
		afterCollection(func() {})
	}, struct{}{})
}

// percent returns how much garbage may lie, in percent of live bytes.
func percent(live uint64) int {
	return int(max(25, 100*garbage/max(live, 1<<20)))
}

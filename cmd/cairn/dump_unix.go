//go:build unix

package main

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// noDump keeps the system from writing this process's memory, and with it keys
// and passphrases, to a file or to a crash handler, if it ends with a signal or
// GOTRACEBACK=crash. Commands that are started inherit that. Another way on
// Linux, to make the process undumpable, would also take /proc/self away from
// it. Where the system refuses, all goes on: whoever may read the dumps of a
// process may mostly read its memory as well.
func noDump() {
	limit := unix.Rlimit{} // bytes
	if runtime.GOOS == "linux" {
		// With 0 a handler that dumps are piped to would get them all the same.
		// 1 is the kernel's own mark for no dump in either case.
		limit.Cur, limit.Max = 1, 1
	}
	_ = unix.Setrlimit(unix.RLIMIT_CORE, &limit)
}

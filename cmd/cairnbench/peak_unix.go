//go:build unix

package main

import (
	"os"
	"runtime"
	"syscall"
)

// peak returns the highest resident memory of a process that has ended, in
// bytes.
func peak(s *os.ProcessState) int64 {
	r, ok := s.SysUsage().(*syscall.Rusage)
	if !ok {
		return 0
	}
	unit := int64(1 << 10)
	if runtime.GOOS == "darwin" || runtime.GOOS == "ios" {
		unit = 1 // alone among the systems it counts bytes
	}
	return int64(r.Maxrss) * unit //nolint:unconvert // 32 bits on some systems
}

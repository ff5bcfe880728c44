//go:build unix

package engine

import "syscall"

// maxOpen returns how many files this process may have open.
func maxOpen() int {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil {
		return 0
	}
	return int(min(limit.Cur, 1<<20)) //nolint:gosec // as it says
}

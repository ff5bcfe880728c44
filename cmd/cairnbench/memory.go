package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// present makes free memory present before something is measured that handles so many
// bytes, by a file below dir that it writes and removes: twice as many and half a GiB, but no more
// than 3 GiB, and than half of what is free.
//
// A virtual machine may give free memory back to its host (Linux: page_reporting), and
// gets it anew when it is used. Where that was measured, seconds later already, and then writing a
// file of 1 GiB cost 1.8 CPU seconds in place of 0.2, which is more than restoring it.
// The one measured first would pay that for all.
func present(ctx context.Context, dir string, handled int64) error {
	path := filepath.Join(dir, "memory")
	n := min(2*handled+512<<20, 3<<30, available()/2)
	return errors.Join(writeFile(ctx, path, n, func(p []byte) { clear(p) }), os.Remove(path))
}

// available returns how many bytes of memory are free or can be; 0 where the
// system does not tell as Linux does.
func available() int64 {
	info, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	_, rest, _ := bytes.Cut(info, []byte("\nMemAvailable:"))
	var kib int64
	if _, err := fmt.Fscan(bytes.NewReader(rest), &kib); err != nil {
		return 0
	}
	return kib << 10
}

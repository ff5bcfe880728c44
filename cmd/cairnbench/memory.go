package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// present makes memory present for something that handles so many bytes, right before
// it is measured: twice as much and half a GiB, but at most 3 GiB and half of what is
// available. It writes a file below dir, and removes it.
//
// A virtual machine may give memory that it does not use back to its host (Linux:
// page_reporting), and get it anew when it does. On one that gave it back within
// seconds, writing a file of 1 GiB took 1.8 CPU seconds in place of 0.2, which is more
// than a restore of it takes otherwise; and who was measured first paid for all.
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

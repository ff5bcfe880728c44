package main

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

// TestPresent: what makes memory present leaves nothing behind, and says where it
// cannot.
func TestPresent(t *testing.T) {
	const little = 1<<20 - 256<<20 // so that 2 MiB are written
	dir := t.TempDir()
	if err := present(t.Context(), dir, little); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("%v, %v", left, err)
	}
	if err := present(t.Context(), filepath.Join(dir, "none"), little); err == nil {
		t.Error("no error where nothing can be written")
	}
	if n := available(); runtime.GOOS == "linux" && n < 1<<20 {
		t.Errorf("%d bytes are available", n)
	}
}

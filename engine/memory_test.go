package engine_test

import (
	"fmt"
	"io/fs"
	"runtime"
	"testing"
	"testing/fstest"

	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/engine/source"
)

// A scale weighs the heap when its first and its last directory are read.
type scale struct {
	fstest.MapFS
	first, last string
	empty, full uint64 // bytes
}

func (s *scale) ReadDir(name string) ([]fs.DirEntry, error) {
	switch name {
	case s.first:
		s.empty = heap()
	case s.last:
		s.full = heap()
	}
	return s.MapFS.ReadDir(name)
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestTreeIsNotInMemory backs up a tree of directories so small that none of
// them fills a window.
func TestTreeIsNotInMemory(t *testing.T) {
	const dirs, files = 300, 60
	s := &scale{MapFS: fstest.MapFS{}, first: "d000", last: fmt.Sprintf("d%03d", dirs-1)}
	for d := range dirs {
		for f := range files {
			s.MapFS[fmt.Sprintf("d%03d/f%02d", d, f)] = &fstest.MapFile{Mode: 0o644}
		}
	}
	r, _ := fresh(t)
	if _, err := r.Backup(t.Context(), source.FS("data", s), engine.BackupOptions{}); err != nil {
		t.Fatal(err)
	}
	if s.empty == 0 || s.full == 0 {
		t.Fatal("the heap was not weighed")
	}
	// An entry in hand takes more than 500 bytes.
	if grown := int64(s.full) - int64(s.empty); grown > dirs*files*100 { //nolint:gosec // sizes of a heap
		t.Errorf("the heap grew by %d bytes over %d entries", grown, dirs*files)
	}
}

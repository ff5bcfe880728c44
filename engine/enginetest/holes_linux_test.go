package enginetest_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/cairn-backup/cairn/engine/enginetest"
)

func TestHoles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sparse")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const size, data = 8 << 20, 1 << 20
	if _, err := f.WriteAt(make([]byte, data), size-data); err != nil {
		t.Fatal(err)
	}
	got, err := enginetest.Holes(path)
	if err != nil {
		t.Fatal(err)
	}
	if got == 0 {
		t.Skip("no holes on this file system")
	}
	if got != size-data {
		t.Errorf("Holes = %d, want %d", got, size-data)
	}
}

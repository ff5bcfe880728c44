package local

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/backend/backendtest"
)

// TestBackend runs the suite in each of the ways of publishing, and the whole
// of it for one of them when everything is to be proven, as .ci/prove does: its
// races and its long listing cost an fsync an object.
func TestBackend(t *testing.T) {
	for _, m := range methods {
		var opts backendtest.Options
		if m.m != unnamed || os.Getenv("CAIRN_PROVE") == "" {
			opts = backendtest.Options{RacedKeys: 40, ListedKeys: 200}
		}
		t.Run(m.name, func(t *testing.T) {
			backendtest.RunWith(t, opts, func(t *testing.T) backendtest.Open {
				dir := filepath.Join(t.TempDir(), "repo")
				if err := backend.Init(t.Context(), New(dir)); err != nil {
					t.Fatalf("Init = %v", err)
				}
				return func(t *testing.T) backend.Backend {
					b := New(dir)
					b.method.Store(int32(m.m))
					t.Cleanup(func() {
						if got := method(b.method.Load()); got != m.m {
							t.Logf("this file system does not have %s", m.name)
						}
						_ = b.Close()
					})
					return b
				}
			})
		})
	}
}

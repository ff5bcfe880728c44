package local

import (
	"path/filepath"
	"testing"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/backend/backendtest"
)

// TestBackend runs the suite in each of the ways of publishing.
func TestBackend(t *testing.T) {
	for name, m := range map[string]method{"Unnamed": unnamed, "Linked": linked, "Renamed": renamed} {
		t.Run(name, func(t *testing.T) {
			backendtest.Run(t, func(t *testing.T) backendtest.Open {
				dir := filepath.Join(t.TempDir(), "repo")
				if err := backend.Init(t.Context(), New(dir)); err != nil {
					t.Fatalf("Init = %v", err)
				}
				return func(t *testing.T) backend.Backend {
					b := New(dir)
					b.method.Store(int32(m))
					t.Cleanup(func() {
						if got := method(b.method.Load()); got != m {
							t.Logf("this file system does not have method %d; tested %d", m, got)
						}
						b.Close()
					})
					return b
				}
			})
		})
	}
}

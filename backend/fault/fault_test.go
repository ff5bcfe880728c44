package fault_test

import (
	"math"
	"testing"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/backend/backendtest"
	"github.com/cairn-backup/cairn/backend/fault"
	"github.com/cairn-backup/cairn/backend/mem"
)

// Without a fault the wrappers are backends.
func TestBackend(t *testing.T) {
	for name, wrap := range map[string]func(backend.Backend) backend.Backend{
		"Crash":      func(b backend.Backend) backend.Backend { return fault.Crash(b, math.MaxInt) },
		"CrashAfter": func(b backend.Backend) backend.Backend { return fault.CrashAfter(b, math.MaxInt) },
		"New":        func(b backend.Backend) backend.Backend { return fault.New(b) },
		"NoOpRule": func(b backend.Backend) backend.Backend {
			return fault.New(b, fault.Rule{Corrupt: func(p []byte) []byte { return p }})
		},
	} {
		t.Run(name, func(t *testing.T) {
			opts := backendtest.Options{RacedKeys: 20, ListedKeys: 200, LargeObject: 1 << 20}
			backendtest.RunWith(t, opts, func(*testing.T) backendtest.Open {
				b := mem.New()
				return func(*testing.T) backend.Backend { return wrap(b) }
			})
		})
	}
}

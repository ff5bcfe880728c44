package backend_test

import (
	"testing"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/backend/limit"
	"github.com/cairn-backup/cairn/backend/mem"
	"github.com/cairn-backup/cairn/backend/meter"
	"github.com/cairn-backup/cairn/backend/retry"
)

// distant is a store in a network.
type distant struct{ *mem.Backend }

func (distant) Concurrency() int { return 7 }

// TestConcurrency: wrappers hand on what the store says.
func TestConcurrency(t *testing.T) {
	for name, b := range map[string]struct {
		backend.Backend
		want int
	}{"near": {mem.New(), 0}, "far": {distant{mem.New()}, 7}} {
		limited, err := limit.New(b.Backend, limit.Options{Download: 1 << 30})
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range []backend.Backend{b.Backend, limited, meter.New(b.Backend), retry.New(b.Backend, retry.Policy{}), retry.New(meter.New(limited), retry.Policy{})} {
			if got := backend.Concurrency(w); got != b.want {
				t.Errorf("Concurrency of a %s store by %T = %d, want %d", name, w, got, b.want)
			}
		}
	}
}

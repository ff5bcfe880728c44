package mem_test

import (
	"testing"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/backend/backendtest"
	"github.com/cairn-backup/cairn/backend/mem"
)

func TestBackend(t *testing.T) {
	backendtest.Run(t, func(*testing.T) backendtest.Open {
		b := new(mem.Backend) // a fresh store for each subtest
		return func(*testing.T) backend.Backend { return b }
	})
}

func TestValidate(t *testing.T) {
	if err := backend.Validate(t.Context(), mem.New()); err != nil {
		t.Errorf("Validate = %v, want nil", err)
	}
}

package azure_test

import (
	"testing"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/backend/azure"
	"github.com/cairn-backup/cairn/backend/backendtest"
	"github.com/cairn-backup/cairn/backend/backendtest/servertest"
)

func open(t *testing.T, o azure.Options) *azure.Backend {
	t.Helper()
	b, err := azure.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestBackend: 32 creators race for each of 20 keys, and one wins.
func TestBackend(t *testing.T) {
	servertest.Azure(t) // or all of it is left out
	backendtest.RunWith(t, backendtest.Options{RacedKeys: 20}, func(t *testing.T) backendtest.Open {
		o := servertest.Azure(t)
		return func(t *testing.T) backend.Backend { return open(t, o) }
	})
}

// TestBackendInBlocks: as above with block lists for all but the smallest
// objects.
func TestBackendInBlocks(t *testing.T) {
	servertest.Azure(t)
	backendtest.RunWith(t, backendtest.Options{RacedKeys: 5, ListedKeys: 10}, func(t *testing.T) backendtest.Open {
		o := servertest.Azure(t)
		o.Blocks = 100
		return func(t *testing.T) backend.Backend { return open(t, o) }
	})
}

func TestValidate(t *testing.T) {
	if err := backend.Validate(t.Context(), open(t, servertest.Azure(t))); err != nil {
		t.Error(err)
	}
}

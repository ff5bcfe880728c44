package s3_test

import (
	"testing"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/backend/backendtest"
	"github.com/cairn-backup/cairn/backend/backendtest/servertest"
	"github.com/cairn-backup/cairn/backend/s3"
)

func open(t *testing.T, o s3.Options) *s3.Backend {
	t.Helper()
	b, err := s3.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestBackend: 32 creators race for each of 40 keys, and one wins.
func TestBackend(t *testing.T) {
	servertest.S3(t) // or all of it is left out
	opts := backendtest.Options{RacedKeys: 40}
	backendtest.RunWith(t, opts, func(t *testing.T) backendtest.Open {
		o := servertest.S3(t)
		return func(t *testing.T) backend.Backend { return open(t, o) }
	})
}

// TestBackendInParts: as above with a multipart upload for all but the smallest
// objects.
func TestBackendInParts(t *testing.T) {
	servertest.S3(t)
	opts := backendtest.Options{RacedKeys: 10, ListedKeys: 10}
	backendtest.RunWith(t, opts, func(t *testing.T) backendtest.Open {
		o := servertest.S3(t)
		o.Multipart = 100
		return func(t *testing.T) backend.Backend { return open(t, o) }
	})
}

func TestBackendMinIO(t *testing.T) {
	servertest.MinIO(t)
	backendtest.RunWith(t, backendtest.Options{RacedKeys: 40}, func(t *testing.T) backendtest.Open {
		o := servertest.MinIO(t)
		return func(t *testing.T) backend.Backend { return open(t, o) }
	})
}

func TestValidate(t *testing.T) {
	if err := backend.Validate(t.Context(), open(t, servertest.S3(t))); err != nil {
		t.Error(err)
	}
}

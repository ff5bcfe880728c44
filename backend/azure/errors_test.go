package azure

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"testing"

	"github.com/cairn-backup/cairn/backend"
)

// TestCancelledBelow: a request that is cancelled below the caller's context, or
// just after that was looked at, may have been sent; and its URL is not told.
func TestCancelledBelow(t *testing.T) {
	cancelled := &url.Error{Op: "Put", URL: "https://host/c/key?sig=secretsig", Err: context.Canceled}
	err := new(Backend).failed(t.Context(), "put", "key", cancelled)
	if !errors.Is(err, backend.ErrUnknownOutcome) || !errors.Is(err, context.Canceled) {
		t.Errorf("a put that was cancelled = %v, want ErrUnknownOutcome", err)
	}
	if strings.Contains(err.Error(), "secretsig") {
		t.Errorf("the error tells the signature: %v", err)
	}
}

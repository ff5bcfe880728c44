package s3_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/backend/backendtest"
	"github.com/cairn-backup/cairn/backend/backendtest/servertest"
	"github.com/cairn-backup/cairn/backend/retry"
)

// TestBadNetwork runs the suite through a network that swallows answers, cuts
// bodies either way and is slow, with retries: nobody notices.
func TestBadNetwork(t *testing.T) {
	o := servertest.S3(t)
	p := servertest.NewProxy(t, o.Endpoint)
	every := func(k, at int64) func(int64, *http.Request) bool {
		return func(n int64, r *http.Request) bool {
			// One case puts the very bytes that are there: then nobody can tell an
			// answer that was lost from a put that came first.
			return n%k == at && !strings.HasSuffix(r.URL.Path, "/log/1")
		}
	}
	p.Set(servertest.Fault{Latency: time.Millisecond, Swallow: every(11, 3), Cut: every(13, 5), CutRequest: every(17, 7)})
	opts := backendtest.Options{RacedKeys: 4, RacingCreators: 16, ListedKeys: 40, LargeObject: 2 << 20}
	backendtest.RunWith(t, opts, func(t *testing.T) backendtest.Open {
		o := servertest.S3(t)
		o.Endpoint = p.URL
		return func(t *testing.T) backend.Backend { return retry.New(open(t, o), quick) }
	})
	if _, swallowed, cut := p.Counts(); swallowed < 20 || cut < 20 {
		t.Errorf("%d answers were swallowed and %d bodies cut: too few to prove anything", swallowed, cut)
	}
}

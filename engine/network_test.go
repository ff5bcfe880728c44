package engine_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/backend/azure"
	"github.com/cairn-backup/cairn/backend/backendtest/servertest"
	"github.com/cairn-backup/cairn/backend/retry"
	"github.com/cairn-backup/cairn/backend/s3"
	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/engine/target"
)

// A cloud is a real object store with a bad network in front of it.
type cloud struct {
	proxy  *servertest.Proxy
	direct backend.Backend
	far    backend.Backend // through the proxy
}

// stallFor is after how long the tests give up a connection on which nothing
// moves.
const stallFor = 500 * time.Millisecond

func onS3(t *testing.T) cloud {
	t.Helper()
	o := servertest.S3(t)
	c := cloud{proxy: servertest.NewProxy(t, o.Endpoint)}
	make := func() backend.Backend {
		b, err := s3.New(o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = b.Close() }) // its buffers would count in tests of memory
		return b
	}
	c.direct = make()
	o.Endpoint, o.Stall = c.proxy.URL, stallFor
	c.far = make()
	return c
}

func onAzure(t *testing.T) cloud {
	t.Helper()
	o := servertest.Azure(t)
	account := "/" + servertest.Account
	c := cloud{proxy: servertest.NewProxy(t, strings.TrimSuffix(o.Endpoint, account))}
	make := func() backend.Backend {
		b, err := azure.New(o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = b.Close() }) // its buffers would count in tests of memory
		return b
	}
	c.direct = make()
	o.Endpoint, o.Stall = c.proxy.URL+account, stallFor
	c.far = make()
	return c
}

func onEachCloud(t *testing.T, f func(t *testing.T, c func(*testing.T) cloud)) {
	t.Run("s3", func(t *testing.T) { servertest.S3(t); t.Parallel(); f(t, onS3) })
	t.Run("azure", func(t *testing.T) { servertest.Azure(t); t.Parallel(); f(t, onAzure) })
}

// away is for how long a link goes away: 30 seconds in the long proofs.
func away() time.Duration {
	if os.Getenv("CAIRN_PROVE") != "" {
		return 30 * time.Second
	}
	return time.Second
}

// commits reports whether r creates a record of the log.
func commits(r *http.Request) bool {
	return r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/log/0")
}

// once makes a condition hold one time.
func once(f func(*http.Request) bool) func(int64, *http.Request) bool {
	var done atomic.Bool
	return func(_ int64, r *http.Request) bool { return f(r) && done.CompareAndSwap(false, true) }
}

// refuse answers with a status that S3 and Azure give under load.
func refuse(w io.Writer, status int, code string) {
	body := "<Error><Code>" + code + "</Code></Error>"
	fmt.Fprintf(w, "HTTP/1.1 %d x\r\nContent-Type: application/xml\r\nx-ms-error-code: %s\r\nContent-Length: %d\r\n\r\n%s", status, code, len(body), body)
}

// TestNetwork: through each kind of bad network a backup and a restore end
// right, one snapshot is there for each backup, and nothing is damaged.
func TestNetwork(t *testing.T) {
	storm := func(codes ...string) servertest.Fault {
		return servertest.Fault{Answer: func(n int64, r *http.Request, w io.Writer) bool {
			if n%3 != 0 {
				return false
			}
			code := codes[int(n/3)%len(codes)]
			status := map[string]int{"SlowDown": 503, "ServerBusy": 503, "TooManyRequests": 429, "ConditionalRequestConflict": 409, "InternalError": 500}[code]
			if status == http.StatusConflict && r.Header.Get("X-Ms-Version") != "" {
				status, code = 503, "ServerBusy" // the other one is S3's
			}
			refuse(w, status, code)
			return true
		}}
	}
	every := func(k int64) func(int64, *http.Request) bool {
		return func(n int64, _ *http.Request) bool { return n%k == k-1 }
	}
	faults := map[string]func() servertest.Fault{
		"slow": func() servertest.Fault {
			return servertest.Fault{Latency: 20 * time.Millisecond, Pace: 5 * time.Millisecond}
		},
		"answers cut":       func() servertest.Fault { return servertest.Fault{Cut: every(4)} },
		"requests cut":      func() servertest.Fault { return servertest.Fault{CutRequest: every(4)} },
		"answers swallowed": func() servertest.Fault { return servertest.Fault{Swallow: every(4)} },
		"commits swallowed": func() servertest.Fault { return servertest.Fault{Swallow: once(commits)} },
		"commits held":      func() servertest.Fault { return servertest.Fault{Hold: once(commits)} },
		"black hole":        func() servertest.Fault { return servertest.Fault{Hold: every(9)} },
		"throttled":         func() servertest.Fault { return storm("SlowDown", "TooManyRequests", "ServerBusy") },
		"conflicts":         func() servertest.Fault { return storm("ConditionalRequestConflict", "InternalError") },
	}
	dir := write(t, someFiles())
	onEachCloud(t, func(t *testing.T, open func(*testing.T) cloud) {
		for name, fault := range faults {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				c := open(t)
				through(t, c, dir, func() { c.proxy.Set(fault()) })
			})
		}
	})
}

// through backs up twice and restores while what begin does lasts, and compares.
func through(t *testing.T, c cloud, dir string, begin func()) {
	t.Helper()
	policy := retry.Policy{First: 5 * time.Millisecond, Longest: 200 * time.Millisecond, Budget: 2 * time.Minute, Contact: time.Minute}
	opts := engine.Tuned(engine.Options{Workers: 2, Retry: policy, CacheDir: t.TempDir()}, small)
	if err := engine.Init(t.Context(), c.direct, secret, engine.InitOptions{}); err != nil {
		t.Fatal(err)
	}
	begin()
	next := copyDir(t, dir)
	update(t, next, map[string][]byte{"a/one": random(77, 80_000)})
	var reports []engine.BackupReport
	for _, from := range []string{dir, next} {
		r, err := engine.Open(t.Context(), c.far, secret, opts)
		if err != nil {
			t.Fatalf("Open: %v", err)
		}
		reports = append(reports, backUp(t, r, renamed(from), engine.BackupOptions{}))
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
	r, err := engine.Open(t.Context(), c.far, secret, engine.Options{Retry: policy, ReadOnly: true})
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	defer r.Close()
	for i, from := range []string{dir, next} {
		same(t, from, restore(t, r, reports[i].Snapshot.ID))
	}
	c.proxy.Set(servertest.Fault{})
	clean := openOn(t, c.direct)
	if got := list(t, clean); len(got) != 2 {
		t.Errorf("%d snapshots are visible, want 2", len(got))
	}
	whole(t, clean)
}

func openOn(t *testing.T, b backend.Backend) *engine.Repository {
	t.Helper()
	r, err := engine.Open(t.Context(), b, secret, engine.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

// TestLinkAway takes the link away at each kind of request, for a while: the
// operation completes.
func TestLinkAway(t *testing.T) {
	moments := map[string]func(r *http.Request) bool{
		"pack": func(r *http.Request) bool {
			return r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/packs/")
		},
		"commit": commits,
		"read": func(r *http.Request) bool {
			return r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/packs/")
		},
	}
	dir := write(t, someFiles())
	onEachCloud(t, func(t *testing.T, open func(*testing.T) cloud) {
		for name, at := range moments {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				c := open(t)
				gone := once(at)
				through(t, c, dir, func() {
					c.proxy.Set(servertest.Fault{Swallow: func(n int64, r *http.Request) bool {
						if !gone(n, r) {
							return false
						}
						c.proxy.Away()
						time.AfterFunc(away(), c.proxy.Back)
						return true
					}})
				})
			})
		}
	})
}

// TestLinkGone: a link that does not come back within the budget fails the
// backup, cleanly, and a second backup goes on where it was.
func TestLinkGone(t *testing.T) {
	dir := write(t, map[string][]byte{"large": random(1, 2<<20)})
	onEachCloud(t, func(t *testing.T, open func(*testing.T) cloud) {
		c := open(t)
		opts := engine.Settle(engine.Tuned(engine.Options{
			Workers: 2, CacheDir: t.TempDir(), Retry: retry.Policy{First: time.Millisecond, Longest: 10 * time.Millisecond, Budget: 300 * time.Millisecond},
		}, small), time.Second)
		r, err := engine.OpenOrInit(t.Context(), c.far, secret, opts)
		if err != nil {
			t.Fatal(err)
		}
		var packs atomic.Int64
		c.proxy.Set(servertest.Fault{Swallow: func(_ int64, r *http.Request) bool {
			if r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/packs/") && packs.Add(1) == 20 {
				c.proxy.Away()
			}
			return false
		}})
		_, err = r.Backup(t.Context(), renamed(dir), engine.BackupOptions{})
		if !errors.Is(err, engine.ErrUnavailable) || errors.Is(err, engine.ErrUnknownOutcome) {
			t.Errorf("Backup over a link that is gone = %v, want ErrUnavailable", err)
		}
		if trouble, ok := errors.AsType[*backend.TroubleError](err); !ok || trouble.Advice == "" {
			t.Errorf("Backup = %v says not what to do", err)
		}
		_ = r.Close() // the index is a hint
		clean := openOn(t, c.direct)
		if got := list(t, clean); len(got) != 0 {
			t.Errorf("%d snapshots are visible after a backup that failed", len(got))
		}
		whole(t, clean)

		c.proxy.Set(servertest.Fault{})
		c.proxy.Back()
		again, err := engine.Open(t.Context(), c.far, secret, opts)
		if err != nil {
			t.Fatal(err)
		}
		defer again.Close()
		report := backUp(t, again, renamed(dir), engine.BackupOptions{})
		if report.Snapshot.Stats.New >= report.Snapshot.Stats.Bytes {
			t.Errorf("the second backup stores %d bytes of %d, and nothing was used", report.Snapshot.Stats.New, report.Snapshot.Stats.Bytes)
		}
		same(t, dir, restore(t, again, report.Snapshot.ID))
	})
}

// TestCommitUnknown: the answer to the commit is lost, and so is every later
// one: the third answer, besides success and failure.
func TestCommitUnknown(t *testing.T) {
	dir := write(t, map[string][]byte{"file": random(1, 5000)})
	onEachCloud(t, func(t *testing.T, open func(*testing.T) cloud) {
		c := open(t)
		opts := engine.Settle(engine.Options{Retry: retry.Policy{First: time.Millisecond, Longest: 10 * time.Millisecond, Budget: 100 * time.Millisecond}}, time.Second)
		r, err := engine.OpenOrInit(t.Context(), c.far, secret, opts)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		c.proxy.Set(servertest.Fault{Swallow: func(_ int64, r *http.Request) bool {
			if commits(r) {
				c.proxy.Away()
			}
			return commits(r)
		}})
		if _, err := r.Backup(t.Context(), renamed(dir), engine.BackupOptions{}); !errors.Is(err, engine.ErrUnknownOutcome) {
			t.Errorf("Backup = %v, want ErrUnknownOutcome", err)
		}
		clean := openOn(t, c.direct)
		if got := list(t, clean); len(got) != 1 {
			t.Errorf("%d snapshots, want the one whose answer was lost", len(got))
		}
		whole(t, clean)
	})
}

// TestCancelledFar: a cancel ends a restore over a slow link at once, and
// leaves nothing behind.
func TestCancelledFar(t *testing.T) {
	dir := write(t, map[string][]byte{"file": random(1, 4<<20)})
	onEachCloud(t, func(t *testing.T, open func(*testing.T) cloud) {
		c := open(t)
		r, err := engine.OpenOrInit(t.Context(), c.far, secret, engine.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		id := backUp(t, r, renamed(dir), engine.BackupOptions{}).Snapshot.ID
		c.proxy.Set(servertest.Fault{Pace: 200 * time.Millisecond})
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		dst := filepath.Join(t.TempDir(), "x")
		start := time.Now()
		_, err = r.Restore(ctx, id, target.Dir(dst), engine.RestoreOptions{})
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > 3*time.Second {
			t.Errorf("Restore, cut off = %v after %v", err, time.Since(start))
		}
		if _, err := os.Stat(dst); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the restore left %s: %v", dst, err)
		}
	})
}

package limit_test

import (
	"context"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/backend/backendtest"
	"github.com/cairn-backup/cairn/backend/limit"
	"github.com/cairn-backup/cairn/backend/mem"
)

func TestBackend(t *testing.T) {
	backendtest.Run(t, func(*testing.T) backendtest.Open {
		b := mem.New()
		return func(t *testing.T) backend.Backend {
			l, err := limit.New(b, limit.Options{Upload: 1 << 32, Download: 1 << 32, Requests: 4})
			if err != nil {
				t.Fatal(err)
			}
			return l
		}
	})
}

func TestNegative(t *testing.T) {
	if _, err := limit.New(mem.New(), limit.Options{Upload: -1}); err == nil {
		t.Error("New takes a negative limit")
	}
	if _, err := limit.Conns(nil, limit.Options{Download: -1}); err == nil {
		t.Error("Conns takes a negative limit")
	}
}

// TestBandwidth: ten objects at once, up and down, take as long as they must.
func TestBandwidth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, err := limit.New(mem.New(), limit.Options{Upload: 1 << 20, Download: 2 << 20})
		if err != nil {
			t.Fatal(err)
		}
		each := func(f func(key backend.Key)) time.Duration {
			start := time.Now()
			var wg sync.WaitGroup
			for i := range 10 {
				wg.Go(func() { f(backend.Key("k" + string(rune('0'+i)))) })
			}
			wg.Wait()
			return time.Since(start)
		}
		within := func(what string, got, want time.Duration) {
			if got < want*98/100 || got > want*102/100 {
				t.Errorf("%s took %v, want %v", what, got, want)
			}
		}
		within("upload of 10 MiB", each(func(key backend.Key) {
			if err := l.Put(t.Context(), key, make([]byte, 1<<20)); err != nil {
				t.Error(err)
			}
		}), 10*time.Second)
		within("download of 10 MiB", each(func(key backend.Key) {
			if _, err := backend.ReadAll(t.Context(), l, key, 1<<20); err != nil {
				t.Error(err)
			}
		}), 5*time.Second)

		// Who waits for his share is let go at once when his context ends.
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		if err := l.Put(ctx, "late", make([]byte, 10<<20)); err == nil || time.Since(start) != time.Second {
			t.Errorf("Put, cut off = %v after %v", err, time.Since(start))
		}
	})
}

// busy counts how many calls are under way.
type busy struct {
	*mem.Backend
	now, most atomic.Int64
}

func (b *busy) Put(ctx context.Context, key backend.Key, data []byte) error {
	n := b.now.Add(1)
	defer b.now.Add(-1)
	for m := b.most.Load(); n > m && !b.most.CompareAndSwap(m, n); m = b.most.Load() {
	}
	time.Sleep(time.Second)
	return b.Backend.Put(ctx, key, data)
}

func TestRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &busy{Backend: mem.New()}
		l, err := limit.New(b, limit.Options{Requests: 3})
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for i := range 12 {
			wg.Go(func() {
				if err := l.Put(t.Context(), backend.Key("k"+string(rune('a'+i))), nil); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if b.most.Load() != 3 {
			t.Errorf("%d requests at a time, want 3", b.most.Load())
		}
	})
}

// TestListInside: who lists may send requests meanwhile, even with one slot.
func TestListInside(t *testing.T) {
	b := mem.New()
	for _, key := range []backend.Key{"a", "b", "c"} {
		if err := b.Put(t.Context(), key, []byte(key)); err != nil {
			t.Fatal(err)
		}
	}
	l, err := limit.New(b, limit.Options{Requests: 1})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for info, err := range l.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		if _, err := backend.ReadAll(t.Context(), l, info.Key, 10); err != nil {
			t.Fatal(err)
		}
		n++
	}
	if n != 3 {
		t.Errorf("%d objects, want 3", n)
	}
}

// TestConns sends half a MiB each way over a connection of one MiB a second.
func TestConns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dial, err := limit.Conns(func(context.Context, string, string) (net.Conn, error) {
			here, there := net.Pipe()
			go func() {
				_, _ = io.CopyN(io.Discard, there, 1<<19)
				_, _ = there.Write(make([]byte, 1<<19))
				_ = there.Close()
			}()
			return here, nil
		}, limit.Options{Upload: 1 << 20, Download: 1 << 19})
		if err != nil {
			t.Fatal(err)
		}
		c, err := dial(t.Context(), "tcp", "x")
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if _, err := c.Write(make([]byte, 1<<19)); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took < 400*time.Millisecond || took > 600*time.Millisecond {
			t.Errorf("sending took %v, want half a second", took)
		}
		start = time.Now()
		if n, err := io.Copy(io.Discard, c); n != 1<<19 || err != nil {
			t.Fatal(n, err)
		}
		if took := time.Since(start); took < 800*time.Millisecond || took > 1100*time.Millisecond {
			t.Errorf("receiving took %v, want a second", took)
		}
		_ = c.Close()
	})
}

package meter_test

import (
	"io"
	"sync"
	"testing"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/backend/backendtest"
	"github.com/cairn-backup/cairn/backend/mem"
	"github.com/cairn-backup/cairn/backend/meter"
)

func TestBackend(t *testing.T) {
	backendtest.Run(t, func(*testing.T) backendtest.Open {
		b := mem.New()
		return func(*testing.T) backend.Backend { return meter.New(b) }
	})
}

func TestCounts(t *testing.T) {
	ctx := t.Context()
	m := meter.New(mem.New())
	_ = m.Put(ctx, "a", make([]byte, 1000))
	_ = m.Put(ctx, "a", make([]byte, 1000)) // exists, and was sent all the same
	_ = m.Put(ctx, "b", make([]byte, 500))
	then := m.Counts()
	if want := (meter.Counts{Put: meter.Count{Requests: 3, Failures: 1, Bytes: 2500}}); then != want {
		t.Errorf("Counts = %+v, want %+v", then, want)
	}

	r, err := m.Get(ctx, "a", 100, 200)
	if err != nil {
		t.Fatalf("Get = %v", err)
	}
	if got := backend.BodySize(r); got != 200 {
		t.Errorf("BodySize = %d, want 200", got)
	}
	if _, err := io.ReadFull(r, make([]byte, 150)); err != nil { // and 50 stay unread
		t.Fatalf("ReadFull = %v", err)
	}
	_ = r.Close()
	_, _ = m.Get(ctx, "none", 0, -1)
	_, _ = m.Stat(ctx, "a")
	for range m.List(ctx, "") {
		continue
	}
	for range m.List(ctx, "/") {
		continue
	}
	_ = m.Delete(ctx, "a")
	if err := backend.DeleteAll(ctx, m, []backend.Key{"a", "b"}); err != nil {
		t.Errorf("DeleteAll = %v", err)
	}
	want := meter.Counts{
		Get:    meter.Count{Requests: 2, Failures: 1, Bytes: 150},
		Stat:   meter.Count{Requests: 1},
		List:   meter.Count{Requests: 2, Failures: 1},
		Delete: meter.Count{Requests: 3},
	}
	got := m.Counts().Sub(then)
	if got != want {
		t.Errorf("Counts.Sub = %+v, want %+v", got, want)
	}
	if got.Requests() != 8 {
		t.Errorf("Requests = %d, want 8", got.Requests())
	}
}

func TestCountsConcurrently(t *testing.T) {
	m := meter.New(mem.New())
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				_, _ = m.Stat(t.Context(), "none")
				_ = m.Counts()
			}
		})
	}
	wg.Wait()
	if got := m.Counts().Stat; got.Requests != 800 || got.Failures != 800 {
		t.Errorf("Counts.Stat = %+v, want 800 requests, all failed", got)
	}
}

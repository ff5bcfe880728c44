package fault_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/backend/fault"
	"github.com/cairn-backup/cairn/backend/mem"
)

var errBroken = errors.New("broken")

func stored(t *testing.T, b backend.Backend, key backend.Key) bool {
	t.Helper()
	_, err := b.Stat(t.Context(), key)
	if err != nil && !errors.Is(err, backend.ErrNotExist) {
		t.Fatalf("Stat(%s) = %v", key, err)
	}
	return err == nil
}

func fill(t *testing.T, b backend.Backend, keys ...backend.Key) {
	t.Helper()
	for _, key := range keys {
		if err := b.Put(t.Context(), key, []byte(key)); err != nil {
			t.Fatalf("Put(%s) = %v", key, err)
		}
	}
}

func TestCrash(t *testing.T) {
	for name, c := range map[string]struct {
		crash   func(backend.Backend, int) *fault.CrashBackend
		applied bool
	}{
		"Crash":      {fault.Crash, false},
		"CrashAfter": {fault.CrashAfter, true},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			m := mem.New()
			b := c.crash(m, 2)
			fill(t, b, "a")
			if err := b.Delete(ctx, "none"); err != nil { // counts as a write, too
				t.Errorf("Delete = %v", err)
			}
			if !stored(t, b, "a") || b.Crashed() {
				t.Errorf("before the crash: Crashed = %t", b.Crashed())
			}
			body, err := b.Get(ctx, "a", 0, -1)
			if err != nil {
				t.Fatalf("Get = %v", err)
			}
			if err := b.Put(ctx, "b", []byte("b")); !errors.Is(err, fault.ErrInjected) {
				t.Errorf("Put at the crash = %v, want ErrInjected", err)
			}
			if !b.Crashed() {
				t.Error("Crashed = false after the crash")
			}
			if got := stored(t, m, "b"); got != c.applied {
				t.Errorf("the last Put is stored: %t, want %t", got, c.applied)
			}

			_, getErr := b.Get(ctx, "a", 0, -1)
			_, statErr := b.Stat(ctx, "a")
			_, readErr := body.Read(make([]byte, 1))
			n, listErr := 0, error(nil)
			for _, err := range b.List(ctx, "") {
				n, listErr = n+1, err
			}
			for call, err := range map[string]error{
				"Put":    b.Put(ctx, "c", nil),
				"Get":    getErr,
				"Stat":   statErr,
				"List":   listErr,
				"Delete": b.Delete(ctx, "a"),
				"Init":   b.Init(ctx),
				"Read":   readErr,
			} {
				if !errors.Is(err, fault.ErrInjected) {
					t.Errorf("%s after the crash = %v, want ErrInjected", call, err)
				}
			}
			if n != 1 || stored(t, m, "c") || !stored(t, m, "a") {
				t.Error("a call after the crash went through")
			}
		})
	}
}

// Of many writers at once exactly n get through.
func TestCrashConcurrently(t *testing.T) {
	m := mem.New()
	b := fault.Crash(m, 10)
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() { _ = b.Put(t.Context(), backend.Key([]byte{'a' + byte(i%26), '-', '0' + byte(i/26)}), nil) })
	}
	wg.Wait()
	n := 0
	for range m.List(t.Context(), "") {
		n++
	}
	if n != 10 || !b.Crashed() {
		t.Errorf("%d of 40 Puts went through, crashed: %t; want 10", n, b.Crashed())
	}
}

// outcome is what a call returned: "" for nil.
func outcome(err error) string {
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, errBroken):
		return "broken"
	default:
		return err.Error()
	}
}

func TestRuleSelects(t *testing.T) {
	// Five calls, and which of them a rule makes fail.
	calls := func(b backend.Backend) []string {
		ctx := t.Context()
		put := b.Put(ctx, "log/2", nil)
		_, get := b.Get(ctx, "log/1", 0, -1)
		_, stat := b.Stat(ctx, "packs/1")
		var list error
		for _, err := range b.List(ctx, "log/") {
			list = err
		}
		return []string{
			outcome(put), outcome(get), outcome(stat), outcome(list), outcome(b.Delete(ctx, "packs/1")),
		}
	}
	const ok, no = "ok", "broken"
	for _, c := range []struct {
		name string
		rule fault.Rule
		want [5]string
	}{
		{"every call", fault.Rule{}, [5]string{no, no, no, no, no}},
		{"Put", fault.Rule{Op: fault.Put}, [5]string{no, ok, ok, ok, ok}},
		{"reads", fault.Rule{Op: fault.Get | fault.Stat | fault.List}, [5]string{ok, no, no, no, ok}},
		{"Delete", fault.Rule{Op: fault.Delete}, [5]string{ok, ok, ok, ok, no}},
		{"prefix", fault.Rule{Prefix: "log/"}, [5]string{no, no, ok, no, ok}},
		{"from", fault.Rule{From: 3}, [5]string{ok, ok, no, no, no}},
		{"the second", fault.Rule{From: 2, Count: 1}, [5]string{ok, no, ok, ok, ok}},
		{"the second of a prefix", fault.Rule{Prefix: "packs/", From: 2, Count: 1}, [5]string{ok, ok, ok, ok, no}},
		{"the first two", fault.Rule{Count: 2}, [5]string{no, no, ok, ok, ok}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := mem.New()
			fill(t, m, "log/1", "packs/1")
			c.rule.Err = errBroken
			b := fault.New(m, c.rule)
			if got := [5]string(calls(b)); got != c.want {
				t.Errorf("put, get, stat, list, delete = %v, want %v", got, c.want)
			}
			b.Clear()
			_ = m.Delete(t.Context(), "log/2")
			fill(t, b, "packs/2")
			if got := calls(b); got[0] != ok || got[1] != ok || got[3] != ok || got[4] != ok {
				t.Errorf("after Clear: %v, want ok", got)
			}
		})
	}
}

func TestErrHasNoEffect(t *testing.T) {
	m := mem.New()
	fill(t, m, "old")
	b := fault.New(m, fault.Rule{Err: errBroken})
	if err := b.Put(t.Context(), "new", nil); !errors.Is(err, errBroken) || stored(t, m, "new") {
		t.Errorf("Put = %v, stored: %t", err, stored(t, m, "new"))
	}
	if err := b.Delete(t.Context(), "old"); !errors.Is(err, errBroken) || !stored(t, m, "old") {
		t.Errorf("Delete = %v, still there: %t", err, stored(t, m, "old"))
	}
}

func TestLostReply(t *testing.T) {
	m := mem.New()
	fill(t, m, "old")
	b := fault.New(m, fault.Rule{LostReply: errBroken})
	if err := b.Put(t.Context(), "new", nil); !errors.Is(err, errBroken) || !stored(t, m, "new") {
		t.Errorf("Put = %v, stored: %t", err, stored(t, m, "new"))
	}
	if err := b.Put(t.Context(), "new", nil); !errors.Is(err, backend.ErrExist) {
		t.Errorf("Put of a taken key = %v, want ErrExist: it had no effect to lose the reply of", err)
	}
	if err := b.Delete(t.Context(), "old"); !errors.Is(err, errBroken) || stored(t, m, "old") {
		t.Errorf("Delete = %v, still there: %t", err, stored(t, m, "old"))
	}
	if _, err := b.Get(t.Context(), "new", 0, -1); !errors.Is(err, errBroken) {
		t.Errorf("Get = %v", err)
	}
	if _, err := b.Stat(t.Context(), "new"); !errors.Is(err, errBroken) {
		t.Errorf("Stat = %v", err)
	}
}

func TestCorrupt(t *testing.T) {
	m := mem.New()
	orig := []byte("0123456789")
	if err := m.Put(t.Context(), "object", orig); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		corrupt func([]byte) []byte
		off, n  int64
		want    string
		err     error
	}{
		{"flip, whole", fault.FlipBit(8), 0, -1, "0023456789", nil},
		{"flip, range with it", fault.FlipBit(8), 1, 2, "02", nil},
		{"flip, range without it", fault.FlipBit(8), 2, 2, "23", nil},
		{"flip the last", fault.FlipBit(-8), 8, 2, "88", nil},
		{"flip behind the end", fault.FlipBit(80), 0, -1, "0123456789", nil},
		{"flip before the start", fault.FlipBit(-81), 0, -1, "0123456789", nil},
		{"truncate", fault.Truncate(4), 0, -1, "0123", nil},
		{"truncate from the end", fault.Truncate(-1), 0, -1, "012345678", nil},
		{"truncate more than there is", fault.Truncate(-11), 0, -1, "", nil},
		{"truncate above the end", fault.Truncate(11), 0, -1, "0123456789", nil},
		{"range behind the truncation", fault.Truncate(4), 5, 1, "", backend.ErrRange},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := fault.New(m, fault.Rule{Op: fault.Get, Corrupt: c.corrupt})
			r, err := b.Get(t.Context(), "object", c.off, c.n)
			if !errors.Is(err, c.err) {
				t.Fatalf("Get = %v, want %v", err, c.err)
			}
			if err != nil {
				return
			}
			got, err := io.ReadAll(r)
			if err != nil || string(got) != c.want {
				t.Errorf("Get(%d, %d) = %q, %v; want %q", c.off, c.n, got, err, c.want)
			}
		})
	}
	data := bytes.Clone(orig)
	b := fault.New(m, fault.Rule{Op: fault.Put, Corrupt: fault.FlipBit(0)})
	if err := b.Put(t.Context(), "damaged", data); err != nil || !bytes.Equal(data, orig) {
		t.Errorf("Put = %v, data is %q", err, data)
	}
	if got, err := backend.ReadAll(t.Context(), m, "damaged", 10); err != nil || string(got) != "1123456789" {
		t.Errorf("stored is %q, %v", got, err)
	}
}

func TestCut(t *testing.T) {
	m := mem.New()
	fill(t, m, "a", "b", "c")
	if err := m.Put(t.Context(), "object", []byte("0123456789")); err != nil {
		t.Fatal(err)
	}
	b := fault.New(m, fault.Rule{CutErr: errBroken, CutAfter: 2})
	r, err := b.Get(t.Context(), "object", 1, 5)
	if err != nil {
		t.Fatal(err)
	}
	if got := backend.BodySize(r); got != 5 {
		t.Errorf("BodySize = %d, want 5 as if nothing were wrong", got)
	}
	if got, err := io.ReadAll(r); string(got) != "12" || !errors.Is(err, errBroken) {
		t.Errorf("body = %q, %v; want 12 and the error", got, err)
	}
	var keys []backend.Key
	var last error
	for info, err := range b.List(t.Context(), "") {
		if last = err; err == nil {
			keys = append(keys, info.Key)
		}
	}
	if len(keys) != 2 || !errors.Is(last, errBroken) {
		t.Errorf("List = %v, %v; want two keys and the error", keys, last)
	}
}

func TestDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := fault.New(mem.New(), fault.Rule{Op: fault.Put, Delay: time.Hour})
		start := time.Now()
		if err := b.Put(t.Context(), "a", nil); err != nil || time.Since(start) != time.Hour {
			t.Errorf("Put = %v after %v, want nil after an hour", err, time.Since(start))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		start = time.Now()
		if err := b.Put(ctx, "b", nil); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Minute {
			t.Errorf("Put = %v after %v, want DeadlineExceeded after a minute", err, time.Since(start))
		}
	})
}

func TestGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := mem.New()
		gate := fault.NewGate()
		b := fault.New(m, fault.Rule{Op: fault.Put, Prefix: "log/", Gate: gate})
		ctx, cancel := context.WithCancel(t.Context())
		given := make(chan error, 1)
		go func() { given <- b.Put(ctx, "log/given-up", nil) }()
		held := make(chan error, 1)
		go func() { held <- b.Put(t.Context(), "log/held", nil) }()
		<-gate.Arrived()
		<-gate.Arrived()
		fill(t, b, "packs/1") // passes by
		synctest.Wait()
		if stored(t, m, "log/held") {
			t.Error("a Put is through before the gate opens")
		}
		cancel()
		if err := <-given; !errors.Is(err, context.Canceled) {
			t.Errorf("Put, given up = %v, want Canceled", err)
		}
		gate.Release()
		gate.Release()
		if err := <-held; err != nil || !stored(t, m, "log/held") {
			t.Errorf("Put = %v once the gate is open", err)
		}
		fill(t, b, "log/later")
	})
}

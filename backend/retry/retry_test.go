package retry_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/backend/backendtest"
	"github.com/cairn-backup/cairn/backend/fault"
	"github.com/cairn-backup/cairn/backend/mem"
	"github.com/cairn-backup/cairn/backend/retry"
)

func TestBackend(t *testing.T) {
	backendtest.Run(t, func(*testing.T) backendtest.Open {
		b := mem.New()
		return func(*testing.T) backend.Backend { return retry.New(b, retry.Policy{}) }
	})
}

// TestBackendFlaky: the suite passes over a store of which every third call
// fails, in every way that can be put right.
func TestBackendFlaky(t *testing.T) {
	opts := backendtest.Options{RacedKeys: 30, RacingCreators: 8, ListedKeys: 100, LargeObject: 1 << 20}
	backendtest.RunWith(t, opts, func(*testing.T) backendtest.Open {
		b := mem.New()
		return func(*testing.T) backend.Backend {
			f := fault.New(b)
			for n := 2; n < 600; n += 9 {
				f.Add(
					fault.Rule{From: n, Count: 1, Err: backend.ErrUnavailable},
					fault.Rule{Op: fault.Put, From: n + 3, Count: 1, LostReply: backend.ErrUnknownOutcome},
					fault.Rule{Op: fault.Get, From: n + 3, Count: 1, CutErr: io.ErrUnexpectedEOF, CutAfter: 3},
					fault.Rule{Op: fault.List, From: n, Count: 1, CutErr: backend.ErrUnavailable, CutAfter: 2},
					fault.Rule{Op: fault.Delete, From: n, Count: 1, LostReply: backend.ErrUnavailable},
				)
			}
			return retry.New(f, retry.Policy{First: time.Microsecond, Longest: time.Millisecond})
		}
	})
}

func TestPut(t *testing.T) {
	mine, theirs := []byte("mine"), []byte("them")
	gone := fault.Rule{Op: fault.Put, Err: backend.ErrUnavailable}
	lost := fault.Rule{Op: fault.Put, Count: 1, LostReply: backend.ErrUnknownOutcome}
	notSent := fault.Rule{Op: fault.Put, Count: 1, Err: backend.ErrUnknownOutcome}
	for _, tt := range []struct {
		name  string
		rules []fault.Rule
		there []byte // before
		want  error
		holds []byte
	}{
		{name: "plain", holds: mine},
		{name: "taken", there: theirs, want: backend.ErrExist, holds: theirs},
		{name: "taken by the same bytes", there: mine, want: backend.ErrExist, holds: mine},
		{name: "away, twice", rules: []fault.Rule{{Op: fault.Put, Count: 2, Err: backend.ErrUnavailable}}, holds: mine},
		{name: "reply lost", rules: []fault.Rule{lost}, holds: mine},
		{name: "reply lost, read back broken off", rules: []fault.Rule{lost, {Op: fault.Get, Count: 1, CutErr: io.ErrUnexpectedEOF, CutAfter: 1}}, holds: mine},
		{name: "request lost", rules: []fault.Rule{notSent}, holds: mine},
		{name: "request lost, another's there", rules: []fault.Rule{notSent}, there: theirs, want: backend.ErrExist, holds: theirs},
		{name: "away for good", rules: []fault.Rule{gone}, want: backend.ErrUnavailable},
		{name: "reply lost, then away for good", rules: []fault.Rule{lost, {Op: fault.Put, From: 2, Err: backend.ErrUnavailable}}, want: backend.ErrUnknownOutcome, holds: mine},
		{name: "reply lost, reading back refused", rules: []fault.Rule{lost, {Op: fault.Get, Err: backend.ErrUnauthorized}}, want: backend.ErrUnknownOutcome, holds: mine},
		{name: "full", rules: []fault.Rule{{Op: fault.Put, Err: backend.ErrNoSpace}}, want: backend.ErrNoSpace},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				disk := mem.New()
				if tt.there != nil {
					if err := disk.Put(t.Context(), "key", tt.there); err != nil {
						t.Fatal(err)
					}
				}
				err := retry.New(fault.New(disk, tt.rules...), retry.Policy{}).Put(t.Context(), "key", mine)
				if !errors.Is(err, tt.want) {
					t.Errorf("Put = %v, want %v", err, tt.want)
				}
				if tt.want != nil && !errors.Is(tt.want, backend.ErrUnknownOutcome) && errors.Is(err, backend.ErrUnknownOutcome) {
					t.Errorf("Put = %v, and the outcome is known", err)
				}
				got, _ := backend.ReadAll(t.Context(), disk, "key", 100)
				if !bytes.Equal(got, tt.holds) {
					t.Errorf("the key holds %q, want %q", got, tt.holds)
				}
			})
		})
	}
}

// TestBudget: a store that is away is asked for as long as the policy says, at
// growing intervals, and a cancel ends the waiting at once.
func TestBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		away := fault.New(mem.New(), fault.Rule{Err: backend.ErrUnavailable})
		r := retry.New(away, retry.Policy{})
		start := time.Now()
		if _, err := r.Stat(t.Context(), "key"); !errors.Is(err, backend.ErrUnavailable) {
			t.Errorf("Stat = %v, want ErrUnavailable", err)
		}
		if took := time.Since(start); took > 20*time.Second || took < 8*time.Second {
			t.Errorf("a store that never answered is given up after %v, want some 20 s", took)
		}

		r = retry.New(fault.New(mem.New(), fault.Rule{From: 2, Err: backend.ErrUnavailable}), retry.Policy{})
		if _, err := r.Stat(t.Context(), "key"); !errors.Is(err, backend.ErrNotExist) {
			t.Errorf("Stat = %v, want ErrNotExist", err)
		}
		start = time.Now()
		if _, err := r.Stat(t.Context(), "key"); !errors.Is(err, backend.ErrUnavailable) {
			t.Errorf("Stat = %v, want ErrUnavailable", err)
		}
		if took := time.Since(start); took > 5*time.Minute || took < 4*time.Minute {
			t.Errorf("gave up after %v, want just below 5 minutes", took)
		}
		if n := r.Retries(); n < 12 || n > 29 {
			t.Errorf("%d retries in 5 minutes", n)
		}

		start = time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Second)
		defer cancel()
		_, err := r.Stat(ctx, "key")
		if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, backend.ErrUnavailable) {
			t.Errorf("Stat, cut off = %v, want both reasons", err)
		}
		if took := time.Since(start); took != 100*time.Second {
			t.Errorf("Stat, cut off took %v", took)
		}

		// Short pauses do not end it sooner.
		brisk := retry.New(fault.New(mem.New(), fault.Rule{From: 2, Err: backend.ErrUnavailable}),
			retry.Policy{First: time.Millisecond, Longest: 100 * time.Millisecond, Budget: time.Minute})
		_, _ = brisk.Stat(t.Context(), "key") // answered
		start = time.Now()
		if _, err := brisk.Stat(t.Context(), "key"); !errors.Is(err, backend.ErrUnavailable) {
			t.Errorf("Stat = %v, want ErrUnavailable", err)
		}
		if took := time.Since(start); took < 59*time.Second {
			t.Errorf("with short pauses it gave up after %v, want a minute", took)
		}
	})
}

// TestAsked: the store's own wish for a pause is heard, up to a bound.
func TestAsked(t *testing.T) {
	for after, want := range map[time.Duration]time.Duration{7 * time.Second: 7 * time.Second, time.Hour: 2 * time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			slow := &backend.TroubleError{Cause: backend.Throttled, After: after}
			r := retry.New(fault.New(mem.New(), fault.Rule{Count: 1, Err: slow}), retry.Policy{})
			start := time.Now()
			if err := r.Put(t.Context(), "key", nil); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(start); took != want {
				t.Errorf("asked to wait %v, waited %v, want %v", after, took, want)
			}
		})
	}
}

// TestForGood: what a person has to put right is not tried again.
func TestForGood(t *testing.T) {
	for _, err := range []error{
		backend.ErrUnauthorized, backend.ErrNoSpace, backend.ErrReadOnly, backend.ErrNotExist, context.Canceled,
		&backend.TroubleError{Cause: backend.WrongRegion}, &backend.TroubleError{Cause: backend.WrongKey},
	} {
		r := retry.New(fault.New(mem.New(), fault.Rule{Err: fmt.Errorf("x: %w", err)}), retry.Policy{})
		if _, got := r.Stat(t.Context(), "key"); !errors.Is(got, err) || r.Retries() != 0 {
			t.Errorf("Stat = %v after %d retries, want %v at once", got, r.Retries(), err)
		}
	}
}

// TestBodyGoesOn: a body that breaks every few bytes arrives whole, each byte
// asked for once.
func TestBodyGoesOn(t *testing.T) {
	disk := mem.New()
	data := []byte(strings.Repeat("0123456789", 20))
	if err := disk.Put(t.Context(), "key", data); err != nil {
		t.Fatal(err)
	}
	for _, span := range []struct{ off, n int64 }{{0, -1}, {13, 100}, {100, 500}, {200, -1}} {
		synctest.Test(t, func(t *testing.T) {
			cut := fault.New(disk, fault.Rule{Op: fault.Get, CutErr: io.ErrUnexpectedEOF, CutAfter: 9})
			r := retry.New(cut, retry.Policy{})
			body, err := r.Get(t.Context(), "key", span.off, span.n)
			if err != nil {
				t.Fatal(err)
			}
			want := data[span.off:]
			if span.n >= 0 {
				want = want[:min(span.n, int64(len(want)))]
			}
			if backend.BodySize(body) != int64(len(want)) {
				t.Errorf("BodySize = %d, want %d", backend.BodySize(body), len(want))
			}
			got, err := io.ReadAll(body)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("ReadAll = %d bytes, %v; want %d", len(got), err, len(want))
			}
			if most := int64(len(want)/9 + 1); r.Retries() > most {
				t.Errorf("%d retries, want at most %d", r.Retries(), most)
			}
		})
	}
}

// TestBodyEnds: a body that cannot go on says why, and says it again.
func TestBodyEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := mem.New()
		if err := disk.Put(t.Context(), "key", make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
		f := fault.New(disk, fault.Rule{Op: fault.Get, Count: 1, CutErr: io.ErrUnexpectedEOF, CutAfter: 9}, fault.Rule{Op: fault.Get, From: 2, Err: backend.ErrUnavailable})
		body, err := retry.New(f, retry.Policy{}).Get(t.Context(), "key", 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(body)
		if len(got) != 9 || !errors.Is(err, backend.ErrUnavailable) {
			t.Errorf("ReadAll = %d bytes, %v; want 9, ErrUnavailable", len(got), err)
		}
		if n, again := body.Read(make([]byte, 9)); n != 0 || !errors.Is(again, backend.ErrUnavailable) {
			t.Errorf("Read again = %d, %v", n, again)
		}
		if err := body.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestListGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := mem.New()
		for i := range 50 {
			if err := disk.Put(t.Context(), backend.Key(fmt.Sprintf("k%02d", i)), nil); err != nil {
				t.Fatal(err)
			}
		}
		f := fault.New(disk)
		for n := 1; n < 6; n++ {
			f.Add(fault.Rule{Op: fault.List, From: n, Count: 1, CutErr: backend.ErrUnavailable, CutAfter: int64(7 * n)})
		}
		n := 0
		for info, err := range retry.New(f, retry.Policy{}).List(t.Context(), "") {
			if err != nil || info.Key != backend.Key(fmt.Sprintf("k%02d", n)) {
				t.Fatalf("object %d = %s, %v", n, info.Key, err)
			}
			n++
		}
		if n != 50 {
			t.Errorf("%d objects, want 50", n)
		}
	})
}

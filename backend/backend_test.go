package backend_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/backend/fault"
	"github.com/cairn-backup/cairn/backend/mem"
)

func TestOpError(t *testing.T) {
	full := fmt.Errorf("write: %w", syscall.ENOSPC)
	for _, c := range []struct {
		err  backend.OpError
		want string
	}{
		{backend.OpError{Op: "put", Key: "a/b", Kind: backend.ErrExist}, "put a/b: object already exists"},
		{
			backend.OpError{Op: "put", Key: "a", Kind: backend.ErrNoSpace, Err: full},
			"put a: no space left in store: write: no space left on device",
		},
		{backend.OpError{Op: "init", Err: full}, "init: write: no space left on device"},
		{
			backend.OpError{Op: "get", Key: "a", Kind: backend.ErrRange, Err: fmt.Errorf("%w: offset 5", backend.ErrRange)},
			"get a: range not in object: offset 5",
		},
	} {
		if got := c.err.Error(); got != c.want {
			t.Errorf("Error() = %q, want %q", got, c.want)
		}
		for _, is := range []error{c.err.Kind, c.err.Err} {
			if is != nil && !errors.Is(&c.err, is) {
				t.Errorf("errors.Is(%v, %v) = false", &c.err, is)
			}
		}
	}
	if errors.Is(&backend.OpError{Op: "put"}, backend.ErrExist) {
		t.Error("an OpError without a kind is ErrExist")
	}
}

func TestEnded(t *testing.T) {
	if err := backend.Ended(t.Context()); err != nil {
		t.Errorf("Ended = %v while ctx lasts", err)
	}
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	if err := backend.Ended(ctx); !errors.Is(err, context.Canceled) || !errors.Is(err, cause) {
		t.Errorf("Ended = %v, want Canceled and its cause", err)
	}
	ctx, cancel2 := context.WithTimeout(t.Context(), 0)
	defer cancel2()
	if err := backend.Ended(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Ended = %v, want DeadlineExceeded", err)
	}

	// What another call met says nothing about this one.
	ctx, stop := context.WithCancelCause(t.Context())
	mine := errors.New("mine")
	stop(fmt.Errorf("%w: %w", mine, &backend.OpError{Op: "put", Key: "a", Kind: backend.ErrExist}))
	err := backend.Ended(ctx)
	if _, found := errors.AsType[*backend.OpError](err); found || errors.Is(err, backend.ErrExist) {
		t.Errorf("Ended = %v is taken for an answer of the store", err)
	}
	if !errors.Is(err, mine) || !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), backend.ErrExist.Error()) {
		t.Errorf("Ended = %v, want Canceled and the cause", err)
	}
}

func TestSpan(t *testing.T) {
	for _, c := range []struct {
		off, n, size int64
		want         int64 // -1: ErrRange
	}{
		{0, -1, 10, 10},
		{0, -1, 0, 0},
		{3, 4, 10, 4},
		{3, 400, 10, 7},
		{10, -1, 10, 0},
		{10, 1, 10, 0},
		{11, 0, 10, -1},
		{-1, 5, 10, -1},
		{1, math.MaxInt64, 10, 9},
		{math.MaxInt64, math.MaxInt64, 10, -1},
		{math.MinInt64, 1, 10, -1},
	} {
		got, err := backend.Span(c.off, c.n, c.size)
		if err != nil {
			got = -1
		}
		if got != c.want || err != nil && !errors.Is(err, backend.ErrRange) {
			t.Errorf("Span(%d, %d, %d) = %d, %v; want %d", c.off, c.n, c.size, got, err, c.want)
		}
	}
}

// closed is a Closer that notes and fails.
type closed struct {
	n   int
	err error
}

func (c *closed) Close() error {
	c.n++
	return c.err
}

func TestBody(t *testing.T) {
	c := new(closed)
	b := backend.NewBody(t.Context(), strings.NewReader("0123456789"), 4, c)
	if err := iotest.TestReader(b, []byte("0123")); err != nil {
		t.Errorf("a body of 4 bytes: %v", err)
	}
	if got := backend.BodySize(b); got != 4 {
		t.Errorf("BodySize = %d, want 4", got)
	}
	if err := b.Close(); err != nil || c.n != 1 {
		t.Errorf("Close = %v, closed %d times", err, c.n)
	}
	if got := backend.BodySize(strings.NewReader("x")); got != 1 {
		t.Errorf("BodySize of a strings.Reader = %d, want 1", got)
	}
	if got := backend.BodySize(io.MultiReader()); got != -1 {
		t.Errorf("BodySize of a reader that does not say = %d, want -1", got)
	}

	for _, r := range []io.Reader{strings.NewReader("012"), iotest.DataErrReader(strings.NewReader("012")), strings.NewReader("")} {
		got, err := io.ReadAll(backend.NewBody(t.Context(), r, 4, nil))
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("reading 4 bytes of fewer = %q, %v; want ErrUnexpectedEOF", got, err)
		}
	}

	ctx, cancel := context.WithCancel(t.Context())
	b = backend.NewBody(ctx, strings.NewReader("0123"), 4, nil)
	if _, err := b.Read(make([]byte, 2)); err != nil {
		t.Errorf("Read = %v", err)
	}
	cancel()
	if _, err := b.Read(make([]byte, 2)); !errors.Is(err, context.Canceled) {
		t.Errorf("Read after cancel = %v, want Canceled", err)
	}
	if err := b.Close(); err != nil {
		t.Errorf("Close = %v", err)
	}
}

// getter is a backend with one body.
type getter struct {
	backend.Backend
	body io.ReadCloser
}

func (g getter) Get(context.Context, backend.Key, int64, int64) (io.ReadCloser, error) {
	return g.body, nil
}

func TestReadAll(t *testing.T) {
	data := bytes.Repeat([]byte("x"), 1000)
	broken := errors.New("checksum mismatch")
	sized := func(r io.Reader, size int64) io.ReadCloser { return backend.NewBody(t.Context(), r, size, nil) }
	for _, c := range []struct {
		name  string
		body  io.ReadCloser
		limit int64
		want  error
	}{
		{"sized", sized(bytes.NewReader(data), 1000), 1000, nil},
		{"sized, no limit", sized(bytes.NewReader(data), 1000), math.MaxInt64, nil},
		{"sized, above", sized(bytes.NewReader(data), 1000), 999, backend.ErrTooLarge},
		{"sized, enormous", sized(bytes.NewReader(data), 1<<60), 1 << 20, backend.ErrTooLarge},
		{"sized, short", sized(bytes.NewReader(data[:999]), 1000), 1000, io.ErrUnexpectedEOF},
		{"sized, nothing", sized(bytes.NewReader(nil), 1000), 1000, io.ErrUnexpectedEOF},
		{"unsized", io.NopCloser(bytes.NewBuffer(data)), 1000, nil},
		{"unsized, no limit", io.NopCloser(bytes.NewBuffer(data)), math.MaxInt64, nil},
		{"unsized, above", io.NopCloser(bytes.NewBuffer(data)), 999, backend.ErrTooLarge},
		{"unsized, broken", io.NopCloser(io.MultiReader(bytes.NewBuffer(data), iotest.ErrReader(broken))), 2000, broken},
		{"close fails", struct {
			io.Reader
			io.Closer
		}{bytes.NewBuffer(data), &closed{err: broken}}, 1000, broken},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := backend.ReadAll(t.Context(), getter{body: c.body}, "key", c.limit)
			if !errors.Is(err, c.want) {
				t.Fatalf("ReadAll(limit %d) = %d bytes, %v; want %v", c.limit, len(got), err, c.want)
			}
			if err == nil && !bytes.Equal(got, data) || err != nil && got != nil {
				t.Errorf("ReadAll(limit %d) = %d bytes, %v; want %d", c.limit, len(got), err, len(data))
			}
			if err != nil && !strings.HasPrefix(err.Error(), "get key: ") {
				t.Errorf("error is %q, want it to name call and key", err)
			}
		})
	}
	if _, err := backend.ReadAll(t.Context(), mem.New(), "none", 10); !errors.Is(err, backend.ErrNotExist) {
		t.Errorf("ReadAll of a missing object = %v, want ErrNotExist", err)
	}
}

// batch counts the calls of its optional powers.
type batch struct {
	backend.Backend
	inits, deletes int
}

func (b *batch) Init(context.Context) error { b.inits++; return nil }

func (b *batch) DeleteAll(context.Context, []backend.Key) error { b.deletes++; return nil }

func TestOptionalPowers(t *testing.T) {
	b := &batch{Backend: mem.New()}
	if err := errors.Join(backend.Init(t.Context(), b), backend.DeleteAll(t.Context(), b, nil)); err != nil {
		t.Error(err)
	}
	if b.inits != 1 || b.deletes != 1 {
		t.Errorf("%d calls of Init, %d of DeleteAll; want 1 and 1", b.inits, b.deletes)
	}

	plain := mem.New()
	if err := backend.Init(t.Context(), plain); err != nil {
		t.Errorf("Init of a backend that needs none = %v", err)
	}
	for _, key := range []backend.Key{"a", "b", "c"} {
		if err := plain.Put(t.Context(), key, nil); err != nil {
			t.Fatal(err)
		}
	}
	broken := errors.New("broken")
	f := fault.New(plain, fault.Rule{Op: fault.Delete, From: 2, Count: 1, Err: broken})
	keys := []backend.Key{"a", "b", "c"}
	if err := backend.DeleteAll(t.Context(), f, keys); !errors.Is(err, broken) {
		t.Errorf("DeleteAll = %v, want the error of the second Delete", err)
	}
	if err := backend.DeleteAll(t.Context(), f, keys); err != nil {
		t.Errorf("DeleteAll again = %v, want nil", err)
	}
	for info, err := range plain.List(t.Context(), "") {
		t.Errorf("%s is still there, %v", info.Key, err)
	}
}

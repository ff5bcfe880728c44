package backendtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/cairn-backup/cairn/backend"
)

func (s *suite) putAndGet() {
	b := s.open()
	for i, key := range []backend.Key{"config", "log/00000000000000000001", "packs/ab/0123", "a-b/c-d/e", "x"} {
		data := random(uint64(i), 100*i+1)
		s.put(b, key, data)
		s.want(b, key, data)
	}
}

func (s *suite) emptyObject() {
	b := s.open()
	s.put(b, "empty", nil)
	s.want(b, "empty", nil)
	s.wantErr("Put(empty) again", b.Put(s.Context(), "empty", []byte("x")), backend.ErrExist)
	s.want(s.open(), "empty", nil)
	s.wantKeys(b, "", []backend.Key{"empty"})
}

func (s *suite) largeObject() {
	b := s.open()
	data := random(1, s.LargeObject)
	s.put(b, "packs/00/large", data)
	s.want(b, "packs/00/large", data)
	off := int64(len(data)) - 100
	got, err := get(s.Context(), b, "packs/00/large", off, 50)
	if err != nil || !bytes.Equal(got, data[off:off+50]) {
		s.Errorf("Get(off=%d, n=50) = %s, %v; want %s", off, brief(got), err, brief(data[off:off+50]))
	}
}

func (s *suite) notExist() {
	b := s.open()
	s.put(b, "dir/there", []byte("x"))
	for _, key := range []backend.Key{"none", "dir/none", "dir", "dir/the", "no/such/dir"} {
		_, err := b.Get(s.Context(), key, 0, -1)
		s.wantErr(fmt.Sprintf("Get(%s)", key), err, backend.ErrNotExist)
		_, err = b.Stat(s.Context(), key)
		s.wantErr(fmt.Sprintf("Stat(%s)", key), err, backend.ErrNotExist)
	}
	s.wantKeys(b, "no/", nil)
}

func (s *suite) exist() {
	b := s.open()
	s.put(b, "log/1", []byte("first"))
	for _, data := range []string{"second", "first", "", "a longer second"} {
		s.wantErr("Put of a taken key", b.Put(s.Context(), "log/1", []byte(data)), backend.ErrExist)
		s.want(b, "log/1", []byte("first"))
	}
	again := s.open()
	s.wantErr("Put of a taken key, reopened", again.Put(s.Context(), "log/1", []byte("third")), backend.ErrExist)
	s.want(again, "log/1", []byte("first"))
}

func (s *suite) durable() {
	want := make(map[backend.Key][]byte)
	for i := range 5 {
		b := s.open()
		for key, data := range want {
			s.want(b, key, data)
		}
		key := backend.Key(fmt.Sprintf("packs/%d/object", i))
		want[key] = random(uint64(i), 1000)
		s.put(b, key, want[key])
		if err := b.Delete(s.Context(), "packs/0/object"); err != nil {
			s.Fatalf("Delete = %v", err)
		}
		delete(want, "packs/0/object")
	}
	s.wantKeys(s.open(), "", []backend.Key{
		"packs/1/object", "packs/2/object", "packs/3/object", "packs/4/object",
	})
}

func (s *suite) ranges() {
	b := s.open()
	data := random(7, 1000)
	s.put(b, "object", data)
	for _, r := range []struct{ off, n, want int64 }{
		{0, -1, 1000},
		{0, 1000, 1000},
		{0, 1, 1},
		{0, 0, 0},
		{1, 5, 5},
		{1, -1, 999},
		{999, 1, 1},
		{999, -1, 1},
		{999, 100, 1},
		{500, 0, 0},
		{500, 1 << 62, 500},
		{1, 1<<63 - 1, 999},
		{0, 1<<63 - 1, 1000},
		{1000, -1, 0},
		{1000, 0, 0},
		{1000, 10, 0},
		{0, -7, 1000},
	} {
		got, err := get(s.Context(), b, "object", r.off, r.n)
		if err != nil || !bytes.Equal(got, data[r.off:r.off+r.want]) {
			s.Errorf("Get(off=%d, n=%d) = %s, %v; want %s", r.off, r.n, brief(got), err, brief(data[r.off:r.off+r.want]))
		}
	}
	for _, r := range []struct{ off, n int64 }{
		{1001, -1}, {1001, 0}, {1001, 1}, {1 << 62, 1}, {1<<63 - 1, 1<<63 - 1}, {-1, -1}, {-1, 5}, {-1 << 63, 1},
	} {
		_, err := get(s.Context(), b, "object", r.off, r.n)
		s.wantErr(fmt.Sprintf("Get(off=%d, n=%d)", r.off, r.n), err, backend.ErrRange)
	}
	s.bodies(b, data)
}

// bodies tests what a reader may do with a body.
func (s *suite) bodies(b backend.Backend, data []byte) {
	open := func() io.ReadCloser {
		r, err := b.Get(s.Context(), "object", 10, 20)
		if err != nil {
			s.Fatalf("Get(off=10, n=20) = %v", err)
		}
		return r
	}
	// Two bodies of one object do not disturb each other.
	x, y := open(), open()
	for i := range int64(20) {
		for _, r := range []io.Reader{x, y} {
			var p [1]byte
			if _, err := io.ReadFull(r, p[:]); err != nil || p[0] != data[10+i] {
				s.Fatalf("byte %d of two bodies side by side = %x, %v; want %x", i, p[0], err, data[10+i])
			}
		}
	}
	for _, r := range []io.ReadCloser{x, y} {
		if n, err := r.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
			s.Errorf("Read at the end of a body = %d, %v; want 0, EOF", n, err)
		}
		if err := r.Close(); err != nil {
			s.Errorf("Close of a body read to its end = %v", err)
		}
	}
	// A body may be closed unread.
	if err := open().Close(); err != nil {
		s.Errorf("Close of an unread body = %v", err)
	}
}

func (s *suite) delete() {
	b := s.open()
	s.put(b, "dir/a", []byte("a"))
	s.put(b, "dir/b", []byte("b"))
	for i := range 3 {
		if err := b.Delete(s.Context(), "dir/a"); err != nil {
			s.Fatalf("Delete, call %d = %v, want nil", i, err)
		}
	}
	for _, key := range []backend.Key{"dir/none", "none", "no/such/dir", "dir"} {
		if err := b.Delete(s.Context(), key); err != nil {
			s.Errorf("Delete(%s), which is not there = %v, want nil", key, err)
		}
	}
	_, err := b.Get(s.Context(), "dir/a", 0, -1)
	s.wantErr("Get of a deleted object", err, backend.ErrNotExist)
	s.wantKeys(b, "", []backend.Key{"dir/b"})
	s.want(b, "dir/b", []byte("b"))
	s.put(b, "dir/a", []byte("new")) // the key is free again
	s.want(s.open(), "dir/a", []byte("new"))

	if err := backend.DeleteAll(s.Context(), b, []backend.Key{"dir/a", "dir/none", "dir/b"}); err != nil {
		s.Errorf("DeleteAll = %v, want nil", err)
	}
	s.wantKeys(s.open(), "", nil)
}

func (s *suite) hostileKeys() {
	b := s.open()
	for _, key := range []backend.Key{
		"", "/", ".", "..", "../x", "../../etc/passwd", "a/../b", "a/./b", "a/..", "a//b", "//", "/a", "a/",
		"A", "a/B", "a\x00", "a\x00b", "a\\b", "..\\x", "c:", "a b", "a\n", "a.b", ".tmp-1", "ä", "\xff", "a_b", "%2e%2e",
		backend.Key(strings.Repeat("k", backend.MaxKeyLen+1)),
		backend.Key(strings.Repeat("../", 20) + "etc/passwd"),
	} {
		err := b.Put(s.Context(), key, []byte("x"))
		s.wantErr(fmt.Sprintf("Put(%q)", key), err, backend.ErrInvalidKey)
		_, err = b.Get(s.Context(), key, 0, -1)
		s.wantErr(fmt.Sprintf("Get(%q)", key), err, backend.ErrInvalidKey)
		_, err = b.Stat(s.Context(), key)
		s.wantErr(fmt.Sprintf("Stat(%q)", key), err, backend.ErrInvalidKey)
		s.wantErr(fmt.Sprintf("Delete(%q)", key), b.Delete(s.Context(), key), backend.ErrInvalidKey)
	}
	for _, prefix := range []backend.Key{"/", "../", ".", "a//", "A", "a\x00", "\\", "a/../"} {
		n := 0
		var last error
		for _, err := range b.List(s.Context(), prefix) {
			n, last = n+1, err
		}
		s.wantErr(fmt.Sprintf("List(%q), %d yields,", prefix, n), last, backend.ErrInvalidKey)
	}
	s.wantKeys(b, "", nil)
}

func (s *suite) longestKey() {
	b := s.open()
	// One element of the full length, and as many elements as there can be.
	flat := backend.Key(strings.Repeat("k", backend.MaxKeyLen))
	deep := backend.Key(strings.Repeat("d/", backend.MaxKeyLen/2-1) + "dd")
	for _, key := range []backend.Key{flat, deep, "-", "--/-", "0"} {
		s.put(b, key, []byte(key))
		s.want(b, key, []byte(key))
	}
	s.wantKeys(b, "", []backend.Key{"-", "--/-", "0", deep, flat})
}

func (s *suite) ownership() {
	b := s.open()
	data := random(3, 100_000)
	orig := bytes.Clone(data)
	s.put(b, "object", data)
	if !bytes.Equal(data, orig) {
		s.Errorf("Put modifies data")
	}
	_ = b.Put(s.Context(), "object", data) // ErrExist; must not modify data either
	if !bytes.Equal(data, orig) {
		s.Errorf("Put of a taken key modifies data")
	}
	clear(data) // the caller's buffer is used again
	s.want(b, "object", orig)
	s.want(s.open(), "object", orig)

	got, err := get(s.Context(), b, "object", 0, -1)
	if err != nil {
		s.Fatalf("Get = %v", err)
	}
	clear(got) // and what was read is the reader's
	s.want(b, "object", orig)
}

func (s *suite) cancelled() {
	b := s.open()
	s.put(b, "dir/object", []byte("x"))
	cause := errors.New("no longer needed")
	ctx, cancel := context.WithCancelCause(s.Context())
	cancel(cause)

	s.wantErr("Put, cancelled", b.Put(ctx, "dir/new", []byte("x")), context.Canceled)
	_, err := get(ctx, b, "dir/object", 0, -1)
	s.wantErr("Get, cancelled", err, context.Canceled)
	_, err = b.Stat(ctx, "dir/object")
	s.wantErr("Stat, cancelled", err, context.Canceled)
	s.wantErr("Delete, cancelled", b.Delete(ctx, "dir/object"), context.Canceled)
	s.wantErr("DeleteAll, cancelled", backend.DeleteAll(ctx, b, []backend.Key{"dir/object"}), context.Canceled)
	err = nil
	for _, e := range b.List(ctx, "") {
		err = e
	}
	s.wantErr("List, cancelled", err, context.Canceled)
	s.wantKeys(s.open(), "", []backend.Key{"dir/object"})
	s.want(b, "dir/object", []byte("x"))
}

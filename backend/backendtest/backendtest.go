// Package backendtest is the conformance suite of the storage contract. A new
// backend is tested by one call:
//
//	func TestBackend(t *testing.T) {
//		backendtest.Run(t, func(*testing.T) backendtest.Open {
//			b := new(mem.Backend) // a fresh store for each subtest
//			return func(*testing.T) backend.Backend { return b }
//		})
//	}
//
// What the suite leaves out, since the contract leaves it open: keys of which
// one is another plus a slash and more ("a" and "a/b") are never used, and
// Info.Modified is not looked at.
package backendtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/cairn-backup/cairn/backend"
)

// An Open reaches one store. It may be called again, and then reaches the same
// objects anew, as another process would: that is how the suite sees
// durability. It fails t if that cannot be done.
type Open func(t *testing.T) backend.Backend

// Options make the suite cheaper for stores where every request takes its time
// or money. Smaller numbers prove less; the zero value is the whole suite.
type Options struct {
	// RacedKeys is for how many keys RacingCreators race. Default: 200.
	RacedKeys int
	// RacingCreators is how many creators race for each key. Default: 32.
	RacingCreators int
	// ListedKeys is how many objects one listing has. Default: 1,100, since
	// S3 lists at most 1,000 at a time.
	ListedKeys int
	// LargeObject is the size in bytes of the largest object.
	// Default: 20 MiB, as a pack.
	LargeObject int
}

func (o Options) withDefaults() Options {
	set := func(n *int, to int) {
		if *n <= 0 {
			*n = to
		}
	}
	set(&o.RacedKeys, 200)
	set(&o.RacingCreators, 32)
	set(&o.ListedKeys, 1100)
	set(&o.LargeObject, 20<<20)
	return o
}

// Run tests a backend. It calls open for a fresh, empty store, set up for use,
// at the start of each subtest.
func Run(t *testing.T, open func(t *testing.T) Open) {
	t.Helper()
	RunWith(t, Options{}, open)
}

// RunWith is Run with options.
func RunWith(t *testing.T, opts Options, open func(t *testing.T) Open) {
	t.Helper()
	for _, c := range cases() {
		t.Run(c.name, func(t *testing.T) {
			reach := open(t)
			c.run(&suite{
				TB:      t,
				Options: opts.withDefaults(),
				open:    func() backend.Backend { return reach(t) },
			})
		})
	}
}

// A testCase is one subtest. It gets a store of its own.
type testCase struct {
	name string
	run  func(*suite)
}

func cases() []testCase {
	return []testCase{
		{"PutAndGet", (*suite).putAndGet},
		{"EmptyObject", (*suite).emptyObject},
		{"LargeObject", (*suite).largeObject},
		{"NotExist", (*suite).notExist},
		{"Exist", (*suite).exist},
		{"Race", (*suite).race},
		{"Atomic", (*suite).atomic},
		{"Durable", (*suite).durable},
		{"Ranges", (*suite).ranges},
		{"ListOrder", (*suite).listOrder},
		{"ListPrefix", (*suite).listPrefix},
		{"ListMany", (*suite).listMany},
		{"ListStop", (*suite).listStop},
		{"Delete", (*suite).delete},
		{"HostileKeys", (*suite).hostileKeys},
		{"LongestKey", (*suite).longestKey},
		{"Ownership", (*suite).ownership},
		{"Cancelled", (*suite).cancelled},
		{"CancelledMidway", (*suite).cancelledMidway},
		{"Mixed", (*suite).mixed},
	}
}

// A suite is one run of one case. It has a testing.TB, not a *testing.T, so
// that the tests of the suite can see it fail.
type suite struct {
	testing.TB
	Options
	open func() backend.Backend
}

func (s *suite) put(b backend.Backend, key backend.Key, data []byte) {
	s.Helper()
	if err := b.Put(s.Context(), key, data); err != nil {
		s.Fatalf("Put(%s, %d bytes) = %v, want nil", key, len(data), err)
	}
}

// want fails unless key holds data, by Stat and by a whole Get.
func (s *suite) want(b backend.Backend, key backend.Key, data []byte) {
	s.Helper()
	got, err := get(s.Context(), b, key, 0, -1)
	if err != nil {
		s.Fatalf("Get(%s) = %v, want %d bytes", key, err, len(data))
	}
	if string(got) != string(data) {
		s.Fatalf("Get(%s) = %s, want %s", key, brief(got), brief(data))
	}
	info, err := b.Stat(s.Context(), key)
	if err != nil {
		s.Fatalf("Stat(%s) = %v, want %d bytes", key, err, len(data))
	}
	if info.Key != key || info.Size != int64(len(data)) {
		s.Fatalf("Stat(%s) = %s, %d bytes; want %s, %d bytes", key, info.Key, info.Size, key, len(data))
	}
}

func (s *suite) wantErr(call string, err, want error) {
	s.Helper()
	if !errors.Is(err, want) {
		s.Errorf("%s = %v, want an error that is %q", call, err, want)
	}
}

// wantKeys fails unless prefix lists exactly keys, in this order.
func (s *suite) wantKeys(b backend.Backend, prefix backend.Key, keys []backend.Key) {
	s.Helper()
	var got []backend.Key
	for info, err := range b.List(s.Context(), prefix) {
		if err != nil {
			s.Fatalf("List(%q) yields %v behind %d objects", prefix, err, len(got))
		}
		got = append(got, info.Key)
	}
	for i := range max(len(got), len(keys)) {
		if i >= len(got) || i >= len(keys) || got[i] != keys[i] {
			s.Fatalf("List(%q) yields %d keys, want %d; from number %d on: %q, want %q", prefix,
				len(got), len(keys), i, few(got, i), few(keys, i))
		}
	}
}

// get is a Get and the reading of its body.
func get(ctx context.Context, b backend.Backend, key backend.Key, off, n int64) ([]byte, error) {
	r, err := b.Get(ctx, key, off, n)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(r)
	return data, errors.Join(err, r.Close())
}

// random returns n bytes that depend on seed alone.
func random(seed uint64, n int) []byte {
	var key [32]byte
	for i := range 8 {
		key[i] = byte(seed >> (8 * i))
	}
	data := make([]byte, n)
	_, _ = rand.NewChaCha8(key).Read(data) // never fails
	return data
}

// brief shows data in a message.
func brief(data []byte) string {
	if len(data) <= 40 {
		return fmt.Sprintf("%q", data)
	}
	return fmt.Sprintf("%d bytes %x...", len(data), data[:16])
}

// few returns up to three keys from number i on.
func few(keys []backend.Key, i int) []backend.Key {
	return keys[min(i, len(keys)):min(i+3, len(keys))]
}

package local

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/backend/retry"
)

var errPowerCut = errors.New("power cut")

// A story is what two processes do to a store, and what they were told.
type story struct {
	put     map[backend.Key]bool // Put returned nil or ErrExist, and no Delete came later
	deleted map[backend.Key]bool // Delete returned nil, and no Put came later
}

func content(key backend.Key) []byte {
	return bytes.Repeat([]byte(key+" "), 20)
}

// steps are keys to put, or to delete with a minus before. Every other step is
// done by another process.
var steps = []string{
	"config", "keys/1", "log/1", "log/1", "packs/ab/1", "packs/ab/2", "log/1", "packs/cd/1", "index/1",
	"log/2", "-packs/ab/1", "-packs/ab/1", "packs/ab/3", "-packs/none/1", "-packs/ab/2", "packs/ab/2", "log/3",
}

// tell goes through the steps until one fails.
func tell(t *testing.T, d disk) (story, error) {
	t.Helper()
	s := story{put: make(map[backend.Key]bool), deleted: make(map[backend.Key]bool)}
	processes := []*Backend{newBackend(d), newBackend(d)}
	for i, step := range steps {
		b := processes[i%2]
		if name, ok := strings.CutPrefix(step, "-"); ok {
			key := backend.Key(name)
			delete(s.put, key) // whatever Delete returns, it may be gone
			if err := b.Delete(t.Context(), key); err != nil {
				return s, err
			}
			s.deleted[key] = true
			continue
		}
		key := backend.Key(step)
		delete(s.deleted, key)
		if err := b.Put(t.Context(), key, content(key)); err != nil && !errors.Is(err, backend.ErrExist) {
			return s, err
		}
		s.put[key] = true
	}
	return s, nil
}

// check looks at what a crash has left.
func (s story) check(t *testing.T, b *Backend) {
	t.Helper()
	for info, err := range b.List(t.Context(), "") {
		if err != nil {
			t.Errorf("List yields %v", err)
			break
		}
		if got := read(t, b, info.Key); !bytes.Equal(got, content(info.Key)) {
			t.Errorf("%s holds %d bytes, want the %d that were put", info.Key, len(got), len(content(info.Key)))
		}
	}
	for key := range s.put {
		if _, err := b.Stat(t.Context(), key); err != nil {
			t.Errorf("%s was put, and is lost: %v", key, err)
		}
	}
	for key := range s.deleted {
		if _, err := b.Stat(t.Context(), key); !errors.Is(err, backend.ErrNotExist) {
			t.Errorf("%s was deleted, and is back: %v", key, err)
		}
	}
}

func read(t *testing.T, b *Backend, key backend.Key) []byte {
	t.Helper()
	data, err := backend.ReadAll(t.Context(), b, key, math.MaxInt64)
	if err != nil {
		t.Errorf("ReadAll(%s) = %v", key, err)
	}
	return data
}

var methods = []struct {
	name string
	m    method
}{{"Unnamed", unnamed}, {"Linked", linked}, {"Renamed", renamed}}

// TestPowerCut cuts the power before every single call of the file system, in
// each way of publishing, with each kind of luck about what was not fsynced.
func TestPowerCut(t *testing.T) {
	for _, m := range methods {
		t.Run(m.name, func(t *testing.T) {
			points := 0
			for n := 0; ; n++ {
				d := newMemDisk(m.m)
				left := n
				s, err := tell(t, &hooked{disk: d, hook: func(string) error {
					if left--; left < 0 {
						return errPowerCut
					}
					return nil
				}})
				for luck := range survivals {
					for seed := range uint64(4) {
						after := d.afterCrash(luck, rand.New(rand.NewPCG(seed, uint64(n))))
						s.check(t, newBackend(after))
						if _, err := tell(t, after); err != nil {
							t.Errorf("a second run: %v", err)
						}
						if luck != anything {
							break // no need for chance
						}
					}
					if t.Failed() {
						t.Fatalf("after a power cut before call %d, survival %d", n, luck)
					}
				}
				if err == nil {
					break // n is past the last call
				}
				if !errors.Is(err, errPowerCut) {
					t.Fatalf("power cut before call %d = %v", n, err)
				}
				points++
			}
			if points < 80 {
				t.Errorf("%d crash points, want at least 80", points)
			}
		})
	}
}

// TestFailingCalls makes every call of a Put fail once, with each error.
func TestFailingCalls(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the errors of this test are those of Unix")
	}
	for _, m := range methods {
		for _, e := range []struct {
			errno syscall.Errno
			want  error // nil: no sentinel, but the errno
		}{
			{syscall.ENOSPC, backend.ErrNoSpace},
			{syscall.EDQUOT, backend.ErrNoSpace},
			{syscall.EACCES, backend.ErrUnauthorized},
			{syscall.EROFS, backend.ErrReadOnly},
			{syscall.ESTALE, backend.ErrUnavailable},
			{syscall.EIO, nil},
		} {
			t.Run(fmt.Sprintf("%s/%d", m.name, e.errno), func(t *testing.T) {
				for n := 0; failOnce(t, m.m, n, e.errno, e.want); n++ {
					continue
				}
			})
		}
	}
}

// failOnce puts an object while call n fails, and says whether there was one.
func failOnce(t *testing.T, m method, n int, errno syscall.Errno, want error) bool {
	t.Helper()
	const key = "packs/ab/1"
	d := newMemDisk(m)
	failed := ""
	left := n
	h := &hooked{disk: d, hook: func(call string) error {
		if left--; left == -1 {
			failed = call
			return errno
		}
		return nil
	}}
	b := newBackend(h)
	b.method.Store(int32(m))
	err := b.Put(t.Context(), key, content(key))
	if failed == "" {
		if err != nil {
			t.Errorf("Put without a failing call = %v", err)
		}
		return false
	}
	log := h.calls()
	defer func() {
		if t.Failed() {
			t.Fatalf("Put with a failing %q = %v\n%s", failed, err, strings.Join(log, "\n"))
		}
	}()

	// The unlink of a temporary file and the close of an unnamed one do not
	// matter: the object is there.
	harmless := strings.HasPrefix(failed, "unlink") || failed == "close unnamed file"
	if (err == nil) != harmless {
		t.Errorf("Put = %v, want nil: %t", err, harmless)
	}
	fsync := strings.HasPrefix(failed, "fsync")
	afterName := failed == "fsync dir packs/ab"
	naming := strings.HasPrefix(failed, "link") || strings.HasPrefix(failed, "rename")
	switch {
	case err == nil:
	case !errors.Is(err, errno):
		t.Errorf("Put does not wrap %v", errno)
	case afterName && !errors.Is(err, backend.ErrUnknownOutcome):
		t.Errorf("the object has its name, want ErrUnknownOutcome")
	case afterName:
	case naming && (want == nil || errors.Is(want, backend.ErrUnavailable)):
		if !errors.Is(err, backend.ErrUnknownOutcome) {
			t.Errorf("the call may have given the name, want ErrUnknownOutcome")
		}
	case errors.Is(want, backend.ErrUnavailable) && fsync:
		if errors.Is(err, want) {
			t.Errorf("a failed fsync invites to another try")
		}
	case want != nil && !errors.Is(err, want):
		t.Errorf("want %v", want)
	}
	if fsync {
		same := func(call string) bool { return call == failed }
		if i := slices.IndexFunc(log, same); slices.ContainsFunc(log[i+1:], same) {
			t.Errorf("a failed fsync is repeated")
		}
	}
	for _, name := range names(t, d, "packs/ab") {
		if strings.HasPrefix(name, tempPrefix) && !harmless {
			t.Errorf("%s is left over", name)
		}
	}
	if err == nil || errors.Is(err, backend.ErrUnknownOutcome) {
		return true
	}
	// Nothing is there, and another process can put it.
	if _, err := b.Stat(t.Context(), key); !errors.Is(err, backend.ErrNotExist) {
		t.Errorf("Stat after a failed Put = %v, want ErrNotExist", err)
	}
	if err := newBackend(d).Put(t.Context(), key, content(key)); err != nil {
		t.Errorf("another Put = %v", err)
	}
	return true
}

func names(t *testing.T, d *memDisk, dir string) []string {
	t.Helper()
	infos, err := d.readDir(dir, func(string) bool { return true })
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("readDir(%s) = %v", dir, err)
	}
	var names []string
	for _, info := range infos {
		names = append(names, info.Name())
	}
	return names
}

// After an fsync of a directory has failed, the kernel reports success for the
// next one though the name is lost. No later Put may be taken in by that.
func TestFailedDirectorySyncIsFinal(t *testing.T) {
	for _, m := range methods {
		t.Run(m.name, func(t *testing.T) {
			d := newMemDisk(m.m)
			fail := true
			h := &hooked{disk: d, hook: func(call string) error {
				if fail && call == "fsync dir log" {
					fail = false
					return syscall.EIO
				}
				return nil
			}}
			b := newBackend(h)
			if err := b.Put(t.Context(), "log/1", content("log/1")); !errors.Is(err, backend.ErrUnknownOutcome) {
				t.Fatalf("Put, the fsync of its directory failing = %v, want ErrUnknownOutcome", err)
			}
			for _, key := range []backend.Key{"log/1", "log/2"} {
				err := b.Put(t.Context(), key, content(key))
				if !errors.Is(err, syscall.EIO) || errors.Is(err, backend.ErrExist) {
					t.Errorf("Put(%s) after that = %v, want the EIO again", key, err)
				}
				if trouble, ok := errors.AsType[*backend.TroubleError](err); !ok || trouble.Cause != backend.Undurable || retry.Transient(err) {
					t.Errorf("Put(%s) after that = %v: one would try again", key, err)
				}
			}
			if got := names(t, d, "log"); len(got) != 1 {
				t.Errorf("the directory holds %v, want log/1 alone", got)
			}
			if err := b.Put(t.Context(), "keys/1", nil); err != nil {
				t.Errorf("Put into another directory = %v", err)
			}
			if err := b.Delete(t.Context(), "log/1"); !errors.Is(err, syscall.EIO) {
				t.Errorf("Delete after that = %v, want the EIO again", err)
			}
		})
	}
}

// ErrExist means durable: the object and its name are fsynced by whoever
// reports it, since whoever made them may not have come to it.
func TestExistIsDurable(t *testing.T) {
	d := newMemDisk(unnamed)
	halfway := &hooked{disk: d, hook: func(call string) error {
		if call == "fsync dir log" {
			return errPowerCut // as if it took for ever
		}
		return nil
	}}
	if err := newBackend(halfway).Put(t.Context(), "log/1", content("log/1")); err == nil {
		t.Fatal("Put = nil, want an error")
	}
	n, err := d.find("log")
	if err != nil {
		t.Fatal(err)
	}
	n.lost = false // it did not fail, it has not been done
	if err := newBackend(d).Put(t.Context(), "log/1", nil); !errors.Is(err, backend.ErrExist) {
		t.Fatalf("Put = %v, want ErrExist", err)
	}
	after := newBackend(d.afterCrash(onlyDurable, nil))
	if got := read(t, after, "log/1"); !bytes.Equal(got, content("log/1")) {
		t.Errorf("after ErrExist and a power cut: %d bytes, want %d", len(got), len(content("log/1")))
	}

	// If that fsync fails, it is not ErrExist.
	d = newMemDisk(unnamed)
	if err := newBackend(d).Put(t.Context(), "log/1", nil); err != nil {
		t.Fatal(err)
	}
	broken := newBackend(&hooked{disk: d, hook: func(call string) error {
		if call == "fsync log/1" {
			return syscall.EIO
		}
		return nil
	}})
	for range 2 {
		if err := broken.Put(t.Context(), "log/1", nil); errors.Is(err, backend.ErrExist) || !errors.Is(err, syscall.EIO) {
			t.Errorf("Put of a taken key whose fsync fails = %v, want EIO", err)
		}
	}
}

// A file system that has none of the three ways is refused.
func TestRefused(t *testing.T) {
	d := newMemDisk(refused)
	b := newBackend(d)
	for range 2 {
		err := b.Put(t.Context(), "packs/1", []byte("x"))
		if !errors.Is(err, backend.ErrUnsupported) {
			t.Errorf("Put = %v, want ErrUnsupported", err)
		}
	}
	if got := names(t, d, "packs"); len(got) != 0 {
		t.Errorf("%v are left over", got)
	}
}

// A rename that is sent again because its answer was lost does not find the
// file any more. Whether it is done is not known then.
func TestRenameAnsweredTwice(t *testing.T) {
	d := newMemDisk(renamed)
	h := &hooked{disk: d}
	h.hook = func(call string) error {
		if !strings.HasPrefix(call, "rename ") {
			return nil
		}
		for _, name := range names(t, d, "log") {
			if err := d.rename("log/"+name, "log/1"); err != nil {
				t.Errorf("rename = %v", err)
			}
		}
		return syscall.ENOENT
	}
	b := newBackend(h)
	if err := b.Put(t.Context(), "log/1", content("log/1")); !errors.Is(err, backend.ErrUnknownOutcome) {
		t.Errorf("Put = %v, want ErrUnknownOutcome", err)
	}
	if err := b.Put(t.Context(), "log/1", content("log/1")); !errors.Is(err, backend.ErrExist) {
		t.Errorf("Put again = %v, want ErrExist", err)
	}
}

// On NFS a link whose answer was lost is sent again and finds itself there.
func TestLinkAnsweredTwice(t *testing.T) {
	d := newMemDisk(linked)
	h := &hooked{disk: d}
	h.hook = func(call string) error {
		if !strings.HasPrefix(call, "link ") {
			return nil
		}
		from, to := "", ""
		for _, name := range names(t, d, "log") {
			from, to = "log/"+name, "log/1"
		}
		return errors.Join(d.link(from, to), syscall.EEXIST)
	}
	if err := newBackend(h).Put(t.Context(), "log/1", content("log/1")); err != nil {
		t.Errorf("Put = %v, want nil", err)
	}
	if got := names(t, d, "log"); len(got) != 1 {
		t.Errorf("the directory holds %v, want the object alone", got)
	}
}

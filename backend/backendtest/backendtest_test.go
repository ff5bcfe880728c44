package backendtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/backend/fault"
	"github.com/cairn-backup/cairn/backend/mem"
)

func TestRun(t *testing.T) {
	Run(t, func(*testing.T) Open {
		b := mem.New()
		return func(*testing.T) backend.Backend { return b }
	})
}

// A recorder is a testing.TB that notes failures and fails nobody.
type recorder struct {
	testing.TB
	mu       sync.Mutex // guards failures
	failures []string
}

func (r *recorder) Helper() {}

func (r *recorder) Errorf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failures = append(r.failures, fmt.Sprintf(format, args...))
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	runtime.Goexit()
}

// failing runs the whole suite on stores that open returns and returns the
// names of the cases that fail.
func failing(t *testing.T, opts Options, open func() func() backend.Backend) []string {
	t.Helper()
	var names []string
	for _, c := range cases() {
		r := &recorder{TB: t}
		done := make(chan struct{})
		go func() { // a goroutine of its own, for Fatalf to end
			defer close(done)
			c.run(&suite{TB: r, Options: opts, open: open()})
		}()
		<-done
		if len(r.failures) > 0 {
			names = append(names, c.name)
		}
	}
	return names
}

// A broken store keeps the contract of mem but for what its fields change.
type broken struct {
	*mem.Backend
	put    func(context.Context, backend.Key, []byte) error
	get    func(ctx context.Context, key backend.Key, off, n int64) (io.ReadCloser, error)
	list   func(context.Context, backend.Key) iter.Seq2[backend.Info, error]
	delete func(context.Context, backend.Key) error
}

func (b *broken) Put(ctx context.Context, key backend.Key, data []byte) error {
	if b.put != nil {
		return b.put(ctx, key, data)
	}
	return b.Backend.Put(ctx, key, data)
}

func (b *broken) Get(ctx context.Context, key backend.Key, off, n int64) (io.ReadCloser, error) {
	if b.get != nil {
		return b.get(ctx, key, off, n)
	}
	return b.Backend.Get(ctx, key, off, n)
}

func (b *broken) List(ctx context.Context, prefix backend.Key) iter.Seq2[backend.Info, error] {
	if b.list != nil {
		return b.list(ctx, prefix)
	}
	return b.Backend.List(ctx, prefix)
}

func (b *broken) Delete(ctx context.Context, key backend.Key) error {
	if b.delete != nil {
		return b.delete(ctx, key)
	}
	return b.Backend.Delete(ctx, key)
}

// replace puts data whatever is there.
func replace(ctx context.Context, m *mem.Backend, key backend.Key, data []byte) error {
	_ = m.Delete(ctx, key)
	return m.Put(ctx, key, data)
}

// relist returns a store whose listings are changed on their way.
func relist(m *mem.Backend, change func([]backend.Info) []backend.Info) backend.Backend {
	return &broken{Backend: m, list: func(ctx context.Context, prefix backend.Key) iter.Seq2[backend.Info, error] {
		return func(yield func(backend.Info, error) bool) {
			var infos []backend.Info
			for info, err := range m.List(ctx, prefix) {
				if err != nil {
					yield(info, err)
					return
				}
				infos = append(infos, info)
			}
			for _, info := range change(infos) {
				if !yield(info, nil) {
					return
				}
			}
		}
	}}
}

// Each store breaks one rule, and at least the case that is about it fails.
func TestBrokenStores(t *testing.T) {
	for _, c := range []struct {
		name string
		make func(*mem.Backend) backend.Backend
		want string // the case that must fail
	}{
		{"overwrites", func(m *mem.Backend) backend.Backend {
			return &broken{Backend: m, put: func(ctx context.Context, key backend.Key, data []byte) error {
				if err := m.Put(ctx, key, data); !errors.Is(err, backend.ErrExist) {
					return err
				}
				return replace(ctx, m, key, data)
			}}
		}, "Exist"},
		{"overwrites and says ErrExist", func(m *mem.Backend) backend.Backend {
			return &broken{Backend: m, put: func(ctx context.Context, key backend.Key, data []byte) error {
				err := m.Put(ctx, key, data)
				if errors.Is(err, backend.ErrExist) {
					_ = replace(ctx, m, key, data)
				}
				return err
			}}
		}, "Exist"},
		{"looks first", func(m *mem.Backend) backend.Backend {
			return &broken{Backend: m, put: func(ctx context.Context, key backend.Key, data []byte) error {
				if _, err := m.Stat(ctx, key); err == nil {
					return backend.ErrExist
				} else if !errors.Is(err, backend.ErrNotExist) {
					return err
				}
				runtime.Gosched() // and is overtaken
				if err := m.Put(ctx, key, data); !errors.Is(err, backend.ErrExist) {
					return err
				}
				return replace(ctx, m, key, data)
			}}
		}, "Race"},
		{"shows parts", func(m *mem.Backend) backend.Backend {
			return &broken{Backend: m, put: func(ctx context.Context, key backend.Key, data []byte) error {
				if len(data) < 1<<16 {
					return m.Put(ctx, key, data)
				}
				if err := m.Put(ctx, key, data[:len(data)/2]); err != nil {
					return err
				}
				for range 100 {
					runtime.Gosched()
				}
				return replace(ctx, m, key, data)
			}}
		}, "Atomic"},
		{"leaves parts when cancelled", func(m *mem.Backend) backend.Backend {
			return &broken{Backend: m, put: func(ctx context.Context, key backend.Key, data []byte) error {
				if _, timed := ctx.Deadline(); timed {
					_ = m.Put(t.Context(), key, data[:len(data)/2])
					return context.DeadlineExceeded
				}
				return m.Put(ctx, key, data)
			}}
		}, "CancelledMidway"},
		{"ignores ctx", func(m *mem.Backend) backend.Backend {
			return &broken{Backend: m, put: func(_ context.Context, key backend.Key, data []byte) error {
				return m.Put(t.Context(), key, data)
			}}
		}, "Cancelled"},
		{"retains data", func(m *mem.Backend) backend.Backend {
			kept := make(map[backend.Key][]byte)
			var mu sync.Mutex
			return &broken{
				Backend: m,
				put: func(ctx context.Context, key backend.Key, data []byte) error {
					mu.Lock()
					defer mu.Unlock()
					err := m.Put(ctx, key, data)
					if err == nil {
						kept[key] = data
					}
					return err
				},
				get: func(ctx context.Context, key backend.Key, off, n int64) (io.ReadCloser, error) {
					r, err := m.Get(ctx, key, off, n)
					if err != nil {
						return nil, err
					}
					mu.Lock()
					defer mu.Unlock()
					return backend.NewBody(ctx, bytes.NewReader(kept[key][off:]), backend.BodySize(r), r), nil
				},
			}
		}, "Ownership"},
		{"modifies data", func(m *mem.Backend) backend.Backend {
			return &broken{Backend: m, put: func(ctx context.Context, key backend.Key, data []byte) error {
				err := m.Put(ctx, key, data)
				if key == "object" { // elsewhere it would be a data race
					slices.Reverse(data)
				}
				return err
			}}
		}, "Ownership"},
		{"ignores ranges", func(m *mem.Backend) backend.Backend {
			return &broken{Backend: m, get: func(ctx context.Context, key backend.Key, _, _ int64) (io.ReadCloser, error) {
				return m.Get(ctx, key, 0, -1)
			}}
		}, "Ranges"},
		{"overflows in ranges", func(m *mem.Backend) backend.Backend {
			return &broken{Backend: m, get: func(ctx context.Context, key backend.Key, off, n int64) (io.ReadCloser, error) {
				if n > 0 && off+n < 0 {
					n = 0
				}
				return m.Get(ctx, key, off, n)
			}}
		}, "Ranges"},
		{"has no empty objects", func(m *mem.Backend) backend.Backend {
			return &broken{Backend: m, put: func(ctx context.Context, key backend.Key, data []byte) error {
				if len(data) == 0 && key.Validate() == nil {
					return nil
				}
				return m.Put(ctx, key, data)
			}}
		}, "EmptyObject"},
		{"cuts large objects", func(m *mem.Backend) backend.Backend {
			return fault.New(m, fault.Rule{Op: fault.Put, Corrupt: fault.Truncate(1 << 18)})
		}, "LargeObject"},
		{"flips a bit", func(m *mem.Backend) backend.Backend {
			return fault.New(m, fault.Rule{Op: fault.Get, Corrupt: fault.FlipBit(-1)})
		}, "PutAndGet"},
		{"bodies break off", func(m *mem.Backend) backend.Backend {
			return fault.New(m, fault.Rule{Op: fault.Get, CutErr: io.EOF, CutAfter: 50})
		}, "PutAndGet"},
		{"lists backwards", func(m *mem.Backend) backend.Backend {
			return relist(m, func(infos []backend.Info) []backend.Info { slices.Reverse(infos); return infos })
		}, "ListMany"},
		{"lists as a directory walk", func(m *mem.Backend) backend.Backend {
			return relist(m, func(infos []backend.Info) []backend.Info {
				slices.SortFunc(infos, func(x, y backend.Info) int {
					return slices.Compare(strings.Split(string(x.Key), "/"), strings.Split(string(y.Key), "/"))
				})
				return infos
			})
		}, "ListOrder"},
		{"lists one page", func(m *mem.Backend) backend.Backend {
			return relist(m, func(infos []backend.Info) []backend.Info { return infos[:min(len(infos), 100)] })
		}, "ListMany"},
		{"takes prefixes for directories", func(m *mem.Backend) backend.Backend {
			return &broken{Backend: m, list: func(ctx context.Context, prefix backend.Key) iter.Seq2[backend.Info, error] {
				if prefix != "" && !strings.HasSuffix(string(prefix), "/") {
					prefix += "/"
				}
				return m.List(ctx, prefix)
			}}
		}, "ListPrefix"},
		{"lists once", func(m *mem.Backend) backend.Backend {
			return &broken{Backend: m, list: func(ctx context.Context, prefix backend.Key) iter.Seq2[backend.Info, error] {
				next, _ := iter.Pull2(m.List(ctx, prefix))
				return func(yield func(backend.Info, error) bool) {
					for info, err, ok := next(); ok && yield(info, err); info, err, ok = next() {
						continue
					}
				}
			}}
		}, "ListStop"},
		{"complains of deleting nothing", func(m *mem.Backend) backend.Backend {
			return &broken{Backend: m, delete: func(ctx context.Context, key backend.Key) error {
				if _, err := m.Stat(ctx, key); err != nil {
					return err
				}
				return m.Delete(ctx, key)
			}}
		}, "Delete"},
		{"deletes nothing", func(m *mem.Backend) backend.Backend {
			return &broken{Backend: m, delete: func(context.Context, backend.Key) error { return nil }}
		}, "Delete"},
		{"deletes what lies below", func(m *mem.Backend) backend.Backend {
			return &broken{Backend: m, delete: func(ctx context.Context, key backend.Key) error {
				if key.Validate() == nil {
					for info, err := range m.List(ctx, key+"/") {
						if err != nil {
							return err
						}
						_ = m.Delete(ctx, info.Key)
					}
				}
				return m.Delete(ctx, key)
			}}
		}, "Delete"},
		{"normalises keys", func(m *mem.Backend) backend.Backend {
			return &broken{Backend: m, put: func(ctx context.Context, key backend.Key, data []byte) error {
				return m.Put(ctx, backend.Key(strings.ToLower(string(key))), data)
			}}
		}, "HostileKeys"},
		{"cuts keys", func(m *mem.Backend) backend.Backend {
			return &broken{Backend: m, put: func(ctx context.Context, key backend.Key, data []byte) error {
				if key.Validate() == nil {
					key = key[:min(len(key), 143)]
				}
				return m.Put(ctx, key, data)
			}}
		}, "LongestKey"},
		{"finds directories", func(m *mem.Backend) backend.Backend {
			return &broken{Backend: m, get: func(ctx context.Context, key backend.Key, off, n int64) (io.ReadCloser, error) {
				r, err := m.Get(ctx, key, off, n)
				if errors.Is(err, backend.ErrNotExist) {
					for range m.List(ctx, key+"/") {
						return io.NopCloser(strings.NewReader("")), nil
					}
				}
				return r, err
			}}
		}, "NotExist"},
		{"loses replies", func(m *mem.Backend) backend.Backend {
			return fault.New(m, fault.Rule{Op: fault.Put | fault.Delete, From: 40, LostReply: errors.New("lost")})
		}, "Mixed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			opts := Options{RacedKeys: 50, ListedKeys: 200, LargeObject: 1 << 20}.withDefaults()
			names := failing(t, opts, func() func() backend.Backend {
				b := c.make(mem.New())
				return func() backend.Backend { return b }
			})
			if !slices.Contains(names, c.want) {
				t.Errorf("failing cases: %v, want %s among them", names, c.want)
			}
		})
	}
}

// A store that forgets is found by opening it again.
func TestForgetfulStore(t *testing.T) {
	opts := Options{RacedKeys: 1, ListedKeys: 10, LargeObject: 1 << 10}.withDefaults()
	names := failing(t, opts, func() func() backend.Backend {
		return func() backend.Backend { return mem.New() }
	})
	for _, want := range []string{"Durable", "Exist", "Delete", "Race", "ListMany"} {
		if !slices.Contains(names, want) {
			t.Errorf("failing cases: %v, want %s among them", names, want)
		}
	}
}

// The reference passes what the others fail.
func TestReferencePasses(t *testing.T) {
	opts := Options{RacedKeys: 50, ListedKeys: 200, LargeObject: 1 << 20}.withDefaults()
	names := failing(t, opts, func() func() backend.Backend {
		b := mem.New()
		return func() backend.Backend { return b }
	})
	if len(names) > 0 {
		t.Errorf("failing cases: %v, want none", names)
	}
}

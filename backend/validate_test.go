package backend_test

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
	"time"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/backend/fault"
	"github.com/cairn-backup/cairn/backend/mem"
	"github.com/cairn-backup/cairn/backend/meter"
)

// A liar is a store that keeps the contract but for the methods in its fields.
type liar struct {
	*mem.Backend
	put    func(context.Context, backend.Key, []byte) error
	get    func(ctx context.Context, key backend.Key, off, n int64) (io.ReadCloser, error)
	stat   func(context.Context, backend.Key) (backend.Info, error)
	list   func(context.Context, backend.Key) iter.Seq2[backend.Info, error]
	delete func(context.Context, backend.Key) error
}

func (l *liar) Put(ctx context.Context, key backend.Key, data []byte) error {
	if l.put != nil {
		return l.put(ctx, key, data)
	}
	return l.Backend.Put(ctx, key, data)
}

func (l *liar) Get(ctx context.Context, key backend.Key, off, n int64) (io.ReadCloser, error) {
	if l.get != nil {
		return l.get(ctx, key, off, n)
	}
	return l.Backend.Get(ctx, key, off, n)
}

func (l *liar) Stat(ctx context.Context, key backend.Key) (backend.Info, error) {
	if l.stat != nil {
		return l.stat(ctx, key)
	}
	return l.Backend.Stat(ctx, key)
}

func (l *liar) List(ctx context.Context, prefix backend.Key) iter.Seq2[backend.Info, error] {
	if l.list != nil {
		return l.list(ctx, prefix)
	}
	return l.Backend.List(ctx, prefix)
}

func (l *liar) Delete(ctx context.Context, key backend.Key) error {
	if l.delete != nil {
		return l.delete(ctx, key)
	}
	return l.Backend.Delete(ctx, key)
}

// relist has its listing rearranged.
func relist(m *mem.Backend, change func([]backend.Info) []backend.Info) *liar {
	return &liar{Backend: m, list: func(ctx context.Context, prefix backend.Key) iter.Seq2[backend.Info, error] {
		var infos []backend.Info
		for info, err := range m.List(ctx, prefix) {
			if err == nil {
				infos = append(infos, info)
			}
		}
		return func(yield func(backend.Info, error) bool) {
			for _, info := range change(infos) {
				if !yield(info, nil) {
					return
				}
			}
		}
	}}
}

// reget has its ranges changed.
func reget(m *mem.Backend, change func(off, n int64) (int64, int64)) *liar {
	return &liar{Backend: m, get: func(ctx context.Context, key backend.Key, off, n int64) (io.ReadCloser, error) {
		off, n = change(off, n)
		return m.Get(ctx, key, off, n)
	}}
}

var liars = []struct {
	name string
	make func(*mem.Backend) backend.Backend
	want string // in the error
}{
	{"overwrites", func(m *mem.Backend) backend.Backend {
		return &liar{Backend: m, put: func(ctx context.Context, key backend.Key, data []byte) error {
			if err := m.Delete(ctx, key); err != nil {
				return err
			}
			return m.Put(ctx, key, data)
		}}
	}, "create if absent"},
	{"overwrites and says ErrExist", func(m *mem.Backend) backend.Backend {
		return &liar{Backend: m, put: func(ctx context.Context, key backend.Key, data []byte) error {
			err := m.Put(ctx, key, data)
			if errors.Is(err, backend.ErrExist) {
				_ = m.Delete(ctx, key)
				_ = m.Put(ctx, key, data)
			}
			return err
		}}
	}, "create if absent"},
	{"nil for the loser", func(m *mem.Backend) backend.Backend {
		return &liar{Backend: m, put: func(ctx context.Context, key backend.Key, data []byte) error {
			if err := m.Put(ctx, key, data); !errors.Is(err, backend.ErrExist) {
				return err
			}
			return nil
		}}
	}, "create if absent"},
	{"looks first, then overwrites", func(m *mem.Backend) backend.Backend {
		// Sequential tries find nothing wrong with it.
		var mu sync.Mutex
		looked := make(map[backend.Key]int)
		return &liar{Backend: m, put: func(ctx context.Context, key backend.Key, data []byte) error {
			mu.Lock()
			looked[key]++
			early := looked[key] <= 2 && strings.Contains(string(key), "race")
			mu.Unlock()
			if err := m.Put(ctx, key, data); err == nil || !early {
				return err
			}
			_ = m.Delete(ctx, key)
			return m.Put(ctx, key, data)
		}}
	}, "racing creators"},
	{"the loser's content stays", func(m *mem.Backend) backend.Backend {
		return &liar{Backend: m, put: func(ctx context.Context, key backend.Key, data []byte) error {
			if err := m.Put(ctx, key, data); err == nil || !strings.Contains(string(key), "race") {
				return err
			}
			_ = m.Delete(ctx, key)
			_ = m.Put(ctx, key, data)
			return backend.ErrExist
		}}
	}, "racing creators"},
	{"nobody wins", func(m *mem.Backend) backend.Backend {
		return &liar{Backend: m, put: func(ctx context.Context, key backend.Key, data []byte) error {
			if err := m.Put(ctx, key, data); err != nil || !strings.Contains(string(key), "race") {
				return err
			}
			return backend.ErrExist
		}}
	}, "racing creators"},
	{"stores nothing", func(m *mem.Backend) backend.Backend {
		return &liar{Backend: m, put: func(context.Context, backend.Key, []byte) error { return nil }}
	}, "create if absent"},
	{"everything exists", func(m *mem.Backend) backend.Backend {
		return &liar{Backend: m, put: func(context.Context, backend.Key, []byte) error { return backend.ErrExist }}
	}, "create if absent"},
	{"ignores ranges", func(m *mem.Backend) backend.Backend {
		return reget(m, func(int64, int64) (int64, int64) { return 0, -1 })
	}, "range reads"},
	{"ignores the length", func(m *mem.Backend) backend.Backend {
		return reget(m, func(off, _ int64) (int64, int64) { return off, -1 })
	}, "range reads"},
	{"reads one byte too many", func(m *mem.Backend) backend.Backend {
		return reget(m, func(off, n int64) (int64, int64) {
			if n > 0 {
				n++
			}
			return off, n
		})
	}, "range reads"},
	{"clamps the offset", func(m *mem.Backend) backend.Backend {
		return reget(m, func(off, n int64) (int64, int64) { return min(max(off, 0), 1000), n })
	}, "range reads"},
	{"truncates what it stores", func(m *mem.Backend) backend.Backend {
		return fault.New(m, fault.Rule{Op: fault.Put, Corrupt: fault.Truncate(-1)})
	}, "create if absent"},
	{"truncates what it returns", func(m *mem.Backend) backend.Backend {
		return fault.New(m, fault.Rule{Op: fault.Get, Corrupt: fault.Truncate(3)})
	}, "create if absent"},
	{"flips a bit", func(m *mem.Backend) backend.Backend {
		return fault.New(m, fault.Rule{Op: fault.Get, Corrupt: fault.FlipBit(-8)})
	}, "create if absent"},
	{"bodies break off", func(m *mem.Backend) backend.Backend {
		return fault.New(m, fault.Rule{Op: fault.Get, CutErr: io.ErrUnexpectedEOF, CutAfter: 3})
	}, "create if absent"},
	{"lists backwards", func(m *mem.Backend) backend.Backend {
		return relist(m, func(infos []backend.Info) []backend.Info { slices.Reverse(infos); return infos })
	}, "listing"},
	{"lists as a directory walk", func(m *mem.Backend) backend.Backend {
		return relist(m, func(infos []backend.Info) []backend.Info {
			slices.SortFunc(infos, func(x, y backend.Info) int {
				return slices.Compare(strings.Split(string(x.Key), "/"), strings.Split(string(y.Key), "/"))
			})
			return infos
		})
	}, "listing"},
	{"lists some twice", func(m *mem.Backend) backend.Backend {
		return relist(m, func(infos []backend.Info) []backend.Info { return append(infos, infos...) })
	}, "listing"},
	{"forgets the last page", func(m *mem.Backend) backend.Backend {
		return relist(m, func(infos []backend.Info) []backend.Info { return infos[:min(3, len(infos))] })
	}, "listing"},
	{"lists wrong sizes", func(m *mem.Backend) backend.Backend {
		return relist(m, func(infos []backend.Info) []backend.Info {
			for i := range infos {
				infos[i].Size = 0
			}
			return infos
		})
	}, "listing"},
	{"takes prefixes for directories", func(m *mem.Backend) backend.Backend {
		return &liar{Backend: m, list: func(ctx context.Context, prefix backend.Key) iter.Seq2[backend.Info, error] {
			if prefix != "" && !strings.HasSuffix(string(prefix), "/") {
				prefix += "/"
			}
			return m.List(ctx, prefix)
		}}
	}, "listing"},
	{"does not delete", func(m *mem.Backend) backend.Backend {
		return &liar{Backend: m, delete: func(context.Context, backend.Key) error { return nil }}
	}, "read after write"},
	{"deletes late", func(m *mem.Backend) backend.Backend {
		return &liar{Backend: m, delete: func(ctx context.Context, key backend.Key) error {
			if strings.HasSuffix(string(key), "/delete") {
				return nil
			}
			return m.Delete(ctx, key)
		}}
	}, "deletion"},
	{"finds what is not there", func(m *mem.Backend) backend.Backend {
		return &liar{Backend: m, stat: func(_ context.Context, key backend.Key) (backend.Info, error) {
			return backend.Info{Key: key}, nil
		}}
	}, "missing objects"},
	{"stat says a wrong size", func(m *mem.Backend) backend.Backend {
		return &liar{Backend: m, stat: func(ctx context.Context, key backend.Key) (backend.Info, error) {
			info, err := m.Stat(ctx, key)
			info.Size++
			return info, err
		}}
	}, "create if absent"},
}

// timely are liars that lie only to those who come at the same time, or too early.
var timely = []struct {
	name  string
	make  func(*mem.Backend) backend.Backend
	want  string // in the error of Validate
	short bool   // ValidateCreate finds it, too
}{
	{"looks first", func(m *mem.Backend) backend.Backend {
		return &liar{Backend: m, put: func(ctx context.Context, key backend.Key, data []byte) error {
			if _, err := m.Stat(ctx, key); err == nil {
				return backend.ErrExist
			} else if !errors.Is(err, backend.ErrNotExist) {
				return err
			}
			runtime.Gosched() // and is overtaken
			if err := m.Put(ctx, key, data); !errors.Is(err, backend.ErrExist) {
				return err
			}
			_ = m.Delete(ctx, key)
			return m.Put(ctx, key, data)
		}}
	}, "racing creators", true},
	{"ignores the condition", func(m *mem.Backend) backend.Backend {
		return &liar{Backend: m, put: func(ctx context.Context, key backend.Key, data []byte) error {
			err := m.Put(ctx, key, data)
			for errors.Is(err, backend.ErrExist) {
				_ = m.Delete(ctx, key)
				err = m.Put(ctx, key, data)
			}
			return err
		}}
	}, "create if absent", true},
	{"shows parts", func(m *mem.Backend) backend.Backend {
		looked := make(chan struct{}, 1)
		look := func() {
			select {
			case looked <- struct{}{}:
			default:
			}
		}
		return &liar{
			Backend: m,
			put: func(ctx context.Context, key backend.Key, data []byte) error {
				if len(data) < 1<<16 {
					return m.Put(ctx, key, data)
				}
				if err := m.Put(ctx, key, data[:len(data)/2]); err != nil {
					return err
				}
				select { // until someone looks, whenever this machine lets him
				case <-looked:
				default:
				}
				select {
				case <-looked:
				case <-time.After(time.Second):
				}
				_ = m.Delete(ctx, key)
				return m.Put(ctx, key, data)
			},
			stat: func(ctx context.Context, key backend.Key) (backend.Info, error) {
				info, err := m.Stat(ctx, key)
				if info.Size >= 1<<15 {
					look()
				}
				return info, err
			},
			get: func(ctx context.Context, key backend.Key, off, n int64) (io.ReadCloser, error) {
				r, err := m.Get(ctx, key, off, n)
				if info, statErr := m.Stat(ctx, key); err == nil && statErr == nil && info.Size >= 1<<15 {
					look()
				}
				return r, err
			},
		}
	}, "whole objects", false},
	{"remembers what was missing", func(m *mem.Backend) backend.Backend {
		var asked sync.Map
		return &liar{
			Backend: m,
			stat: func(ctx context.Context, key backend.Key) (backend.Info, error) {
				info, err := m.Stat(ctx, key)
				if errors.Is(err, backend.ErrNotExist) {
					asked.Store(key, true)
				}
				return info, err
			},
			get: func(ctx context.Context, key backend.Key, off, n int64) (io.ReadCloser, error) {
				if _, old := asked.Load(key); old {
					return nil, backend.ErrNotExist
				}
				return m.Get(ctx, key, off, n)
			},
		}
	}, "read after write", true},
	{"reads what was deleted", func(m *mem.Backend) backend.Backend {
		var cached sync.Map
		return &liar{Backend: m, get: func(ctx context.Context, key backend.Key, off, n int64) (io.ReadCloser, error) {
			if old, ok := cached.Load(key); ok && off == 0 && n < 0 {
				return io.NopCloser(bytes.NewReader(old.([]byte))), nil //nolint:errcheck // it holds nothing else
			}
			r, err := m.Get(ctx, key, off, n)
			if err == nil && off == 0 && n < 0 {
				p, _ := io.ReadAll(r)
				cached.Store(key, p)
				return io.NopCloser(bytes.NewReader(p)), r.Close()
			}
			return r, err
		}}
	}, "read after write", true},
	{"lists late", func(m *mem.Backend) backend.Backend {
		var last sync.Map
		return &liar{
			Backend: m,
			put: func(ctx context.Context, key backend.Key, data []byte) error {
				err := m.Put(ctx, key, data)
				last.Store("key", key)
				return err
			},
			list: func(ctx context.Context, prefix backend.Key) iter.Seq2[backend.Info, error] {
				return func(yield func(backend.Info, error) bool) {
					late, _ := last.Load("key")
					for info, err := range m.List(ctx, prefix) {
						if info.Key != late && !yield(info, err) {
							return
						}
					}
				}
			},
		}
	}, "listing", false},
}

func TestValidateTimely(t *testing.T) {
	for _, l := range timely {
		t.Run(l.name, func(t *testing.T) {
			for range 5 { // it is found each time
				m := mem.New()
				err := backend.Validate(t.Context(), l.make(m))
				if !errors.Is(err, backend.ErrUnsupported) || !strings.Contains(err.Error(), l.want) {
					t.Errorf("Validate = %v, want it to be about %q", err, l.want)
				}
				err = backend.ValidateCreate(t.Context(), l.make(m))
				if l.short != errors.Is(err, backend.ErrUnsupported) {
					t.Errorf("ValidateCreate = %v, found %v is wanted", err, l.short)
				}
				for info, err := range m.List(t.Context(), "") {
					t.Errorf("Validate leaves %s, %v", info.Key, err)
				}
			}
		})
	}
}

// The short form costs no more than it says.
func TestValidateCost(t *testing.T) {
	for _, v := range []struct {
		name string
		run  func(context.Context, backend.Backend) error
		most int64
	}{{"Validate", backend.Validate, 400}, {"ValidateCreate", backend.ValidateCreate, 150}} {
		b := meter.New(mem.New())
		if err := v.run(t.Context(), b); err != nil {
			t.Errorf("%s = %v", v.name, err)
		}
		watched := int64(320) // looks of the large object while it is put, if that is slow
		if n := b.Counts().Requests(); n > v.most+watched {
			t.Errorf("%s makes %d requests, want at most %d", v.name, n, v.most)
		}
	}
}

func TestValidateLiars(t *testing.T) {
	for _, l := range liars {
		t.Run(l.name, func(t *testing.T) {
			m := mem.New()
			err := backend.Validate(t.Context(), l.make(m))
			if !errors.Is(err, backend.ErrUnsupported) {
				t.Fatalf("Validate = %v, want ErrUnsupported", err)
			}
			if !strings.Contains(err.Error(), l.want) {
				t.Errorf("Validate = %v, want it to be about %q", err, l.want)
			}
			for info, err := range m.List(t.Context(), "") {
				if err != nil {
					t.Fatal(err)
				}
				if !strings.Contains(l.name, "delete") {
					t.Errorf("Validate leaves %s", info.Key)
				}
			}
		})
	}
}

func TestValidate(t *testing.T) {
	m := mem.New()
	if err := m.Put(t.Context(), "config", nil); err != nil {
		t.Fatal(err)
	}
	if err := backend.Validate(t.Context(), m); err != nil {
		t.Fatalf("Validate = %v, want nil", err)
	}
	var keys []string
	for info, err := range m.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, string(info.Key))
	}
	if fmt.Sprint(keys) != "[config]" {
		t.Errorf("after Validate the store holds %v, want config alone", keys)
	}
}

// An error of the store is passed on as it is: it does not show that the store
// is unfit.
func TestValidateStoreFails(t *testing.T) {
	for n := 1; ; n++ {
		m := mem.New()
		f := fault.New(m, fault.Rule{From: n, Count: 1, Err: backend.ErrUnavailable})
		err := backend.Validate(t.Context(), f)
		if err == nil {
			if n < 100 {
				t.Errorf("Validate makes %d calls, want more", n-1)
			}
			return
		}
		if !errors.Is(err, backend.ErrUnavailable) || errors.Is(err, backend.ErrUnsupported) {
			t.Fatalf("Validate with call %d failing = %v, want ErrUnavailable", n, err)
		}
	}
}

func TestValidateCancelled(t *testing.T) {
	m := mem.New()
	ctx, cancel := context.WithCancel(t.Context())
	f := &liar{Backend: m, put: func(ctx context.Context, key backend.Key, data []byte) error {
		if strings.Contains(string(key), "list") {
			cancel()
		}
		return m.Put(ctx, key, data)
	}}
	if err := backend.Validate(ctx, f); !errors.Is(err, context.Canceled) {
		t.Errorf("Validate, cancelled = %v, want Canceled", err)
	}
	for info, err := range m.List(t.Context(), "") {
		t.Errorf("Validate, cancelled, leaves %s, %v", info.Key, err)
	}
}

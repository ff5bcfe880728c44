// Package mem keeps objects in memory. It is the reference of the contract,
// the store of tests, and good for nothing that has to last.
package mem

import (
	"bytes"
	"context"
	"io"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cairn-backup/cairn/backend"
)

// A Backend keeps objects in memory for as long as it lives. The zero value is
// an empty store. It must not be copied.
type Backend struct {
	mu      sync.RWMutex // guards objects
	objects map[backend.Key]object
}

type object struct {
	data     []byte // never modified
	modified time.Time
}

var _ backend.Backend = (*Backend)(nil)

// New returns an empty store. So does new(Backend).
func New() *Backend { return new(Backend) }

// Put implements backend.Backend.
func (b *Backend) Put(ctx context.Context, key backend.Key, data []byte) error {
	if err := check(ctx, key); err != nil {
		return &backend.OpError{Op: "put", Key: key, Err: err}
	}
	o := object{data: bytes.Clone(data), modified: time.Now()}
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, taken := b.objects[key]; taken {
		return &backend.OpError{Op: "put", Key: key, Kind: backend.ErrExist}
	}
	if b.objects == nil {
		b.objects = make(map[backend.Key]object)
	}
	b.objects[key] = o
	return nil
}

// Get implements backend.Backend.
func (b *Backend) Get(ctx context.Context, key backend.Key, off, n int64) (io.ReadCloser, error) {
	o, err := b.find(ctx, key)
	if err != nil {
		return nil, &backend.OpError{Op: "get", Key: key, Err: err}
	}
	n, err = backend.Span(off, n, int64(len(o.data)))
	if err != nil {
		return nil, &backend.OpError{Op: "get", Key: key, Err: err}
	}
	return backend.NewBody(ctx, bytes.NewReader(o.data[off:]), n, nil), nil
}

// Stat implements backend.Backend.
func (b *Backend) Stat(ctx context.Context, key backend.Key) (backend.Info, error) {
	o, err := b.find(ctx, key)
	if err != nil {
		return backend.Info{}, &backend.OpError{Op: "stat", Key: key, Err: err}
	}
	return o.info(key), nil
}

// List implements backend.Backend. It yields the objects that were there when
// the iteration began.
func (b *Backend) List(ctx context.Context, prefix backend.Key) iter.Seq2[backend.Info, error] {
	return func(yield func(backend.Info, error) bool) {
		if err := prefix.ValidatePrefix(); err != nil {
			yield(backend.Info{}, &backend.OpError{Op: "list", Key: prefix, Err: err})
			return
		}
		for _, info := range b.snapshot(prefix) {
			if ctx.Err() != nil {
				break
			}
			if !yield(info, nil) {
				return
			}
		}
		if err := backend.Ended(ctx); err != nil {
			yield(backend.Info{}, &backend.OpError{Op: "list", Key: prefix, Err: err})
		}
	}
}

// Delete implements backend.Backend.
func (b *Backend) Delete(ctx context.Context, key backend.Key) error {
	if err := check(ctx, key); err != nil {
		return &backend.OpError{Op: "delete", Key: key, Err: err}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.objects, key)
	return nil
}

// check is what every call with a key does first.
func check(ctx context.Context, key backend.Key) error {
	if err := key.Validate(); err != nil {
		return err
	}
	return backend.Ended(ctx)
}

func (b *Backend) find(ctx context.Context, key backend.Key) (object, error) {
	if err := check(ctx, key); err != nil {
		return object{}, err
	}
	b.mu.RLock()
	defer b.mu.RUnlock()
	o, ok := b.objects[key]
	if !ok {
		return object{}, backend.ErrNotExist
	}
	return o, nil
}

// snapshot returns the objects below prefix in key order.
func (b *Backend) snapshot(prefix backend.Key) []backend.Info {
	var infos []backend.Info
	b.mu.RLock()
	for key, o := range b.objects {
		if strings.HasPrefix(string(key), string(prefix)) {
			infos = append(infos, o.info(key))
		}
	}
	b.mu.RUnlock()
	slices.SortFunc(infos, func(x, y backend.Info) int {
		return strings.Compare(string(x.Key), string(y.Key))
	})
	return infos
}

func (o object) info(key backend.Key) backend.Info {
	return backend.Info{Key: key, Size: int64(len(o.data)), Modified: o.modified}
}

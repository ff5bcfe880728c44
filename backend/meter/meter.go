// Package meter counts the requests and bytes of a backend: what a cloud bills
// and a report shows.
package meter

import (
	"context"
	"io"
	"iter"
	"sync/atomic"

	"github.com/cairn-backup/cairn/backend"
)

// A Count is about the calls of one kind.
type Count struct {
	Requests int64 // calls, whatever they returned
	Failures int64 // those of them that returned an error
	Bytes    int64 // of objects: handed to Put by the caller, or read from bodies of Get
}

// Counts are what a Backend has counted since New. It is a plain value: print,
// compare and subtract it.
type Counts struct {
	Put, Get, Stat, List, Delete Count
}

// Sub returns what has been counted from then to c.
func (c Counts) Sub(then Counts) Counts {
	return Counts{
		Put:    c.Put.sub(then.Put),
		Get:    c.Get.sub(then.Get),
		Stat:   c.Stat.sub(then.Stat),
		List:   c.List.sub(then.List),
		Delete: c.Delete.sub(then.Delete),
	}
}

func (c Count) sub(then Count) Count {
	return Count{
		Requests: c.Requests - then.Requests,
		Failures: c.Failures - then.Failures,
		Bytes:    c.Bytes - then.Bytes,
	}
}

// Requests returns the number of calls of every kind.
func (c Counts) Requests() int64 {
	return c.Put.Requests + c.Get.Requests + c.Stat.Requests + c.List.Requests + c.Delete.Requests
}

// A Backend counts the calls of another backend. It is safe for concurrent
// use.
type Backend struct {
	b                          backend.Backend
	put, get, stat, list, dele counter
}

var (
	_ backend.Backend      = (*Backend)(nil)
	_ backend.Initer       = (*Backend)(nil)
	_ backend.BatchDeleter = (*Backend)(nil)
)

// New returns a wrapper of b that counts its calls. Wrapped inside a retrying
// backend it counts each try; outside, what was asked for.
func New(b backend.Backend) *Backend { return &Backend{b: b} }

// Counts returns the counts so far. Of calls under way it may show the request
// and not yet its bytes.
func (m *Backend) Counts() Counts {
	return Counts{
		Put:    m.put.count(),
		Get:    m.get.count(),
		Stat:   m.stat.count(),
		List:   m.list.count(),
		Delete: m.dele.count(),
	}
}

// Init implements backend.Initer. It is not counted.
func (m *Backend) Init(ctx context.Context) error { return backend.Init(ctx, m.b) }

// Put implements backend.Backend.
func (m *Backend) Put(ctx context.Context, key backend.Key, data []byte) error {
	m.put.bytes.Add(int64(len(data)))
	return m.put.done(m.b.Put(ctx, key, data))
}

// Get implements backend.Backend.
func (m *Backend) Get(ctx context.Context, key backend.Key, off, n int64) (io.ReadCloser, error) {
	r, err := m.b.Get(ctx, key, off, n)
	if m.get.done(err) != nil {
		return nil, err
	}
	return &body{ReadCloser: r, bytes: &m.get.bytes}, nil
}

// Stat implements backend.Backend.
func (m *Backend) Stat(ctx context.Context, key backend.Key) (backend.Info, error) {
	info, err := m.b.Stat(ctx, key)
	return info, m.stat.done(err)
}

// List implements backend.Backend. An iteration counts as one request, though
// a store may need one for every thousand objects.
func (m *Backend) List(ctx context.Context, prefix backend.Key) iter.Seq2[backend.Info, error] {
	return func(yield func(backend.Info, error) bool) {
		m.list.requests.Add(1)
		for info, err := range m.b.List(ctx, prefix) {
			if err != nil {
				m.list.failures.Add(1)
			}
			if !yield(info, err) {
				return
			}
		}
	}
}

// Delete implements backend.Backend.
func (m *Backend) Delete(ctx context.Context, key backend.Key) error {
	return m.dele.done(m.b.Delete(ctx, key))
}

// DeleteAll implements backend.BatchDeleter. It counts as one request if the
// store deletes in batches, else as one for each key.
func (m *Backend) DeleteAll(ctx context.Context, keys []backend.Key) error {
	if d, ok := m.b.(backend.BatchDeleter); ok {
		return m.dele.done(d.DeleteAll(ctx, keys))
	}
	for _, key := range keys {
		if err := m.Delete(ctx, key); err != nil {
			return err
		}
	}
	return nil
}

type counter struct{ requests, failures, bytes atomic.Int64 }

// done counts a call that returned err, and returns err.
func (c *counter) done(err error) error {
	c.requests.Add(1)
	if err != nil {
		c.failures.Add(1)
	}
	return err
}

func (c *counter) count() Count {
	return Count{Requests: c.requests.Load(), Failures: c.failures.Load(), Bytes: c.bytes.Load()}
}

// body counts what is read of a body.
type body struct {
	io.ReadCloser
	bytes *atomic.Int64
}

// Size returns the length in bytes of the whole body, or -1.
func (b *body) Size() int64 { return backend.BodySize(b.ReadCloser) }

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.bytes.Add(int64(n))
	return n, err
}

// Name implements backend.Namer.
func (m *Backend) Name() string { return backend.Name(m.b) }

// Concurrency implements backend.Concurrenter, as far as the store behind does.
func (m *Backend) Concurrency() int { return backend.Concurrency(m.b) }

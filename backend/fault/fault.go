package fault

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"iter"
	"strings"
	"sync"
	"time"

	"github.com/cairn-backup/cairn/backend"
)

// An Op is a set of calls; add them up with |.
type Op uint8

// The calls of a backend.
const (
	Put Op = 1 << iota
	Get
	Stat
	List
	Delete
)

// A Rule says which calls go wrong and how. The zero value of a field selects
// every call, or does nothing. Rules are tried in order and every one that
// selects a call applies to it.
type Rule struct {
	// Which calls.

	Op     Op          // of these kinds
	Prefix backend.Key // on keys (or listings of prefixes) that begin so
	From   int         // from the From-th such call on, counting from 1
	Count  int         // and for this many of them

	// What happens before the effect.

	Delay time.Duration // the call takes this much longer, or until ctx ends
	Gate  *Gate         // the call waits at the gate, or until ctx ends
	Err   error         // the call fails with this error and has no effect

	// What happens to the effect.

	// Corrupt changes an object on its way: what Get reads of, with ranges
	// taken from the changed object, and what Put stores. It must not modify
	// its argument.
	Corrupt func(object []byte) []byte

	// What happens after the effect.

	LostReply error // the call fails with this error though it took effect
	CutErr    error // a body or listing ends with this error ...
	CutAfter  int64 // ... after that many bytes or objects
}

// A Backend applies rules to the calls of another backend. It is safe for
// concurrent use.
type Backend struct {
	b backend.Backend

	mu    sync.Mutex // guards rules
	rules []*counted
}

// counted is a rule with the number of calls it has selected so far.
type counted struct {
	Rule
	calls int
}

var _ backend.Backend = (*Backend)(nil)

// New returns a wrapper of b that applies rules.
func New(b backend.Backend, rules ...Rule) *Backend {
	f := &Backend{b: b}
	f.Add(rules...)
	return f
}

// Add puts rules behind those that are there. Their calls count from now on.
func (f *Backend) Add(rules ...Rule) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range rules {
		f.rules = append(f.rules, &counted{Rule: r})
	}
}

// Clear takes every rule away. Calls under way keep theirs.
func (f *Backend) Clear() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rules = nil
}

// Init implements backend.Initer. No rule applies to it.
func (f *Backend) Init(ctx context.Context) error { return backend.Init(ctx, f.b) }

// Put implements backend.Backend.
func (f *Backend) Put(ctx context.Context, key backend.Key, data []byte) error {
	c, err := f.before(ctx, Put, key)
	if err != nil {
		return err
	}
	if err := f.b.Put(ctx, key, c.corrupt(data)); err != nil {
		return err
	}
	return c.after("put", key)
}

// Get implements backend.Backend.
func (f *Backend) Get(ctx context.Context, key backend.Key, off, n int64) (io.ReadCloser, error) {
	c, err := f.before(ctx, Get, key)
	if err != nil {
		return nil, err
	}
	body, err := f.get(ctx, c, key, span{off, n})
	if err != nil {
		return nil, err
	}
	if err := c.after("get", key); err != nil {
		_ = body.Close() // the reply is lost, and the body with it
		return nil, err
	}
	return c.cutBody(body), nil
}

// Stat implements backend.Backend.
func (f *Backend) Stat(ctx context.Context, key backend.Key) (backend.Info, error) {
	c, err := f.before(ctx, Stat, key)
	if err != nil {
		return backend.Info{}, err
	}
	info, err := f.b.Stat(ctx, key)
	if err == nil {
		err = c.after("stat", key)
	}
	if err != nil {
		return backend.Info{}, err
	}
	return info, nil
}

// List implements backend.Backend.
func (f *Backend) List(ctx context.Context, prefix backend.Key) iter.Seq2[backend.Info, error] {
	return func(yield func(backend.Info, error) bool) {
		c, err := f.before(ctx, List, prefix)
		if err == nil {
			err = c.after("list", prefix)
		}
		if err != nil {
			yield(backend.Info{}, err)
			return
		}
		cutAfter, cutErr := c.cut()
		var n int64
		for info, err := range f.b.List(ctx, prefix) {
			if cutErr != nil && n == cutAfter {
				break
			}
			n++
			if !yield(info, err) || err != nil {
				return
			}
		}
		if cutErr != nil {
			yield(backend.Info{}, &backend.OpError{Op: "list", Key: prefix, Err: cutErr})
		}
	}
}

// Delete implements backend.Backend.
func (f *Backend) Delete(ctx context.Context, key backend.Key) error {
	c, err := f.before(ctx, Delete, key)
	if err != nil {
		return err
	}
	if err := f.b.Delete(ctx, key); err != nil {
		return err
	}
	return c.after("delete", key)
}

// call is the rules that apply to one call.
type call []Rule

// before finds the rules for a call and does what comes before its effect.
func (f *Backend) before(ctx context.Context, op Op, key backend.Key) (call, error) {
	c := f.match(op, key)
	for _, r := range c {
		err := r.wait(ctx)
		if err == nil {
			err = r.Err
		}
		if err != nil {
			return nil, &backend.OpError{Op: op.String(), Key: key, Err: err}
		}
	}
	return c, nil
}

func (f *Backend) match(op Op, key backend.Key) call {
	f.mu.Lock()
	defer f.mu.Unlock()
	var c call
	for _, r := range f.rules {
		if r.Op != 0 && r.Op&op == 0 || !strings.HasPrefix(string(key), string(r.Prefix)) {
			continue
		}
		r.calls++
		from := max(r.From, 1)
		if r.calls >= from && (r.Count == 0 || r.calls < from+r.Count) {
			c = append(c, r.Rule)
		}
	}
	return c
}

func (r Rule) wait(ctx context.Context) error {
	if r.Delay > 0 {
		timer := time.NewTimer(r.Delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return backend.Ended(ctx)
		}
	}
	if r.Gate != nil {
		return r.Gate.pass(ctx)
	}
	return nil
}

type span struct{ off, n int64 }

func (f *Backend) get(ctx context.Context, c call, key backend.Key, s span) (io.ReadCloser, error) {
	if !c.corrupts() {
		return f.b.Get(ctx, key, s.off, s.n)
	}
	whole, err := f.b.Get(ctx, key, 0, -1)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(whole)
	_ = whole.Close() // only read
	if err != nil {
		return nil, &backend.OpError{Op: "get", Key: key, Err: err}
	}
	data = c.corrupt(data)
	n, err := backend.Span(s.off, s.n, int64(len(data)))
	if err != nil {
		return nil, &backend.OpError{Op: "get", Key: key, Err: err}
	}
	return backend.NewBody(ctx, bytes.NewReader(data[s.off:]), n, nil), nil
}

func (c call) corrupts() bool {
	for _, r := range c {
		if r.Corrupt != nil {
			return true
		}
	}
	return false
}

func (c call) corrupt(data []byte) []byte {
	for _, r := range c {
		if r.Corrupt != nil {
			data = r.Corrupt(data)
		}
	}
	return data
}

// after returns the error that takes the place of a reply.
func (c call) after(op string, key backend.Key) error {
	for _, r := range c {
		if r.LostReply != nil {
			return &backend.OpError{Op: op, Key: key, Err: r.LostReply}
		}
	}
	return nil
}

func (c call) cut() (after int64, err error) {
	for _, r := range c {
		if r.CutErr != nil {
			return r.CutAfter, r.CutErr
		}
	}
	return 0, nil
}

func (c call) cutBody(body io.ReadCloser) io.ReadCloser {
	after, err := c.cut()
	if err == nil {
		return body
	}
	return &cutBody{ReadCloser: body, left: after, err: err}
}

// cutBody is a body that breaks off.
type cutBody struct {
	io.ReadCloser
	left int64
	err  error
}

// Size returns what the whole body would have had.
func (b *cutBody) Size() int64 { return backend.BodySize(b.ReadCloser) }

func (b *cutBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, b.err
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}

// String returns the name of a single call as backend.OpError has it.
func (o Op) String() string {
	switch o {
	case Put:
		return "put"
	case Get:
		return "get"
	case Stat:
		return "stat"
	case List:
		return "list"
	case Delete:
		return "delete"
	default:
		return fmt.Sprintf("ops(%05b)", uint8(o))
	}
}

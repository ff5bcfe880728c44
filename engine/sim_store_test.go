package engine_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/chunk/seal"
)

// A simKind is what a call asks of the simulated store.
type simKind uint8

const (
	simThink simKind = iota // no call: an actor waits for its turn
	simGet
	simStat
	simList
	simPut
	simDelete
)

func (k simKind) String() string {
	return [...]string{"think", "get", "stat", "list", "put", "delete"}[k]
}

func (k simKind) writes() bool { return k == simPut || k == simDelete }

// A simOp is one call that waits until the scheduler lets it happen.
type simOp struct {
	proc    *simProc
	kind    simKind
	key     backend.Key
	data    []byte // of a put
	off, n  int64  // of a get
	arrival int
	reply   chan simReply // has room for the one reply
}

type simReply struct {
	err   error
	body  []byte
	infos []backend.Info
	// broken: the body ends before its last byte.
	broken bool
}

// A simObject is one stored object.
type simObject struct {
	data []byte
	step int // when it was put
	time time.Time
	gone int // when it was deleted, among those that were
}

// A simStore is the one store of a schedule: calls arrive, and wait until the
// scheduler takes them. Only the scheduler changes objects.
type simStore struct {
	mu       sync.Mutex // guards the next three
	waiting  []*simOp
	arrivals int
	seen     int // of the arrivals, those that the scheduler has seen waiting

	objects map[backend.Key]simObject
	deleted map[backend.Key]simObject // what a stale list may still show
	limbo   []*simOp                  // writes that were given up and may still happen
	names   map[backend.Key]string    // what a trace calls keys with random names
	step    int
}

// A simProc is one process with its own connection to the store.
type simProc struct {
	store *simStore
	id    int
	name  string

	mu   sync.Mutex // guards dead
	dead bool       // it crashed: nothing that it does reaches the store

	paused int // until this step; the scheduler's
}

var _ backend.Backend = (*simProc)(nil)

// errSimDead is what a crashed process gets, so that its goroutines end. It is
// of a kind that nobody tries again.
var errSimDead = errors.Join(errors.New("the process has crashed"), backend.ErrUnauthorized)

func (p *simProc) isDead() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dead
}

// call hands a call to the scheduler and waits for its reply.
func (p *simProc) call(ctx context.Context, op *simOp) simReply {
	if err := backend.Ended(ctx); err != nil {
		return simReply{err: err}
	}
	if p.isDead() {
		return simReply{err: errSimDead}
	}
	op.proc, op.reply = p, make(chan simReply, 1)
	s := p.store
	s.mu.Lock()
	s.arrivals++
	op.arrival = s.arrivals
	s.waiting = append(s.waiting, op)
	s.mu.Unlock()
	select {
	case r := <-op.reply:
		return r
	case <-ctx.Done():
		return s.giveUp(ctx, op)
	}
}

// giveUp ends a call whose context ended. A write that was sent may still
// happen. One that came in the same step as the end of its context counts as not
// sent: which of the two was first depends on the speed of goroutines.
func (s *simStore) giveUp(ctx context.Context, op *simOp) simReply {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.Index(s.waiting, op)
	if i < 0 {
		return <-op.reply
	}
	s.waiting = slices.Delete(s.waiting, i, i+1)
	err := backend.Ended(ctx)
	if op.arrival > s.seen {
		return simReply{err: err}
	}
	if op.kind.writes() {
		s.limbo = append(s.limbo, op)
		err = errors.Join(err, backend.ErrUnknownOutcome)
	}
	return simReply{err: &backend.OpError{Op: op.kind.String(), Key: op.key, Err: err}}
}

// ready returns the calls that wait, in an order that does not depend on which
// goroutine was faster, as far as the calls differ.
func (s *simStore) ready() []*simOp {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = s.arrivals
	ops := slices.Clone(s.waiting)
	slices.SortFunc(ops, s.compare)
	return ops
}

func (s *simStore) compare(a, b *simOp) int {
	return cmp.Or(
		cmp.Compare(a.proc.id, b.proc.id), cmp.Compare(a.kind, b.kind), strings.Compare(s.label(a.key), s.label(b.key)),
		cmp.Compare(len(a.data), len(b.data)), cmp.Compare(a.sealed(), b.sealed()), cmp.Compare(a.off, b.off), cmp.Compare(a.n, b.n), cmp.Compare(a.arrival, b.arrival),
	)
}

// sealed returns the kind of object that a put stores.
func (op *simOp) sealed() seal.Kind {
	h, _, _ := seal.ParseHeader(op.data) // zero for what has none
	return h.Kind
}

// take removes a call from those that wait.
func (s *simStore) take(op *simOp) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting = slices.DeleteFunc(s.waiting, func(o *simOp) bool { return o == op })
}

// takeAll removes the calls of a process, and keeps its writes in limbo. All at
// once: the first that is answered may make the code give up the others.
func (s *simStore) takeAll(p *simProc) []*simOp {
	s.mu.Lock()
	defer s.mu.Unlock()
	var taken []*simOp
	s.waiting = slices.DeleteFunc(s.waiting, func(op *simOp) bool {
		if op.proc != p {
			return false
		}
		taken = append(taken, op)
		if op.kind.writes() {
			s.limbo = append(s.limbo, op)
		}
		return true
	})
	return taken
}

// label returns a name for key that is the same whenever a schedule is run.
func (s *simStore) label(key backend.Key) string {
	if name, ok := s.names[key]; ok {
		return name
	}
	if random := strings.HasPrefix(string(key), "packs/") || strings.HasPrefix(string(key), "index/"); random && len(key) > 9 {
		return string(key[:6]) + "new"
	}
	if strings.HasPrefix(string(key), "keys/") {
		return "keys/"
	}
	return string(key)
}

// read answers a call that changes nothing.
func (s *simStore) read(op *simOp) simReply {
	if op.kind == simThink {
		return simReply{}
	}
	if op.kind == simList {
		return simReply{infos: s.list(op.key, func(simObject) bool { return true }, nil)}
	}
	fail := func(err error) simReply {
		return simReply{err: &backend.OpError{Op: op.kind.String(), Key: op.key, Err: err}}
	}
	o, ok := s.objects[op.key]
	if !ok {
		return fail(backend.ErrNotExist)
	}
	if op.kind == simStat {
		return simReply{infos: []backend.Info{{Key: op.key, Size: int64(len(o.data)), Modified: o.time}}}
	}
	n, err := backend.Span(op.off, op.n, int64(len(o.data)))
	if err != nil {
		return fail(err)
	}
	return simReply{body: o.data[op.off : op.off+n]}
}

// list returns the objects below prefix that are shown, and those that were
// deleted and are given in addition.
func (s *simStore) list(prefix backend.Key, shown func(simObject) bool, more map[backend.Key]simObject) []backend.Info {
	var infos []backend.Info
	add := func(key backend.Key, o simObject) {
		if strings.HasPrefix(string(key), string(prefix)) {
			infos = append(infos, backend.Info{Key: key, Size: int64(len(o.data)), Modified: o.time})
		}
	}
	for key, o := range s.objects {
		if shown(o) {
			add(key, o)
		}
	}
	for key, o := range more {
		if _, there := s.objects[key]; !there {
			add(key, o)
		}
	}
	slices.SortFunc(infos, func(a, b backend.Info) int { return strings.Compare(string(a.Key), string(b.Key)) })
	return infos
}

// write carries out a put or a delete, and returns what its caller is told if
// nothing goes wrong.
func (s *simStore) write(op *simOp) error {
	if op.kind == simDelete {
		if o, ok := s.objects[op.key]; ok {
			o.gone = s.step
			s.deleted[op.key] = o
			delete(s.objects, op.key)
		}
		return nil
	}
	if _, taken := s.objects[op.key]; taken {
		return &backend.OpError{Op: "put", Key: op.key, Kind: backend.ErrExist}
	}
	if _, ok := s.names[op.key]; !ok {
		if label := s.label(op.key); strings.HasSuffix(label, "new") {
			s.names[op.key] = label[:6] + itoa(len(s.names))
		}
	}
	s.objects[op.key] = simObject{data: bytes.Clone(op.data), step: s.step, time: time.Now()}
	return nil
}

// Put implements backend.Backend.
func (p *simProc) Put(ctx context.Context, key backend.Key, data []byte) error {
	return p.call(ctx, &simOp{kind: simPut, key: key, data: bytes.Clone(data)}).err
}

// Get implements backend.Backend.
func (p *simProc) Get(ctx context.Context, key backend.Key, off, n int64) (io.ReadCloser, error) {
	r := p.call(ctx, &simOp{kind: simGet, key: key, off: off, n: n})
	if r.err != nil {
		return nil, r.err
	}
	size := int64(len(r.body))
	if r.broken {
		r.body = r.body[:len(r.body)/2]
	}
	return backend.NewBody(ctx, bytes.NewReader(r.body), size, nil), nil
}

// Stat implements backend.Backend.
func (p *simProc) Stat(ctx context.Context, key backend.Key) (backend.Info, error) {
	r := p.call(ctx, &simOp{kind: simStat, key: key})
	if r.err != nil {
		return backend.Info{}, r.err
	}
	return r.infos[0], nil
}

// List implements backend.Backend.
func (p *simProc) List(ctx context.Context, prefix backend.Key) iter.Seq2[backend.Info, error] {
	return func(yield func(backend.Info, error) bool) {
		r := p.call(ctx, &simOp{kind: simList, key: prefix})
		for _, info := range r.infos {
			if !yield(info, nil) {
				return
			}
		}
		if r.err != nil {
			yield(backend.Info{}, r.err)
		}
	}
}

// Delete implements backend.Backend.
func (p *simProc) Delete(ctx context.Context, key backend.Key) error {
	return p.call(ctx, &simOp{kind: simDelete, key: key}).err
}

// think waits for the actor's turn. It reports whether its process lives.
func (p *simProc) think(ctx context.Context) bool {
	return p.call(ctx, &simOp{kind: simThink}).err == nil
}

// simRaw is the store as it is, past the scheduler. The model uses it, in the end for
// backups too, which put several objects at once.
type simRaw struct {
	store *simStore
	mu    *sync.Mutex
}

func (s *simStore) raw() simRaw { return simRaw{s, new(sync.Mutex)} }

func (r simRaw) read(op *simOp) simReply {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.store.read(op)
}

func (r simRaw) write(op *simOp) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.store.write(op)
}

var _ backend.Backend = simRaw{}

// Put implements backend.Backend.
func (r simRaw) Put(_ context.Context, key backend.Key, data []byte) error {
	return r.write(&simOp{kind: simPut, key: key, data: data})
}

// Get implements backend.Backend.
func (r simRaw) Get(ctx context.Context, key backend.Key, off, n int64) (io.ReadCloser, error) {
	reply := r.read(&simOp{kind: simGet, key: key, off: off, n: n})
	if reply.err != nil {
		return nil, reply.err
	}
	return backend.NewBody(ctx, bytes.NewReader(reply.body), int64(len(reply.body)), nil), nil
}

// Stat implements backend.Backend.
func (r simRaw) Stat(_ context.Context, key backend.Key) (backend.Info, error) {
	reply := r.read(&simOp{kind: simStat, key: key})
	if reply.err != nil {
		return backend.Info{}, reply.err
	}
	return reply.infos[0], nil
}

// List implements backend.Backend.
func (r simRaw) List(_ context.Context, prefix backend.Key) iter.Seq2[backend.Info, error] {
	return func(yield func(backend.Info, error) bool) {
		for _, info := range r.read(&simOp{kind: simList, key: prefix}).infos {
			if !yield(info, nil) {
				return
			}
		}
	}
}

// Delete implements backend.Backend.
func (r simRaw) Delete(_ context.Context, key backend.Key) error {
	return r.write(&simOp{kind: simDelete, key: key})
}

// simStart is when bubbles of synctest begin.
var simStart = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// Package latch has locks that may be held while their owner waits for a store,
// a channel or another goroutine. Who waits for one of them waits on a
// condition, not on a mutex, so that a test in a bubble of testing/synctest can
// tell that nothing more will happen by itself.
package latch

import "sync"

// A Mutex is held by one goroutine at a time. The zero value is free. It must
// not be copied after its first use.
type Mutex struct {
	mu   sync.Mutex // guards held; never kept while anything waits
	cond *sync.Cond
	held bool
}

// Lock waits until nobody else holds m.
func (m *Mutex) Lock() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for m.held {
		if m.cond == nil {
			m.cond = sync.NewCond(&m.mu)
		}
		m.cond.Wait()
	}
	m.held = true
}

// TryLock takes m if nobody holds it, and reports whether it did.
func (m *Mutex) TryLock() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.held {
		return false
	}
	m.held = true
	return true
}

// Unlock releases m, which the caller holds.
func (m *Mutex) Unlock() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.held {
		panic("latch: Unlock of a Mutex that nobody holds")
	}
	m.held = false
	if m.cond != nil {
		m.cond.Signal()
	}
}

// A Gate lets any number of goroutines pass at once, unless one has closed it.
// The zero value is open and empty. Who is in it must not enter it again. It
// must not be copied after its first use.
type Gate struct {
	mu      sync.Mutex // guards what follows; never kept while anything waits
	cond    *sync.Cond
	inside  int
	closing int  // who wait to close it; nobody else enters meanwhile
	closed  bool // and empty
}

// Enter waits until the gate is open, and enters.
func (g *Gate) Enter() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.closed || g.closing > 0 {
		g.wait()
	}
	g.inside++
}

// Leave leaves the gate, which the caller has entered.
func (g *Gate) Leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.inside--; g.inside < 0 {
		panic("latch: Leave of a Gate that nobody entered")
	}
	if g.inside == 0 {
		g.wake()
	}
}

// Close closes the gate and waits until nobody is in it.
func (g *Gate) Close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closing++
	for g.closed || g.inside > 0 {
		g.wait()
	}
	g.closing--
	g.closed = true
}

// Open opens the gate, which the caller has closed.
func (g *Gate) Open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.closed {
		panic("latch: Open of a Gate that is not closed")
	}
	g.closed = false
	g.wake()
}

func (g *Gate) wait() {
	if g.cond == nil {
		g.cond = sync.NewCond(&g.mu)
	}
	g.cond.Wait()
}

func (g *Gate) wake() {
	if g.cond != nil {
		g.cond.Broadcast()
	}
}

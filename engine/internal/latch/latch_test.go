package latch

import (
	"sync"
	"testing"
	"testing/synctest"
)

// TestMutex counts with many goroutines, none of which may come between the
// reading and the writing of another.
func TestMutex(t *testing.T) {
	var m Mutex
	var wg sync.WaitGroup
	n := 0
	for range 8 {
		wg.Go(func() {
			for range 1000 {
				m.Lock()
				n++
				m.Unlock()
			}
		})
	}
	wg.Wait()
	if n != 8000 {
		t.Errorf("counted %d, want 8000", n)
	}
	if !m.TryLock() || m.TryLock() {
		t.Error("TryLock must succeed once")
	}
	m.Unlock()
}

// TestWaitingIsIdle: a bubble in which goroutines only wait for latches is at
// rest, which it would not be with the mutexes of package sync.
func TestWaitingIsIdle(t *testing.T) {
	synctest.Test(t, func(*testing.T) {
		var m Mutex
		var g Gate
		m.Lock()
		g.Close()
		go func() { m.Lock(); m.Unlock() }() //nolint:staticcheck // it only waits
		go func() { g.Enter(); g.Leave() }()
		synctest.Wait()
		m.Unlock()
		g.Open()
	})
}

// TestGate: while one has the gate closed nobody is in it, and who wants to
// close it is not kept waiting for ever by those who come and go.
func TestGate(t *testing.T) {
	var g Gate
	var wg sync.WaitGroup
	inside := make(chan struct{}, 8)
	for range 8 {
		wg.Go(func() {
			for range 500 {
				g.Enter()
				inside <- struct{}{}
				<-inside
				g.Leave()
			}
		})
	}
	for range 2 {
		wg.Go(func() {
			for range 200 {
				g.Close()
				if len(inside) > 0 {
					t.Error("someone is in a closed gate")
				}
				g.Open()
			}
		})
	}
	wg.Wait()
}

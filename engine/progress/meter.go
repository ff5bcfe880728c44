package progress

import (
	"sync"
	"sync/atomic"
	"time"
)

// interval is the time between two ticks. It is longer than a tenth of a
// second so that the tick which Finish adds leaves any second at ten at most.
const interval = 125 * time.Millisecond

// A Meter counts for one operation and calls its [Func]. The counting methods
// cost an atomic addition and may be called by any goroutine, also after
// Finish, when they have no effect that anyone sees.
//
// A Meter with a Func has a goroutine, which Finish ends: whoever calls
// [NewMeter] must call Finish. A Func must not call its Meter.
type Meter struct {
	f    Func
	stop chan struct{} // closed by Finish
	done chan struct{} // closed by the goroutine

	phase                            atomic.Pointer[Phase]
	files, filesTotal                atomic.Int64
	bytes, bytesTotal                atomic.Int64
	fresh, stored, requests, retries atomic.Int64
	traffic                          atomic.Pointer[func() (requests, retries int64)]

	mu       sync.Mutex // serialises calls of f; guards what follows
	last     Tick
	finished bool
}

// NewMeter returns a Meter that reports to f. With a nil f it only counts.
func NewMeter(f Func) *Meter {
	m := &Meter{f: f}
	if f != nil {
		m.stop = make(chan struct{})
		m.done = make(chan struct{})
		go m.run()
	}
	return m
}

// SetPhase says what the operation does from here on.
func (m *Meter) SetPhase(p Phase) { m.phase.Store(&p) }

// AddFiles counts n entries as done. Here and below n < 0 counts as 0, since
// numbers only grow.
func (m *Meter) AddFiles(n int64) { add(&m.files, n) }

// AddFilesTotal counts n entries as known to be there.
func (m *Meter) AddFilesTotal(n int64) { add(&m.filesTotal, n) }

// AddBytes counts n bytes of content as done.
func (m *Meter) AddBytes(n int64) { add(&m.bytes, n) }

// AddBytesTotal counts n bytes of content as known to be there.
func (m *Meter) AddBytesTotal(n int64) { add(&m.bytesTotal, n) }

// AddNew counts n bytes of chunks that were not stored before.
func (m *Meter) AddNew(n int64) { add(&m.fresh, n) }

// AddStored counts n bytes of objects put.
func (m *Meter) AddStored(n int64) { add(&m.stored, n) }

// AddRequests counts n requests to the backend.
func (m *Meter) AddRequests(n int64) { add(&m.requests, n) }

// AddRetries counts n requests that were repeats.
func (m *Meter) AddRetries(n int64) { add(&m.retries, n) }

// SetTraffic says who counts requests and retries elsewhere: f is asked for each
// tick, by one goroutine at a time, and what it returns may only grow.
func (m *Meter) SetTraffic(f func() (requests, retries int64)) { m.traffic.Store(&f) }

func add(c *atomic.Int64, n int64) {
	if n > 0 {
		c.Add(n)
	}
}

// Tick returns the counts as they are now.
func (m *Meter) Tick() Tick {
	t := Tick{
		Files:    count(&m.files, &m.filesTotal),
		Bytes:    count(&m.bytes, &m.bytesTotal),
		New:      m.fresh.Load(),
		Stored:   m.stored.Load(),
		Requests: m.requests.Load(),
		Retries:  m.retries.Load(),
	}
	if p := m.phase.Load(); p != nil {
		t.Phase = *p
	}
	if f := m.traffic.Load(); f != nil {
		requests, retries := (*f)()
		t.Requests, t.Retries = t.Requests+requests, t.Retries+retries
	}
	return t
}

// count never shows less in total than is done: an input may grow after it
// was counted. The greater of two numbers that only grow only grows.
func count(done, total *atomic.Int64) Count {
	c := Count{Done: done.Load(), Total: total.Load()}
	if c.Total > 0 {
		c.Total = max(c.Total, c.Done)
	}
	return c
}

// Problem reports an item at once, after the events before it.
func (m *Meter) Problem(path string, what Kind, err error) {
	if m.f == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.finished {
		m.f(Problem{Path: path, What: what, Err: err})
	}
}

// Finish reports the last counts, if they are news, and then Finished. After
// the first call nothing is reported any more; later calls do nothing.
func (m *Meter) Finish(err error) {
	if m.f == nil {
		return
	}
	m.mu.Lock()
	first := !m.finished
	if first {
		m.tick()
		m.finished = true
		m.f(Finished{Err: err})
		close(m.stop)
	}
	m.mu.Unlock()
	<-m.done
}

func (m *Meter) run() {
	defer close(m.done)
	clock := time.NewTicker(interval)
	defer clock.Stop()
	for {
		select {
		case <-m.stop:
			return
		case <-clock.C:
			m.mu.Lock()
			if !m.finished {
				m.tick()
			}
			m.mu.Unlock()
		}
	}
}

// tick reports the counts if they changed. The caller holds mu.
func (m *Meter) tick() {
	if t := m.Tick(); t != m.last {
		m.last = t
		m.f(t)
	}
}

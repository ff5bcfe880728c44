package servertest

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A Proxy is a bad network between a client and a server that speaks HTTP/1.1.
// Its faults may be changed while it runs.
type Proxy struct {
	URL string // for clients

	upstream string
	listener net.Listener
	wg       sync.WaitGroup

	mu    sync.Mutex // guards what follows
	fault Fault
	conns map[net.Conn]struct{}
	away  bool
	ended bool

	requests, answered, swallowed, cut atomic.Int64
}

// A Fault says what happens to requests. The zero value: nothing.
type Fault struct {
	// Latency is added to each request before it is sent on.
	Latency time.Duration
	// Pace is how long 64 KiB take in either direction. 0: no time.
	Pace time.Duration
	// Swallow reports, of a request that the server has answered, whether its
	// answer is lost: the connection is reset. n counts requests from 1 on.
	Swallow func(n int64, r *http.Request) bool
	// Cut reports whether the connection is reset in the middle of the answer's
	// body.
	Cut func(n int64, r *http.Request) bool
	// CutRequest reports whether the connection is reset in the middle of the
	// request's body.
	CutRequest func(n int64, r *http.Request) bool
	// Answer answers in the server's place, if it reports true.
	Answer func(n int64, r *http.Request, w io.Writer) bool
	// Hold reports whether nothing is ever answered: a black hole.
	Hold func(n int64, r *http.Request) bool
}

// NewProxy returns a proxy in front of the server at that URL.
func NewProxy(t testing.TB, url string) *Proxy {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{URL: "http://" + l.Addr().String(), upstream: url[len("http://"):], listener: l, conns: make(map[net.Conn]struct{})}
	p.wg.Go(p.accept)
	t.Cleanup(func() {
		p.mu.Lock()
		p.ended = true
		p.mu.Unlock()
		_ = l.Close()
		p.drop()
		p.wg.Wait()
	})
	return p
}

// Set changes the faults.
func (p *Proxy) Set(f Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault = f
}

// Away takes the link away: connections are reset, and new ones at once.
func (p *Proxy) Away() {
	p.mu.Lock()
	p.away = true
	p.mu.Unlock()
	p.drop()
}

// Back gives the link back.
func (p *Proxy) Back() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.away = false
}

// Counts returns how many requests came, how many answers were swallowed, and
// how many bodies were cut.
func (p *Proxy) Counts() (requests, swallowed, cut int64) {
	return p.requests.Load(), p.swallowed.Load(), p.cut.Load()
}

// Answered returns how many requests the server has answered.
func (p *Proxy) Answered() int64 { return p.answered.Load() }

func (p *Proxy) drop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		reset(c)
	}
}

// reset ends a connection as a router does that forgot it.
func reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // it ends one way or the other
	}
	_ = c.Close()
}

func (p *Proxy) accept() {
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		if p.away || p.ended {
			p.mu.Unlock()
			reset(c)
			continue
		}
		p.conns[c] = struct{}{}
		p.mu.Unlock()
		p.wg.Go(func() {
			p.serve(c)
			p.mu.Lock()
			delete(p.conns, c)
			p.mu.Unlock()
			reset(c)
		})
	}
}

// serve passes the requests of one connection on, one by one.
func (p *Proxy) serve(c net.Conn) {
	up, err := new(net.Dialer).DialContext(context.Background(), "tcp", p.upstream)
	if err != nil {
		return
	}
	defer up.Close() //nolint:errcheck // it was only passed on
	p.mu.Lock()
	p.conns[up] = struct{}{}
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.conns, up)
		p.mu.Unlock()
	}()
	in, out := bufio.NewReader(c), bufio.NewReader(up)
	for {
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		if !p.pass(r, c, up, out) {
			return
		}
	}
}

var errCut = errors.New("cut")

// pass sends one request on and its answer back. It reports whether the
// connection lasts.
func (p *Proxy) pass(r *http.Request, c, up net.Conn, out *bufio.Reader) bool {
	n := p.requests.Add(1)
	p.mu.Lock()
	f := p.fault
	p.mu.Unlock()
	does := func(g func(int64, *http.Request) bool) bool { return g != nil && g(n, r) }
	time.Sleep(f.Latency) //nolint:forbidigo // a network has no context
	if f.Answer != nil && f.Answer(n, r, c) {
		_, _ = io.Copy(io.Discard, r.Body)
		return true
	}
	length := max(r.ContentLength, 0)
	body := io.Reader(r.Body)
	if does(f.CutRequest) {
		body = io.LimitReader(body, length/2)
		p.cut.Add(1)
	}
	if f.Pace > 0 {
		body = &paced{r: body, each: f.Pace}
	}
	if r.Body = io.NopCloser(body); r.ContentLength == 0 {
		r.Body = http.NoBody // or its length would count as unknown
	}
	if r.Header.Get("Expect") != "" { // or the server would wait for one who waits for it
		_, _ = io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\n")
		r.Header.Del("Expect")
	}
	if err := r.Write(up); err != nil {
		return false
	}
	a, err := http.ReadResponse(out, r)
	if err != nil {
		return false
	}
	defer a.Body.Close() //nolint:errcheck // it was only read
	p.answered.Add(1)
	switch {
	case does(f.Hold):
		_, _ = io.Copy(io.Discard, c) // until the client gives up
		return false
	case does(f.Swallow):
		p.swallowed.Add(1)
		return false
	case does(f.Cut) && a.ContentLength > 1:
		p.cut.Add(1)
		a.Body = io.NopCloser(io.MultiReader(io.LimitReader(a.Body, a.ContentLength/2), failing{}))
	case f.Pace > 0:
		a.Body = io.NopCloser(&paced{r: a.Body, each: f.Pace})
	}
	return a.Write(c) == nil && !r.Close && !a.Close
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errCut }

// paced reads 64 KiB in each span of time.
type paced struct {
	r    io.Reader
	each time.Duration
}

func (r *paced) Read(b []byte) (int, error) {
	n, err := r.r.Read(b[:min(len(b), 64<<10)])
	time.Sleep(r.each * time.Duration(n) / (64 << 10)) //nolint:forbidigo // as above
	return n, err
}

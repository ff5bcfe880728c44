package main

import (
	"context"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"
	"sync/atomic"
	"time"
)

// A line is a network with a latency between clients on this machine and a
// server on it: what is sent arrives half a round trip later, and each
// connection has at most a window of bytes under way each way.
type line struct {
	listener net.Listener
	server   string
	half     time.Duration
	window   int64 // bytes; 0: any number

	mu    sync.Mutex // guards conns
	conns map[net.Conn]struct{}
	wg    sync.WaitGroup
}

// newLine returns a line to the server at that address. close ends it.
func newLine(ctx context.Context, server string, latency time.Duration, window int64) (*line, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	n := &line{listener: l, server: server, half: latency / 2, window: window, conns: make(map[net.Conn]struct{})}
	n.wg.Go(func() { n.accept(ctx) })
	return n, nil
}

func (l *line) addr() string { return l.listener.Addr().String() }

func (l *line) close() {
	_ = l.listener.Close() // accept ends
	l.mu.Lock()
	for c := range l.conns {
		_ = c.Close() // whoever uses it ends
	}
	l.mu.Unlock()
	l.wg.Wait()
}

func (l *line) accept(ctx context.Context) {
	for {
		c, err := l.listener.Accept()
		if err != nil {
			return
		}
		up, err := new(net.Dialer).DialContext(ctx, "tcp", l.server)
		if err != nil {
			_ = c.Close() // the client sees it
			continue
		}
		l.mu.Lock()
		l.conns[c], l.conns[up] = struct{}{}, struct{}{}
		l.mu.Unlock()
		l.wg.Go(func() {
			var both sync.WaitGroup
			both.Go(func() { l.carry(up, c) })
			both.Go(func() { l.carry(c, up) })
			both.Wait()
			l.mu.Lock()
			defer l.mu.Unlock()
			delete(l.conns, c)
			delete(l.conns, up)
		})
	}
}

// A parcel is bytes that are under way.
type parcel struct {
	data []byte
	due  time.Time
}

const parcelSize = 64 << 10

// carry brings what comes from one side to the other until either ends.
func (l *line) carry(to, from net.Conn) {
	depth := int64(4096)
	if l.window > 0 { // half of the round trip, half of the window
		depth = max(1, l.window/2/parcelSize)
	}
	way, room := make(chan parcel, depth), make(chan struct{}, depth)
	done := make(chan struct{})
	free := sync.Pool{New: func() any { b := make([]byte, parcelSize); return &b }}
	go func() {
		defer close(done)
		for p := range way {
			time.Sleep(time.Until(p.due)) //nolint:forbidigo // a network has no context
			_, _ = to.Write(p.data)       // the other side finds out
			b := p.data[:parcelSize]
			free.Put(&b)
			<-room
		}
	}()
	for {
		room <- struct{}{}
		buf := *free.Get().(*[]byte) //nolint:errcheck,forcetypeassert // nothing else is put
		n, err := from.Read(buf)
		if n > 0 {
			way <- parcel{data: buf[:n], due: time.Now().Add(l.half)}
		}
		if err != nil {
			break
		}
	}
	close(way)
	<-done
	_, _ = to.Close(), from.Close() // both directions end together
}

// A counter passes requests on to a server and counts them.
type counter struct {
	n      atomic.Int64
	server *http.Server
	url    string
}

func newCounter(ctx context.Context, addr string) (*counter, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: addr})
	proxy.Transport = &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true}
	c := &counter{url: "http://" + l.Addr().String()}
	c.server = &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.n.Add(1)
		proxy.ServeHTTP(w, r) // the Host header stays: it is signed
	})}
	go func() { _ = c.server.Serve(l) }() // close ends it
	return c, nil
}

// take returns how many requests there were since the last call.
func (c *counter) take() int64 { return c.n.Swap(0) }

func (c *counter) close() { _ = c.server.Close() } // nothing is under way

package limit

import (
	"context"
	"net"

	"golang.org/x/time/rate"
)

// A Dial opens a connection, as net.Dialer.DialContext does.
type Dial = func(ctx context.Context, network, address string) (net.Conn, error)

// Conns returns a dialer whose connections together send and receive no faster
// than opts says; Requests is not looked at. Everything on them counts, headers
// and TLS included.
func Conns(dial Dial, opts Options) (Dial, error) {
	if err := opts.check(); err != nil {
		return nil, err
	}
	up, down := limiter(opts.Upload), limiter(opts.Download)
	if up == nil && down == nil {
		return dial, nil
	}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		// What waits for its share ends when the connection is closed.
		open, closed := context.WithCancel(context.WithoutCancel(ctx))
		return &conn{Conn: c, up: up, down: down, closed: closed, take: func(l *rate.Limiter, n int) error {
			if take(open, l, n) != nil {
				return net.ErrClosed
			}
			return nil
		}}, nil
	}, nil
}

type conn struct {
	net.Conn
	up, down *rate.Limiter
	take     func(l *rate.Limiter, n int) error
	closed   context.CancelFunc
}

func (c *conn) Read(p []byte) (int, error) {
	if c.down != nil && len(p) > c.down.Burst() {
		p = p[:c.down.Burst()]
	}
	n, err := c.Conn.Read(p)
	if werr := c.take(c.down, n); err == nil {
		err = werr
	}
	return n, err
}

func (c *conn) Write(p []byte) (n int, err error) {
	for len(p) > 0 && err == nil {
		part := p
		if c.up != nil {
			part = p[:min(len(p), c.up.Burst())]
		}
		if err = c.take(c.up, len(part)); err != nil {
			break
		}
		var m int
		m, err = c.Conn.Write(part)
		n, p = n+m, p[len(part):]
	}
	return n, err
}

func (c *conn) Close() error {
	c.closed()
	return c.Conn.Close()
}

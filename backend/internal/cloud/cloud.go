// Package cloud is what the backends of object stores in a network have in
// common: connections that notice when nothing moves any more, and what errors
// of the network mean.
package cloud

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/cairn-backup/cairn/backend"
)

// Options say how a store is reached. The zero value works.
type Options struct {
	CA    []byte                                                            // PEM; trusted beside the system's
	Proxy func(*http.Request) (*url.URL, error)                             // nil: none
	Dial  func(ctx context.Context, network, addr string) (net.Conn, error) // nil: a plain one
	Stall time.Duration                                                     // without a byte in either direction; 0: 90 s
}

const (
	// stall is longer than any store takes to answer, and than a full send
	// buffer (4 MiB) takes on a line of 50 KB/s.
	stall = 90 * time.Second
	// connecting bounds dial and TLS handshake, each.
	connecting = 15 * time.Second
	// idle connections to one host: as many as requests are sent at once.
	idleConns = 64
	bufSize   = 64 << 10
)

// Requests is how many at once make the most of such a store: each connection
// has a pace of its own, which the way and the store set, and waits for the
// first byte of each answer.
const Requests = 32

// NewClient returns an HTTP client. It speaks HTTP/1.1, since object stores do,
// and since requests at once then have connections of their own. It follows no
// redirect: a signature would not fit the new place.
func NewClient(o Options) (*http.Client, error) {
	if o.Stall <= 0 {
		o.Stall = stall
	}
	if o.Dial == nil {
		o.Dial = (&net.Dialer{Timeout: connecting, KeepAlive: 15 * time.Second}).DialContext
	}
	trust := &tls.Config{MinVersion: tls.VersionTLS12}
	if len(o.CA) > 0 {
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		if !pool.AppendCertsFromPEM(o.CA) {
			return nil, errors.New("the CA file holds no certificate in PEM form")
		}
		trust.RootCAs = pool
	}
	return &http.Client{
		Transport: &http.Transport{
			Proxy: o.Proxy,
			DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
				c, err := o.Dial(ctx, network, addr)
				if err != nil {
					return nil, err
				}
				return &conn{Conn: c, stall: o.Stall}, nil
			},
			TLSClientConfig:     trust,
			TLSHandshakeTimeout: connecting,
			MaxIdleConnsPerHost: idleConns,
			IdleConnTimeout:     60 * time.Second,
			DisableCompression:  true,
			ReadBufferSize:      bufSize,
			WriteBufferSize:     bufSize,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

// A conn fails when no byte moved in either direction for a while: a line that
// went away says nothing.
type conn struct {
	net.Conn
	stall time.Duration
}

// Errors of SetDeadline are those of a closed connection, which the next call
// finds, too.

func (c *conn) Read(p []byte) (int, error) {
	_ = c.SetDeadline(time.Now().Add(c.stall))
	n, err := c.Conn.Read(p)
	if n > 0 {
		_ = c.SetDeadline(time.Now().Add(c.stall))
	}
	return n, err
}

// Write sends in steps, so that a long body that moves is not taken for one
// that does not.
func (c *conn) Write(p []byte) (n int, err error) {
	for len(p) > 0 && err == nil {
		_ = c.SetDeadline(time.Now().Add(c.stall))
		var m int
		m, err = c.Conn.Write(p[:min(len(p), bufSize)])
		n, p = n+m, p[m:]
	}
	return n, err
}

// Trouble says what an error of the network means, and whether the request may
// have reached the server. It returns nil for the end of ctx.
func Trouble(ctx context.Context, err error, endpoint string) (t *backend.TroubleError, sent bool) {
	if err == nil || ctx.Err() != nil || errors.Is(err, context.Canceled) {
		return nil, true //nolint:nilerr // there is no trouble with the store
	}
	t = &backend.TroubleError{Cause: backend.Unreachable, Err: err, Advice: "check the network, and whether " + endpoint + " is up; what was stored is used when it is run again"}
	op, isOp := errors.AsType[*net.OpError](err)
	dial := isOp && (op.Op == "dial" || op.Op == "proxyconnect")
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		if dns.IsNotFound {
			t.Cause, t.Advice = backend.NoHost, fmt.Sprintf("check the spelling of the endpoint %s, and the network's name server", endpoint)
		}
		return t, false
	}
	if untrusted(err) {
		t.Cause = backend.Untrusted
		t.Advice = "if the server's certificate is from an authority of your own, give its certificate with ca=FILE; else somebody may be listening in between"
		return t, false
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok || strings.HasSuffix(err.Error(), "server gave HTTP response to HTTPS client") {
		t.Cause = backend.Misconfigured
		t.Advice = "the server at " + endpoint + " does not speak TLS there: correct its port, or give the endpoint as http://"
		return t, false
	}
	return t, !dial
}

func untrusted(err error) bool {
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return true
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return true
	}
	_, ok := errors.AsType[x509.HostnameError](err)
	return ok
}

// After returns what a Retry-After header asks for: seconds, or a date by the
// server's clock in Date.
func After(h http.Header) time.Duration {
	v := h.Get("Retry-After")
	if v == "" {
		return 0
	}
	if d, err := time.ParseDuration(v + "s"); err == nil && d > 0 {
		return d
	}
	at, err := http.ParseTime(v)
	if err != nil {
		return 0
	}
	now, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		return 0
	}
	return max(0, at.Sub(now))
}

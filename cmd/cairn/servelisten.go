package main

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// A serveAccess is who may use the server, and how.
type serveAccess struct {
	token string      // "": none is asked for
	tls   *tls.Config // nil: plain HTTP
	hosts []string    // names by which it may be addressed, beside those of loopback
}

// minToken is the least length of a token that other machines may try, in bytes.
const minToken = 16

// serveAccess reads the token and the certificate, and refuses to let other
// machines in without.
func (a *app) serveAccess(f serveFlags) (serveAccess, error) {
	var s serveAccess
	var err error
	if s.token, err = a.serveToken(f); err != nil {
		return s, err
	}
	host, port, err := net.SplitHostPort(f.addr)
	if err != nil || port == "" {
		return s, usagef("--addr is host:port, such as %s, not %q", serveOther, printableText(f.addr))
	}
	if (f.tlsCert == "") != (f.tlsKey == "") {
		return s, usagef("--tls-cert and --tls-key belong together")
	}
	if f.tlsCert != "" {
		cert, err := tls.LoadX509KeyPair(f.tlsCert, f.tlsKey)
		if err != nil {
			return s, usagef("--tls-cert, --tls-key: %v", err)
		}
		s.tls = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	}
	s.hosts = f.hosts
	if isLoopback(host) {
		return s, nil
	}
	switch {
	case s.token == "":
		return s, withHint(usagef("%s can be reached from other machines: it needs a token", printableText(f.addr)),
			"write one to a file and give --token-file, or set %s", envServeToken)
	case len(s.token) < minToken:
		return s, usagef("a token that other machines may try has at least %d characters", minToken)
	case s.tls == nil && !f.insecure:
		return s, withHint(usagef("%s can be reached from other machines: it needs TLS", printableText(f.addr)),
			"give --tls-cert and --tls-key, or --insecure where the network is trusted")
	}
	s.hosts = append(s.hosts, addressed(host)...)
	return s, nil
}

// serveToken returns the token of the flags or of the environment.
func (a *app) serveToken(f serveFlags) (string, error) {
	token := a.env[envServeToken]
	if f.tokenFile != "" {
		p, err := readLimited(f.tokenFile)
		if err != nil {
			return "", usagef("--token-file: %v", err)
		}
		if token = strings.TrimSpace(string(p)); token == "" {
			return "", usagef("the token file %s is empty", printable(f.tokenFile))
		}
	}
	if strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", usagef("a token has no spaces and nothing but ASCII in it")
	}
	return token, nil
}

// isLoopback reports whether only this machine can reach a host.
func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

// addressed returns by which names requests may address a server that listens at
// host: that, or, if it is all addresses, those and the machine's name.
func addressed(host string) []string {
	ip, err := netip.ParseAddr(host)
	if host != "" && (err != nil || !ip.IsUnspecified()) {
		return []string{host}
	}
	var names []string
	if name, err := os.Hostname(); err == nil { // without it there are the addresses
		names = append(names, name)
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return names
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			names = append(names, p.Addr().WithZone("").String())
		}
	}
	return names
}

// A listener is one address that is listened on, and the name it was asked by.
type listener struct {
	net.Listener
	host string
}

// listenAll listens on an address; for localhost on both of loopback.
func listenAll(ctx context.Context, address string) ([]listener, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	var config net.ListenConfig
	if host != "localhost" {
		l, err := config.Listen(ctx, "tcp", address)
		if err != nil {
			return nil, err
		}
		return []listener{{l, host}}, nil
	}
	first, err := config.Listen(ctx, "tcp4", net.JoinHostPort("127.0.0.1", port))
	if err != nil {
		return nil, err
	}
	_, port, err = net.SplitHostPort(first.Addr().String()) // of 0 something was made
	if err != nil {
		return nil, errors.Join(err, first.Close())
	}
	all := []listener{{first, host}}
	second, err := config.Listen(ctx, "tcp6", net.JoinHostPort("::1", port))
	switch {
	case err == nil:
		all = append(all, listener{second, host})
	case errors.Is(err, syscall.EADDRINUSE):
		// Whoever is there would answer half of the clients.
		return nil, errors.Join(err, first.Close())
	}
	return all, nil // a machine without IPv6 has no ::1
}

func closeAll(listeners []listener) error {
	var err error
	for _, l := range listeners {
		err = errors.Join(err, l.Close())
	}
	return err
}

// explainListen says what can be done about an address that is not to be had.
func explainListen(f serveFlags, err error) error {
	_, port, splitErr := net.SplitHostPort(f.addr)
	n, numErr := strconv.Atoi(port)
	line := "cairn serve --data " + shellQuote(f.data) + " --addr " + serveOther
	switch {
	case errors.Is(err, syscall.EACCES) && splitErr == nil && numErr == nil && n < 1024:
		return withHint(inWords(errors.Join(errUsage, err), "port %d is for privileged programs on this system", n), "%s", line)
	case errors.Is(err, syscall.EADDRINUSE):
		return withHint(inWords(errors.Join(errUsage, err), "something listens at %s already", printableText(f.addr)), "stop it, or take another port: %s", line)
	}
	return withHint(inWords(errors.Join(errUsage, err), "%v", err), "give an address of this machine with --addr")
}

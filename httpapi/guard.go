package httpapi

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
)

// A guard decides who may ask, before anything of a body is read. Requests of
// web pages that this server does not know are refused, since any page could
// otherwise ask a local server to overwrite a database.
type guard struct {
	token   [sha256.Size]byte // of the token; unused if asks is false
	asks    bool              // for a token
	hosts   map[string]bool
	origins map[string]bool
	cross   *http.CrossOriginProtection
}

var errHeader = errors.New("it cannot stand in a header")

func newGuard(o Options) (*guard, error) {
	g := &guard{
		asks: o.Token != "", token: sha256.Sum256([]byte(o.Token)), cross: http.NewCrossOriginProtection(),
		hosts: make(map[string]bool), origins: make(map[string]bool),
	}
	if strings.ContainsFunc(o.Token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, fmt.Errorf("the token has a space or a control character in it: %w", errHeader)
	}
	for _, h := range o.Hosts {
		g.hosts[canonicalHost(h)] = true
	}
	for _, origin := range o.Origins {
		if err := g.cross.AddTrustedOrigin(origin); err != nil {
			return nil, fmt.Errorf("origin %q: %w", origin, err)
		}
		g.origins[origin] = true
	}
	return g, nil
}

// canonicalHost returns a host name as it is compared.
func canonicalHost(host string) string {
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	return strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
}

// loopback reports whether a host is this machine under a name that nobody else
// can give to another one.
func loopback(host string) bool {
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

// host refuses a request that addresses the server by a name that is not its
// own: a page whose name was made to lead here would be of the same origin.
func (g *guard) host(r *http.Request) error {
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = canonicalHost(host)
	if loopback(host) || g.hosts[host] {
		return nil
	}
	return refuse(http.StatusForbidden, "this server does not go by that host name; --allow-host adds one")
}

// allowed reports whether a page of that origin may use the server.
func (g *guard) allowed(origin string) bool {
	if g.origins[origin] {
		return true
	}
	u, err := url.Parse(origin)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Path == "" && u.RawQuery == "" && u.User == nil &&
		loopback(canonicalHost(u.Hostname()))
}

// origin refuses requests of pages that may not use the server, and sets the
// headers by which a browser shows an answer to one that may.
func (g *guard) origin(w http.ResponseWriter, r *http.Request) error {
	h := w.Header()
	h.Add("Vary", "Origin")
	origin := r.Header.Get("Origin")
	if origin != "" && g.allowed(origin) {
		h.Set("Access-Control-Allow-Origin", origin)
		return nil
	}
	err := g.cross.Check(r)
	if err == nil && origin != "" && upgrades(r) {
		// A WebSocket begins with a GET, and no browser hides its messages.
		err = errors.New("a WebSocket of another origin")
	}
	if err != nil {
		return refuse(http.StatusForbidden, "requests of other web pages are refused; --allow-origin allows one")
	}
	return nil
}

// preflight answers the question of a browser whether a page may ask.
func (g *guard) preflight(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	if h.Get("Access-Control-Allow-Origin") == "" {
		fail(w, "", refuse(http.StatusForbidden, "pages of that origin may not use this server; --allow-origin allows one"))
		return
	}
	h.Set("Access-Control-Allow-Methods", "GET, HEAD, POST, OPTIONS")
	h.Set("Access-Control-Allow-Headers", "Content-Type, X-Application-ID, Authorization, Accept")
	h.Set("Access-Control-Max-Age", "600")
	if r.Header.Get("Access-Control-Request-Private-Network") == "true" {
		h.Set("Access-Control-Allow-Private-Network", "true")
	}
	w.WriteHeader(http.StatusNoContent)
}

// isPreflight reports whether a request is such a question.
func isPreflight(r *http.Request) bool {
	return r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != ""
}

// auth refuses a request without the token, if one is asked for. It takes as
// long for a wrong one as for another.
func (g *guard) auth(r *http.Request) error {
	if !g.asks {
		return nil
	}
	right := g.compare(r.Header.Get("X-Application-ID"))
	if scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " "); ok && strings.EqualFold(scheme, "Bearer") {
		right |= g.compare(strings.TrimSpace(token))
	}
	if right != 1 {
		return refuse(http.StatusNetworkAuthenticationRequired, "authentication required: send the server's token as Authorization: Bearer or X-Application-ID")
	}
	return nil
}

// compare returns 1 if given is the token, and else 0.
func (g *guard) compare(given string) int {
	sum := sha256.Sum256([]byte(given))
	return subtle.ConstantTimeCompare(sum[:], g.token[:])
}

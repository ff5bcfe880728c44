package main

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"io/fs"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/manifest"
)

// aCertificate makes a certificate for loopback, and returns its files and who
// trusts it.
func aCertificate(t *testing.T) (cert, key string, trusted *x509.CertPool) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
	if err := errors.Join(os.WriteFile(cert, certPEM, 0o600), os.WriteFile(key, keyPEM, 0o600)); err != nil {
		t.Fatal(err)
	}
	trusted = x509.NewCertPool()
	trusted.AppendCertsFromPEM(certPEM)
	return cert, key, trusted
}

// TestServeTLS holds that a server with a certificate and a token file is used
// over TLS alone, with the token alone, by requests and by WebSockets.
func TestServeTLS(t *testing.T) {
	repo, env := aRepository(t)
	cert, key, trusted := aCertificate(t)
	const token = "a-token-of-enough-length"
	tokenFile := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(tokenFile, []byte(token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := serve(t, env, "-r", repo, "--data", someData(t, 1<<10), "--token-file", tokenFile, "--tls-cert", cert, "--tls-key", key)
	if !strings.HasPrefix(s.url, "https://localhost:") {
		t.Fatalf("it is at %s", s.url)
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: trusted}, ForceAttemptHTTP2: true, DisableKeepAlives: true}}
	send := func(method, path, header string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, s.url+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if header != "" {
			req.Header.Set("Authorization", "Bearer "+header)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}
	for _, c := range []struct {
		method, path, token string
		code                int
	}{
		{"GET", "/backups", "", 511},
		{"GET", "/backups", "a-token-of-another-kind", 511},
		{"POST", "/backups/create", "", 511},
		{"POST", "/backups/create", token, 200},
		{"GET", "/backups", token, 200},
		{"GET", "/backups/create/streamed/websocket", token, 426},
		{"GET", "/healthz", "", 200},
	} {
		if code, body := send(c.method, c.path, c.token); code != c.code || strings.Contains(body, token) {
			t.Errorf("%s %s with %q = %d %s", c.method, c.path, c.token, code, body)
		}
	}
	if code, _ := get(t, strings.Replace(s.url, "https", "http", 1)+"/backups", "Authorization", "Bearer "+token); code != http.StatusBadRequest {
		t.Errorf("without TLS it answers %d", code)
	}
	upgrade := func(header string) (code int, rest string) {
		t.Helper()
		dialer := tls.Dialer{Config: &tls.Config{RootCAs: trusted, ServerName: "localhost"}}
		conn, err := dialer.DialContext(t.Context(), "tcp", strings.TrimPrefix(s.url, "https://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_, err = io.WriteString(conn, "GET /backups/create/streamed/websocket HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
			"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"+header+"\r\n")
		err = errors.Join(err, conn.SetDeadline(time.Now().Add(30*time.Second)))
		if err != nil {
			t.Fatal(err)
		}
		in := bufio.NewReader(conn)
		resp, err := http.ReadResponse(in, nil) //nolint:bodyclose // that of an upgrade is the connection
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != http.StatusSwitchingProtocols {
			return resp.StatusCode, ""
		}
		for !strings.Contains(rest, `"status":"COMPLETED"`) { // what a server sends is not masked
			p := make([]byte, 4096)
			n, err := in.Read(p)
			if rest += string(p[:n]); err != nil {
				break
			}
		}
		return resp.StatusCode, rest
	}
	if code, _ := upgrade(""); code != http.StatusNetworkAuthenticationRequired {
		t.Errorf("a WebSocket without the token = %d", code)
	}
	if code, seen := upgrade("X-Application-ID: " + token + "\r\n"); code != http.StatusSwitchingProtocols || !strings.Contains(seen, `"status":"COMPLETED"`) {
		t.Errorf("a WebSocket = %d %q", code, seen)
	}
}

// TestServeSchedule runs the loop of a schedule for several rounds, as cairn serve
// does, over data that change: as many backups are left as are to be kept, and
// what only the others needed is deleted.
func TestServeSchedule(t *testing.T) {
	t.Parallel()
	repo, env := aRepository(t)
	data := someData(t, 1<<20)
	var log lockedBuffer
	a := &app{stderr: &log, env: parseEnv(append(env, envRepo+"="+repo)), out: &output{stdout: &log, stderr: &log, width: func() int { return 80 }}}
	url := make(chan string, 1)
	f := serveFlags{
		addr: "localhost:0", data: data, maxCreations: 4, maxBody: 1 << 20, logFormat: "text", listen: listenAll, ready: func(u string) { url <- u },
		schedule: scheduleFlags{every: "1s", keep: manifest.Policy{Last: 2}, collect: engine.GCOptions{DeleteDelay: -1, SpareAge: -1}},
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.serve(ctx, f) }()
	base := ""
	select {
	case base = <-url:
	case err := <-ended:
		t.Fatalf("%v\n%s", err, log.String())
	}
	// In the last rounds nothing changes, so that all backups that are left are
	// of the same data.
	const changing, rounds = 5, 8
	for n, deadline := 0, time.Now().Add(3*time.Minute); n < rounds; {
		if n < changing {
			p := make([]byte, 1<<20)
			_, _ = rand.Read(p) // never returns an error, by its contract since Go 1.24
			if err := os.WriteFile(filepath.Join(data, "big"), p, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		_, figures := get(t, base+"/metrics")
		for line := range strings.Lines(figures) {
			if count, ok := strings.CutPrefix(line, `cairn_scheduled_total{outcome="done",step="collect"} `); ok {
				n, _ = strconv.Atoi(strings.TrimSpace(count)) // what is no number is no round
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d rounds in three minutes:\n%s", n, log.String())
		}
		time.Sleep(300 * time.Millisecond)
	}
	stop()
	if err := <-ended; err != nil {
		t.Errorf("it ends with %v\n%s", err, log.String())
	}
	r := openWith(t, repo, env)
	left := 0
	for _, err := range r.Summaries(t.Context(), manifest.Filter{}) {
		if left++; err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if left < 2 || left > 3 { // the server may have been stopped between two steps
		t.Errorf("%d backups are left\n%s", left, log.String())
	}
	var stored int64
	err := filepath.WalkDir(filepath.Join(repo, "packs"), func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		fi, err := d.Info()
		stored += fi.Size()
		return err
	})
	if err != nil || stored > 3<<20 {
		t.Errorf("%d bytes of packs are left of %d rounds, %v\n%s", stored, changing, err, log.String())
	}
	checkClean(t, repo, env)
}

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestServeRefuses holds what is a mistake in the configuration, which ends the
// program, with its exit code and what can be done.
func TestServeRefuses(t *testing.T) {
	repo, env := aRepository(t)
	data := someData(t, 1<<10)
	file := func(content string) string {
		path := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	token := "a-token-of-enough-length"
	for _, c := range []struct {
		name, args, want string
		env              []string
	}{
		{name: "no data", args: "", want: "needs --data PATH"},
		{name: "no such parent", args: "--data /no/such/place", want: "there is no directory /no/such"},
		{name: "a device", args: "--data /dev/null", want: "neither a directory nor a regular file"},
		{name: "no port", args: "--data " + data + " --addr localhost", want: "--addr is host:port"},
		{name: "all addresses", args: "--data " + data + " --addr :0", want: "needs a token"},
		{name: "other address", args: "--data " + data + " --addr 192.0.2.1:0", want: "needs a token"},
		{name: "no TLS", args: "--data " + data + " --addr 0.0.0.0:0", want: "needs TLS", env: []string{envServeToken + "=" + token}},
		{name: "a short token", args: "--data " + data + " --addr 0.0.0.0:0 --insecure", want: "at least 16", env: []string{envServeToken + "=short"}},
		{name: "an empty token", args: "--data " + data + " --token-file " + file("\n"), want: "is empty"},
		{name: "no token file", args: "--data " + data + " --token-file " + data + "/none", want: "--token-file"},
		{name: "half a certificate", args: "--data " + data + " --tls-cert " + file("x"), want: "belong together"},
		{name: "no certificate", args: "--data " + data + " --tls-cert " + file("x") + " --tls-key " + file("y"), want: "--tls-cert"},
		{name: "an origin", args: "--data " + data + " --addr localhost:0 --allow-origin example", want: "origin"},
		{name: "a schedule", args: "--data " + data + " --every 5s", want: "at least a minute"},
		{name: "no schedule", args: "--data " + data + " --keep-daily 7", want: "give --every"},
		{name: "a scheme", args: "--data " + data + " -r gopher://x", want: "not known"},
		{name: "a key file", args: "--data " + data + " --key-file " + data + "/none", want: "no key file"},
		{name: "a log format", args: "--data " + data + " --log-format xml", want: "text or json"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out bytes.Buffer
			args := append([]string{"serve"}, strings.Fields(c.args)...)
			if !strings.Contains(c.args, "-r ") {
				args = append(args, "-r", repo)
			}
			code := run(t.Context(), args, stdio{in: strings.NewReader(""), out: &out, err: &out}, append(env, c.env...))
			if code != exitUsage || !strings.Contains(out.String(), c.want) {
				t.Errorf("%d: %s", code, out.String())
			}
			if strings.Contains(out.String(), token) {
				t.Error("the token is printed")
			}
		})
	}
}

// TestServePort holds what is said where the documented port is not to be had.
func TestServePort(t *testing.T) {
	f := serveFlags{addr: serveAddr, data: "/srv/app"}
	for _, c := range []struct {
		err        error
		text, hint string
	}{
		{syscall.EACCES, "port 1000 is for privileged programs", "cairn serve --data /srv/app --addr localhost:5323"},
		{syscall.EADDRINUSE, "something listens", "--addr localhost:5323"},
		{syscall.EADDRNOTAVAIL, "", "give an address of this machine"},
	} {
		err := explainListen(f, &net.OpError{Op: "listen", Err: os.NewSyscallError("bind", c.err)})
		if exitCode(context.Background(), err) != exitUsage || !strings.Contains(err.Error(), c.text) || !strings.Contains(hintOf(err), c.hint) || !errors.Is(err, c.err) {
			t.Errorf("%v: %q, hint %q", c.err, err, hintOf(err))
		}
	}
	taken, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	repo, env := aRepository(t)
	var out bytes.Buffer
	code := run(t.Context(), []string{"serve", "-r", repo, "--data", someData(t, 10), "--addr", taken.Addr().String()}, stdio{in: strings.NewReader(""), out: &out, err: &out}, env)
	if code != exitUsage || !strings.Contains(out.String(), "something listens") {
		t.Errorf("%d: %s", code, out.String())
	}
}

// TestServe holds what a started server answers and prints.
func TestServe(t *testing.T) {
	repo, env := aRepository(t)
	const token = "a-token-of-enough-length"
	plain := serve(t, env, "-r", repo, "--data", someData(t, 1<<10))
	named := serve(t, append(env, envServeToken+"="+token), "-r", repo, "--data", someData(t, 1<<10), "--name", "other")
	port := plain.url[strings.LastIndexByte(plain.url, ':'):]
	for url, want := range map[string]struct {
		code int
		text string
	}{
		plain.url + "/healthz":                 {200, "ok"},
		plain.url + "/readyz":                  {200, "ready"},
		plain.url + "/backups":                 {200, `"iterable":[]`},
		plain.url + "/openapi.json":            {200, `"/metrics"`},
		plain.url + "/metrics":                 {200, "cairn_jobs_running"},
		"http://127.0.0.1" + port + "/readyz":  {200, "ready"},
		"http://127.0.0.1" + port + "/backups": {200, `"iterable"`},
		named.url + "/healthz":                 {200, "ok"},
		named.url + "/metrics":                 {511, "token"},
		named.url + "/openapi.json":            {511, "token"},
		named.url + "/backups":                 {511, "token"},
	} {
		if code, body := get(t, url); code != want.code || !strings.Contains(body, want.text) {
			t.Errorf("%s = %d %.200s", url, code, body)
		}
	}
	if code, body := get(t, named.url+"/metrics", "Authorization", "Bearer "+token); code != 200 || !strings.Contains(body, `cairn_requests_total{code="511",method="GET",route=""}`) {
		t.Errorf("metrics = %d %.300s", code, body)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var out lockedBuffer
	done := make(chan int, 1)
	go func() {
		done <- run(ctx, []string{"serve", "-r", repo, "--data", filepath.Join(t.TempDir(), "new"), "--addr", "localhost:0"}, stdio{in: strings.NewReader(""), out: &out, err: &out}, env)
	}()
	for !strings.Contains(out.String(), "curl") {
		select {
		case code := <-done:
			t.Fatalf("%d: %s", code, out.String())
		case <-time.After(5 * time.Millisecond):
		}
	}
	for _, want := range []string{"listening   http://localhost:", "data        /", `as "default"; nothing is there yet`, "repository  " + repo + ", 0 backups", "try         curl http://localhost:"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not printed:\n%s", want, out.String())
		}
	}
	cancel()
	if code := <-done; code != exitDone {
		t.Errorf("it exits with %d: %s", code, out.String())
	}
}

// TestAddressed holds by which names a server goes that others can reach.
func TestAddressed(t *testing.T) {
	if got := addressed("example.org"); fmt.Sprint(got) != "[example.org]" {
		t.Errorf("%v", got)
	}
	for _, all := range []string{"", "0.0.0.0", "::"} {
		if got := addressed(all); len(got) < 2 {
			t.Errorf("addressed(%q) = %v", all, got)
		}
	}
}

package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cairn-backup/cairn/backend/local"
	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/engine/source"
	"github.com/cairn-backup/cairn/manifest"
)

// clients is where the clients of the API are, as seen from here.
const clients = "../../testdata/clients"

// nodeClient returns the directory of the Node client, installed as its lock file
// says. Without it the test is skipped, but not where CI is true: there it is
// installed now.
func nodeClient(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs(clients)
	if err != nil {
		t.Fatal(err)
	}
	mustRun := os.Getenv("CI") == "true"
	for _, program := range []string{"node", "npm"} {
		if _, err := exec.LookPath(program); err != nil {
			if mustRun {
				t.Fatalf("there is no %s, and CI is true: install Node.js 20", program)
			}
			t.Skipf("there is no %s: the published client runs in Node.js", program)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "node_modules", "@pieces.app", "pieces-os-client", "package.json")); err == nil {
		return dir
	}
	if !mustRun {
		t.Skip("the published client is not installed: .ci/test does so, or npm ci in testdata/clients")
	}
	npm := exec.CommandContext(t.Context(), "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	npm.Dir = dir
	if out, err := npm.CombinedOutput(); err != nil {
		t.Fatalf("npm ci: %v\n%s", err, out)
	}
	return dir
}

// A served is a server that runs as its users run it, in this process.
type served struct {
	url  string
	stop func() int // ends it as a signal does, and returns the exit code
}

// A lockedBuffer takes what a program prints while others read it.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// serve starts cairn serve at a free port.
func serve(t *testing.T, env []string, args ...string) *served {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var printed lockedBuffer
	args = append([]string{"serve", "--addr", "localhost:0", "--json"}, args...)
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, args, stdio{in: strings.NewReader(""), out: &printed, err: &printed}, env)
	}()
	s := &served{}
	stopped := false
	s.stop = func() int {
		if stopped {
			return exitDone
		}
		stopped = true
		cancel()
		return <-code
	}
	t.Cleanup(func() {
		if got := s.stop(); got != exitDone {
			t.Errorf("cairn serve exits with %d:\n%s", got, printed.String())
		}
		if t.Failed() {
			t.Logf("cairn %q:\n%s", args, printed.String())
		}
	})
	for deadline := time.Now().Add(30 * time.Second); s.url == ""; {
		for line := range strings.Lines(printed.String()) {
			var doc serveJSON
			if json.Unmarshal([]byte(line), &doc) == nil && doc.Event == "listening" {
				s.url = doc.URL
			}
		}
		select {
		case got := <-code:
			code <- got
			t.Fatalf("cairn %q exits with %d:\n%s", args, got, printed.String())
		case <-time.After(10 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("cairn %q does not start:\n%s", args, printed.String())
		}
	}
	return s
}

// aRepository makes a repository and returns it with the environment that opens it.
func aRepository(t testing.TB) (dir string, env []string) {
	t.Helper()
	top := t.TempDir()
	key := filepath.Join(top, "key")
	if err := engine.NewKeyFile(key); err != nil {
		t.Fatal(err)
	}
	dir = filepath.Join(top, "repo")
	if err := engine.Init(t.Context(), local.New(dir), engine.KeyFile(key), engine.InitOptions{}); err != nil {
		t.Fatal(err)
	}
	return dir, []string{"HOME=" + filepath.Join(top, "home"), envKeyFile + "=" + key}
}

// someData makes a directory of data with one big file of so many bytes.
func someData(t *testing.T, big int) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "data")
	p := make([]byte, big)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(p)
	for name, content := range map[string][]byte{"small": []byte("small"), "sub/one": []byte("one"), "big": p, "sub/empty": nil} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o750), os.WriteFile(path, content, 0o640)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestPublishedClient drives every operation of the API with the published client
// of npm against real servers, over a repository in a directory and on each object
// store.
func TestPublishedClient(t *testing.T) {
	dir := nodeClient(t)
	t.Run("local", func(t *testing.T) {
		repo, env := aRepository(t)
		away := server{repo: filepath.Join(t.TempDir(), "not mounted"), env: env}
		publishedClient(t, dir, server{repo: repo, env: env}, away)
	})
	for name, c := range map[string]struct {
		shell func(*testing.T) shell
		wrong string // credentials
	}{
		"s3":    {s3Shell, "AWS_SECRET_ACCESS_KEY=wrong"},
		"azure": {azureShell, "AZURE_STORAGE_KEY=" + base64.StdEncoding.EncodeToString([]byte("wrong"))},
	} {
		t.Run(name, func(t *testing.T) {
			s := c.shell(t)
			top := t.TempDir()
			s.env = append(s.env, "HOME="+filepath.Join(top, "home"), envKeyFile+"="+filepath.Join(top, "key"))
			s.run(exitDone, "init")
			env := slices.Clip(append(s.env, envCacheDir+"="+filepath.Join(top, "cache")))
			publishedClient(t, dir, server{s.repo, env}, server{s.repo, append(env, c.wrong)})
		})
	}
}

// A server is a repository to serve, and the environment that opens it.
type server struct {
	repo string
	env  []string
}

// publishedClient runs the tests of the client over a repository; away is one
// that cannot be opened.
func publishedClient(t *testing.T, dir string, at, away server) {
	t.Helper()
	data := someData(t, 32<<20)
	const newer, token = "9.0.0_1700000000000", "a-token-of-enough-length"
	backUpAs(t, at.repo, at.env, data, newer)
	other := someData(t, 1<<10)
	main := serve(t, at.env, "-r", at.repo, "--data", data, "--max-creations", "8")
	locked := serve(t, append(slices.Clip(at.env), envServeToken+"="+token), "-r", at.repo, "--data", other)
	shut := serve(t, away.env, "-r", away.repo, "--data", other, "--name", "away")
	repo, env := aRepository(t)
	future := serve(t, env, "-r", newerFormat(t, repo), "--data", other, "--name", "future")
	world, err := json.Marshal(map[string]string{
		"url": main.url, "data": data, "big": "big", "newer": newer,
		"locked": locked.url, "token": token, "away": shut.url, "future": future.url,
	})
	if err != nil {
		t.Fatal(err)
	}
	node := exec.CommandContext(t.Context(), "node", "--test", "--test-reporter=spec", "--test-concurrency=1", "client.test.js")
	node.Dir = dir
	node.Env = append(os.Environ(), "CAIRN_WORLD="+string(world), "NODE_NO_WARNINGS=1")
	out, err := node.CombinedOutput()
	if err != nil {
		t.Fatalf("the published client: %v\n%s", err, out)
	}
	if !bytes.Contains(out, []byte("every documented error")) {
		t.Fatalf("the tests of the client did not run:\n%s", out)
	}
	t.Logf("%s", out)
	if code := main.stop(); code != exitDone {
		t.Errorf("cairn serve exits with %d", code)
	}
	assetsReadable(t, at.repo, at.env)
	checkClean(t, at.repo, at.env)
}

// backUpAs makes a backup with an identifier of its own, as another server would.
func backUpAs(t *testing.T, repo string, env []string, data, id string) {
	t.Helper()
	r := openWith(t, repo, env)
	defer r.Close()
	_, err := r.Backup(t.Context(), asDatabase{source.Dir(data)}, engine.BackupOptions{Name: "default", Labels: map[string]string{"cairn.backup": id}})
	if err != nil {
		t.Fatal(err)
	}
}

// openWith opens a repository as a command with that environment does.
func openWith(t *testing.T, repo string, env []string) *engine.Repository {
	t.Helper()
	a := &app{env: map[string]string{}, out: &output{}}
	for _, e := range env {
		name, value, _ := strings.Cut(e, "=")
		a.env[name] = value
	}
	l, err := a.locateText(repo)
	if err != nil {
		t.Fatal(err)
	}
	r, err := engine.Open(t.Context(), l.store(), engine.KeyFile(a.env[envKeyFile]), engine.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// asDatabase says that a source is a database.
type asDatabase struct{ source.Source }

func (d asDatabase) Open(ctx context.Context) (source.View, error) {
	v, err := d.Source.Open(ctx)
	return databaseView{v}, err
}

type databaseView struct{ source.View }

func (v databaseView) Info() source.Info {
	info := v.View.Info()
	info.Kind = manifest.KindDatabase
	return info
}

// formatByte is where the header of every object says its format, see
// docs/format.md.
const formatByte = 8

// newerFormat returns a copy of a repository that says it is of a newer format.
func newerFormat(t *testing.T, repo string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "repo")
	if err := os.CopyFS(dir, os.DirFS(repo)); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "config")
	p, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	p[formatByte] = 99
	if err := os.WriteFile(path, p, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// assetsReadable holds that the assets of the client's test are files of
// snapshots, unknown keys and all.
func assetsReadable(t *testing.T, repo string, env []string) {
	t.Helper()
	var out bytes.Buffer
	code := run(t.Context(), []string{"-r", repo, "snapshots", "--json", "--kind", "assets"}, stdio{in: strings.NewReader(""), out: &out, err: &out}, env)
	var list struct{ Snapshots []struct{ ID string } }
	if err := json.Unmarshal(out.Bytes(), &list); err != nil || code != 0 || len(list.Snapshots) != 2 {
		t.Fatalf("snapshots of assets: %d, %v, %s", code, err, out.String())
	}
	out.Reset()
	code = run(t.Context(), []string{"-r", repo, "cat", list.Snapshots[0].ID, "assets/a1.json"}, stdio{in: strings.NewReader(""), out: &out, err: &out}, env)
	if code != 0 || !strings.Contains(out.String(), `"creator":"someone"`) {
		t.Errorf("cat of an asset: %d, %s", code, out.String())
	}
}

func checkClean(t *testing.T, repo string, env []string) {
	t.Helper()
	var out bytes.Buffer
	if code := run(t.Context(), []string{"-r", repo, "check", "--read-data"}, stdio{in: strings.NewReader(""), out: &out, err: &out}, env); code != 0 {
		t.Errorf("check exits with %d: %s", code, out.String())
	}
}

// get asks a server, for tests that need nothing more.
func get(t *testing.T, url string, header ...string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	client := http.Client{Transport: &http.Transport{DialContext: (&net.Dialer{Timeout: 5 * time.Second}).DialContext, DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var body bytes.Buffer
	if _, err := body.ReadFrom(resp.Body); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, body.String()
}

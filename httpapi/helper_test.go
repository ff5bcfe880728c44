package httpapi_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/backend/mem"
	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/engine/source"
	"github.com/cairn-backup/cairn/engine/target"
	"github.com/cairn-backup/cairn/httpapi"
)

// secret is a key that needs no stretching, one for all tests.
var secret = func() engine.Secret {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		panic(err)
	}
	return engine.Identity(id)
}()

// A world is a server over a repository in memory and data in a directory.
type world struct {
	t     testing.TB
	store backend.Backend
	repo  *engine.Repository
	data  string // directory
	state string // directory
	opts  httpapi.Options
	set   httpapi.Data

	open   httpapi.Opener // default: repo
	server *httpapi.Server
	web    *httptest.Server
}

// newWorld makes a world with some data, without a server.
func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, store: new(mem.Backend), data: filepath.Join(t.TempDir(), "data"), state: filepath.Join(t.TempDir(), "state")}
	w.write("one.txt", "one")
	w.write("sub/two.bin", random(7, 300_000))
	w.set = httpapi.Data{Source: source.Dir(w.data), Target: target.Swap(w.data)}
	w.opts = httpapi.Options{StateDir: w.state, Logger: slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelWarn}))}
	var err error
	w.repo, err = engine.OpenOrInit(t.Context(), w.store, secret, engine.Options{Workers: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.repo.Close(); err != nil {
			t.Error(err)
		}
	})
	w.open = func(context.Context) (httpapi.Repository, error) { return w.repo, nil }
	return w
}

// A testWriter logs to the test, as long as that runs.
type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	if w.t.Context().Err() == nil {
		w.t.Log(strings.TrimSuffix(string(p), "\n"))
	}
	return len(p), nil
}

// start starts a server; stop, or the end of the test, ends it.
func (w *world) start() *world {
	w.t.Helper()
	var err error
	w.server, err = httpapi.Open(w.t.Context(), w.open, w.set, w.opts)
	if err != nil {
		w.t.Fatal(err)
	}
	server := w.server
	w.web = httptest.NewServer(server)
	web := w.web
	var closed atomic.Bool
	w.t.Cleanup(func() {
		if closed.Swap(true) || w.server != server {
			return
		}
		w.close(server, web)
	})
	return w
}

func (w *world) stop() {
	w.t.Helper()
	w.close(w.server, w.web)
	w.server, w.web = nil, nil
}

func (w *world) close(server *httpapi.Server, web *httptest.Server) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := server.Close(ctx); err != nil {
		w.t.Error(err)
	}
	web.Close()
}

// write writes a file of the data.
func (w *world) write(name, content string) {
	w.t.Helper()
	path := filepath.Join(w.data, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o644)); err != nil {
		w.t.Fatal(err)
	}
}

// files returns the data as they are.
func (w *world) files() map[string]string {
	w.t.Helper()
	all := make(map[string]string)
	err := filepath.WalkDir(w.data, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(p)
		rel, _ := filepath.Rel(w.data, p)
		all[filepath.ToSlash(rel)] = string(content)
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return all
}

// random returns n bytes that do not compress.
func random(seed uint64, n int) string {
	var key [32]byte
	key[0], key[1] = byte(seed), byte(seed>>8)
	p := make([]byte, n)
	_, _ = rand.NewChaCha8(key).Read(p)
	return string(p)
}

// A reply is an answer that was read to its end.
type reply struct {
	code   int
	header http.Header
	body   string
}

// ask sends a request. body is nil for none, else a string.
func (w *world) ask(method, path string, body any, header ...string) reply {
	w.t.Helper()
	r, err := w.try(method, path, body, header...)
	if err != nil {
		w.t.Fatalf("%s %s: %v", method, path, err)
	}
	return r
}

func (w *world) try(method, path string, body any, header ...string) (reply, error) {
	var in io.Reader
	if text, ok := body.(string); ok {
		in = strings.NewReader(text)
	}
	req, err := http.NewRequestWithContext(w.t.Context(), method, w.web.URL+path, in)
	if err != nil {
		return reply{}, err
	}
	for i := 0; i+1 < len(header); i += 2 {
		if header[i] == "Host" {
			req.Host = header[i+1]
		}
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := w.web.Client().Do(req)
	if err != nil {
		return reply{}, err
	}
	defer resp.Body.Close()
	var out bytes.Buffer
	_, err = out.ReadFrom(resp.Body)
	return reply{resp.StatusCode, resp.Header, out.String()}, err
}

// A backupJSON is a Backup as strict clients decode it.
type backupJSON struct {
	ID        *string  `json:"id"`
	Version   *string  `json:"version"`
	Timestamp *string  `json:"timestamp"`
	Bytes     *float64 `json:"bytes"`
	Created   *struct {
		Value *time.Time `json:"value"`
	} `json:"created"`
	DeviceName *string `json:"device_name"`
	Platform   *string `json:"platform"`
}

type progressJSON struct {
	Status     string      `json:"status"`
	Value      string      `json:"value"`
	Percentage *float64    `json:"percentage"`
	Backup     *backupJSON `json:"backup"`
	Error      string      `json:"error"`
}

// decode decodes exactly one JSON object.
func decode[T any](t testing.TB, text string) T {
	t.Helper()
	var v T
	d := json.NewDecoder(strings.NewReader(text))
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%v: %q", err, text)
	}
	if _, err := d.Token(); err != io.EOF {
		t.Fatalf("there is more than one document: %q", text)
	}
	return v
}

// create creates a backup and returns its id.
func (w *world) create() string {
	w.t.Helper()
	r := w.ask("POST", "/backups/create", nil)
	if r.code != 200 {
		w.t.Fatalf("create = %d %s", r.code, r.body)
	}
	b := decode[backupJSON](w.t, r.body)
	if b.ID == nil {
		w.t.Fatalf("create = %s", r.body)
	}
	return *b.ID
}

// ids returns the backups that are listed.
func (w *world) ids() []string {
	w.t.Helper()
	r := w.ask("GET", "/backups", nil)
	if r.code != 200 {
		w.t.Fatalf("list = %d %s", r.code, r.body)
	}
	var ids []string
	for _, b := range decode[struct{ Iterable []backupJSON }](w.t, r.body).Iterable {
		ids = append(ids, *b.ID)
	}
	return ids
}

func newRequest(ctx context.Context, t *testing.T, url string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

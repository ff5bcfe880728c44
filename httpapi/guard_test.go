package httpapi_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// A trap is a body that fails the test if it is read.
type trap struct{ t *testing.T }

func (b trap) Read([]byte) (int, error) {
	b.t.Error("a body was read")
	return 0, io.EOF
}

// TestGuard holds who may ask, by host, origin and what browsers say.
func TestGuard(t *testing.T) {
	w := newWorld(t)
	w.opts.Hosts, w.opts.Origins = []string{"backup.example", "192.0.2.7"}, []string{"https://app.example"}
	w.start()
	post := func(header ...string) []string { return header }
	for name, c := range map[string]struct {
		header []string
		code   int
		origin string // that the answer allows
	}{
		"plain":                         {post(), 200, ""},
		"localhost":                     {post("Host", "localhost:1000"), 200, ""},
		"LOCALHOST.":                    {post("Host", "LOCALHOST."), 200, ""},
		"IPv4":                          {post("Host", "127.0.0.1:1000"), 200, ""},
		"IPv6":                          {post("Host", "[::1]:1000"), 200, ""},
		"allowed host":                  {post("Host", "Backup.Example:443"), 200, ""},
		"allowed address":               {post("Host", "192.0.2.7:1"), 200, ""},
		"rebound":                       {post("Host", "evil.example:1000"), 403, ""},
		"rebound, of one origin":        {post("Host", "evil.example:1000", "Origin", "http://evil.example:1000", "Sec-Fetch-Site", "same-origin"), 403, ""},
		"a name that looks like it":     {post("Host", "localhost.evil.example"), 403, ""},
		"an address that looks like it": {post("Host", "127.0.0.1.evil.example"), 403, ""},
		"another address":               {post("Host", "10.0.0.1"), 403, ""},
		"page of loopback":              {post("Origin", "http://localhost:3000", "Sec-Fetch-Site", "same-site"), 200, "http://localhost:3000"},
		"page of loopback, by address":  {post("Origin", "http://127.0.0.1:8080", "Sec-Fetch-Site", "cross-site"), 200, "http://127.0.0.1:8080"},
		"allowed page":                  {post("Origin", "https://app.example", "Sec-Fetch-Site", "cross-site"), 200, "https://app.example"},
		"foreign page":                  {post("Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site"), 403, ""},
		"foreign page, old browser":     {post("Origin", "https://evil.example"), 403, ""},
		"foreign form":                  {post("Sec-Fetch-Site", "cross-site", "Content-Type", "text/plain"), 403, ""},
		"sandboxed page":                {post("Origin", "null", "Sec-Fetch-Site", "cross-site"), 403, ""},
		"sandboxed page, old browser":   {post("Origin", "null"), 403, ""},
		"a page like loopback":          {post("Origin", "http://localhost.evil.example"), 403, ""},
		"a file":                        {post("Origin", "file://localhost", "Sec-Fetch-Site", "cross-site"), 403, ""},
		"user typed it":                 {post("Sec-Fetch-Site", "none"), 200, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := w.ask("POST", "/backups/create", "{}", c.header...)
			if r.code != c.code || r.header.Get("Access-Control-Allow-Origin") != c.origin {
				t.Errorf("%d, origin %q, %s", r.code, r.header.Get("Access-Control-Allow-Origin"), r.body)
			}
			if c.code == 200 {
				return
			}
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "/backup", trap{t})
			if err != nil {
				t.Fatal(err)
			}
			for i := 0; i < len(c.header); i += 2 {
				req.Header.Set(c.header[i], c.header[i+1])
			}
			if req.Host = "localhost"; req.Header.Get("Host") != "" {
				req.Host = req.Header.Get("Host")
			}
			rec := newRecorder()
			w.server.ServeHTTP(rec, req)
			if rec.code != c.code {
				t.Errorf("with a body that is not read: %d", rec.code)
			}
		})
	}
}

type recorder struct {
	header http.Header
	code   int
	body   strings.Builder
}

func newRecorder() *recorder { return &recorder{header: http.Header{}} }

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) Write(p []byte) (int, error) { return r.body.Write(p) }
func (r *recorder) WriteHeader(code int) {
	if r.code == 0 {
		r.code = code
	}
}

func TestPreflight(t *testing.T) {
	w := newWorld(t)
	w.opts.Token = "secret"
	w.start()
	ask := func(origin string) reply {
		return w.ask("OPTIONS", "/backups/create", nil, "Origin", origin, "Access-Control-Request-Method", "POST",
			"Access-Control-Request-Headers", "content-type,x-application-id", "Access-Control-Request-Private-Network", "true")
	}
	r := ask("http://localhost:3000")
	if r.code != 204 || r.header.Get("Access-Control-Allow-Origin") != "http://localhost:3000" || r.header.Get("Access-Control-Allow-Private-Network") != "true" ||
		!strings.Contains(r.header.Get("Access-Control-Allow-Headers"), "X-Application-ID") || !strings.Contains(r.header.Get("Access-Control-Allow-Methods"), "POST") {
		t.Errorf("%d %v", r.code, r.header)
	}
	if r := ask("https://evil.example"); r.code != 403 || r.header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("%d %v", r.code, r.header)
	}
}

func TestToken(t *testing.T) {
	w := newWorld(t)
	w.opts.Token = "the-token"
	w.start()
	for name, c := range map[string]struct {
		header []string
		code   int
	}{
		"none":              {nil, 511},
		"wrong":             {[]string{"Authorization", "Bearer other"}, 511},
		"a part":            {[]string{"Authorization", "Bearer the-toke"}, 511},
		"empty":             {[]string{"Authorization", "Bearer "}, 511},
		"another scheme":    {[]string{"Authorization", "Basic the-token"}, 511},
		"bearer":            {[]string{"Authorization", "bearer the-token"}, 200},
		"application":       {[]string{"X-Application-ID", "the-token"}, 200},
		"both, one right":   {[]string{"Authorization", "Bearer the-token", "X-Application-ID", "some-app"}, 200},
		"both, other right": {[]string{"Authorization", "Bearer x", "X-Application-ID", "the-token"}, 200},
	} {
		if r := w.ask("GET", "/backups", nil, c.header...); r.code != c.code || strings.Contains(r.body, "the-token") {
			t.Errorf("%s: %d %s", name, r.code, r.body)
		}
	}
	for _, path := range []string{"/backup/1.0.0_1/creation/status", "/backups/streamed/progress", "/openapi.json"} {
		if r := w.ask("GET", path, nil); r.code != 511 {
			t.Errorf("%s = %d", path, r.code)
		}
	}
	for _, path := range []string{"/healthz", "/readyz"} {
		if r := w.ask("GET", path, nil, "Host", "10.1.2.3:80"); r.code != 200 {
			t.Errorf("%s = %d", path, r.code)
		}
	}
}

// TestLimits holds that bodies are bounded.
func TestLimits(t *testing.T) {
	w := newWorld(t)
	w.opts.MaxBody = 1000
	w.start()
	for path, n := range map[string]int{"/backup": 1001, "/backup/asset": 1001, "/backups/create": 1<<20 + 1, "/backups/1.0.0_1/delete": 1<<20 + 1} {
		if r := w.ask("POST", path, strings.Repeat(" ", n)); r.code != 413 || r.header.Get("Content-Type") != "text/plain; charset=utf-8" {
			t.Errorf("%s = %d %s", path, r.code, r.body)
		}
	}
}

// TestSocketRefused holds that what is no upgrade starts nothing.
func TestSocketRefused(t *testing.T) {
	w := newWorld(t).start()
	id := w.create()
	good := []string{"Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="}
	for _, path := range []string{"/backups/create/streamed/websocket", "/backup/" + id + "/restore/streamed/websocket", "/backups/streamed/progress"} {
		for name, c := range map[string]struct {
			header []string
			code   int
		}{
			"a GET":          {nil, 426},
			"no key":         {good[:6], 426},
			"a short key":    {append(good[:6:6], "Sec-WebSocket-Key", "c2hvcnQ="), 426},
			"an old version": {append(append([]string{}, good...), "Sec-WebSocket-Version", "8"), 426},
			"a foreign page": {append(append([]string{}, good...), "Origin", "https://evil.example"), 403},
		} {
			if r := w.ask("GET", path, nil, c.header...); r.code != c.code || !strings.HasPrefix(r.header.Get("Content-Type"), "text/plain") {
				t.Errorf("%s, %s: %d %s", path, name, r.code, r.body)
			}
		}
	}
	if got := w.ids(); len(got) != 1 {
		t.Errorf("something was created: %q", got)
	}
	if code, _ := w.status("/backup/" + id + "/restoration/status"); code != 404 {
		t.Errorf("something was restored: %d", code)
	}
}

// socket connects a WebSocket.
func (w *world) socket(path string) *websocket.Conn {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 10*time.Second)
	defer cancel()
	c, resp, err := websocket.Dial(ctx, strings.Replace(w.web.URL, "http", "ws", 1)+path, nil) //nolint:bodyclose // Dial does so
	if err != nil {
		w.t.Fatalf("%s: %v %v", path, err, resp)
	}
	w.t.Cleanup(func() { _ = c.CloseNow() })
	return c
}

// messages reads messages until the other side closes.
func (w *world) messages(c *websocket.Conn) []string {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
	defer cancel()
	var all []string
	for {
		kind, p, err := c.Read(ctx)
		if websocket.CloseStatus(err) == websocket.StatusNormalClosure {
			return all
		}
		if err != nil || kind != websocket.MessageText {
			w.t.Fatalf("%v %v", kind, err)
		}
		all = append(all, string(p))
	}
}

// TestSockets holds the three WebSockets.
func TestSockets(t *testing.T) {
	w := newWorld(t)
	w.write("big", random(3, 4<<20))
	w.start()
	watch := w.socket("/backups/streamed/progress")
	if _, first, err := watch.Read(t.Context()); err != nil || string(first) != `{"backups":[],"restorations":[]}` {
		t.Fatalf("first %s, %v", first, err)
	}
	create := w.socket("/backups/create/streamed/websocket")
	if err := create.Write(t.Context(), websocket.MessageText, []byte("{}")); err != nil {
		t.Fatal(err)
	}
	id := checkEvents(t, w.messages(create), "COMPLETED")
	want := w.files()
	w.write("one.txt", "changed")
	if got := checkEvents(t, w.messages(w.socket("/backup/"+id+"/restore/streamed/websocket")), "COMPLETED"); got != id {
		t.Errorf("restored %s", got)
	}
	if got := w.files(); len(got) != len(want) || got["one.txt"] != want["one.txt"] {
		t.Error("the data are not those of the backup")
	}
	got := make(chan []string, 1)
	go func() { got <- w.messages(watch) }() // a client that does not read is waited for
	w.stop()
	all := <-got
	of := object(map[string]shape{"backups": list(progressShape()), "restorations": list(progressShape())})
	seen := strings.Join(all, "\n")
	for _, m := range all {
		fits(t, "message", m, of)
	}
	for _, want := range []string{`"backups":[{"status":"COMPLETED"`, `"restorations":[{"status":"COMPLETED"`} {
		if strings.Count(seen, want) != 1 {
			t.Errorf("%s is there %d times:\n%s", want, strings.Count(seen, want), seen)
		}
	}
	w.start()
}

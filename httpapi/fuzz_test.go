package httpapi_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// FuzzRequest sends hostile methods, paths, headers and bodies. No answer is a
// panic's, every error is text, every other answer what the API says, and nothing
// of it changes the data.
func FuzzRequest(f *testing.F) {
	w := newWorld(f)
	w.opts.Logger = nil // f must not log while its target runs
	w.start()
	id := w.create()
	for _, path := range []string{
		"/backups", "/backups/create", "/backups/create/streamed", "/backup", "/backup/asset", "/backup/" + id, "/backup/" + id + "/creation/status",
		"/backup/..%2f..%2fetc/restore", "/backup/%00_1/creation/cancel", "/backups/1.0.0_1/delete", "/backups/create/streamed/websocket", "//", "/backup//restore", "/openapi.json",
	} {
		for _, method := range []string{"GET", "POST", "OPTIONS"} {
			f.Add(method, path, "Accept", "application/x-ndjson", `{"iterable":[{"id":"a"}]}`)
			f.Add(method, path, "Origin", "https://evil.example", `null`)
		}
	}
	f.Add("POST", "/backup", "Content-Type", "application/json", `{"iterable":[{"id":"../../x","id":"y","updated":{"value":"0000"}},{"id":"con"}]}`)
	f.Add("POST", "/backup/asset", "Authorization", "Bearer \x7f", `{"id":"`+strings.Repeat("a", 300)+`"}`)
	f.Fuzz(func(t *testing.T, method, path, name, value, body string) {
		u, err := url.ParseRequestURI(path)
		if err != nil || !strings.HasPrefix(path, "/") {
			t.Skip("no client could send that path")
		}
		req, err := http.NewRequestWithContext(t.Context(), method, "http://localhost/", strings.NewReader(body))
		if err != nil {
			t.Skip("no client could send that method")
		}
		if req.URL = u; u.Host != "" || u.Scheme != "" {
			t.Skip("a proxy's request")
		}
		req.RequestURI = path
		req.Header.Set(name, value)
		rec := newRecorder()
		w.server.ServeHTTP(rec, req)
		kind, text := rec.header.Get("Content-Type"), rec.body.String()
		switch {
		case rec.code == 500 && strings.Contains(text, "internal error"):
			t.Errorf("%s %s panicked", method, path)
		case rec.code >= 400 && !strings.HasPrefix(kind, "text/plain"):
			t.Errorf("%s %s = %d %s", method, path, rec.code, kind)
		case rec.code == 204 && (text != "" || kind != ""):
			t.Errorf("%s %s = 204 %q %q", method, path, kind, text)
		case rec.code == 0 && kind == "application/json" && text != "" && !strings.Contains(path, "openapi"):
			decode[any](t, text)
		}
		if strings.ContainsAny(rec.header.Get("Access-Control-Allow-Origin"), "\r\n") {
			t.Errorf("a header of two lines")
		}
	})
}

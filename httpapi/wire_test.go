package httpapi_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/httpapi"
)

// A shape is what the strictest clients demand of a value: Python's pydantic
// models, Dart's required keys and checked enumerations, C#'s DataContract and
// moshi's adapters, all at once.
type shape func(v any) error

func text(re string) shape {
	r := regexp.MustCompile("^(?:" + re + ")$")
	return func(v any) error {
		if s, ok := v.(string); !ok || !r.MatchString(s) {
			return fmt.Errorf("%#v is no string like %s", v, re)
		}
		return nil
	}
}

func integer(v any) error {
	if n, ok := v.(json.Number); !ok || !regexp.MustCompile(`^\d+$`).MatchString(string(n)) {
		return fmt.Errorf("%#v is no whole number", v)
	}
	return nil
}

func list(of shape) shape {
	return func(v any) error {
		all, ok := v.([]any)
		if !ok {
			return fmt.Errorf("%#v is no list", v)
		}
		for _, e := range all {
			if err := of(e); err != nil {
				return err
			}
		}
		return nil
	}
}

// object demands every field; those with a question mark may be absent, and no
// others are allowed.
func object(fields map[string]shape) shape {
	return func(v any) error {
		m, ok := v.(map[string]any)
		if !ok {
			return fmt.Errorf("%#v is no object", v)
		}
		for name := range m {
			if fields[name] == nil && fields[name+"?"] == nil {
				return fmt.Errorf("%s was not expected", name)
			}
		}
		for name, of := range fields {
			name, optional := strings.CutSuffix(name, "?")
			got, there := m[name]
			if !there && optional {
				continue
			}
			if err := of(got); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		return nil
	}
}

func indices(v any) error {
	m, ok := v.(map[string]any)
	if !ok {
		return fmt.Errorf("%#v is no object", v)
	}
	for _, n := range m {
		if err := integer(n); err != nil {
			return err
		}
	}
	return nil
}

const states = `INITIALIZED|IN-PROGRESS|COMPLETED|FAILED|UNKNOWN|CANCELED`

func backupShape() shape {
	return object(map[string]shape{
		"id": text(`1\.0\.0_\d{13}`), "version": text(`1\.0\.0`), "timestamp": text(`\d{13}`), "bytes": integer,
		"created": object(map[string]shape{
			"value":    text(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z`), // with three digits and a zone: naive times are read as local
			"readable": text(`.+`),
		}),
		"device_name": text(`.+`), "platform": text(`WEB|MACOS|LINUX|WINDOWS|FUCHSIA|IOS|ANDROID|UNKNOWN`),
	})
}

func statusShape() shape {
	return object(map[string]shape{"value": text(states), "status": text(states), "percentage": integer, "backup": backupShape(), "error?": text(`.+`)})
}

func progressShape() shape {
	return object(map[string]shape{"status": text(states), "percentage": integer, "backup": backupShape(), "error?": text(`.+`)})
}

// fits holds that a text is one JSON object of a shape, and nothing else.
func fits(t *testing.T, what, body string, of shape) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(body))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		t.Errorf("%s: %v: %q", what, err, body)
		return
	}
	if _, err := d.Token(); err != io.EOF {
		t.Errorf("%s: more than one document: %q", what, body)
	}
	if err := of(v); err != nil {
		t.Errorf("%s: %v: %s", what, err, body)
	}
}

// clients are the headers that generated clients send, and the bodies that they
// make of "no body".
func clients() map[string]struct {
	header []string
	empty  any
} {
	type client = struct {
		header []string
		empty  any
	}
	return map[string]client{
		"typescript": {[]string{"Accept", "*/*", "Content-Type", "application/json", "User-Agent", "node"}, ""},
		"python":     {[]string{"Accept", "application/json", "Content-Type", "application/json", "User-Agent", "OpenAPI-Generator/5.0.0/python", "application", "some-id"}, ""},
		"dart":       {[]string{"Content-Type", "text/plain; charset=utf-8", "User-Agent", "Dart/3.3 (dart:io)"}, ""},
		"csharp":     {[]string{"Accept", "text/plain", "Content-Type", "application/json", "User-Agent", "RestSharp/112.0.0.0"}, "{}"},
		"kotlin":     {[]string{"Accept", "application/json", "Content-Type", "application/json; charset=utf-8"}, "null"},
		"browser":    {[]string{"Accept", "*/*", "Origin", "http://localhost:3000", "Sec-Fetch-Site", "same-site", "Content-Type", "application/json"}, "{}"},
		"curl":       {nil, nil},
		"with nulls": {nil, `{"schema":null,"created":{"value":"2024-06-03T03:33:00.123456"},"unknown":[{}]}`},
		"an array":   {nil, `[1,2]`},
		"no JSON":    {nil, "what?\x00"},
	}
}

// TestWire holds that every answer of every operation can be decoded by the
// strictest of the clients, whatever they send.
func TestWire(t *testing.T) {
	for name, c := range clients() {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t).start()
			exactJSON := func(what string, r reply, of shape) {
				t.Helper()
				if r.code != 200 || r.header.Get("Content-Type") != "application/json" {
					t.Errorf("%s = %d %s %s", what, r.code, r.header.Get("Content-Type"), r.body)
					return
				}
				fits(t, what, r.body, of)
			}
			empty := func(what string, r reply) {
				t.Helper()
				if r.code != 204 || r.body != "" || r.header.Get("Content-Type") != "" {
					t.Errorf("%s = %d %q %q", what, r.code, r.header.Get("Content-Type"), r.body)
				}
			}
			plainText := func(what string, r reply, code int) {
				t.Helper()
				if r.code != code || r.header.Get("Content-Type") != "text/plain; charset=utf-8" || r.body == "" || strings.Contains(r.body, "\n") {
					t.Errorf("%s = %d %q %q", what, r.code, r.header.Get("Content-Type"), r.body)
				}
				if origin := r.header.Get("Access-Control-Allow-Origin"); name == "browser" && origin != "http://localhost:3000" {
					t.Errorf("%s: an error that a page cannot read: origin %q", what, origin)
				}
			}
			created := w.ask("POST", "/backups/create", c.empty, c.header...)
			exactJSON("create", created, backupShape())
			id := *decode[backupJSON](t, created.body).ID
			streamed := w.ask("POST", "/backups/create/streamed", c.empty, c.header...)
			exactJSON("create streamed", streamed, progressShape())
			if !strings.HasPrefix(streamed.body, "\n{") {
				t.Errorf("the stream does not begin at once: %q", streamed.body)
			}
			exactJSON("list", w.ask("GET", "/backups", nil, c.header...), object(map[string]shape{"iterable": list(backupShape()), "indices": indices}))
			exactJSON("get", w.ask("GET", "/backup/"+id, nil, c.header...), backupShape())
			exactJSON("creation status", w.ask("GET", "/backup/"+id+"/creation/status", nil, c.header...), statusShape())
			exactJSON("restore", w.ask("POST", "/backup/"+id+"/restore", c.empty, c.header...), backupShape())
			exactJSON("restore streamed", w.ask("POST", "/backup/"+id+"/restore/streamed", c.empty, c.header...), progressShape())
			exactJSON("restoration status", w.ask("GET", "/backup/"+id+"/restoration/status", nil, c.header...), statusShape())
			plainText("creation cancel", w.ask("POST", "/backup/"+id+"/creation/cancel", c.empty, c.header...), 500)
			plainText("restoration cancel", w.ask("POST", "/backup/"+id+"/restoration/cancel", c.empty, c.header...), 500)
			empty("delete", w.ask("POST", "/backups/"+id+"/delete", c.empty, c.header...))
			plainText("get what is not there", w.ask("GET", "/backup/"+id, nil, c.header...), 500)
			plainText("status of what is not there", w.ask("GET", "/backup/"+id+"/creation/status", nil, c.header...), 404)
			if strings.HasPrefix(name, "no ") || strings.HasPrefix(name, "an ") || strings.HasPrefix(name, "with ") {
				plainText("assets", w.ask("POST", "/backup", c.empty, c.header...), 400)
				plainText("asset", w.ask("POST", "/backup/asset", c.empty, c.header...), 400)
				return
			}
			before := len(w.ids())
			empty("assets", w.ask("POST", "/backup", c.empty, c.header...))
			empty("asset", w.ask("POST", "/backup/asset", c.empty, c.header...))
			if got := len(w.ids()); got != before+1 {
				t.Errorf("POST /backup without a body made %d backups", got-before)
			}
		})
	}
}

// TestEvents holds what a client is sent that asks for lines.
func TestEvents(t *testing.T) {
	w := newWorld(t)
	w.write("big", random(1, 8<<20))
	w.start()
	var id string
	for _, path := range []string{"/backups/create/streamed", "/backup/%s/restore/streamed"} {
		if id != "" {
			path = fmt.Sprintf(path, id)
		}
		for _, accept := range []string{"application/x-ndjson", "text/html, application/x-ndjson;q=0.5", "application/jsonl"} {
			r := w.ask("POST", path, "{}", "Accept", accept)
			if r.code != 200 || r.header.Get("Content-Type") != "application/x-ndjson" {
				t.Fatalf("%s = %d %s", path, r.code, r.header.Get("Content-Type"))
			}
			id = checkEvents(t, strings.Split(strings.TrimSuffix(r.body, "\n"), "\n"), "COMPLETED")
		}
	}
	for _, accept := range []string{"*/*", "", "application/json", "application/x-ndjson;q=0", "application/*"} {
		if r := w.ask("POST", "/backups/create/streamed", nil, "Accept", accept); r.header.Get("Content-Type") != "application/json" {
			t.Errorf("Accept %q leads to %s", accept, r.header.Get("Content-Type"))
		}
	}
}

// checkEvents holds that events are those of one job that ended so.
func checkEvents(t *testing.T, events []string, last string) string {
	t.Helper()
	var all []progressJSON
	for i, e := range events {
		fits(t, fmt.Sprintf("event %d", i), e, progressShape())
		all = append(all, decode[progressJSON](t, e))
	}
	var seen []string
	for i, e := range all {
		seen = append(seen, e.Status)
		if i > 0 && *e.Percentage < *all[i-1].Percentage || (*e.Percentage == 100) != (e.Status == "COMPLETED") || *e.Backup.ID != *all[0].Backup.ID {
			t.Errorf("event %d: %s", i, events[i])
		}
	}
	seen = slices.Compact(seen)
	if !slices.Equal(seen, []string{"INITIALIZED", "IN-PROGRESS", last}) {
		t.Errorf("the states are %q", seen)
	}
	return *all[0].Backup.ID
}

// TestHeartbeat holds that a streamed answer begins at once and shows that it
// lives, and that it ends when the job does.
func TestHeartbeat(t *testing.T) {
	w := newWorld(t)
	w.opts.Heartbeat = 20 * time.Millisecond
	gate := newGate(w)
	w.start()
	resp, err := http.Post(w.web.URL+"/backups/create/streamed", "application/json", nil) //nolint:noctx // a test
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var beats [5]byte
	if _, err := io.ReadFull(resp.Body, beats[:]); err != nil || string(beats[:]) != "\n\n\n\n\n" {
		t.Fatalf("%q, %v", beats, err)
	}
	gate.open()
	rest, err := io.ReadAll(resp.Body)
	if err != nil || decode[progressJSON](t, string(rest)).Status != "COMPLETED" {
		t.Fatalf("%q, %v", rest, err)
	}
}

// TestNewerVersion holds that what a newer server made is listed and not
// restored.
func TestNewerVersion(t *testing.T) {
	w := newWorld(t).start()
	w.snapshot(engine.BackupOptions{Name: "default", Labels: map[string]string{"cairn.backup": "1.0.1_1700000000000"}})
	before := w.files()
	w.write("new", "new")
	if got := w.ids(); len(got) != 1 || got[0] != "1.0.1_1700000000000" {
		t.Fatalf("list = %q", got)
	}
	for _, path := range []string{"/restore", "/restore/streamed"} {
		if r := w.ask("POST", "/backup/1.0.1_1700000000000"+path, nil); r.code != 505 || !strings.Contains(r.body, "1.0.1") {
			t.Errorf("%s = %d %s", path, r.code, r.body)
		}
	}
	if got := w.files(); len(got) != len(before)+1 {
		t.Errorf("the data changed: %d files", len(got))
	}
	for _, c := range []struct{ method, path string }{{"GET", "/backup/1.0.1_1700000000000"}, {"GET", "/backup/1.0.1_1700000000000/creation/status"}, {"POST", "/backups/1.0.1_1700000000000/delete"}} {
		if r := w.ask(c.method, c.path, nil); r.code >= 300 {
			t.Errorf("%s = %d %s", c.path, r.code, r.body)
		}
	}
}

// TestWhichSnapshots holds which snapshots are backups of the data set.
func TestWhichSnapshots(t *testing.T) {
	w := newWorld(t)
	at := time.UnixMilli(1_600_000_000_123)
	label := func(id string) map[string]string { return map[string]string{"cairn.backup": id} }
	w.snapshot(engine.BackupOptions{Name: "other", Labels: label("1.0.0_1600000000001")})
	w.snapshotOf(w.set.Source, engine.BackupOptions{Name: "default", Labels: label("1.0.0_1600000000002")}) // files, not a database
	w.snapshot(engine.BackupOptions{Name: "default", Labels: label("1.0.0_1600000000003"), Host: "elsewhere"})
	w.snapshot(engine.BackupOptions{Name: "default", Time: at}) // made by hand
	w.snapshot(engine.BackupOptions{Name: "default", Time: at})
	w.snapshot(engine.BackupOptions{Name: "default", Labels: label("../../x_1")})
	w.start()
	got := w.ids()
	if len(got) != 4 || !slices.Contains(got, "1.0.0_1600000000003") || !slices.Contains(got, "1.0.0_1600000000123") {
		t.Fatalf("list = %q", got)
	}
	valid := regexp.MustCompile(`^[A-Za-z0-9.-]+_[0-9A-Za-z.-]+$`)
	for _, id := range got {
		if r := w.ask("GET", "/backup/"+id, nil); !valid.MatchString(id) || r.code != 200 || *decode[backupJSON](t, r.body).ID != id {
			t.Errorf("get %s = %d %s", id, r.code, r.body)
		}
	}
	if slices.Sort(got); len(slices.Compact(got)) != 4 {
		t.Errorf("two have one identifier: %q", got)
	}
	for _, id := range []string{"1.0.0_1600000000001", "1.0.0_1600000000002"} {
		if r := w.ask("GET", "/backup/"+id, nil); r.code != 500 {
			t.Errorf("get %s = %d %s", id, r.code, r.body)
		}
	}
}

// TestRaw sends what no client of ours would.
func TestRaw(t *testing.T) {
	w := newWorld(t).start()
	addr := strings.TrimPrefix(w.web.URL, "http://")
	for name, c := range map[string]struct{ send, want string }{
		"chunked body":       {"POST /backup/asset HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\nc\r\n{\"id\":\"a_b\"}\r\n0\r\n\r\n", "204"},
		"no host":            {"GET /backups HTTP/1.0\r\n\r\n", "403"},
		"HTTP 1.0":           {"GET /backups HTTP/1.0\r\nHost: localhost\r\n\r\n", "200"},
		"HEAD":               {"HEAD /backups HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", "200"},
		"a wrong method":     {"PUT /backups HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", "405"},
		"an unknown path":    {"GET /backupz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", "404"},
		"a body that is cut": {"POST /backup HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\nConnection: close\r\n\r\n{", ""},
		"expect":             {"POST /backups/x/delete HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}", "100"},
		"dots, not encoded":  {"GET /backup/../../etc/passwd HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", "307"},
		"dots, encoded":      {"GET /backup/..%2F..%2Fetc HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", "500"},
		"other dots":         {"GET /backup/%2e%2e/creation/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", "404"},
		"a NUL":              {"GET /backup/1_%00/creation/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", "404"},
	} {
		conn, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(t.Context(), "tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := conn.Write([]byte(c.send)); err != nil {
			t.Fatal(err)
		}
		if tc := conn.(*net.TCPConn); name == "a body that is cut" {
			_ = tc.CloseWrite()
		}
		var got bytes.Buffer
		_, _ = got.ReadFrom(conn)
		conn.Close()
		if line, _, _ := strings.Cut(got.String(), "\r\n"); c.want != "" && !strings.Contains(line, " "+c.want+" ") {
			t.Errorf("%s: %q", name, line)
		}
	}
	if got := w.ids(); len(got) != 0 {
		t.Errorf("something was created: %q", got)
	}
}

var _ httpapi.Repository = (*engine.Repository)(nil)

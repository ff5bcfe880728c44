package httpapi_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cairn-backup/cairn/httpapi"
)

func (w *world) status(path string) (int, string) {
	w.t.Helper()
	r := w.ask("GET", path, nil)
	if r.code != 200 {
		return r.code, r.body
	}
	return r.code, decode[progressJSON](w.t, r.body).Status
}

// TestRestart holds that states survive a restart, and that identifiers rise.
func TestRestart(t *testing.T) {
	w := newWorld(t).start()
	first := w.create()
	if r := w.ask("POST", "/backup/"+first+"/restore", nil); r.code != 200 {
		t.Fatalf("restore = %d %s", r.code, r.body)
	}
	for _, state := range []string{w.state, ""} { // without it the log and the data know
		w.stop()
		w.opts.StateDir = state
		w.start()
		for _, path := range []string{"/creation/status", "/restoration/status"} {
			if code, st := w.status("/backup/" + first + path); code != 200 || st != "COMPLETED" {
				t.Errorf("with state %q: %s = %d %s", state, path, code, st)
			}
		}
		if second := w.create(); second <= first {
			t.Errorf("%s was given after %s", second, first)
		}
	}
}

// TestAway holds what is answered while the repository cannot be had, and that
// it is tried again.
func TestAway(t *testing.T) {
	w := newWorld(t)
	away := errors.New("the disk is not mounted")
	tries := 0
	open := w.open
	w.open = func(ctx context.Context) (httpapi.Repository, error) {
		if tries++; away != nil {
			return nil, away
		}
		return open(ctx)
	}
	w.start()
	for _, c := range [][2]string{
		{"GET", "/backups"},
		{"POST", "/backups/create"},
		{"POST", "/backups/create/streamed"},
		{"POST", "/backup"},
		{"POST", "/backup/asset"},
		{"POST", "/backups/1.0.0_1/delete"},
		{"GET", "/backup/1.0.0_1"},
		{"POST", "/backup/1.0.0_1/restore"},
		{"POST", "/backup/1.0.0_1/restore/streamed"},
		{"GET", "/backup/1.0.0_1/creation/status"},
	} {
		r := w.ask(c[0], c[1], nil)
		if r.code != 511 || !strings.Contains(r.body, "not mounted") || r.header.Get("Content-Type") != "text/plain; charset=utf-8" {
			t.Errorf("%s %s = %d %s", c[0], c[1], r.code, r.body)
		}
	}
	if tries > 3 {
		t.Errorf("%d attempts at once", tries)
	}
	if r := w.ask("GET", "/readyz", nil); r.code != 503 || strings.Contains(r.body, "mounted") {
		t.Errorf("readyz = %d %s", r.code, r.body)
	}
	away = nil
	for w.ask("GET", "/backups", nil).code != 200 {
		if tries > 4 {
			t.Fatal("it is open, and not used")
		}
	}
	if r := w.ask("GET", "/readyz", nil); r.code != 200 {
		t.Errorf("readyz = %d %s", r.code, r.body)
	}
}

// A removable repository can go.
type removable struct {
	httpapi.Repository
	gone *atomic.Bool
}

func (r removable) Gone() bool { return r.gone.Load() }

// TestGoneRepository holds that a repository that is gone is not asked, and that
// another one is opened, once a second at most.
func TestGoneRepository(t *testing.T) {
	w := newWorld(t)
	var gone, away atomic.Bool
	var opened atomic.Int64
	w.open = func(context.Context) (httpapi.Repository, error) {
		opened.Add(1)
		if away.Load() {
			return nil, errors.New("the disk is not mounted")
		}
		return removable{w.repo, &gone}, nil
	}
	w.start()
	id := w.create()
	gone.Store(true) // also what is opened from now on
	begin := time.Now()
	for time.Since(begin) < 1500*time.Millisecond {
		if r := w.ask("GET", "/backups", nil); r.code != 511 || !strings.Contains(r.body, "not there any more") {
			t.Fatalf("gone: %d %s", r.code, r.body)
		}
	}
	if n, most := opened.Load(), 2+int64(time.Since(begin).Seconds()); n < 2 || n > most {
		t.Errorf("it was opened %d times in %v", n, time.Since(begin))
	}
	away.Store(true)
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if r := w.ask("POST", "/backup/"+id+"/restore", nil); r.code == 511 && strings.Contains(r.body, "not mounted") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("it is not opened again")
		}
	}
	away.Store(false)
	gone.Store(false)
	for deadline := time.Now().Add(20 * time.Second); w.ask("GET", "/backup/"+id, nil).code != 200; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it is back, and not used")
		}
	}
}

// TestCutOff holds what a server says of the jobs of one that was killed: what is
// in the log is COMPLETED, a restore whose exchange was made as well, and all
// else FAILED.
func TestCutOff(t *testing.T) {
	w := newWorld(t)
	g := newGate(w)
	w.start()
	id, end := w.begin(t, g)
	killed := w.server // as far as the next one sees
	if err := os.CopyFS(w.state+"-at-kill", os.DirFS(w.state)); err != nil {
		t.Fatal(err)
	}
	g.open()
	if r := <-end; r.code != 200 {
		t.Fatalf("%d %s", r.code, r.body)
	}
	if r := w.ask("POST", "/backup/"+id+"/restore", nil); r.code != 200 {
		t.Fatalf("restore = %d %s", r.code, r.body)
	}
	token := ""
	for _, f := range w.stateFiles() {
		if strings.HasPrefix(f, "restoration-") {
			data, err := os.ReadFile(filepath.Join(w.state, f))
			if err != nil {
				t.Fatal(err)
			}
			_, rest, _ := strings.Cut(string(data), `"token":"`)
			token, _, _ = strings.Cut(rest, `"`)
		}
	}
	if token == "" {
		t.Fatal("a restoration has no token")
	}
	put := func(name, kind, id, token string) {
		t.Helper()
		content := fmt.Sprintf(`{"kind":%q,"id":%q,"state":"IN-PROGRESS","percent":50,"subject":{"bytes":1},"token":%q,"started":"2026-01-02T15:04:05Z"}`, kind, id, token)
		if err := os.WriteFile(filepath.Join(w.state+"-at-kill", name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const never = "1.0.0_1700000000000"
	put("creation-"+never+".json", "creation", never, "x")
	put("restoration-"+id+".json", "restoration", id, token)
	put("restoration-"+never+".json", "restoration", never, "y")
	w.close(killed, w.web)
	w.opts.StateDir = w.state + "-at-kill"
	w.start()
	for path, want := range map[string]string{
		id + "/creation": "COMPLETED", never + "/creation": "FAILED", id + "/restoration": "COMPLETED", never + "/restoration": "FAILED",
	} {
		if code, st := w.status("/backup/" + path + "/status"); code != 200 || st != want {
			t.Errorf("%s = %d %s, want %s", path, code, st, want)
		}
	}
	// The token is what tells one restore of a backup from the next.
	put("restoration-"+id+".json", "restoration", id, "another")
	w.stop()
	w.start()
	if code, st := w.status("/backup/" + id + "/restoration/status"); code != 200 || st != "FAILED" {
		t.Errorf("another restore of the same backup = %d %s", code, st)
	}
}

// TestCutOffAway holds what is said of such a job while the log cannot be read.
func TestCutOffAway(t *testing.T) {
	w := newWorld(t)
	if err := os.MkdirAll(w.state, 0o700); err != nil {
		t.Fatal(err)
	}
	const id = "1.0.0_1700000000000"
	content := `{"kind":"creation","id":"` + id + `","state":"IN-PROGRESS","percent":7,"subject":{"bytes":1},"token":"x","started":"2026-01-02T15:04:05Z"}`
	if err := os.WriteFile(filepath.Join(w.state, "creation-"+id+".json"), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	w.open = func(context.Context) (httpapi.Repository, error) { return nil, errors.New("away") }
	w.start()
	if code, st := w.status("/backup/" + id + "/creation/status"); code != 200 || st != "UNKNOWN" {
		t.Errorf("%d %s", code, st)
	}
	if r := w.ask("POST", "/backup/"+id+"/creation/cancel", nil); r.code != 500 {
		t.Errorf("cancel = %d %s", r.code, r.body)
	}
}

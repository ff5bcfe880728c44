package httpapi_test

import (
	"context"
	"errors"
	"strings"
	"testing"

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

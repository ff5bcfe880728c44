package httpapi_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cairn-backup/cairn/engine"
)

// TestStorm has 50 clients create, list, look, cancel, restore and delete at
// random. After it the data are those of one of the backups, or the first ones,
// and the repository is clean.
func TestStorm(t *testing.T) {
	w := newWorld(t)
	w.opts.MaxCreations = 8
	for i := range 20 {
		w.write(fmt.Sprintf("many/%d", i), random(uint64(100+i), 20_000))
	}
	w.start()
	w.web.Client().Transport.(*http.Transport).MaxIdleConnsPerHost = 64
	want := w.files()
	first := w.create()
	ctx, cancel := context.WithTimeout(t.Context(), stormTime())
	defer cancel()
	var group sync.WaitGroup
	var done [7]atomic.Int64 // of each action, those that succeeded
	for c := range 50 {
		rng := rand.New(rand.NewPCG(uint64(c), 50))
		group.Go(func() {
			for ctx.Err() == nil {
				action := rng.IntN(len(done))
				if w.stormStep(rng, action, first) {
					done[action].Add(1)
				}
			}
		})
	}
	group.Wait()
	for action := range done {
		if done[action].Load() == 0 {
			t.Errorf("action %d never succeeded", action)
		}
	}
	if got := w.files(); !maps.Equal(got, want) {
		t.Errorf("the data are not those of the backups: %d files", len(got))
	}
	ids := w.ids()
	for _, id := range ids {
		if r := w.ask("POST", "/backup/"+id+"/restore", nil); r.code != 200 {
			t.Fatalf("restore %s = %d %s", id, r.code, r.body)
		}
		if got := w.files(); !maps.Equal(got, want) {
			t.Fatalf("%s holds other data", id)
		}
		if len(ids) > 20 && id != first {
			break // one of so many
		}
	}
	report, err := w.repo.Check(t.Context(), engine.CheckOptions{Depth: engine.DepthData})
	if err != nil || len(report.Findings) > 0 {
		t.Errorf("check: %v, %v", report.Findings, err)
	}
	t.Logf("created %d, listed %d, restored %d, creations cancelled %d, restorations cancelled %d, deleted %d, looked %d; %d backups are left",
		done[0].Load(), done[1].Load(), done[2].Load(), done[3].Load(), done[4].Load(), done[5].Load(), done[6].Load(), len(ids))
}

// stormTime is how long the storm lasts.
func stormTime() time.Duration {
	if os.Getenv("CAIRN_PROVE") != "" {
		return time.Minute
	}
	return 4 * time.Second
}

// stormStep does one thing, and reports whether it succeeded. That it was refused
// is no failure; that it broke is.
func (w *world) stormStep(rng *rand.Rand, action int, first string) bool {
	ids := []string{first}
	if r, err := w.try("GET", "/backups", nil); err == nil && r.code == 200 {
		for _, b := range decode[struct{ Iterable []backupJSON }](w.t, r.body).Iterable {
			ids = append(ids, *b.ID)
		}
	}
	id := ids[rng.IntN(len(ids))]
	method, path := "POST", ""
	switch action {
	case 0:
		path = "/backups/create"
	case 1:
		method, path = "GET", "/backups"
	case 2:
		path = "/backup/" + first + "/restore"
	case 3:
		return w.stormCancel("/backups/create/streamed", "creation")
	case 4:
		return w.stormCancel("/backup/"+first+"/restore/streamed", "restoration")
	case 5:
		if id == first {
			return false
		}
		path = "/backups/" + id + "/delete"
	case 6:
		method, path = "GET", "/backup/"+id+"/creation/status"
	}
	r, err := w.try(method, path, nil)
	if err != nil {
		w.t.Errorf("%s: %v", path, err)
		return false
	}
	if r.code != 200 && r.code != 204 && r.code != 500 && r.code != 404 {
		w.t.Errorf("%s = %d %s", path, r.code, r.body)
	}
	return r.code < 300
}

// stormCancel starts a job, and cancels it when it has said what it is called.
func (w *world) stormCancel(path, kind string) bool {
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.web.URL+path, nil)
	if err != nil {
		w.t.Error(err)
		return false
	}
	req.Header.Set("Accept", "application/x-ndjson")
	resp, err := w.web.Client().Do(req)
	if err != nil {
		w.t.Error(err)
		return false
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return false // something else runs
	}
	events := newLines(resp.Body)
	e := decode[progressJSON](w.t, events.next())
	r, err := w.try("POST", "/backup/"+*e.Backup.ID+"/"+kind+"/cancel", nil)
	if err != nil {
		w.t.Error(err)
		return false
	}
	last := e
	for line := events.next(); line != ""; line = events.next() {
		last = decode[progressJSON](w.t, line)
	}
	// A restoration is named by its backup alone: ours may be over, and what was
	// canceled that of another client, or the other way round.
	if kind == "creation" && (r.code == 204) != (last.Status == "CANCELED") {
		w.t.Errorf("cancel = %d %s, and the job is %s", r.code, r.body, last.Status)
	}
	return r.code == 204
}

// lines reads what is streamed.
type lines struct{ s *bufio.Scanner }

func newLines(r io.Reader) lines { return lines{bufio.NewScanner(r)} }

// next returns the next line, "" at the end.
func (l lines) next() string {
	if !l.s.Scan() {
		return ""
	}
	return l.s.Text()
}

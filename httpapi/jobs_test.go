package httpapi_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/engine/source"
	"github.com/cairn-backup/cairn/engine/source/sqlite"
	"github.com/cairn-backup/cairn/engine/target"
	"github.com/cairn-backup/cairn/httpapi"
	"github.com/cairn-backup/cairn/manifest"
)

// begin starts a streamed creation that waits at the gate, and returns its
// identifier and what the stream says in the end.
func (w *world) begin(t *testing.T, g *gate) (id string, end chan reply) {
	t.Helper()
	before, ended := make(map[string]bool), make(chan reply, 1)
	for _, f := range w.stateFiles() {
		before[f] = true
	}
	go func() {
		r, err := w.try("POST", "/backups/create/streamed", nil)
		if err != nil {
			r.body = err.Error()
		}
		ended <- r
	}()
	g.wait(t)
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		for _, f := range w.stateFiles() {
			if !before[f] && strings.HasSuffix(f, ".json") {
				return strings.TrimSuffix(strings.TrimPrefix(f, "creation-"), ".json"), ended
			}
		}
	}
	t.Fatal("no state of the creation was written")
	return "", nil
}

func (w *world) stateFiles() []string {
	entries, err := os.ReadDir(w.state)
	if err != nil {
		w.t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// TestCancelCreation holds that a creation is cancelled, once.
func TestCancelCreation(t *testing.T) {
	w := newWorld(t)
	g := newGate(w)
	w.start()
	id, end := w.begin(t, g)
	if code, st := w.status("/backup/" + id + "/creation/status"); code != 200 || st != "IN-PROGRESS" {
		t.Errorf("while it runs: %d %s", code, st)
	}
	if r := w.ask("GET", "/backup/"+id, nil); r.code != 500 {
		t.Errorf("it is there before it is complete: %d %s", r.code, r.body)
	}
	if r := w.ask("POST", "/backup/"+id+"/restore", nil); r.code != 500 {
		t.Errorf("a backup in the making is restored: %d %s", r.code, r.body)
	}
	if r := w.ask("POST", "/backup/"+id+"/creation/cancel", nil); r.code != 204 {
		t.Fatalf("cancel = %d %s", r.code, r.body)
	}
	if code, st := w.status("/backup/" + id + "/creation/status"); code != 200 || st != "CANCELED" {
		t.Errorf("after it was cancelled: %d %s", code, st)
	}
	if r := <-end; r.code != 200 || decode[progressJSON](t, r.body).Status != "CANCELED" {
		t.Errorf("the stream ends with %d %s", r.code, r.body)
	}
	if r := w.ask("POST", "/backup/"+id+"/creation/cancel", nil); r.code != 500 {
		t.Errorf("cancelled again: %d %s", r.code, r.body)
	}
	if got := w.ids(); len(got) != 0 {
		t.Errorf("there is %q", got)
	}
	w.stop()
	w.start()
	if code, st := w.status("/backup/" + id + "/creation/status"); code != 200 || st != "CANCELED" {
		t.Errorf("after a restart: %d %s", code, st)
	}
}

// TestSideBySide holds what may run beside what.
func TestSideBySide(t *testing.T) {
	w := newWorld(t)
	w.opts.MaxCreations = 2
	w.start()
	stored := w.create()
	w.stop()
	g := newGate(w)
	w.start()
	first, end1 := w.begin(t, g)
	second, end2 := w.begin(t, g)
	if first == second {
		t.Fatalf("two creations are called %s", first)
	}
	refused := func(path, reason string) {
		t.Helper()
		if r := w.ask("POST", path, nil); r.code != 500 || !strings.Contains(r.body, reason) {
			t.Errorf("%s = %d %s", path, r.code, r.body)
		}
	}
	refused("/backups/create", "2 backups are being created already")
	refused("/backup", "being created already")
	if got := w.ids(); len(got) != 1 {
		t.Errorf("list = %q", got)
	}
	if r := w.ask("POST", "/backups/"+stored+"/delete", nil); r.code != 204 {
		t.Errorf("delete beside creations = %d %s", r.code, r.body)
	}
	g.open()
	for _, end := range []chan reply{end1, end2} {
		if r := <-end; decode[progressJSON](t, r.body).Status != "COMPLETED" {
			t.Errorf("%s", r.body)
		}
	}
	if got := w.ids(); len(got) != 2 || got[0] != first || got[1] != second {
		t.Errorf("list = %q, want %s and %s", got, first, second)
	}
}

// A stuck target holds up a restore before the exchange.
func stuck(w *world) (reached, release chan struct{}) {
	reached, release = make(chan struct{}, 10), make(chan struct{})
	w.set.Target.Verify = func(ctx context.Context, _ string) error {
		reached <- struct{}{}
		select {
		case <-release:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return reached, release
}

// TestCancelRestoration holds that a restoration is alone, and that after it was
// cancelled the data are the original ones.
func TestCancelRestoration(t *testing.T) {
	w := newWorld(t)
	reached, release := stuck(w)
	w.start()
	id := w.create()
	w.write("one.txt", "of now")
	original := w.files()
	end := make(chan reply, 1)
	go func() {
		r, err := w.try("POST", "/backup/"+id+"/restore", nil)
		if err != nil {
			r.body = err.Error()
		}
		end <- r
	}()
	<-reached
	if code, st := w.status("/backup/" + id + "/restoration/status"); code != 200 || st != "IN-PROGRESS" {
		t.Errorf("while it runs: %d %s", code, st)
	}
	for _, path := range []string{"/backup/" + id + "/restore", "/backups/create", "/backups/" + id + "/delete", "/backup"} {
		if r := w.ask("POST", path, nil); r.code != 500 || !strings.Contains(r.body, "being restored") {
			t.Errorf("%s beside a restoration = %d %s", path, r.code, r.body)
		}
	}
	if r := w.ask("POST", "/backup/asset", `{"id":"x"}`); r.code != 204 {
		t.Errorf("an asset beside a restoration = %d %s", r.code, r.body)
	}
	if r := w.ask("POST", "/backup/"+id+"/restoration/cancel", "{}"); r.code != 204 {
		t.Fatalf("cancel = %d %s", r.code, r.body)
	}
	if got := w.files(); !maps.Equal(got, original) {
		t.Error("the data are not the original ones")
	}
	if r := <-end; r.code != 500 || !strings.Contains(r.body, "canceled") {
		t.Errorf("the call ends with %d %s", r.code, r.body)
	}
	if code, st := w.status("/backup/" + id + "/restoration/status"); code != 200 || st != "CANCELED" {
		t.Errorf("after it was cancelled: %d %s", code, st)
	}
	if r := w.ask("POST", "/backup/"+id+"/restoration/cancel", nil); r.code != 500 {
		t.Errorf("cancelled again: %d %s", r.code, r.body)
	}
	close(release)
	if r := w.ask("POST", "/backup/"+id+"/restore", nil); r.code != 200 || w.files()["one.txt"] != "one" {
		t.Errorf("restore = %d %s", r.code, r.body)
	}
}

// TestGone holds that a job goes on when its client is gone.
func TestGone(t *testing.T) {
	w := newWorld(t)
	g := newGate(w)
	w.start()
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	group.Go(func() {
		req := newRequest(ctx, t, w.web.URL+"/backups/create")
		if resp, err := w.web.Client().Do(req); err == nil {
			resp.Body.Close()
		}
	})
	g.wait(t)
	cancel()
	group.Wait()
	g.open()
	for deadline := time.Now().Add(10 * time.Second); len(w.ids()) == 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("no backup was made")
		}
	}
}

// TestStop holds that closing the server cancels what runs and takes it back.
func TestStop(t *testing.T) {
	w := newWorld(t)
	g := newGate(w)
	w.start()
	id, end := w.begin(t, g)
	server := w.server
	w.stop()
	if err := server.Close(t.Context()); err != nil {
		t.Errorf("a second Close = %v", err)
	}
	if r := <-end; decode[progressJSON](t, r.body).Status != "CANCELED" {
		t.Errorf("the stream ends with %s", r.body)
	}
	w.start()
	if code, st := w.status("/backup/" + id + "/creation/status"); code != 200 || st != "CANCELED" {
		t.Errorf("%d %s", code, st)
	}
}

// TestFailures holds how failures of the data and of the target are told, and
// that nothing is left of them.
func TestFailures(t *testing.T) {
	w := newWorld(t)
	w.set.Target.Verify = func(context.Context, string) error { return errors.New("the application does not like it") }
	w.start()
	id := w.create()
	w.write("one.txt", "of now")
	original := w.files()
	if r := w.ask("POST", "/backup/"+id+"/restore", nil); r.code != 500 || !strings.Contains(r.body, "does not like it") {
		t.Errorf("restore = %d %s", r.code, r.body)
	}
	r := w.ask("POST", "/backup/"+id+"/restore/streamed", nil)
	if st := decode[progressJSON](t, r.body); r.code != 200 || st.Status != "FAILED" || !strings.Contains(st.Error, "does not like it") || *st.Backup.ID != id {
		t.Errorf("restore streamed = %d %s", r.code, r.body)
	}
	if got := w.files(); !maps.Equal(got, original) {
		t.Error("the data changed")
	}
	if code, st := w.status("/backup/" + id + "/restoration/status"); code != 200 || st != "FAILED" {
		t.Errorf("%d %s", code, st)
	}
	aside := w.data + "-aside"
	if err := os.Rename(w.data, aside); err != nil {
		t.Fatal(err)
	}
	if r := w.ask("POST", "/backups/create", nil); r.code != 500 || !strings.Contains(r.body, "no such file") || strings.Contains(r.body, "allow-changing") {
		t.Errorf("create of nothing = %d %s", r.code, r.body)
	}
	if err := os.Rename(aside, w.data); err != nil {
		t.Fatal(err)
	}
}

// A changer is data in which a file changes whenever another one was read.
type changer struct {
	source.Source
	file  string
	times int // 0: always
	n     int
}

func (c *changer) Open(ctx context.Context) (source.View, error) {
	v, err := c.Source.Open(ctx)
	return changerView{v, c}, err
}

type changerView struct {
	source.View
	c *changer
}

func (v changerView) Finish(ctx context.Context) error {
	if v.c.n++; v.c.times == 0 || v.c.n <= v.c.times {
		if err := os.WriteFile(v.c.file, fmt.Appendf(nil, "version %d", v.c.n), 0o600); err != nil {
			return err
		}
	}
	return v.View.Finish(ctx)
}

// TestChanging holds that data which change are read again, three times at most,
// and then not stored, or marked.
func TestChanging(t *testing.T) {
	w := newWorld(t)
	c := &changer{Source: w.set.Source, file: filepath.Join(w.data, "sub", "busy"), times: 2}
	w.set.Source = c
	w.start()
	id := w.create()
	if c.n != 3 {
		t.Errorf("it was read %d times", c.n)
	}
	want := w.files()
	w.write("one.txt", "x")
	if r := w.ask("POST", "/backup/"+id+"/restore", nil); r.code != 200 || !maps.Equal(w.files(), want) {
		t.Errorf("restore = %d %s", r.code, r.body)
	}
	c.times, c.n = 0, 0
	if r := w.ask("POST", "/backups/create", nil); r.code != 500 || !strings.Contains(r.body, "sub/busy") || !strings.Contains(r.body, "allow-changing") || c.n != 3 {
		t.Errorf("create = %d %s after %d rounds", r.code, r.body, c.n)
	}
	if got := w.ids(); len(got) != 1 {
		t.Errorf("list = %q", got)
	}
	w.stop()
	w.opts.AllowChanging, c.n = true, 0
	w.start()
	marked := w.create()
	for sum, err := range w.repo.Summaries(t.Context(), manifest.Filter{Tags: []string{"changing"}}) {
		if err != nil || sum.Labels["cairn.backup"] != marked {
			t.Errorf("marked: %v, %v", sum.Labels, err)
		}
		marked = ""
	}
	if marked != "" {
		t.Errorf("%s is not marked", marked)
	}
}

// TestDatabase holds that one SQLite file is backed up while it is written to,
// and replaced as a whole.
func TestDatabase(t *testing.T) {
	w := newWorld(t)
	path := filepath.Join(t.TempDir(), "app.db")
	golden, err := os.ReadFile(filepath.Join("testdata", "app.db"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, golden, 0o600); err != nil {
		t.Fatal(err)
	}
	w.set = httpapi.Data{Name: "app", Source: sqlite.File(path), Target: target.Swap(path)}
	w.start()
	id := w.create()
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("not a database any more"), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := w.ask("POST", "/backups/create", nil); r.code != 500 || !strings.Contains(r.body, "not an SQLite database") {
		t.Errorf("create = %d %s", r.code, r.body)
	}
	if r := w.ask("POST", "/backup/"+id+"/restore", nil); r.code != 200 {
		t.Fatalf("restore = %d %s", r.code, r.body)
	}
	after, err := os.ReadFile(path)
	if err != nil || len(after) != len(before) {
		t.Errorf("%d bytes, want %d: %v", len(after), len(before), err)
	}
	if again := w.create(); again <= id {
		t.Errorf("%s after %s", again, id)
	}
}

// An unsure repository loses the answer to a commit.
type unsure struct {
	httpapi.Repository
	stored bool // whether what was sent arrived all the same
}

func (u *unsure) Backup(ctx context.Context, src source.Source, opts engine.BackupOptions) (engine.BackupReport, error) {
	if u.stored {
		if report, err := u.Repository.Backup(ctx, src, opts); err != nil {
			return report, err
		}
	}
	return engine.BackupReport{}, fmt.Errorf("put log/7: %w", engine.ErrUnknownOutcome)
}

// TestUnknownOutcome holds that a commit without an answer is settled before the
// job ends.
func TestUnknownOutcome(t *testing.T) {
	for _, stored := range []bool{true, false} {
		t.Run(fmt.Sprint(stored), func(t *testing.T) {
			t.Parallel() // it waits
			w := newWorld(t)
			w.snapshot(engine.BackupOptions{Name: "something to fence with"})
			head := w.repo.Requests()
			w.open = func(context.Context) (httpapi.Repository, error) { return &unsure{w.repo, stored}, nil }
			w.start()
			r := w.ask("POST", "/backups/create", nil)
			if want := map[bool]int{true: 200, false: 500}[stored]; r.code != want {
				t.Errorf("%d %s", r.code, r.body)
			}
			if got := w.ids(); (len(got) == 1) != stored {
				t.Errorf("list = %q", got)
			}
			if w.repo.Requests() == head {
				t.Error("nothing was asked")
			}
		})
	}
}

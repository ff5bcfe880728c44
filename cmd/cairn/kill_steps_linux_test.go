//go:build linux && (amd64 || arm64)

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestKillServeAtEveryStep kills the server before each call by which a restore
// changes anything on the disk, of the data, beside them or in the states of
// jobs. After that the data are the old or the new ones, whole, nothing else is
// left beside them, and the new server says which. CAIRN_PROVE=1 takes every
// step; else a few are taken, all over the restore. It must not run in parallel
// with others: see tracer.
func TestKillServeAtEveryStep(t *testing.T) {
	for name, data := range map[string]func(*testing.T) string{
		"directory": func(t *testing.T) string { return someData(t, 2<<20) },
		"database":  aDatabase,
	} {
		t.Run(name, func(t *testing.T) {
			k := newKills(t, data(t))
			steps := k.count(t)
			t.Logf("%d steps: %s", len(steps), strings.Join(steps, " "))
			if len(steps) < 20 {
				t.Fatal("these are too few to be all")
			}
			few := 3
			if os.Getenv(envProve) != "" {
				few = len(steps)
			}
			for i := range few {
				// The last one is the last of all.
				k.round(t, len(steps)-i*len(steps)/few)
			}
			t.Logf("killed %d times: %d times the old data, %d times the new", few, k.olds, k.news)
			if k.olds == 0 || k.news == 0 {
				t.Error("the kills were not all over the restore")
			}
			k.server.kill()
			checkClean(t, k.repo, k.env)
		})
	}
}

// aDatabase returns an SQLite database, with what was not yet written to it
// beside it: its exchange takes more than one step.
func aDatabase(t *testing.T) string {
	t.Helper()
	p, err := os.ReadFile(filepath.Join("..", "..", "httpapi", "testdata", "app.db"))
	path := filepath.Join(t.TempDir(), "app.db")
	if err = errors.Join(err, os.WriteFile(path, p, 0o600)); err != nil {
		t.Fatal(err)
	}
	return path
}

// kills are restores that do not come to their end.
type kills struct {
	repo, data, state string
	env, args         []string
	stored            map[string]string // what a restore gives
	server            *child

	olds, news int
}

// newKills starts a server over data.
func newKills(t *testing.T, data string) *kills {
	t.Helper()
	k := &kills{data: data, state: filepath.Join(filepath.Dir(data), "state")}
	k.repo, k.env = aRepository(t)
	k.args = []string{"-r", k.repo, "--data", data, "--state-dir", k.state}
	k.server = startChild(t, k.env, k.args...)
	return k
}

// files returns the data: what is at their path, and what belongs to a database
// there.
func (k *kills) files(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	found, err := filepath.Glob(k.data + "*")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range found {
		maps.Copy(all, filesOf(t, path))
	}
	return all
}

// change makes the data other ones, those of a round.
func (k *kills) change(t *testing.T, round int) {
	t.Helper()
	content := fmt.Sprint("of round ", round)
	fi, err := os.Stat(k.data)
	if err != nil {
		t.Fatal(err)
	}
	if !fi.IsDir() {
		err = errors.Join(os.WriteFile(k.data, []byte(content), 0o600), os.WriteFile(k.data+"-wal", []byte("log "+content), 0o600))
	} else {
		err = errors.Join(os.RemoveAll(k.data), os.MkdirAll(k.data, 0o750),
			os.WriteFile(k.data+"/small", []byte(content), 0o600), os.WriteFile(k.data+"/other", []byte("there if nothing is restored"), 0o600))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// restore starts a restore of a backup that was never restored before, under a
// tracer that kills the server at a step.
func (k *kills) restore(t *testing.T, step int) (id string, tr *tracer) {
	t.Helper()
	id = k.server.create(t)
	k.change(t, step)
	tr = &tracer{below: filepath.Dir(k.data), kill: step}
	tr.attach(t, k.server.cmd.Process.Pid)
	code, body, err := post(t, k.server.url+"/backup/"+id+"/restore")
	if step == 0 && (err != nil || code != 200) {
		t.Fatalf("restore = %d %s, %v", code, body, err)
	}
	k.server.kill()
	tr.wait()
	return id, tr
}

// count makes a restore that is not killed, and returns its steps.
func (k *kills) count(t *testing.T) []string {
	t.Helper()
	_, tr := k.restore(t, 0)
	k.stored = k.files(t) // a database is copied page by page, and not as a file
	k.again(t)
	return tr.calls
}

// again starts another server.
func (k *kills) again(t *testing.T) {
	t.Helper()
	k.server = startChild(t, k.env, k.args...)
}

// round kills a restore before a step, and looks at what is left.
func (k *kills) round(t *testing.T, step int) {
	t.Helper()
	id, tr := k.restore(t, step)
	_, statErr := os.Stat(filepath.Join(k.state, "restoration-"+id+".json"))
	k.again(t)
	got := k.files(t)
	code, body := get(t, k.server.url+"/backup/"+id+"/restoration/status")
	var status struct{ Value string }
	_ = json.Unmarshal([]byte(body), &status) // what is no JSON has no value
	at := fmt.Sprintf("before step %d, %s", step, tr.calls[len(tr.calls)-1])
	if maps.Equal(got, k.stored) {
		k.news++
		if code != 200 || status.Value != "COMPLETED" {
			t.Fatalf("%s: restored, and the status is %d %s", at, code, body)
		}
	} else {
		k.olds++
		k.change(t, step)
		if old := k.files(t); !maps.Equal(got, old) {
			t.Fatalf("%s: there are %d files, neither the old nor the new ones", at, len(got))
		}
		begun := statErr == nil
		if begun && (code != 200 || status.Value != "FAILED") || !begun && code != 404 {
			t.Fatalf("%s: not restored, begun %v, and the status is %d %s", at, begun, code, body)
		}
	}
	for _, left := range []string{"new", "was", "swap", "swap.tmp"} {
		if path := filepath.Join(filepath.Dir(k.data), "."+filepath.Base(k.data)+".cairn-"+left); exists(path) {
			t.Errorf("%s: %s is left", at, filepath.Base(path))
		}
	}
	// For the next one what is stored, since a database that is none is not
	// backed up.
	if code, body, err := post(t, k.server.url+"/backup/"+k.first(t)+"/restore"); err != nil || code != 200 {
		t.Fatalf("%s: the next restore = %d %s, %v", at, code, body, err)
	}
}

// first returns the oldest backup.
func (k *kills) first(t *testing.T) string {
	t.Helper()
	_, body := get(t, k.server.url+"/backups")
	var list struct{ Iterable []struct{ ID string } }
	if err := json.Unmarshal([]byte(body), &list); err != nil || len(list.Iterable) == 0 {
		t.Fatalf("%v %s", err, body)
	}
	return list.Iterable[0].ID
}

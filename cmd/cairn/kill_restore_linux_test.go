package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// A child is cairn serve in a process of its own, which can be killed.
type child struct {
	cmd *exec.Cmd
	url string
	log lockedBuffer

	killed sync.Once
}

// startChild starts one.
func startChild(t testing.TB, env []string, args ...string) *child {
	t.Helper()
	c := &child{cmd: exec.CommandContext(t.Context(), os.Args[0], append([]string{"serve", "--addr", "localhost:0", "--json"}, args...)...)}
	c.cmd.Env = append(append(os.Environ(), "CAIRN_TEST_AS_PROGRAM=1"), env...)
	c.cmd.Stdout, c.cmd.Stderr = &c.log, &c.log
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.kill)
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		for line := range strings.Lines(c.log.String()) {
			var doc serveJSON
			if json.Unmarshal([]byte(line), &doc) == nil && doc.Event == "listening" {
				c.url = doc.URL
				return c
			}
		}
	}
	t.Fatalf("it does not start:\n%s", c.log.String())
	return nil
}

// kill ends it at once; the second time it does nothing.
func (c *child) kill() {
	c.killed.Do(func() {
		_ = c.cmd.Process.Kill() // it may be over
		_ = c.cmd.Wait()
	})
}

// create creates a backup and returns its identifier.
func (c *child) create(t *testing.T) string {
	t.Helper()
	code, body, err := post(t, c.url+"/backups/create")
	var made struct{ ID string }
	if err == nil {
		err = json.Unmarshal([]byte(body), &made)
	}
	if err != nil || code != http.StatusOK {
		t.Fatalf("create = %d %s, %v", code, body, err)
	}
	return made.ID
}

func post(t *testing.T, url string) (int, string, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, nil)
	if err != nil {
		return 0, "", err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), err
}

// filesOf returns the files below dir and what is in them.
func filesOf(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(p)
		all[p[len(dir):]] = string(content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestKillServeInRestore kills the server at moments all over a restore, and holds
// that the data are the old or the new ones, whole, that the server starts again,
// and that it says which. Every step of the exchange by itself is stopped at by
// TestSwapCrashAtEveryStep in package target. CAIRN_PROVE=1 kills more often.
func TestKillServeInRestore(t *testing.T) {
	repo, env := aRepository(t)
	data := someData(t, 3<<20)
	dataArgs := []string{"-r", repo, "--data", data}
	first := startChild(t, env, dataArgs...)
	id := first.create(t)
	path := "/backup/" + id + "/restore"
	stored := filesOf(t, data)
	begin := time.Now()
	if code, body, err := post(t, first.url+path); err != nil || code != 200 {
		t.Fatalf("restore = %d %s, %v", code, body, err)
	}
	takes := time.Since(begin) + 10*time.Millisecond
	first.kill()
	kills := 10
	if os.Getenv("CAIRN_PROVE") != "" {
		kills = 300
	}
	olds, news := 0, 0
	for n := range kills {
		now := map[string]string{"/small": fmt.Sprint("of kill ", n), "/other": "there if nothing is restored"}
		if err := os.RemoveAll(data); err != nil {
			t.Fatal(err)
		}
		for name, content := range now {
			if err := errors.Join(os.MkdirAll(data, 0o750), os.WriteFile(data+name, []byte(content), 0o600)); err != nil {
				t.Fatal(err)
			}
		}
		server := startChild(t, env, dataArgs...)
		answered := make(chan bool, 1)
		go func() {
			code, _, err := post(t, server.url+path)
			answered <- err == nil && code == 200
		}()
		finished := false
		if n == kills-1 {
			finished = <-answered // however long it takes on a busy machine
		} else {
			// Most of them early: later ones of a server take less time.
			time.Sleep(takes * time.Duration(n*n) / time.Duration(kills*kills))
		}
		server.kill()
		if n < kills-1 {
			finished = <-answered
		}
		again := startChild(t, env, dataArgs...)
		code, body := get(t, again.url+"/backup/"+id+"/restoration/status")
		var status struct{ Value string }
		_ = json.Unmarshal([]byte(body), &status) // what is no JSON has no value
		switch got := filesOf(t, data); {
		case maps.Equal(got, stored):
			news++
			if code != 200 || status.Value != "COMPLETED" {
				t.Fatalf("kill %d: restored, and the status is %d %s", n, code, body)
			}
		case maps.Equal(got, now) && !finished:
			olds++
			// COMPLETED is that of the restore before, where this one had not
			// begun when it was killed.
			if status.Value != "FAILED" && status.Value != "COMPLETED" {
				t.Fatalf("kill %d: not restored, and the status is %d %s", n, code, body)
			}
		default:
			t.Fatalf("kill %d: there are %d files, neither the old nor the new ones, answered %v", n, len(got), finished)
		}
		again.kill()
	}
	if olds == 0 || news == 0 {
		t.Errorf("%d times the old data, %d times the new: the kills were not all over the restore", olds, news)
	}
	checkClean(t, repo, env)
	t.Logf("killed %d times: %d times the old data, %d times the new", olds+news, olds, news)
}

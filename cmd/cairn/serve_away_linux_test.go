package main

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// ask sends a request without a body and returns the code and the text.
func ask(t *testing.T, method, url string) (int, string) {
	t.Helper()
	if method == http.MethodGet {
		return get(t, url)
	}
	code, body, err := post(t, url)
	if err != nil {
		t.Fatal(err)
	}
	return code, body
}

// asks holds what a server answers to every operation that needs the repository,
// of a backup with that identifier.
func (c *child) asks(t *testing.T, id string, code int, text string) {
	t.Helper()
	for _, op := range [][2]string{
		{"GET", "/backups"},
		{"POST", "/backups/create"},
		{"POST", "/backups/create/streamed"},
		{"POST", "/backup"},
		{"POST", "/backup/asset"},
		{"GET", "/backup/" + id},
		{"POST", "/backup/" + id + "/restore"},
		{"POST", "/backup/" + id + "/restore/streamed"},
		{"POST", "/backups/" + id + "/delete"},
	} {
		if got, body := ask(t, op[0], c.url+op[1]); got != code || !strings.Contains(body, text) {
			t.Errorf("%s %s = %d %s", op[0], op[1], got, body)
		}
	}
}

// becomes waits until GET path is answered with code.
func (c *child) becomes(t *testing.T, path string, code int) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		got, body := get(t, c.url+path)
		if got == code {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s = %d %s, want %d\n%s", path, got, body, code, c.log.String())
		}
	}
}

// TestServeAway takes the directory of the repository away from a server that
// runs, in the ways that happen, and gives it back: meanwhile every operation is
// answered with 511, it is opened once a second at most, and then all works again.
func TestServeAway(t *testing.T) {
	for _, c := range []struct {
		name       string
		take, give func(t *testing.T, repo string) error
	}{
		{
			"moved",
			func(_ *testing.T, repo string) error { return os.Rename(repo, repo+"-moved") },
			func(_ *testing.T, repo string) error { return os.Rename(repo+"-moved", repo) },
		},
		{
			"copied to another place",
			func(_ *testing.T, repo string) error {
				return errors.Join(os.CopyFS(repo+"-copy", os.DirFS(repo)), os.RemoveAll(repo))
			},
			func(_ *testing.T, repo string) error { return os.Symlink(repo+"-copy", repo) },
		},
		{
			"unmounted",
			func(_ *testing.T, repo string) error { return unix.Unmount(repo, unix.MNT_DETACH) },
			func(_ *testing.T, repo string) error {
				return unix.Mount(repo+"-disk", repo, "", unix.MS_BIND, "")
			},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			repo, env := aRepository(t)
			if c.name == "unmounted" {
				mountAt(t, repo)
			}
			server := startChild(t, env, "-r", repo, "--data", someData(t, 1<<10))
			id := server.create(t)
			if err := c.take(t, repo); err != nil {
				t.Fatal(err)
			}
			server.becomes(t, "/backups", http.StatusNetworkAuthenticationRequired)
			begin, opened := time.Now(), strings.Count(server.log.String(), "cannot be opened")
			for time.Since(begin) < 2500*time.Millisecond {
				server.asks(t, id, http.StatusNetworkAuthenticationRequired, "the repository cannot be opened")
			}
			if n := strings.Count(server.log.String(), "cannot be opened") - opened; n < 1 || n > 1+int(time.Since(begin).Seconds()) {
				t.Errorf("it was opened %d times in %v:\n%s", n, time.Since(begin), server.log.String())
			}
			if code, body := get(t, server.url+"/readyz"); code != http.StatusServiceUnavailable {
				t.Errorf("readyz = %d %s", code, body)
			}
			// What a job was is remembered without the repository.
			if code, body := get(t, server.url+"/backup/"+id+"/creation/status"); code != http.StatusOK || !strings.Contains(body, "COMPLETED") {
				t.Errorf("status = %d %s", code, body)
			}
			if err := c.give(t, repo); err != nil {
				t.Fatal(err)
			}
			server.becomes(t, "/backups", http.StatusOK)
			if code, body := ask(t, "POST", server.url+"/backup/"+id+"/restore"); code != http.StatusOK {
				t.Errorf("restore = %d %s", code, body)
			}
			server.create(t)
			server.kill()
			checkClean(t, repo, env)
		})
	}
}

// mountAt mounts what is in dir over an empty directory of that name.
func mountAt(t *testing.T, dir string) {
	t.Helper()
	if err := errors.Join(os.Rename(dir, dir+"-disk"), os.Mkdir(dir, 0o700)); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(dir+"-disk", dir, "", unix.MS_BIND, ""); err != nil {
		t.Skipf("mount %s: %v", filepath.Base(dir), err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }) // it may be unmounted already
}

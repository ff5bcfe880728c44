package main

import (
	"bytes"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cairn-backup/cairn/backend/backendtest/servertest"
	"github.com/cairn-backup/cairn/engine/enginetest"
)

// A shell runs command lines in one home directory.
type shell struct {
	t    *testing.T
	env  []string
	repo string
}

// run runs a command line that must exit with code, and returns what it printed.
func (s shell) run(code int, args ...string) string {
	s.t.Helper()
	var out bytes.Buffer
	args = append([]string{"-r", s.repo, "--no-progress"}, args...)
	if got := run(s.t.Context(), args, stdio{in: strings.NewReader(""), out: &out, err: &out}, s.env); got != code {
		s.t.Fatalf("cairn %q exits with %d, want %d:\n%s", args, got, code, out.String())
	}
	for _, secret := range []string{servertest.SecretKey, servertest.AccountKey} {
		if strings.Contains(out.String(), secret) {
			s.t.Errorf("cairn %q prints a secret", args)
		}
	}
	return out.String()
}

func s3Shell(t *testing.T) shell {
	o := servertest.S3(t)
	return shell{
		t: t, repo: "s3://" + o.Bucket + "/" + o.Prefix + "?endpoint=" + url.QueryEscape(o.Endpoint),
		env: []string{"AWS_ACCESS_KEY_ID=" + o.AccessKey, "AWS_SECRET_ACCESS_KEY=" + o.SecretKey},
	}
}

func azureShell(t *testing.T) shell {
	o := servertest.Azure(t)
	return shell{
		t: t, repo: "azblob://" + o.Container + "/" + o.Prefix + "?account=" + o.Account + "&endpoint=" + url.QueryEscape(o.Endpoint),
		env: []string{"AZURE_STORAGE_KEY=" + o.Key},
	}
}

// TestCloud goes through the commands on each object store, from a fresh home
// directory.
func TestCloud(t *testing.T) {
	for name, make := range map[string]func(*testing.T) shell{"s3": s3Shell, "azure": azureShell} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := make(t)
			dir := t.TempDir()
			s.env = append(s.env, "HOME="+dir, "CAIRN_KEY_FILE="+filepath.Join(dir, "key"), "PATH="+os.Getenv("PATH"))
			data := filepath.Join(dir, "data")
			write := func(file, content string) {
				path := filepath.Join(data, file)
				if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			write("a/one", strings.Repeat("one ", 100_000))
			write("two", "two")

			s.run(exitUsage, "key", "list") // there is no key file
			s.run(0, "init")
			s.run(1, "init")
			s.run(0, "backup", data)
			write("a/one", strings.Repeat("more ", 100_000))
			s.run(0, "backup", data, "--limit-upload", "100M/s", "--limit-download", "100M")
			if got := s.run(0, "snapshots", "--json"); !strings.Contains(got, data) {
				t.Errorf("snapshots prints %s", got)
			}
			s.run(0, "ls", "latest")
			s.run(0, "find", "two")
			s.run(0, "stats")
			s.run(0, "status")
			s.run(0, "check", "--read-data")
			s.run(0, "key", "list")
			s.run(0, "tag", "latest", "--add", "kept")
			back := filepath.Join(dir, "back")
			s.run(0, "restore", "latest", "--target", back)
			found, err := enginetest.Compare(data, filepath.Join(back, data))
			if _, statErr := os.Stat(filepath.Join(back, data)); statErr != nil {
				found, err = enginetest.Compare(data, back)
			}
			if err != nil || len(found) > 0 {
				t.Errorf("the restore differs: %v, %q", err, found)
			}
			s.run(0, "delete", "latest")
			s.run(0, "undelete", "--help")
			// Another machine, without caches.
			s.env = append(s.env, "CAIRN_CACHE_DIR="+filepath.Join(dir, "other"))
			s.run(0, "snapshots")
			s.run(0, "repair", "log")
		})
	}
}

// TestCloudWrong: what is wrong is said with what to do next, and by the exit
// code.
func TestCloudWrong(t *testing.T) {
	s := s3Shell(t)
	dir := t.TempDir()
	s.env = append(s.env, "HOME="+dir, "CAIRN_PASSPHRASE=x")
	says := func(s shell, code int, words ...string) {
		t.Helper()
		got := s.run(code, "snapshots")
		for _, w := range append(words, "hint: ") {
			if !strings.Contains(got, w) {
				t.Errorf("%s says\n%s\nwithout %q", s.repo, got, w)
			}
		}
	}
	says(s, exitNoRepository, "there is no repository at s3://", "init")
	wrong := s
	wrong.repo = strings.Replace(s.repo, "s3://cairn/", "s3://nothere/", 1)
	says(wrong, exitNoRepository, "make the bucket nothere first")
	wrong = s
	wrong.env = append(wrong.env, "AWS_SECRET_ACCESS_KEY=wrong")
	says(wrong, exitFailed, "wrong key", "correct the access key")
	wrong = s
	wrong.repo = "s3://cairn/x?endpoint=" + url.QueryEscape("http://nothere.invalid:9")
	says(wrong, exitFailed, "no such host", "spelling")
	says(shell{t: t, repo: "s3://cairn/x?endpont=y", env: s.env}, exitUsage, "endpont", "endpoint")
}

func TestStoreURL(t *testing.T) {
	a := &app{env: map[string]string{"HOME": "/h"}, out: &output{}}
	for text, want := range map[string]string{
		"s3://bucket":                           "",
		"s3://bucket/some/prefix/?region=x":     "",
		"azblob://box/p?account=acc&tier=Cool":  "",
		"s3://key:secret@bucket/p":              "no user and no password",
		"s3:///p":                               "not of the form",
		"s3://bucket:80/p":                      "not of the form",
		"s3://bucket/p?secret-key=x":            "no option",
		"s3://bucket/p?region=a&region=b":       "twice",
		"s3://bucket/p?path-style=maybe":        "yes or no",
		"s3://bucket/a/../b":                    "dots",
		"azblob://box/p":                        "storage account",
		"azblob://box/p?account=a&tier=Archive": "Archive",
		"gs://bucket":                           "not known",
		"s3:bucket/p":                           "neither a path nor a URL",
		"s3:/bucket/p":                          "neither a path nor a URL",
		"azblob:box":                            "neither a path nor a URL",
	} {
		_, err := a.locateText(text)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want) || exitCode(t.Context(), err) != exitUsage) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "secret@") {
			t.Errorf("the error tells the password: %v", err)
		}
	}
}

package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh"
)

// TestNoSecretLeaks runs every command, and those that have to do with secrets
// so that they succeed and that they fail in every way, and looks for the
// passphrase and the key in all that was printed and in every file that was
// written. Memory dumps are the subject of TestNoCoreDump.
func TestNoSecretLeaks(t *testing.T) {
	const passphrase, other = "correct-horse-battery-staple", "wrong-horse-battery-staple"
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, "secret", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	right, wrong := file("right", passphrase+"\n"), file("wrong", other)
	key := filepath.Join(dir, "secret", "key")
	seed := bytes.Repeat([]byte("ed25519 "), ed25519.SeedSize/8)
	block, err := ssh.MarshalPrivateKey(ed25519.NewKeyFromSeed(seed), "")
	if err != nil {
		t.Fatal(err)
	}
	shell := file("ssh", string(pem.EncodeToMemory(block)))
	repo, cache := filepath.Join(dir, "repo"), filepath.Join(dir, "cache")
	source := filepath.Join(dir, "source")
	if err := os.Mkdir(source, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(source, "file"), bytes.Repeat([]byte("text "), 10_000), 0o600); err != nil {
		t.Fatal(err)
	}
	var printed bytes.Buffer
	env := []string{"HOME=" + filepath.Join(dir, "home"), "PATH=" + os.Getenv("PATH")}
	const anyCode = -1
	var ran []string // what was run, one line a command
	cairn := func(want int, extra []string, args ...string) {
		t.Helper()
		ran = append(ran, strings.Join(args, " ")+" ")
		args = append([]string{"-v", "-r", repo, "--cache-dir", cache}, args...)
		var out bytes.Buffer
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		code := run(ctx, args, stdio{in: strings.NewReader(""), out: &out, err: &out}, append(env, extra...))
		if code != want && want != anyCode {
			t.Errorf("cairn %q exits with %d, want %d:\n%s", args, code, want, out.String())
		}
		printed.Write(out.Bytes())
	}
	inEnv := []string{"CAIRN_PASSPHRASE=" + passphrase}
	cairn(0, inEnv, "init")
	cairn(0, inEnv, "backup", source)
	cairn(0, nil, "--passphrase-file", right, "backup", "--json", source)
	cairn(0, nil, "--passphrase-command", "cat "+right, "backup", "--stdin", "env", "--", "sh", "-c", "env; echo done")
	cairn(0, inEnv, "key", "add", "--new-key-file", key)
	cairn(0, inEnv, "key", "add", "--ssh-key", shell)
	cairn(0, nil, "--key-file", shell, "snapshots", "--json")
	cairn(2, inEnv, "key", "add", "--public-key", "AGE-SECRET-KEY-1"+other)
	cairn(0, nil, "--key-file", key, "check", "--read-data")
	cairn(0, nil, "--key-file", key, "key", "list", "--json")
	cairn(0, inEnv, "restore", "latest", "--target", filepath.Join(dir, "out"))
	cairn(11, []string{"CAIRN_PASSPHRASE=" + other}, "snapshots")
	cairn(11, nil, "--passphrase-file", wrong, "snapshots", "--json")
	cairn(2, nil, "--key-file", right, "snapshots")
	cairn(2, nil, "--passphrase-file", key, "snapshots")
	cairn(2, append([]string{"CAIRN_KEY_FILE=" + key}, inEnv...), "snapshots")
	byKey := []string{"CAIRN_KEY_FILE=" + key}
	for _, args := range [][]string{
		{"snapshots"},
		{"ls", "latest"},
		{"cat", "latest", "file"},
		{"find", "file"},
		{"stats", "--json"},
		{"status"},
		{"version"},
		{"diff", "latest", "latest"},
		{"tag", "latest", "--add", "x"},
		{"check", "--json"},
		{"cache", "list"},
		{"backup", "--dry-run", source},
		{"restore", "latest", "--in-place", filepath.Join(dir, "out")},
		{"swap", "--discard", filepath.Join(dir, "out")},
		{"delete", "latest"},
		{"undelete", "latest"},
		{"repair", "log", "--dry-run"},
		{"key", "remove", "zzzz"},
		{"backup", "--sqlite", right},
		{"backup", filepath.Join(dir, "nowhere")},
		{"--log", "x"},
		{"--passphrase", passphrase[:0]},
	} {
		cairn(anyCode, byKey, args...) // a passphrase takes longer
	}
	// Commands that this test does not know are run as they are.
	for _, path := range leaves((&app{out: &output{}}).rootCommand()) {
		if !slices.ContainsFunc(ran, func(line string) bool { return strings.Contains(" "+line, " "+path+" ") }) {
			cairn(anyCode, byKey, strings.Fields(path)...)
		}
	}
	cairn(0, inEnv, "key", "passwd", "--new-passphrase-file", wrong)
	cairn(11, inEnv, "backup", source)

	needles := secretForms(passphrase, other, string(seed))
	p, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	identity := ""
	for line := range strings.Lines(string(p)) {
		if strings.HasPrefix(line, "AGE-SECRET-KEY-") {
			identity = strings.TrimSpace(line)
		}
	}
	if identity == "" {
		t.Fatalf("the key file holds no key:\n%s", p)
	}
	needles = append(needles, secretForms(identity, strings.ToLower(identity))...)
	look := func(where string, data []byte) {
		for _, needle := range needles {
			if bytes.Contains(data, needle) {
				t.Errorf("%s holds a secret (as %q)", where, needle)
			}
		}
	}
	look("the output", printed.Bytes())
	files := 0
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() && e.Name() == "secret" {
			return fs.SkipDir
		}
		if !e.Type().IsRegular() {
			return nil
		}
		data, err := os.ReadFile(path)
		files++
		look(path, data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 8 {
		t.Errorf("only %d files were looked at", files)
	}
}

// leaves returns the commands that hold no others, as "key list".
func leaves(cmd *cobra.Command) []string {
	var found []string
	for _, sub := range cmd.Commands() {
		if sub.HasSubCommands() {
			found = append(found, leaves(sub)...)
		} else {
			found = append(found, strings.TrimPrefix(sub.CommandPath(), "cairn "))
		}
	}
	return found
}

// secretForms returns what a secret looks like where it leaks.
func secretForms(secrets ...string) [][]byte {
	var forms [][]byte
	for _, s := range secrets {
		forms = append(forms, []byte(s), []byte(hex.EncodeToString([]byte(s))), []byte(base64.StdEncoding.EncodeToString([]byte(s))[:20]))
	}
	return forms
}

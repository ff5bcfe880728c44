package engine_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/backend/mem"
	"github.com/cairn-backup/cairn/backend/retry"
	"github.com/cairn-backup/cairn/engine"
)

// sshKeyPair writes an SSH private key and returns its path and the line of its
// public half.
func sshKeyPair(t *testing.T) (path, public string) {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(t.TempDir(), "id_ed25519")
	if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	line, err := ssh.NewPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return path, string(ssh.MarshalAuthorizedKey(line))
}

// TestKeys adds every kind of key, opens by each, and changes a passphrase as
// the command line does.
func TestKeys(t *testing.T) {
	ctx, b := t.Context(), new(mem.Backend)
	dir := t.TempDir()
	opens := func(s engine.Secret) error {
		r, err := engine.Open(ctx, b, s, engine.Options{})
		if err == nil {
			err = r.Close()
		}
		return err
	}
	if err := engine.Init(ctx, b, engine.Passphrase("first"), engine.InitOptions{}); err != nil {
		t.Fatal(err)
	}
	r, err := engine.Open(ctx, b, engine.Passphrase("first"), engine.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}()
	shell, shellPublic := sshKeyPair(t)
	other, otherPublic := sshKeyPair(t)
	for _, name := range []string{"a", "b"} {
		if err := engine.NewKeyFile(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(filepath.Join(dir, "b"))
	if err != nil {
		t.Fatal(err)
	}
	_, recipient, _ := strings.Cut(string(text), "# public key: ")
	recipient, _, _ = strings.Cut(recipient, "\n")
	ids := map[string]string{}
	for _, k := range []struct {
		label    string
		add, use engine.Secret
	}{
		{"second", engine.Passphrase("second"), engine.Passphrase("second")},
		{"a", engine.KeyFile(filepath.Join(dir, "a")), engine.KeyFile(filepath.Join(dir, "a"))},
		{"b", engine.PublicKey(recipient), engine.KeyFile(filepath.Join(dir, "b"))},
		{"shell", engine.SSHKey(shell), engine.SSHKey(shell)},
		{"other", engine.PublicKey(otherPublic), engine.SSHKey(other)},
	} {
		if err := opens(k.use); !errors.Is(err, engine.ErrWrongKey) {
			t.Errorf("%s opens before it was added: %v", k.label, err)
		}
		if ids[k.label], err = r.AddKey(ctx, k.add, k.label); err != nil {
			t.Fatalf("AddKey(%s) = %v", k.label, err)
		}
		if err := opens(k.use); err != nil {
			t.Errorf("%s does not open: %v", k.label, err)
		}
	}
	types := map[string]string{}
	for k, err := range r.Keys(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		types[k.Label] = k.Type
	}
	if got, want := fmt.Sprint(types), "map[a:x25519 b:x25519 first:passphrase other:ssh second:passphrase shell:ssh]"; got != want {
		t.Errorf("Keys() = %s, want %s", got, want)
	}
	if err := r.RemoveKey(ctx, ids["second"]); err != nil {
		t.Fatal(err)
	}
	if err := opens(engine.Passphrase("second")); !errors.Is(err, engine.ErrWrongKey) {
		t.Errorf("a key that was removed: %v", err)
	}
	public := engine.PublicKey(shellPublic)
	for name, err := range map[string]error{
		"Open":            opens(public),
		"Init":            engine.Init(ctx, new(mem.Backend), public, engine.InitOptions{}),
		"Init of nil":     engine.Init(ctx, new(mem.Backend), nil, engine.InitOptions{}),
		"AddKey of nil":   second(r.AddKey(ctx, nil, "")),
		"AddKey of ''":    second(r.AddKey(ctx, engine.Passphrase(""), "")),
		"AddKey of ECDSA": second(r.AddKey(ctx, engine.PublicKey("ecdsa-sha2-nistp256 AAAA"), "")),
	} {
		if !errors.Is(err, engine.ErrNoSecret) {
			t.Errorf("%s = %v", name, err)
		}
	}
}

func second(_ string, err error) error { return err }

// A hookedStore does something before an object is deleted or behind one that is
// put.
type hookedStore struct {
	backend.Backend
	before func(key backend.Key)
	behind func(key backend.Key, err error) error
}

func (b *hookedStore) Delete(ctx context.Context, key backend.Key) error {
	b.before(key)
	return b.Backend.Delete(ctx, key)
}

func (b *hookedStore) Put(ctx context.Context, key backend.Key, data []byte) error {
	return b.behind(key, b.Backend.Put(ctx, key, data))
}

// TestRemoveLastKeys: two who remove each another of the last two slots at once
// leave one of them.
func TestRemoveLastKeys(t *testing.T) {
	ctx, b := t.Context(), new(mem.Backend)
	if err := engine.Init(ctx, b, secret, engine.InitOptions{}); err != nil {
		t.Fatal(err)
	}
	other := open(t, b, engine.Options{})
	second, err := other.AddKey(ctx, engine.Passphrase("second"), "")
	if err != nil {
		t.Fatal(err)
	}
	var otherErr error
	hooked := &hookedStore{Backend: b, behind: func(_ backend.Key, err error) error { return err }}
	hooked.before = func(backend.Key) { otherErr = other.RemoveKey(ctx, second) }
	r := open(t, hooked, engine.Options{})
	var first string
	for slot, err := range r.Keys(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		if slot.ID != second {
			first = slot.ID
		}
	}
	if err := r.RemoveKey(ctx, first); !errors.Is(err, engine.ErrLastKey) || otherErr != nil {
		t.Errorf("RemoveKey = %v and %v, want ErrLastKey and nil", err, otherErr)
	}
	open(t, b, engine.Options{})
}

// TestSeenIsNotDurable: a config or a slot whose Put failed is not taken for
// stored since it can be seen, but once the store says that it exists.
func TestSeenIsNotDurable(t *testing.T) {
	ctx := t.Context()
	once := retry.Policy{Tries: 1}
	for _, lost := range []bool{true, false} {
		puts := 0
		b := &hookedStore{Backend: new(mem.Backend), behind: func(_ backend.Key, err error) error { return err }}
		failing := func(prefix string) func(backend.Key, error) error {
			return func(key backend.Key, err error) error {
				if !strings.HasPrefix(string(key), prefix) {
					return err
				}
				if puts++; puts == 1 || !lost { // a reply that was lost, or a disk that does not keep it
					return fmt.Errorf("fsync: %w", backend.ErrUnknownOutcome)
				}
				return err
			}
		}
		b.behind = failing("config")
		err := engine.Init(ctx, b, secret, engine.InitOptions{Retry: once})
		if (err == nil) != lost || !lost && !errors.Is(err, engine.ErrUnknownOutcome) {
			t.Errorf("Init = %v", err)
		}
		puts = 0
		b.behind = failing("keys/")
		r := open(t, b, engine.Options{Retry: once})
		if _, err = r.AddKey(ctx, engine.Passphrase("second"), ""); (err == nil) != lost || !lost && !errors.Is(err, engine.ErrUnknownOutcome) {
			t.Errorf("AddKey = %v", err)
		}
	}
}

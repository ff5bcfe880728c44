package keys

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
	"golang.org/x/crypto/ssh"

	"github.com/cairn-backup/cairn/chunk/seal"
)

// writeSSH writes a private key as ssh-keygen does, and returns its path and
// the line of the public half.
func writeSSH(t *testing.T, key crypto.Signer, passphrase string) (path, public string) {
	t.Helper()
	block, err := ssh.MarshalPrivateKey(key, "ann@host")
	if passphrase != "" {
		block, err = ssh.MarshalPrivateKeyWithPassphrase(key, "ann@host", []byte(passphrase))
	}
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(t.TempDir(), "id")
	if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	pub, err := ssh.NewPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return path, strings.TrimSpace(string(ssh.MarshalAuthorizedKey(pub))) + " ann@host\n"
}

func newEd25519(t *testing.T) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newRSA(t *testing.T) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func must(t *testing.T) func(Secret, error) Secret {
	return func(s Secret, err error) Secret {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
}

// TestSlots seals a slot for each kind of secret and opens it with every one.
func TestSlots(t *testing.T) {
	native, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	ed, edPublic := writeSSH(t, newEd25519(t), "")
	rs, rsPublic := writeSSH(t, newRSA(t), "")
	keyFile := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(keyFile, []byte(native.String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ok := must(t)
	openers := map[string]Secret{
		"passphrase": ok(Passphrase("open sesame")),
		"key file":   ok(File(keyFile)),
		"ed25519":    ok(SSHFile(ed)),
		"rsa":        ok(SSHFile(rs)),
		"other":      ok(SSHFile(first(writeSSH(t, newEd25519(t), "")))),
	}
	wrappers := []struct {
		name, opener, slotType string
		secret                 Secret
	}{
		{"passphrase", "passphrase", TypePassphrase, openers["passphrase"]},
		{"key file", "key file", TypeX25519, openers["key file"]},
		{"age1", "key file", TypeX25519, ok(PublicKey(" " + native.Recipient().String() + "\n"))},
		{"ed25519", "ed25519", TypeSSH, openers["ed25519"]},
		{"ssh-ed25519", "ed25519", TypeSSH, ok(PublicKey(edPublic))},
		{"rsa", "rsa", TypeSSH, openers["rsa"]},
		{"ssh-rsa", "rsa", TypeSSH, ok(PublicKey(`command="x",no-pty ` + rsPublic))}, // as in authorized_keys
	}
	root, err := NewRoot()
	if err != nil {
		t.Fatal(err)
	}
	id := RepositoryID{1, 2, 3}
	for _, w := range wrappers {
		t.Run(w.name, func(t *testing.T) {
			_, object, err := SealSlot(root, id, w.secret, "label")
			if err != nil {
				t.Fatal(err)
			}
			slot, _, err := ReadSlot(object)
			if err != nil || slot.Type != w.slotType || slot.Label != "label" || slot.Repository != id {
				t.Errorf("ReadSlot() = %+v, %v", slot, err)
			}
			for name, s := range openers {
				got, err := OpenSlot(object, id, s)
				fits := name == w.opener
				if fits && (err != nil || got != root || !s.Fits(slot.Type)) || !fits && (got != Root{} || !errors.Is(err, ErrWrongKey)) {
					t.Errorf("OpenSlot with %s: %v", name, err)
				}
			}
			if w.secret.CanOpen() != nil {
				if _, err := OpenSlot(object, id, w.secret); !errors.Is(err, ErrNoSecret) || errors.Is(err, seal.ErrDamaged) {
					t.Errorf("OpenSlot with the public key = %v", err)
				}
			}
		})
	}
}

func first(path, _ string) string { return path }

// TestMixedIdentities opens slots of both types by identities of both, and
// makes slots of one recipient's type only.
func TestMixedIdentities(t *testing.T) {
	native, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	ok := must(t)
	shell := ok(SSHFile(first(writeSSH(t, newEd25519(t), ""))))
	both := ok(Identities([]age.Identity{shell.identities[0], native}))
	if !both.Fits(TypeX25519) || !both.Fits(TypeSSH) || both.Fits(TypePassphrase) || both.slotType != TypeX25519 || len(both.recipients) != 1 {
		t.Errorf("both: %v %q %d", both.opens, both.slotType, len(both.recipients))
	}
	_, object, err := SealSlot(Root{1}, RepositoryID{}, shell, "")
	if err != nil {
		t.Fatal(err)
	}
	if root, err := OpenSlot(object, RepositoryID{}, both); err != nil || root != (Root{1}) {
		t.Errorf("OpenSlot() = %v", err)
	}
}

// TestRefusedKeys gives what is no usable key. No error shows any of it.
func TestRefusedKeys(t *testing.T) {
	small, err := rsa.GenerateKey(rand.Reader, 1024) //nolint:gosec // refused
	if err != nil {
		t.Skip("no small RSA keys: ", err)
	}
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	native, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	write := func(text string) string {
		path := filepath.Join(t.TempDir(), "id")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	read := func(path string) string {
		p, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(p)
	}
	locked, lockedPublic := writeSSH(t, newEd25519(t), "secret words")
	private, _ := writeSSH(t, newEd25519(t), "")
	smallFile, smallPublic := writeSSH(t, small, "")
	curveFile, curvePublic := writeSSH(t, curve, "")
	file := func(path string) func() (Secret, error) { return func() (Secret, error) { return SSHFile(path) } }
	public := func(text string) func() (Secret, error) { return func() (Secret, error) { return PublicKey(text) } }
	const marker = "QUOTED"
	for _, tt := range []struct {
		name string
		make func() (Secret, error)
		say  string
	}{
		{"protected", file(locked), "passphrase"},
		{"the public half", file(write(lockedPublic)), ".pub"},
		{"small RSA", file(smallFile), "2048"},
		{"ECDSA", file(curveFile), "ecdsa-sha2-nistp256"},
		{"no key", file(write(marker)), "not an SSH private key"},
		{"age key as SSH key", file(write(native.String())), "not an SSH private key"},
		{"cut off", file(write(read(private)[:200] + marker)), "not an SSH private key"},
		{"empty", public(""), "want age1"},
		{"nonsense", public(marker), "want age1"},
		{"private age key", public(native.String()), "private"},
		{"private SSH key", public(read(private)), "private"},
		{"mistyped recipient", public(native.Recipient().String() + "q"), "X25519"},
		{"plugin recipient", public("age1yubikey1qqqqqqqqqqqq"), "X25519"},
		{"two lines", public(lockedPublic + lockedPublic), "one key"},
		{"small public RSA", public(smallPublic), "2048"},
		{"public ECDSA", public(curvePublic), "ecdsa-sha2-nistp256"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, err := tt.make()
			if !errors.Is(err, ErrNoSecret) || !strings.Contains(err.Error(), tt.say) {
				t.Errorf("error %v, want %q in it", err, tt.say)
			}
			text := fmt.Sprint(err)
			if strings.Contains(text, marker) || strings.Contains(text, "AGE-SECRET-KEY-1") || strings.Contains(text, "PRIVATE KEY") {
				t.Errorf("the error shows what it was given: %v", err)
			}
			if got := fmt.Sprintf("%v %+v %#v %s", s, s, s, s); strings.Count(got, redacted) != 4 {
				t.Errorf("a secret prints as %s", got)
			}
		})
	}
	if _, err := SSHFile(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is missing: %v", err)
	}
}

func FuzzPublicKey(f *testing.F) {
	f.Add("age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p")
	f.Add("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA x")
	f.Add(`from="*" ssh-rsa AAAA`)
	f.Fuzz(func(t *testing.T, text string) {
		s, err := PublicKey(text)
		if err != nil && !errors.Is(err, ErrNoSecret) {
			t.Errorf("PublicKey(%q) = %v", text, err)
		}
		if err == nil && (s.CanOpen() == nil || len(s.recipients) != 1) {
			t.Errorf("PublicKey(%q) opens", text)
		}
	})
}

func FuzzReadSlot(f *testing.F) {
	s, err := Passphrase("x")
	if err != nil {
		f.Fatal(err)
	}
	_, object, err := SealSlot(Root{}, RepositoryID{}, s, "l")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(object)
	f.Fuzz(func(t *testing.T, object []byte) {
		slot, file, err := ReadSlot(object)
		if err == nil && (len(file) >= len(object) || slot.LogN > 63) {
			t.Errorf("ReadSlot() = %+v, %d of %d bytes", slot, len(file), len(object))
		}
	})
}

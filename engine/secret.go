package engine

import (
	"context"
	"fmt"
	"io"

	"filippo.io/age"

	"github.com/cairn-backup/cairn/engine/internal/keys"
)

// A Secret opens a repository. It is made by Passphrase, KeyFile, SSHKey,
// Identity or PublicKey, and never shows what it holds.
type Secret interface {
	// secret returns how the secret opens and makes slots.
	secret(ctx context.Context) (keys.Secret, error)
}

type secretFunc func(ctx context.Context) (keys.Secret, error)

func (f secretFunc) secret(ctx context.Context) (keys.Secret, error) { return f(ctx) }

// String shows nothing of the secret.
func (f secretFunc) String() string { return "engine.Secret(redacted)" }

// Format shows nothing of the secret, whatever the verb.
func (f secretFunc) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, f.String()) } // fmt has no way to report it

// Passphrase opens by a passphrase, stretched by scrypt with N = 2^16: 64 MiB
// and 0.2 CPU seconds an attempt. An empty one is refused by Init and Open.
func Passphrase(p string) Secret {
	return secretFunc(func(context.Context) (keys.Secret, error) { return keys.Passphrase(p) })
}

// KeyFile opens by the age identities in the file at path, read at Open. It
// needs no stretching. See NewKeyFile.
func KeyFile(path string) Secret {
	return secretFunc(func(context.Context) (keys.Secret, error) { return keys.File(path) })
}

// SSHKey opens by the SSH private key in the file at path, read at Open: Ed25519,
// or RSA of at least 2,048 bits. One that is protected by a passphrase is
// refused with ErrNoSecret, since nobody may be there to ask. The store sees a
// hash of the public key, 32 bits, in the slot.
func SSHKey(path string) Secret {
	return secretFunc(func(context.Context) (keys.Secret, error) { return keys.SSHFile(path) })
}

// PublicKey is for AddKey: it lets whoever has the private key open the
// repository. The text is an age recipient (age1...) or one line as in an SSH
// .pub file (ssh-ed25519 ..., ssh-rsa ...). Init and Open refuse it with
// ErrNoSecret.
func PublicKey(text string) Secret {
	return secretFunc(func(context.Context) (keys.Secret, error) { return keys.PublicKey(text) })
}

// Identity opens by age identities: those of X25519, those of package agessh,
// and others, which can open slots and not make them. Init needs at least one
// that can.
func Identity(ids ...age.Identity) Secret {
	return secretFunc(func(context.Context) (keys.Secret, error) { return keys.Identities(ids) })
}

// NewKeyFile writes a new random key to path, with mode 0600, durably, and
// never over an existing file. Whoever has the file opens every repository
// that was made with it: copy it to a safe place.
func NewKeyFile(path string) error { return keys.NewFile(path) }

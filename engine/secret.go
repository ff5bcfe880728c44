package engine

import (
	"context"
	"fmt"
	"io"

	"filippo.io/age"

	"github.com/cairn-backup/cairn/engine/internal/keys"
)

// A Secret opens a repository. It is made by Passphrase, KeyFile or Identity
// and never shows what it holds.
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

// Identity opens by age identities. Init needs at least one X25519 identity,
// since it wraps the repository's key for it.
func Identity(ids ...age.Identity) Secret {
	return secretFunc(func(context.Context) (keys.Secret, error) { return keys.Identities(ids) })
}

// NewKeyFile writes a new random key to path, with mode 0600, durably, and
// never over an existing file. Whoever has the file opens every repository
// that was made with it: copy it to a safe place.
func NewKeyFile(path string) error { return keys.NewFile(path) }

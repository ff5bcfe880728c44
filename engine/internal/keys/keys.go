// Package keys holds what opens a repository: the repository key, the keys
// derived from it, the slots that wrap it for one recipient each, and the
// config object.
package keys

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/zeebo/blake3"

	"github.com/cairn-backup/cairn/chunk"
	"github.com/cairn-backup/cairn/chunk/seal"
)

// ErrWrongKey says that no slot opened with the secret that was given.
var ErrWrongKey = errors.New("wrong passphrase or key")

// ErrNoSecret says that a secret is empty or holds nothing usable.
var ErrNoSecret = errors.New("no usable secret")

const redacted = "keys(redacted)"

// Root is the repository key: 32 random bytes from which every other key is
// derived. It never prints itself.
type Root [32]byte

// NewRoot draws a repository key.
func NewRoot() (Root, error) {
	var r Root
	_, err := rand.Read(r[:])
	return r, err
}

// String shows nothing of the key.
func (Root) String() string { return redacted }

// Format shows nothing of the key, whatever the verb.
func (Root) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) } // fmt has no way to report it

// LogValue shows nothing of the key.
func (Root) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText shows nothing of the key.
func (Root) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// MarshalCBOR refuses: a key that is to be stored is named byte by byte.
func (Root) MarshalCBOR() ([]byte, error) { return nil, errors.New("keys: a key is not to be encoded") }

// Set is the keys that are derived from one Root.
type Set struct {
	root   Root
	Chunk  chunk.Key // chunk IDs and the splitter's polynomial
	Meta   seal.Key  // log, checkpoints, segments, config
	signer [3][32]byte
}

// Derive derives the keys of root: BLAKE3 in derive-key mode, one context a
// key. The contexts are part of format 1.
func Derive(root Root) *Set {
	s := &Set{root: root}
	blake3.DeriveKey("cairn v1 2026 id", root[:], s.Chunk[:])
	blake3.DeriveKey("cairn v1 2026 meta", root[:], s.Meta[:])
	for i, role := range [...]string{"admin", "keeper", "writer"} {
		blake3.DeriveKey("cairn v1 2026 sign "+role, root[:], s.signer[i][:])
	}
	return s
}

// String shows nothing of the keys.
func (*Set) String() string { return redacted }

// Format shows nothing of the keys, whatever the verb.
func (*Set) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) } // fmt has no way to report it

// Root returns the repository key.
func (s *Set) Root() Root { return s.root }

// Data returns the key of the data and metadata packs of one generation.
func (s *Set) Data(generation uint32) seal.Key {
	var k seal.Key
	material := binary.LittleEndian.AppendUint32(append([]byte(nil), s.root[:]...), generation)
	blake3.DeriveKey("cairn v1 2026 data", material, k[:])
	return k
}

// Seed is the Ed25519 seed of one role.
type Seed [32]byte

// String shows nothing of the key.
func (Seed) String() string { return redacted }

// Format shows nothing of the key, whatever the verb.
func (Seed) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) } // fmt has no way to report it

// LogValue shows nothing of the key.
func (Seed) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText shows nothing of the key.
func (Seed) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// MarshalCBOR refuses: a key that is to be stored is named byte by byte.
func (Seed) MarshalCBOR() ([]byte, error) { return nil, errors.New("keys: a key is not to be encoded") }

// Public returns the public key that belongs to s.
func (s Seed) Public() [32]byte {
	return [32]byte(ed25519.NewKeyFromSeed(s[:]).Public().(ed25519.PublicKey)) //nolint:errcheck // ed25519 documents the type
}

// Admin returns the seed that signs as admin, keeper and writer at once.
func (s *Set) Admin() Seed { return s.signer[0] }

// Keeper returns the seed that signs as keeper.
func (s *Set) Keeper() Seed { return s.signer[1] }

// Writer returns the seed that signs as writer.
func (s *Set) Writer() Seed { return s.signer[2] }

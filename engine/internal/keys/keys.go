// Package keys holds what opens a repository: the repository key, the keys
// derived from it, the slots that wrap it for one recipient each, and the
// config object.
package keys

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"errors"

	"github.com/zeebo/blake3"

	"github.com/cairn-backup/cairn/chunk"
	"github.com/cairn-backup/cairn/chunk/seal"
)

// ErrWrongKey says that no slot opened with the secret that was given.
var ErrWrongKey = errors.New("wrong passphrase or key")

// ErrNoSecret says that a secret is empty or holds nothing usable.
var ErrNoSecret = errors.New("no usable secret")

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
func (Root) String() string { return "keys.Root(redacted)" }

// GoString shows nothing of the key.
func (r Root) GoString() string { return r.String() }

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
func (*Set) String() string { return "keys.Set(redacted)" }

// GoString shows nothing of the keys.
func (s *Set) GoString() string { return s.String() }

// Data returns the key of the data and metadata packs of one generation.
func (s *Set) Data(generation uint32) seal.Key {
	var k seal.Key
	material := binary.LittleEndian.AppendUint32(append([]byte(nil), s.root[:]...), generation)
	blake3.DeriveKey("cairn v1 2026 data", material, k[:])
	return k
}

// Seed is the Ed25519 seed of one role.
type Seed [32]byte

// String shows nothing of the seed.
func (Seed) String() string { return "keys.Seed(redacted)" }

// GoString shows nothing of the seed.
func (s Seed) GoString() string { return s.String() }

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

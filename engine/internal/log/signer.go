package log

import (
	"crypto/ed25519"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/zeebo/blake3"
)

// A Hash is the BLAKE3-256 of a stored object, all of its bytes.
type Hash [32]byte

// HashOf returns the hash of a stored object.
func HashOf(object []byte) Hash { return blake3.Sum256(object) }

// String returns 64 hexadecimal digits.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// IsZero reports whether h is the zero Hash, which no object has.
func (h Hash) IsZero() bool { return h == Hash{} }

func (h Hash) short() string { return hex.EncodeToString(h[:4]) }

// A Position is a place in one history of the log: a record and its hash.
// Position 0 is the config.
type Position struct {
	N    uint64
	Hash Hash
}

// A Role says what the records of a signing key may do. Roles are combined
// with |.
type Role uint8

// The roles.
const (
	Writer Role = 1 << iota // add packs, commit snapshots, run sessions
	Keeper                  // doom, forget, undelete, end
	Admin                   // everything, keys and features included

	allRoles = Writer | Keeper | Admin
)

// any reports whether r has one of need, or is admin.
func (r Role) any(need Role) bool { return r&(need|Admin) != 0 }

// String returns the roles, such as "writer+keeper".
func (r Role) String() string {
	var names []string
	for i, name := range [...]string{"writer", "keeper", "admin"} {
		if r&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return "without a role"
	}
	return strings.Join(names, "+")
}

// Keys are the public signing keys that the config names.
type Keys struct{ Admin, Keeper, Writer [32]byte }

func (k Keys) has(public [32]byte) bool {
	return public == k.Admin || public == k.Keeper || public == k.Writer
}

// A Signer signs records and checkpoints; NewSigner makes one. It prints
// nothing of its key and is safe for concurrent use.
type Signer struct {
	private ed25519.PrivateKey
	roles   Role
}

// NewSigner returns the signer of an Ed25519 seed. Roles is what it is to be
// used for; what it may do is for the log to say, and the narrower counts.
func NewSigner(seed [32]byte, roles Role) *Signer {
	return &Signer{private: ed25519.NewKeyFromSeed(seed[:]), roles: roles}
}

// Public returns the public key.
func (s Signer) Public() [32]byte {
	return [32]byte(s.private[ed25519.SeedSize:]) // the layout is documented by ed25519
}

// Roles returns the roles given to NewSigner.
func (s Signer) Roles() Role { return s.roles }

// Format shows nothing of the key, whatever the verb.
func (s Signer) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) } // as fmt does

// String shows nothing of the key.
func (Signer) String() string { return "log.Signer(redacted)" }

// LogValue shows nothing of the key.
func (s Signer) LogValue() slog.Value { return slog.StringValue(s.String()) }

func (s Signer) sign(message []byte) [64]byte {
	return [64]byte(ed25519.Sign(s.private, message))
}

func verify(public [32]byte, signature [64]byte, message []byte) bool {
	return ed25519.Verify(public[:], message, signature[:])
}

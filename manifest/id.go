package manifest

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
)

// An ID names one snapshot. It is random, so it is unique without asking
// anyone; the zero ID names none.
type ID [16]byte

// NewID draws a fresh ID from the system's random source.
func NewID() ID {
	var id ID
	_, _ = rand.Read(id[:]) // never returns an error, by its contract since Go 1.24
	return id
}

// ParseID reads what String writes: 32 hexadecimal digits, lower case.
// Anything else is an ErrInvalid.
func ParseID(s string) (ID, error) {
	var id ID
	if len(s) != hex.EncodedLen(len(id)) {
		return ID{}, fmt.Errorf("snapshot id of %d digits, want %d: %w", len(s), hex.EncodedLen(len(id)), ErrInvalid)
	}
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return ID{}, fmt.Errorf("snapshot id holds %q, want lower-case hexadecimal digits: %w", c, ErrInvalid)
		}
	}
	if _, err := hex.Decode(id[:], []byte(s)); err != nil {
		return ID{}, fmt.Errorf("snapshot id %q: %w", s, ErrInvalid)
	}
	return id, nil
}

// String returns the ID as 32 lower-case hexadecimal digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// Short returns the first 8 digits of String, for people to read.
func (id ID) Short() string { return id.String()[:8] }

// IsZero reports whether id names no snapshot.
func (id ID) IsZero() bool { return id == ID{} }

// MarshalText returns what String does.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads what MarshalText writes; see ParseID.
func (id *ID) UnmarshalText(p []byte) error {
	v, err := ParseID(string(p))
	if err != nil {
		return err
	}
	*id = v
	return nil
}

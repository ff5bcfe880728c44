package chunk

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
)

// ErrID is returned by [ParseID] and [ID.UnmarshalText] for text that is not
// exactly 64 lower-case hexadecimal digits.
var ErrID = errors.New("malformed chunk id")

// An ID names a chunk: the BLAKE3 hash of its bytes, keyed by the repository's
// [Key]. The zero ID stands for "none".
type ID [32]byte

// ParseID reads what [ID.String] wrote. It refuses upper-case digits, so that
// an ID has one spelling.
func ParseID(s string) (ID, error) {
	var id ID
	if err := id.UnmarshalText([]byte(s)); err != nil {
		return ID{}, err
	}
	return id, nil
}

// String returns the ID as 64 lower-case hexadecimal digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// Short returns the first 8 digits of String, for messages. It does not
// identify a chunk.
func (id ID) Short() string { return hex.EncodeToString(id[:4]) }

// IsZero reports whether id is the zero ID.
func (id ID) IsZero() bool { return id == ID{} }

// Compare returns -1, 0 or +1 as id sorts before, equals or sorts after other
// in byte order, which is also the order of their String forms.
func (id ID) Compare(other ID) int { return bytes.Compare(id[:], other[:]) }

// MarshalText returns the bytes of [ID.String]. It never fails.
func (id ID) MarshalText() ([]byte, error) {
	return hex.AppendEncode(nil, id[:]), nil
}

// UnmarshalText sets id from the form that MarshalText wrote, or returns an
// error that is [ErrID] and leaves id alone. It does not retain text.
func (id *ID) UnmarshalText(text []byte) error {
	if len(text) != hex.EncodedLen(len(id)) {
		return fmt.Errorf("%w: %d characters, want 64", ErrID, len(text))
	}
	var read ID
	if _, err := hex.Decode(read[:], text); err != nil {
		return fmt.Errorf("%w: %w", ErrID, err)
	}
	if bytes.ContainsAny(text, "ABCDEF") {
		return fmt.Errorf("%w: upper-case digit", ErrID)
	}
	*id = read
	return nil
}

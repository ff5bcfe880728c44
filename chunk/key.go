package chunk

import (
	"fmt"
	"io"
	"log/slog"
)

// redacted is all that printing or marshalling a Key shows.
const redacted = "chunk.Key(redacted)"

// A Key is the secret from which a repository's chunk IDs and its polynomial
// come. Printed, logged or marshalled as text by itself or as an exported
// field, it shows a placeholder. Package fmt calls no methods on unexported
// fields: a struct that holds a Key in one must not be printed with %v.
type Key [32]byte

var (
	_ fmt.Formatter  = Key{}
	_ slog.LogValuer = Key{}
)

// String returns a placeholder, never the key.
func (Key) String() string { return redacted }

// GoString returns a placeholder, never the key.
func (Key) GoString() string { return redacted }

// Format writes a placeholder, never the key, whatever the verb.
func (Key) Format(f fmt.State, _ rune) {
	// A fmt.State has no way to report an error; fmt keeps it itself.
	_, _ = io.WriteString(f, redacted)
}

// LogValue returns a placeholder, never the key.
func (Key) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText returns a placeholder, never the key: a key that is to be stored
// is sealed as bytes. It never fails.
func (Key) MarshalText() ([]byte, error) { return []byte(redacted), nil }

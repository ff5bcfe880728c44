package seal

import (
	"fmt"
	"io"
	"log/slog"
)

// A Key is a secret from which the keys of objects are derived. It never shows
// in what fmt, slog or encoding/json print, also as a field of a structure
// (unless that field is unexported: then fmt cannot know).
type Key [32]byte

const redacted = "[key]"

// Format prints the same word for every verb.
func (Key) Format(f fmt.State, _ rune) {
	_, _ = io.WriteString(f, redacted) // fmt keeps no errors of a State
}

// String returns a fixed word.
func (Key) String() string { return redacted }

// GoString returns a fixed word.
func (Key) GoString() string { return redacted }

// LogValue returns a fixed word.
func (Key) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText returns a fixed word, also for encoding/json; what is printed
// cannot be read back.
func (Key) MarshalText() ([]byte, error) { return []byte(redacted), nil }

package backend_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/cairn-backup/cairn/backend"
)

func TestKeyValidate(t *testing.T) {
	long := strings.Repeat("k", backend.MaxKeyLen)
	for _, c := range []struct {
		key           string
		asKey, asList bool // valid as a key, as a prefix
	}{
		{"a", true, true},
		{"-", true, true},
		{"0/1/2", true, true},
		{"log/00000000000000000001", true, true},
		{long, true, true},
		{"", false, true},
		{"a/", false, true},
		{long + "k", false, false},
		{"/", false, false},
		{"/a", false, false},
		{"a//b", false, false},
		{"a//", false, false},
		{".", false, false},
		{"..", false, false},
		{"a/../b", false, false},
		{"a.b", false, false},
		{"A", false, false},
		{"a_b", false, false},
		{"a b", false, false},
		{"a\x00", false, false},
		{"a\\b", false, false},
		{"ä", false, false},
	} {
		for call, got := range map[string]error{
			"Validate":       backend.Key(c.key).Validate(),
			"ValidatePrefix": backend.Key(c.key).ValidatePrefix(),
		} {
			want := c.asKey
			if call == "ValidatePrefix" {
				want = c.asList
			}
			if (got == nil) != want || got != nil && !errors.Is(got, backend.ErrInvalidKey) {
				t.Errorf("Key(%q).%s() = %v, want valid: %t", c.key, call, got, want)
			}
		}
	}
}

// FuzzKeyValidate checks Validate against the rules as words put them.
func FuzzKeyValidate(f *testing.F) {
	for _, s := range []string{"", "a", "a/b", "/", "a//b", "a/", "..", "A", "\x00", strings.Repeat("a/", 100)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		want := len(s) >= 1 && len(s) <= 200 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-/") == ""
		for _, r := range s {
			want = want && strings.ContainsRune("abcdefghijklmnopqrstuvwxyz0123456789-/", r)
		}
		for element := range strings.SplitSeq(s, "/") {
			want = want && element != ""
		}
		if err := backend.Key(s).Validate(); (err == nil) != want {
			t.Errorf("Key(%q).Validate() = %v, want valid: %t", s, err, want)
		}
	})
}

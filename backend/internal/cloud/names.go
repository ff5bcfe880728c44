package cloud

import (
	"fmt"
	"math"
	"strings"
)

// maxPrefix leaves room for the longest key below the 1,024 bytes of a name.
const maxPrefix = 700

// CheckPrefix refuses a prefix that some store or proxy would change.
func CheckPrefix(prefix string) error {
	if len(prefix) > maxPrefix {
		return fmt.Errorf("the prefix has %d bytes, more than %d", len(prefix), maxPrefix)
	}
	if prefix == "" {
		return nil
	}
	for part := range strings.SplitSeq(prefix, "/") {
		if part == "" || part == "." || part == ".." {
			return fmt.Errorf("prefix %q has an element that is empty or dots", prefix)
		}
		for i := range len(part) {
			if c := part[i]; !plain(c) {
				return fmt.Errorf("prefix %q has byte %q; letters, digits and -_.=@ are allowed", prefix, c)
			}
		}
	}
	return nil
}

func plain(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-_.=@", c) >= 0
}

// Range returns the header for n bytes from off on; n < 0: to the end.
func Range(off, n int64) *string {
	s := fmt.Sprintf("bytes=%d-", off)
	if n > 0 && off <= math.MaxInt64-n {
		s = fmt.Sprintf("bytes=%d-%d", off, off+n-1)
	}
	return &s
}

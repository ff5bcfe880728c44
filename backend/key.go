package backend

import (
	"fmt"
	"strings"
)

// MaxKeyLen is the length in bytes of the longest key. It leaves room below
// the 255 bytes of a file name and the 1024 of an S3 key for what a store or a
// user puts in front.
const MaxKeyLen = 200

// A Key names an object: 1 to MaxKeyLen bytes of a-z, 0-9, '-' and '/', with
// no empty element, so that every store can hold it, also one that ignores
// case, and no key can mean a place outside the store.
//
// No key may be another key plus a slash and more ("a" and "a/b"): a file
// system cannot hold such a pair. That is the caller's promise, since no store
// can check it cheaply; a store may refuse such a Put with ErrInvalidKey.
type Key string

// Validate returns an error that errors.Is finds to be ErrInvalidKey, and that
// says why, unless k is a key.
func (k Key) Validate() error {
	if k == "" {
		return fmt.Errorf("%w: empty", ErrInvalidKey)
	}
	if err := k.ValidatePrefix(); err != nil {
		return err
	}
	if strings.HasSuffix(string(k), "/") {
		return fmt.Errorf("%w: %q has an empty element", ErrInvalidKey, k)
	}
	return nil
}

// ValidatePrefix is as Validate for the argument of List: k may also be empty
// or end in a slash.
func (k Key) ValidatePrefix() error {
	if len(k) > MaxKeyLen {
		return fmt.Errorf("%w: %d bytes, more than %d", ErrInvalidKey, len(k), MaxKeyLen)
	}
	for i := range len(k) {
		if c := k[i]; !validByte(c) {
			return fmt.Errorf("%w: %q has byte %q", ErrInvalidKey, k, c)
		}
	}
	if strings.HasPrefix(string(k), "/") || strings.Contains(string(k), "//") {
		return fmt.Errorf("%w: %q has an empty element", ErrInvalidKey, k)
	}
	return nil
}

// validByte excludes the dot, so an element that is "." or ".." cannot be
// written down and a store may keep files of its own behind one.
func validByte(c byte) bool {
	return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '/'
}

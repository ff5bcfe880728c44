// Package pages knows which pages of a file changed since its last backup: by
// fingerprints in a file of the cache, and by what becomes of the patches of a
// group.
package pages

import (
	"crypto/aes"
	"crypto/cipher"

	"github.com/zeebo/blake3"

	"github.com/cairn-backup/cairn/chunk"
)

const (
	// Group is how many bytes of a file have one chunk.
	Group = 64 << 10

	// printSize is the length of a fingerprint in bytes.
	//
	// A page that changed and has the old fingerprint would be stored as it was, in
	// this and every later backup, and nothing would tell. For two pages of n
	// blocks of 16 bytes the chance is at most (n+1)/2^96, below 2^-89 for 1 KiB: over
	// a PiB of changed pages 2^-49. With 8 bytes it would be 2^-17: see
	// docs/adr/0007-page-profile.md.
	printSize = 12
)

// A Printer makes fingerprints. It is for one goroutine.
//
// A fingerprint is the first bytes of GHASH of the page, under a key that is
// derived from the repository's, and whitened: what AES-GCM gives for
// additional data alone under one key and nonce. That is a universal hash: whoever
// does not know the key, and sees no fingerprint, finds no two pages of one
// fingerprint but by the chance above. So fingerprints are kept sealed, and nonce
// and key serve nothing else. BLAKE3 hashes pages of 1 KiB four to seven times
// slower, since it has nothing to do in parallel there.
type Printer struct {
	hash  func(dst, page []byte) []byte // a closure, so that no key is printed
	space []byte
}

// NewPrinter returns the Printer of the repository whose chunk key is given.
func NewPrinter(key chunk.Key) (*Printer, error) {
	var k [32]byte
	blake3.DeriveKey("cairn v1 2026 page fingerprints", key[:], k[:])
	block, err := aes.NewCipher(k[:])
	clear(k[:])
	if err != nil {
		return nil, err
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	nonce := make([]byte, gcm.NonceSize())
	return &Printer{hash: func(dst, page []byte) []byte { return gcm.Seal(dst, nonce, nil, page) }}, nil
}

// Prints appends the fingerprints of a group's pages, of grain bytes each; the
// last may be shorter.
func (p *Printer) Prints(dst, group []byte, grain int) []byte {
	for len(group) > 0 {
		n := min(grain, len(group))
		p.space = p.hash(p.space[:0], group[:n])
		dst = append(dst, p.space[:printSize]...)
		group = group[n:]
	}
	return dst
}

// Changed reports in changed, by page, where the fingerprints a and b differ.
// Both are of len(changed) pages, or it reports false.
func Changed(changed []bool, a, b []byte) bool {
	if len(a) != len(b) || len(a) != printSize*len(changed) {
		return false
	}
	for i := range changed {
		changed[i] = string(a[i*printSize:(i+1)*printSize]) != string(b[i*printSize:(i+1)*printSize])
	}
	return true
}

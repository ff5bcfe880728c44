package chunk

import (
	"errors"
	"fmt"
	"math/bits"

	"github.com/restic/chunker"
	"github.com/zeebo/blake3"
)

// polContext separates the polynomial from everything else that is derived
// from a Key. It is part of the format: another context is other boundaries.
const polContext = "cairn v1 2026 chunk polynomial"

// ErrPolynomial is returned by [NewSplitter] for a polynomial whose degree is
// not in 8..53.
var ErrPolynomial = errors.New("unusable chunk polynomial")

// A Pol is a polynomial over GF(2), bit i being the coefficient of x^i. It
// decides together with a [Profile] where streams are cut, and is as secret as
// the [Key] it comes from.
type Pol uint64

// DerivePolynomial returns the irreducible polynomial of degree 53 that belongs
// to key. One key gives one polynomial for ever: it is the first irreducible
// one that restic/chunker's DerivePolynomial finds in the output of BLAKE3's
// key derivation from key. It takes some milliseconds, so it is called once
// for a repository and not once for a stream.
func DerivePolynomial(key Key) (Pol, error) {
	h := blake3.NewDeriveKey(polContext)
	_, _ = h.Write(key[:]) // documented never to fail
	pol, err := chunker.DerivePolynomial(h.Digest())
	if err != nil {
		return 0, fmt.Errorf("derive chunk polynomial: %w", err)
	}
	return Pol(pol), nil
}

// deg returns the degree of p, and -1 for 0.
func (p Pol) deg() int { return bits.Len64(uint64(p)) - 1 }

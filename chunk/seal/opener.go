package seal

import "fmt"

// An Opener opens the parts of one object. It is safe for concurrent use.
type Opener struct {
	parts parts
}

// NewOpener returns the Opener of the object whose clear header is h. It does
// not keep key. A wrong key, a wrong binding and a changed header all show as
// ErrDamaged from Open.
func NewOpener(key Key, h Header, b Binding) (*Opener, error) {
	if err := h.valid(); err != nil {
		return nil, fmt.Errorf("open %v: %w", h.Kind, err)
	}
	p, err := newParts(key, h, b)
	if err != nil {
		return nil, fmt.Errorf("open %v: %w", h.Kind, err)
	}
	return &Opener{parts: p}, nil
}

// Open authenticates a part, decrypts it and appends the plaintext to dst. It
// returns ErrDamaged, and dst as it was, if the part is not what was sealed
// under this number and flag. sealed must not overlap the spare capacity of
// dst, or must begin exactly there: then it is decrypted in place.
func (o *Opener) Open(dst, sealed []byte, number uint64, last Last) ([]byte, error) {
	return o.parts.open(dst, sealed, number, last)
}

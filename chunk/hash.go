package chunk

import "github.com/zeebo/blake3"

// A Hasher computes chunk IDs under one key. It is not safe for concurrent
// use: each worker has its own, and keeps it, since making one costs more than
// hashing a small chunk.
type Hasher struct {
	h   *blake3.Hasher
	sum [32]byte // here and not on the stack, where it would escape on every call
}

// NewHasher returns a Hasher for key.
func NewHasher(key Key) *Hasher {
	h, err := blake3.NewKeyed(key[:])
	if err != nil {
		panic("chunk: blake3 refuses a key of 32 bytes: " + err.Error())
	}
	return &Hasher{h: h}
}

// Sum returns the ID of the chunk p, which may be empty. It does not retain p
// and does not allocate.
func (h *Hasher) Sum(p []byte) ID {
	h.h.Reset()
	_, _ = h.h.Write(p) // documented never to fail
	h.h.Sum(h.sum[:0])
	return h.sum
}

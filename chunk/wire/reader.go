package wire

import (
	"encoding/binary"
	"fmt"
	"time"
)

// A Reader takes binary values from the front of a byte slice. The first error
// sticks: every later call returns a zero value, so a decoder reads a whole
// structure and asks Err or Done once. Loops over a count that was read end by
// themselves, since a count is checked against the bytes that are left.
//
// A Reader is for one goroutine.
type Reader struct {
	rest []byte
	size int // bytes at the start, for positions in errors
	err  error
}

// NewReader returns a Reader over p, which it aliases.
func NewReader(p []byte) *Reader {
	return &Reader{rest: p, size: len(p)}
}

// Uvarint reads a LEB128 integer of at most limit. A longer form than the value
// needs is an error, so that every value has one encoding.
func (r *Reader) Uvarint(limit uint64) uint64 {
	if r.err != nil {
		return 0
	}
	v, n := binary.Uvarint(r.rest)
	switch {
	case n == 0:
		r.Fail("uvarint is cut off")
	case n < 0:
		r.Fail("uvarint of more than 64 bits")
	case n > 1 && r.rest[n-1] == 0:
		r.Fail("uvarint is longer than needed")
	case v > limit:
		r.Fail(fmt.Sprintf("%d is more than %d", v, limit))
	default:
		r.rest = r.rest[n:]
		return v
	}
	return 0
}

// Count reads the number of items that follow: a uvarint of at most limit, and
// of at most as many items as fit in the bytes that are left if each takes at
// least size bytes (size >= 1). What it returns is safe to allocate for.
func (r *Reader) Count(limit, size int) int {
	n := r.Uvarint(uint64(max(limit, 0)))
	if r.err == nil && n > uint64(len(r.rest)/max(size, 1)) {
		r.Fail(fmt.Sprintf("%d items of %d bytes in %d", n, size, len(r.rest)))
	}
	if r.err != nil {
		return 0
	}
	return int(n)
}

// Bytes reads a length of at most limit bytes and then as many bytes. The
// result aliases the Reader's slice.
func (r *Reader) Bytes(limit int) []byte {
	return r.Fixed(r.Count(limit, 1))
}

// Text reads what AppendText wrote, at most limit bytes. The result is a copy.
func (r *Reader) Text(limit int) string {
	return string(r.Bytes(limit))
}

// Fixed reads n bytes, or returns nil if there are fewer. The result aliases
// the Reader's slice and has no spare capacity.
func (r *Reader) Fixed(n int) []byte {
	if r.err != nil {
		return nil
	}
	if n < 0 || n > len(r.rest) {
		r.Fail(fmt.Sprintf("%d bytes wanted, %d left", n, len(r.rest)))
		return nil
	}
	p := r.rest[:n:n]
	r.rest = r.rest[n:]
	return p
}

// Byte reads one byte.
func (r *Reader) Byte() byte {
	if p := r.Fixed(1); p != nil {
		return p[0]
	}
	return 0
}

// Uint32 reads 4 bytes, little-endian.
func (r *Reader) Uint32() uint32 {
	if p := r.Fixed(4); p != nil {
		return binary.LittleEndian.Uint32(p)
	}
	return 0
}

// Uint64 reads 8 bytes, little-endian.
func (r *Reader) Uint64() uint64 {
	if p := r.Fixed(8); p != nil {
		return binary.LittleEndian.Uint64(p)
	}
	return 0
}

// Time reads what AppendTime wrote. The result is in UTC.
func (r *Reader) Time() time.Time {
	sec, nsec := r.Uint64(), r.Uint32()
	if r.err == nil && nsec >= 1e9 {
		r.Fail(fmt.Sprintf("%d nanoseconds in a second", nsec))
	}
	if r.err != nil {
		return time.Time{}
	}
	return time.Unix(int64(sec), int64(nsec)).UTC()
}

// Len returns the number of bytes not read yet; 0 after an error.
func (r *Reader) Len() int {
	if r.err != nil {
		return 0
	}
	return len(r.rest)
}

// Fail records that what was read makes no sense. Only the first failure of a
// Reader is kept. The error wraps ErrMalformed and names the position.
func (r *Reader) Fail(what string) {
	if r.err == nil {
		r.err = fmt.Errorf("byte %d: %w: %s", r.size-len(r.rest), ErrMalformed, what)
	}
}

// Err returns the first error, nil if there was none.
func (r *Reader) Err() error {
	return r.err
}

// Done returns the first error, or an error if bytes are left.
func (r *Reader) Done() error {
	if r.err == nil && len(r.rest) > 0 {
		r.Fail(fmt.Sprintf("%d bytes left over", len(r.rest)))
	}
	return r.err
}

package seal

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

const (
	magic      = "cairn\r\n\x1a"
	format     = 1
	headerSize = 50

	// MaxHeader is the longest clear header in bytes. With the 8 bytes that
	// follow it in a pack it fits in 4 KiB, so one small read has it all.
	MaxHeader = 4096 - 8
	// MaxEnvelope is the longest envelope in bytes.
	MaxEnvelope = MaxHeader - headerSize
)

// A Header is the clear header of an object.
type Header struct {
	Kind       Kind
	Suite      Suite
	Generation uint32 // of the key the object is sealed under
	Salt       [32]byte
	Envelope   []byte // at most MaxEnvelope bytes
}

// ParseHeader decodes the header at the front of p and returns its length in
// bytes. It returns ErrNotCairn if p does not begin with the magic,
// ErrNewerFormat for a format or suite above 1, ErrDamaged if p is cut off or
// a field makes no sense. The envelope is a copy.
func ParseHeader(p []byte) (Header, int, error) {
	if !bytes.HasPrefix(p, []byte(magic)) {
		if len(p) < len(magic) && bytes.HasPrefix([]byte(magic), p) {
			return Header{}, 0, fmt.Errorf("%w: %d bytes are no header", ErrDamaged, len(p))
		}
		return Header{}, 0, ErrNotCairn
	}
	if len(p) < 12 {
		return Header{}, 0, fmt.Errorf("%w: header is cut off at %d bytes", ErrDamaged, len(p))
	}
	if p[8] > format {
		return Header{}, 0, fmt.Errorf("%w: format %d, this program knows %d", ErrNewerFormat, p[8], format)
	}
	if p[10] > byte(SuiteAESGCM) {
		return Header{}, 0, fmt.Errorf("%w: cipher suite %d is not known", ErrNewerFormat, p[10])
	}
	h := Header{Kind: Kind(p[9]), Suite: Suite(p[10])}
	if p[8] != format || h.Suite != SuiteAESGCM || !h.Kind.valid() || p[11] != 0 {
		return Header{}, 0, fmt.Errorf("%w: header fields % x", ErrDamaged, p[8:12])
	}
	if len(p) < headerSize {
		return Header{}, 0, fmt.Errorf("%w: header is cut off at %d bytes", ErrDamaged, len(p))
	}
	h.Generation = binary.LittleEndian.Uint32(p[12:])
	copy(h.Salt[:], p[16:])
	e := int(binary.LittleEndian.Uint16(p[48:]))
	if e > MaxEnvelope || e > len(p)-headerSize {
		return Header{}, 0, fmt.Errorf("%w: envelope of %d bytes, %d left", ErrDamaged, e, len(p)-headerSize)
	}
	if e > 0 {
		h.Envelope = bytes.Clone(p[headerSize : headerSize+e])
	}
	return h, headerSize + e, nil
}

// Append appends the header as it stands in an object. The envelope must not
// be longer than MaxEnvelope, as it never is in a Header from this package.
func (h Header) Append(dst []byte) []byte {
	dst = append(dst, magic...)
	dst = append(dst, format, byte(h.Kind), byte(h.Suite), 0)
	dst = binary.LittleEndian.AppendUint32(dst, h.Generation)
	dst = append(dst, h.Salt[:]...)
	dst = binary.LittleEndian.AppendUint16(dst, uint16(len(h.Envelope)))
	return append(dst, h.Envelope...)
}

// Len returns the length of the header in bytes.
func (h Header) Len() int {
	return headerSize + len(h.Envelope)
}

// Name returns the first half of the salt, after which packs and index
// segments are named.
func (h Header) Name() [16]byte {
	return [16]byte(h.Salt[:16])
}

// valid reports what ParseHeader would refuse.
func (h Header) valid() error {
	switch {
	case !h.Kind.valid():
		return fmt.Errorf("%w: %v", ErrDamaged, h.Kind)
	case h.Suite > SuiteAESGCM:
		return fmt.Errorf("%w: cipher suite %d is not known", ErrNewerFormat, h.Suite)
	case h.Suite != SuiteAESGCM:
		return fmt.Errorf("%w: cipher suite %d", ErrDamaged, h.Suite)
	case len(h.Envelope) > MaxEnvelope:
		return fmt.Errorf("%w: envelope of %d bytes", ErrTooLarge, len(h.Envelope))
	}
	return nil
}

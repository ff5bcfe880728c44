package seal

import (
	"encoding/binary"
	"fmt"

	"github.com/cairn-backup/cairn/chunk/internal/rule"
)

// A framed object is a clear header and then its parts, each as
//
//	u32 LE  length of the sealed part; bit 31 is set on the last
//	bytes   the sealed part
//
// and nothing after the last one.
const (
	frameSize = 4
	lastBit   = 1 << 31
)

// Object seals parts, at least one of at most MaxPart bytes each, into a new
// framed object, opens it again to verify it, and returns its header and bytes.
func Object(key Key, t Template, b Binding, parts ...[]byte) (Header, []byte, error) {
	w, err := NewWriter(key, t, b)
	if err != nil {
		return Header{}, nil, err
	}
	object, err := w.object(parts)
	if err != nil {
		return Header{}, nil, err
	}
	return w.Header(), object, nil
}

func (w *Writer) object(parts [][]byte) ([]byte, error) {
	if len(parts) == 0 {
		return nil, fmt.Errorf("seal %v: %w", w.header.Kind, errNoParts)
	}
	size := w.header.Len()
	for _, plain := range parts {
		if len(plain) > MaxPart {
			return nil, fmt.Errorf("seal %v: %w: part of %d bytes", w.header.Kind, ErrTooLarge, len(plain))
		}
		size += frameSize + len(plain) + Overhead
	}
	out := w.header.Append(make([]byte, 0, size))
	for i, plain := range parts {
		length := uint32(len(plain) + Overhead)
		seal := w.Part
		if i == len(parts)-1 {
			length |= lastBit
			seal = w.Finish
		}
		var err error
		if out, _, err = seal(binary.LittleEndian.AppendUint32(out, length), plain); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// OpenObject opens a framed object of the wanted kind and returns its header
// and the plaintexts of its parts, which the caller owns. Errors wrap
// ErrNotCairn, ErrNewerFormat or ErrDamaged; the last also for another kind, a
// wrong key and a wrong binding. It takes no more memory than the object has.
func OpenObject(key Key, want Kind, b Binding, object []byte) (Header, [][]byte, error) {
	h, n, err := ParseHeader(object)
	if err != nil {
		return Header{}, nil, fmt.Errorf("open %v: %w", want, err)
	}
	if h.Kind != want && !rule.Off(rule.Kind) {
		return Header{}, nil, fmt.Errorf("open %v: %w: it is a %v", want, ErrDamaged, h.Kind)
	}
	o, err := NewOpener(key, h, b)
	if err != nil {
		return Header{}, nil, err
	}
	parts, err := o.frames(object[n:])
	if err != nil {
		return Header{}, nil, fmt.Errorf("open %v: %w", want, err)
	}
	return h, parts, nil
}

func (o *Opener) frames(p []byte) ([][]byte, error) {
	var parts [][]byte
	buf := make([]byte, 0, len(p)) // all plaintexts together are shorter
	for number, last := uint64(0), More; last == More; number++ {
		if len(p) < frameSize {
			return nil, fmt.Errorf("part %d: %w: cut off", number, ErrDamaged)
		}
		length := binary.LittleEndian.Uint32(p)
		last = length&lastBit != 0
		length &^= lastBit
		p = p[frameSize:]
		if uint64(length) > uint64(len(p)) || length > MaxPart+Overhead {
			return nil, fmt.Errorf("part %d: %w: %d bytes stated, %d left", number, ErrDamaged, length, len(p))
		}
		out, err := o.Open(buf, p[:length], number, last)
		if err != nil {
			return nil, err
		}
		parts = append(parts, out[len(buf):len(out):len(out)])
		buf, p = out, p[length:]
	}
	if len(p) > 0 {
		return nil, fmt.Errorf("%w: %d bytes after the last part", ErrDamaged, len(p))
	}
	return parts, nil
}

package manifest

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"strings"

	"github.com/cairn-backup/cairn/chunk/wire"
)

// minXattr is the least number of bytes that an attribute takes.
const minXattr = 3 // two lengths and a byte of name

// appendXattrs appends the number of attributes and each one's name and value.
func appendXattrs(dst []byte, xattrs []Xattr) []byte {
	dst = wire.AppendUvarint(dst, uint64(len(xattrs)))
	for _, x := range xattrs {
		dst = wire.AppendText(dst, x.Name)
		dst = wire.AppendBytes(dst, x.Value)
	}
	return dst
}

// xattrs reads what appendXattrs wrote; there must be at least one. Values
// alias the page.
func (d *decoder) xattrs() []Xattr {
	n := d.r.Count(MaxXattrs, minXattr)
	if n == 0 {
		d.r.Fail("no attributes")
		return nil
	}
	xattrs := make([]Xattr, n)
	for i := range xattrs {
		xattrs[i] = Xattr{Name: d.string(MaxXattr), Value: d.r.Bytes(MaxXattrs)}
		if d.r.Err() != nil {
			return nil
		}
	}
	if err := checkXattrNames(xattrs); err != nil {
		d.r.Fail(err.Error())
		return nil
	}
	return xattrs
}

// checkXattrs reports what is wrong with attributes that are to be stored.
func checkXattrs(xattrs []Xattr) error {
	if n := xattrsSize(xattrs); n > MaxXattrs {
		return fmt.Errorf("%d bytes of attributes, want at most %d", n, MaxXattrs)
	}
	return checkXattrNames(xattrs)
}

// xattrsSize returns how many bytes appendXattrs appends.
func xattrsSize(xattrs []Xattr) int {
	n := uvarintLen(len(xattrs))
	for _, x := range xattrs {
		n += uvarintLen(len(x.Name)) + len(x.Name) + uvarintLen(len(x.Value)) + len(x.Value)
	}
	return n
}

func uvarintLen(v int) int { return max(1, (bits.Len(uint(v))+6)/7) }

func checkXattrNames(xattrs []Xattr) error {
	last := ""
	for _, x := range xattrs {
		switch {
		case x.Name == "" || len(x.Name) > MaxXattr || strings.IndexByte(x.Name, 0) >= 0:
			return fmt.Errorf("attribute name of %d bytes, want 1 to %d without NUL", len(x.Name), MaxXattr)
		case x.Name <= last:
			return errors.New("attributes out of order")
		}
		last = x.Name
	}
	return nil
}

// encodeXattrs returns the chunk that holds attributes too large for a node:
//
//	uvarint 3 (page kind) | uvarint count | count times: bytes name | bytes value
func encodeXattrs(xattrs []Xattr) []byte {
	return appendXattrs(wire.AppendUvarint(nil, pageXattrs), xattrs)
}

// decodeXattrs reads such a chunk. Values alias p.
func decodeXattrs(p []byte) ([]Xattr, error) {
	if n := len(p) - 1; n <= maxXattrsHere || n > MaxXattrs { // 1: the page kind
		return nil, fmt.Errorf("%w: %d bytes of attributes in a chunk", ErrMalformed, n)
	}
	d := newDecoder(p)
	if d.r.Uvarint(1<<64-1) != pageXattrs {
		d.r.Fail("not a chunk of attributes")
	}
	xattrs := d.xattrs()
	if err := d.r.Done(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return xattrs, nil
}

// loadXattrs fetches the attributes of n that its page does not hold.
func loadXattrs(ctx context.Context, g Getter, n *Node) error {
	if n.XattrChunk.IsZero() {
		return nil
	}
	p, err := g.Chunk(ctx, n.XattrChunk)
	if err != nil {
		return fmt.Errorf("attributes of %q: %w", n.Name, err)
	}
	if n.Xattrs, err = decodeXattrs(p); err != nil {
		return fmt.Errorf("attributes of %q in chunk %s: %w", n.Name, n.XattrChunk, err)
	}
	return nil
}

package manifest

import (
	"errors"
	"fmt"
	"strings"
)

// maxMode is every bit that Node.Mode may have.
const maxMode = 0o7777

// Validate reports why n cannot be stored, as an ErrInvalid that names the
// node: a bad name, fields of another kind of node, attributes out of order, or
// a size that is not what the content covers.
func (n *Node) Validate() error {
	err := n.check()
	if err == nil && n.Kind == Socket {
		err = errors.New("sockets are not stored")
	}
	if err == nil && len(n.Xattrs) > 0 {
		err = checkXattrs(n.Xattrs)
	}
	if err != nil {
		return fmt.Errorf("node %q: %w: %w", n.Name, ErrInvalid, err)
	}
	return nil
}

// check is Validate without the attributes, for a decoder that has checked
// those while it read them.
func (n *Node) check() error {
	if err := checkName(n.Name); err != nil {
		return err
	}
	switch {
	case n.Mode > maxMode:
		return fmt.Errorf("mode %#o has bits beyond 07777", n.Mode)
	case !n.MTime.valid() || !n.Look.CTime.valid():
		return errors.New("time with a second of nanoseconds or more")
	case len(n.Owner) > MaxOwner || len(n.Group) > MaxOwner:
		return fmt.Errorf("owner or group name of more than %d bytes", MaxOwner)
	case n.Flags&^Changed != 0:
		return fmt.Errorf("unknown flags %#x", uint8(n.Flags))
	}
	return n.checkKind()
}

// checkKind reports what n lacks for its kind, or has that its kind does not.
func (n *Node) checkKind() error {
	if n.Kind < File || n.Kind > BlockDevice {
		return fmt.Errorf("node of unknown kind %d", n.Kind)
	}
	switch {
	case n.Kind != File && (n.Size != 0 || n.Flags != 0 || !n.Content.isZero()):
		return fmt.Errorf("%s with size, content or flags of a file", n.Kind)
	case n.Kind != Symlink && n.Target != "":
		return fmt.Errorf("%s with the target of a link", n.Kind)
	case n.Kind != CharDevice && n.Kind != BlockDevice && n.Device != 0:
		return fmt.Errorf("%s with a device number", n.Kind)
	case n.Kind != Dir && !n.Tree.IsZero():
		return fmt.Errorf("%s with a tree", n.Kind)
	case n.Kind == Dir && n.Tree.IsZero():
		return errors.New("directory without a tree")
	case n.Kind == Symlink && (n.Target == "" || len(n.Target) > MaxTarget || strings.IndexByte(n.Target, 0) >= 0):
		return fmt.Errorf("link target of %d bytes, want 1 to %d without NUL", len(n.Target), MaxTarget)
	case n.Kind == File:
		return n.Content.check(n.Size)
	}
	return nil
}

func (c *Content) isZero() bool {
	return len(c.Inline) == 0 && len(c.Extents) == 0 && c.List.IsZero() && c.Size == 0
}

// check reports why c is no content of size bytes.
func (c *Content) check(size uint64) error {
	list := !c.List.IsZero()
	if list && (len(c.Inline) > 0 || len(c.Extents) > 0) || len(c.Inline) > 0 && len(c.Extents) > 0 {
		return errors.New("content of more than one form")
	}
	covered := uint64(len(c.Inline))
	switch {
	case size > maxSize:
		return errors.New("content of more than 2^63-1 bytes")
	case len(c.Inline) > MaxInline:
		return fmt.Errorf("%d bytes inline, want at most %d", len(c.Inline), MaxInline)
	case len(c.Extents) > MaxExtents:
		return fmt.Errorf("%d extents, want at most %d", len(c.Extents), MaxExtents)
	case list && c.Size == 0:
		return errors.New("list that covers nothing")
	case !list && c.Size != 0:
		return errors.New("size of a list that is not there")
	case list:
		covered = c.Size
	case len(c.Extents) > 0:
		var err error
		if covered, err = sizeOf(c.Extents); err != nil {
			return err
		}
	}
	if covered != size {
		return fmt.Errorf("content covers %d of %d bytes", covered, size)
	}
	return nil
}

// CheckName returns an error that wraps [ErrInvalid] if s cannot be the name of
// an entry: it is empty, longer than MaxName, "." or "..", or holds a slash or NUL.
func CheckName(s string) error {
	if err := checkName(s); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return nil
}

// checkName reports why s cannot be the name of an entry. A name with a slash,
// or "..", would let a restore write outside its target.
func checkName(s string) error {
	switch {
	case s == "" || len(s) > MaxName:
		return fmt.Errorf("name of %d bytes, want 1 to %d", len(s), MaxName)
	case s == "." || s == "..":
		return fmt.Errorf("name %q is a directory's own", s)
	case strings.IndexByte(s, '/') >= 0 || strings.IndexByte(s, 0) >= 0:
		return fmt.Errorf("name %q holds a slash or NUL", s)
	}
	return nil
}

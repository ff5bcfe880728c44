package manifest

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"slices"

	"github.com/cairn-backup/cairn/chunk"
)

// A ChangeKind says how an entry differs between two trees.
type ChangeKind uint8

// The kinds of changes.
const (
	Added        ChangeKind = 1
	Removed      ChangeKind = 2
	Modified     ChangeKind = 3 // content, link target, device number or kind differ
	MetadataOnly ChangeKind = 4 // the content is the same, its mode, owner, time or attributes are not
)

// String returns the kind as one word: added, removed, modified or metadata.
func (k ChangeKind) String() string {
	switch k {
	case Added:
		return "added"
	case Removed:
		return "removed"
	case Modified:
		return "modified"
	case MetadataOnly:
		return "metadata"
	}
	return "unknown"
}

// A Change is one entry that differs between two trees.
type Change struct {
	Path string // relative to the roots of the trees, names joined by "/"
	Kind ChangeKind
	Old  *Node // nil if Added
	New  *Node // nil if Removed
}

// Diff yields how the tree of directories under the list a differs from the one
// under b, in the order of Walk. The zero ID stands for an empty tree. Equal
// lists and equal pages are not read, so the cost goes with the change.
//
// Where a directory takes the place of something else, or the other way round,
// the entry is Modified and what is inside the directory Added or Removed.
// Node.Look and the number of a group of hard links say nothing about the data
// and are not compared. Diff yields at most one error, last: from g, of ctx, or
// an ErrMalformed.
func Diff(ctx context.Context, g Getter, a, b chunk.ID) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		d := differ{g: g, yield: yield}
		if err := d.dirs(ctx, a, b, place{}); err != nil && !errors.Is(err, errStop) {
			yield(Change{}, err)
		}
	}
}

// errStop ends a diff whose caller wants no more; it leaves Diff nowhere.
var errStop = errors.New("stop")

// A differ is one run of Diff.
type differ struct {
	g     Getter
	yield func(Change, error) bool
}

// dirs compares the lists a and b, of the directory at.
func (d *differ) dirs(ctx context.Context, a, b chunk.ID, at place) error {
	if a == b {
		return nil
	}
	old, err := d.cursor(ctx, a)
	if err != nil {
		return err
	}
	cur, err := d.cursor(ctx, b)
	if err != nil {
		return err
	}
	for {
		moved, err := align(ctx, old, cur)
		if err != nil {
			return err
		}
		if moved {
			continue
		}
		if !old.at && !cur.at {
			return nil
		}
		if err := d.step(ctx, old, cur, at); err != nil {
			return err
		}
	}
}

// cursor returns a cursor in the list with this root, which is open, since only
// its page says what level it is; for the zero ID a cursor at the end.
func (d *differ) cursor(ctx context.Context, root chunk.ID) (*cursor, error) {
	if root.IsZero() {
		return new(cursor), nil
	}
	c := newCursor(d.g, root)
	return c, c.open(ctx)
}

// align takes one step towards a state in which the next nodes can be compared:
// it passes over a page that both lists have next, or opens one. It reports
// whether there was something to do.
//
// A page is opened when it cannot be equal to any that the other list still
// has: its first name is not there any more, or it stands against another page
// of the same level or against one of a lower level.
func align(ctx context.Context, old, cur *cursor) (bool, error) {
	a, b := old.ahead(), cur.ahead()
	switch {
	case a == nil && b == nil:
		return false, nil
	case b == nil:
		if cur.at && cur.node.Name < a.first {
			return false, nil // an added node stands before the page
		}
		return true, old.open(ctx)
	case a == nil:
		if old.at && old.node.Name < b.first {
			return false, nil
		}
		return true, cur.open(ctx)
	case a.id == b.id:
		old.pass()
		cur.pass()
		return true, nil
	case a.first < b.first, a.first == b.first && a.level > b.level:
		return true, old.open(ctx)
	case a.first > b.first, a.level < b.level:
		return true, cur.open(ctx)
	}
	if err := old.open(ctx); err != nil {
		return true, err
	}
	return true, cur.open(ctx)
}

// step compares the next nodes, or takes the one whose name comes first, and
// moves on.
func (d *differ) step(ctx context.Context, old, cur *cursor, at place) error {
	takeOld := old.at && (!cur.at || old.node.Name <= cur.node.Name)
	takeCur := cur.at && (!old.at || cur.node.Name <= old.node.Name)
	var err error
	switch {
	case takeOld && takeCur:
		err = d.both(ctx, &old.node, &cur.node, at)
	case takeOld:
		err = d.one(ctx, Change{Kind: Removed, Old: &old.node}, at)
	default:
		err = d.one(ctx, Change{Kind: Added, New: &cur.node}, at)
	}
	if err == nil && takeOld {
		err = old.next()
	}
	if err == nil && takeCur {
		err = cur.next()
	}
	return err
}

// one reports an entry that only one side has, and all that is in it.
func (d *differ) one(ctx context.Context, c Change, at place) error {
	if err := d.report(ctx, c, at); err != nil {
		return err
	}
	return d.inside(ctx, c.Old, c.New, at)
}

// both compares two entries of one name.
func (d *differ) both(ctx context.Context, old, cur *Node, at place) error {
	c := Change{Old: old, New: cur}
	switch {
	case !sameData(old, cur):
		c.Kind = Modified
	case !sameMetadata(old, cur):
		c.Kind = MetadataOnly
	}
	if c.Kind != 0 {
		if err := d.report(ctx, c, at); err != nil {
			return err
		}
	}
	return d.inside(ctx, old, cur, at)
}

// inside compares what is in the directories old and cur; nil, or another kind
// of node, holds nothing.
func (d *differ) inside(ctx context.Context, old, cur *Node, at place) error {
	var a, b chunk.ID
	var name string
	if old != nil && old.Kind == Dir {
		a, name = old.Tree, old.Name
	}
	if cur != nil && cur.Kind == Dir {
		b, name = cur.Tree, cur.Name
	}
	if a == b {
		return nil
	}
	in, err := at.enter(name)
	if err != nil {
		return err
	}
	return d.dirs(ctx, a, b, in)
}

// report yields c with nodes of its own, since the cursors go on.
func (d *differ) report(ctx context.Context, c Change, at place) error {
	for _, n := range []**Node{&c.Old, &c.New} {
		if *n == nil {
			continue
		}
		own := **n
		if err := loadXattrs(ctx, d.g, &own); err != nil {
			return err
		}
		c.Path, *n = at.prefix+own.Name, &own
	}
	if !d.yield(c, nil) {
		return errStop
	}
	return nil
}

// sameData reports whether a restore would write the same thing, its metadata
// apart. What is in a directory does not count: it has changes of its own.
func sameData(a, b *Node) bool {
	return a.Kind == b.Kind && a.Size == b.Size && a.Target == b.Target && a.Device == b.Device &&
		bytes.Equal(a.Content.Inline, b.Content.Inline) &&
		slices.Equal(a.Content.Extents, b.Content.Extents) &&
		a.Content.List == b.Content.List
}

// sameMetadata reports whether all else that a restore brings back is the same.
func sameMetadata(a, b *Node) bool {
	return a.Mode == b.Mode && a.UID == b.UID && a.GID == b.GID && a.Owner == b.Owner && a.Group == b.Group &&
		a.MTime == b.MTime && a.Flags == b.Flags && (a.Link == 0) == (b.Link == 0) &&
		a.XattrChunk == b.XattrChunk && slices.EqualFunc(a.Xattrs, b.Xattrs, func(x, y Xattr) bool {
		return x.Name == y.Name && bytes.Equal(x.Value, y.Value)
	})
}

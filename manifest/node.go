package manifest

import (
	"github.com/cairn-backup/cairn/chunk"
)

// A NodeKind says what an entry of a directory is. The values are stored.
type NodeKind uint8

// The kinds of nodes. A socket has no meaning once its server is gone: sources
// report sockets so that they can be counted, and no list stores them.
const (
	File        NodeKind = 1
	Dir         NodeKind = 2
	Symlink     NodeKind = 3
	FIFO        NodeKind = 4
	Socket      NodeKind = 5
	CharDevice  NodeKind = 6
	BlockDevice NodeKind = 7
)

// String returns the kind as one word: file, dir, symlink, fifo, socket, char
// or block.
func (k NodeKind) String() string {
	switch k {
	case File:
		return "file"
	case Dir:
		return "dir"
	case Symlink:
		return "symlink"
	case FIFO:
		return "fifo"
	case Socket:
		return "socket"
	case CharDevice:
		return "char"
	case BlockDevice:
		return "block"
	}
	return "unknown"
}

// Flags are facts about a node that are true or not. The values are stored.
type Flags uint8

// Changed says that the file changed while it was read, so its content may
// never have existed as a whole.
const Changed Flags = 1

// Limits of a node, in bytes. They keep a node within one page, whatever it
// holds.
const (
	MaxName   = 4096    // of a name in a directory
	MaxTarget = 32768   // of the target of a symbolic link
	MaxOwner  = 256     // of the name of an owner or of a group
	MaxXattr  = 255     // of the name of an extended attribute
	MaxXattrs = 1 << 20 // of all extended attributes of a node, encoded
	MaxInline = 512     // of content kept in the node itself
)

// A Node is one entry of a directory, with all that a restore needs. Which
// fields may be set depends on the kind; the others are zero.
//
// A Node that was decoded shares memory with the page it comes from: it is
// valid for ever, must not be modified, and keeps a page of some KiB alive.
type Node struct {
	// Name is the entry's name: 1 to MaxName raw bytes without "/" and NUL, and
	// neither "." nor "..".
	Name string

	Kind NodeKind
	Mode uint32 // permission, setuid, setgid and sticky bits: at most 07777

	UID, GID     uint32
	Owner, Group string // names of UID and GID when the node was read; may be empty

	MTime Time

	// Size is the length of a file's content in bytes, which Content covers
	// exactly; 0 for every other kind.
	Size uint64

	Target string  // where a symbolic link points, raw bytes without NUL
	Device uint64  // of a device node: major<<32 | minor
	Xattrs []Xattr // sorted by name, no name twice

	// XattrChunk names the chunk that holds the extended attributes, where they
	// are too large for the node. DirWriter stores it; ReadDir, Lookup, Walk and
	// Diff load Xattrs from it. It matters only to what follows references.
	XattrChunk chunk.ID

	// Link is the number of the group of hard links that the node belongs to,
	// unique within the snapshot; 0 if it has no other name.
	Link uint64

	// Look is what the last look at the node saw: a hint by which the next
	// backup knows an unchanged file.
	Look Look

	Content Content  // of a file
	Tree    chunk.ID // of a directory: the root page of its list

	Flags Flags
}

// Equal reports whether n and o are stored as the same bytes, as far as that can be
// told without storing them: false of nodes with attributes in a chunk unless
// both name it.
func (n *Node) Equal(o *Node) bool {
	return n.Name == o.Name && n.Look == o.Look && n.Link == o.Link && n.Tree == o.Tree &&
		n.Content.Size == o.Content.Size && sameData(n, o) && sameMetadata(n, o)
}

// A Look is what identifies one state of a file to the system it was read on.
// The zero Look is unknown.
type Look struct {
	Dev, Ino uint64
	CTime    Time
}

// IsZero reports whether nothing is known.
func (l Look) IsZero() bool { return l == Look{} }

// An Xattr is one extended attribute. The value may be any bytes.
type Xattr struct {
	Name  string // 1 to MaxXattr bytes without NUL
	Value []byte
}

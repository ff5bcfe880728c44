package manifest


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

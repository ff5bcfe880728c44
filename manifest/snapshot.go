package manifest

import (
	"github.com/cairn-backup/cairn/chunk"
)

// A Kind says what sort of data a snapshot holds.
type Kind string

// The kinds of snapshots.
const (
	KindFiles    Kind = "files"    // files and directories
	KindDatabase Kind = "database" // a consistent copy of a live database
	KindAssets   Kind = "assets"   // files that belong to an application's database
	KindStream   Kind = "stream"   // one stream of bytes, as one file
)

// A Root is one of the paths that a snapshot holds.
type Root struct {
	Path string // absolute; raw bytes
	Name string // unique in the snapshot: its entry in the top list; see UniqueNames
}

// Stats are the figures of one snapshot. Sizes are bytes.
type Stats struct {
	Files, Dirs, Others uint64 // entries by kind
	Bytes               uint64 // content that a restore writes
	Read                uint64 // content read from the source
	New                 uint64 // chunks that were not stored before
	Stored              uint64 // packs put
	Missing             uint64 // entries that could not be read
	Changed             uint64 // files that changed while they were read
}

// A Summary is what can be known of a snapshot without the key that opens its
// data: no names of files are in it. Text is UTF-8.
type Summary struct {
	ID         ID
	Start, End Time // when the backup began to read, and when it was done
	Kind       Kind

	// Began is when the backup began to read, by the clock of its machine, where
	// Start was set by the caller; zero where Start is that.
	Began Time

	Name     string // of the data set, as the user calls it
	Host     string
	User     string
	Platform string // GOOS/GOARCH
	Program  string // that made the snapshot
	Version  string // of that program

	Tags   []string
	Labels map[string]string // for embedders; not interpreted

	Parent   ID   // the snapshot it was compared with; zero if none
	Complete bool // nothing is missing
	Stats    Stats

	// Group is a keyed hash of host, name and roots: equal for the snapshots
	// that follow each other.
	Group [16]byte

	Depth uint32 // snapshots since the needs were exact

	// Pinned and Note come from later annotations; the encoded summary does not
	// hold them.
	Pinned bool
	Note   string
}

// A Missing is an entry that could not be read, and why.
type Missing struct {
	Path   string // in the snapshot: the root's name, then names joined by "/"; raw bytes
	Reason string
}

// A Snapshot is what one backup recorded.
type Snapshot struct {
	Summary
	Roots   []Root
	Missing []Missing

	// Tree is the root page of the top list: a directory list with one node for
	// each root, named Root.Name.
	Tree chunk.ID
}

// An Annotation changes what is said about a snapshot after it was made. The
// zero Annotation changes nothing.
type Annotation struct {
	Add    []string // tags
	Remove []string // tags; one in both is added
	Pin    *bool    // nil: leave as it is
	Note   *string  // nil: leave as it is
}

// A Filter selects snapshots. The zero Filter selects all.
type Filter struct {
	IDs    []ID     // any of these
	Kinds  []Kind   // any of these
	Names  []string // any of these
	Hosts  []string // any of these
	Tags   []string // all of these
	Since  Time     // started then or later; zero: no bound
	Until  Time     // started before; zero: no bound
	Latest int      // of those that match only so many, the last ones; 0: all. Match ignores it, Select applies it
}

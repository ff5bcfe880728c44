package engine

import (
	"time"

	"github.com/cairn-backup/cairn/engine/progress"
	"github.com/cairn-backup/cairn/engine/source"
	"github.com/cairn-backup/cairn/engine/target"
	"github.com/cairn-backup/cairn/manifest"
)

// Unreadable says what a backup does with a file or directory that it cannot
// read.
type Unreadable uint8

const (
	// Fail ends the backup with the first error; nothing is published.
	Fail Unreadable = iota
	// Skip leaves the item out, records it in the snapshot as missing, and
	// marks the snapshot incomplete.
	Skip
)

// BackupOptions says how one backup is made. The zero value works.
type BackupOptions struct {
	Name   string            // of the data set; groups snapshots with Host and the roots. Default: what the source says, else ""
	Host   string            // default: the machine's host name
	User   string            // default: the user's name
	Time   time.Time         // start to record in place of the clock's; default: now
	Tags   []string          // at most 1,000, each 1 to 255 bytes
	Labels map[string]string // for the embedder's own use, beside those of the source (source.Labeler); stored under the meta key

	// Parent is the snapshot to compare with. Default: the newest of the same
	// host, name and roots, and what an interrupted backup of them left.
	Parent manifest.ID

	// Reread reads every file, whatever its times say.
	Reread bool

	// OnUnreadable: default Fail.
	OnUnreadable Unreadable

	// DryRun reads and compares, stores nothing and publishes nothing; the
	// report says what would have been new.
	DryRun bool

	// SkipIfUnchanged publishes nothing where Unchanged is true; the report's
	// Snapshot is the parent then.
	SkipIfUnchanged bool

	// Progress receives events; see progress.Func. Default: none.
	Progress progress.Func
}

// A BackupReport says what a backup did.
type BackupReport struct {
	Snapshot  manifest.Snapshot // as published; its Stats are the figures
	Unchanged bool              // the tree equals the parent's, of which nothing is known to be damaged
	Sockets   uint64            // left out, as everyone does
	Changed   []string          // files that changed while they were read, at most 1,000 named
	Skipped   []string          // paths left out because they hold the repository or its cache
	Followed  []source.Link     // roots that are symbolic links: what they lead to was backed up
	Elapsed   time.Duration
	Resumed   bool    // an interrupted backup's work was used
	Traffic   Traffic // Open not included
}

// RestoreOptions says how a snapshot is restored. The zero value works.
type RestoreOptions struct {
	// Paths limits the restore to these items and all below them, as paths
	// in the snapshot, slash-separated; with one root relative to it. Default: all.
	Paths []string

	// OnError: Fail (the default) ends the restore with the first item that
	// cannot be written and takes back what was made; Skip goes on, lists
	// them, and returns ErrIncomplete.
	OnError Unreadable

	// AcceptIncomplete lets a snapshot that lacks items, since they could not be
	// read when it was made, take the place of what is there; see [target.Swap].
	// Default: that is refused with target.ErrNotSwappable.
	AcceptIncomplete bool

	Progress progress.Func
}

// A RestoreReport says what a restore wrote.
type RestoreReport struct {
	Snapshot            manifest.Snapshot
	Files, Dirs, Others uint64 // that were to be written; those in Problems are among them
	Bytes               uint64 // of their content, holes included; every byte that was written was verified
	Problems            []progress.Problem
	Owners, Devices     uint64 // not restored for want of privilege
	Xattrs              uint64
	Elapsed             time.Duration
	BytesRead, Requests int64 // from the store
	Traffic             Traffic

	// Over what was there before, or in a dry run:
	Changes   target.Changes // what became of the entries
	BytesKept uint64         // of content that was right already
}

// A KeySlot describes one way to open the repository. It holds no secret.
type KeySlot struct {
	ID    string // names the slot in RemoveKey; a unique prefix does as well
	Label string
	Type  string // "passphrase", "x25519", "ssh"
}

// Package manifest says what a snapshot is: its summary, its roots and what it
// misses, the nodes of its trees and where the bytes of a file are.
//
// Directories and long file contents are lists: pages of a few KiB, cut between
// items by a hash of the items themselves, under parent pages that name them.
// The pages of a list depend on the items in it and on nothing else, so two
// snapshots share what is equal in them, a lookup reads one page a level, and
// Diff reads only what differs. The package stores nothing itself: pages go
// through a Putter and come back through a Getter.
//
// Names, paths, link targets and attribute values are raw bytes, also where
// their type is string: they need not be UTF-8.
//
// The encodings are described in docs/format.md. Everything that decodes here
// is strict: what a writer of this package would not have written is refused
// with an error that wraps ErrMalformed.
package manifest

import (
	"context"
	"errors"

	"github.com/cairn-backup/cairn/chunk"
)

// What can be wrong with a value or with stored bytes.
var (
	// ErrMalformed reports stored bytes that break the format.
	ErrMalformed = errors.New("malformed manifest data")

	// ErrInvalid reports a value that cannot be stored: a bad name, an entry out
	// of order, a size that does not fit its content, a limit passed.
	ErrInvalid = errors.New("invalid manifest value")
)

// A Getter gives chunks back: the pages of lists, and large attributes.
// It must be safe for concurrent use where the lists are read concurrently.
type Getter interface {
	// Chunk returns the bytes of the chunk named id, verified against id. They
	// stay valid as long as the caller holds them, and nobody modifies them.
	Chunk(ctx context.Context, id chunk.ID) ([]byte, error)
}

// A Prefetcher is a Getter that wants to know in advance what will probably be
// asked for next. Prefetch returns at once, reports nothing and does not retain
// ids.
type Prefetcher interface {
	Prefetch(ctx context.Context, ids []chunk.ID)
}

// A Putter stores chunks.
type Putter interface {
	// PutChunk stores data, if it is not stored yet, and names it. It does not
	// retain data.
	PutChunk(ctx context.Context, data []byte) (chunk.ID, error)
}

// Package backend is the storage contract: a flat set of immutable objects
// named by keys, each created only if absent. Everything above it is built on
// five calls; everything below it is one store, in one package of its own.
//
// A new store is tested by one call of [backendtest.Run], and a store that
// someone configured is tested on the spot by [Validate].
//
// [backendtest.Run]: https://pkg.go.dev/github.com/cairn-backup/cairn/backend/backendtest#Run
package backend

import (
	"context"
	"io"
	"iter"
	"time"
)

// A Backend stores immutable objects. All methods are safe for concurrent use
// and by any number of processes at once.
//
// Every method returns an error that errors.Is finds to be context.Canceled
// (or context.DeadlineExceeded) when ctx ended before it was done, and one that
// errors.Is finds to be ErrInvalidKey for a key that [Key.Validate] refuses.
// Errors name the operation and the key; callers add neither.
type Backend interface {
	// Put stores data under key. It is atomic and durable: when it returns nil
	// the object survives a crash, and no reader ever sees a part of it.
	//
	// It returns ErrExist, and leaves the stored object alone, if key is taken;
	// that object is then durable too. Two racing Puts of one key have exactly
	// one winner. ErrUnknownOutcome says that the object may or may not be
	// there, now or soon; after any other error it is not. Put neither retains
	// nor modifies data.
	Put(ctx context.Context, key Key, data []byte) error

	// Get reads n bytes of an object from off on; with n < 0, all to the end,
	// and fewer than n where the object ends before. It returns ErrNotExist if
	// there is no such object and ErrRange if off is negative or behind the
	// end; off at the end is an empty body. A body that breaks off returns
	// io.ErrUnexpectedEOF or a better error from Read, never a bare io.EOF.
	// The caller closes the body, and ctx governs it until then.
	Get(ctx context.Context, key Key, off, n int64) (io.ReadCloser, error)

	// Stat describes an object. It returns ErrNotExist if there is none.
	Stat(ctx context.Context, key Key) (Info, error)

	// List yields every object whose key begins with prefix, in ascending byte
	// order of the keys; the prefix "" yields all. It need not end at a slash.
	// Objects put or deleted meanwhile may be missing or present. List yields
	// at most one error, last, beside a zero Info.
	List(ctx context.Context, prefix Key) iter.Seq2[Info, error]

	// Delete removes an object. It returns nil if there is none.
	Delete(ctx context.Context, key Key) error
}

// An Info describes one object.
type Info struct {
	Key  Key
	Size int64 // bytes

	// Modified is when the object was put, by the store's clock, and may be
	// zero. It serves policy ("spare what is young"), never safety.
	Modified time.Time
}

// An Initer is a Backend whose store has to be set up before its first use.
type Initer interface {
	// Init sets the store up. It returns nil if that is done already.
	Init(ctx context.Context) error
}

// Init sets up the store behind b, if it needs that (a directory must be
// made, for one). It is the only call that may create anything but objects.
// Wrappers hand it on.
func Init(ctx context.Context, b Backend) error {
	if i, ok := b.(Initer); ok {
		return i.Init(ctx)
	}
	return nil
}

// A BatchDeleter is a Backend that deletes many objects at a smaller cost than
// one by one.
type BatchDeleter interface {
	// DeleteAll is as the function DeleteAll.
	DeleteAll(ctx context.Context, keys []Key) error
}

// DeleteAll deletes the objects named by keys, in one go where b can do that.
// It stops at an error; some of the objects are then gone, and calling it
// again with the same keys goes on. It does not retain keys.
func DeleteAll(ctx context.Context, b Backend, keys []Key) error {
	if d, ok := b.(BatchDeleter); ok {
		return d.DeleteAll(ctx, keys)
	}
	for _, key := range keys {
		if err := b.Delete(ctx, key); err != nil {
			return err
		}
	}
	return nil
}

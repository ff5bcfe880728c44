// Package progress holds the events by which a running operation tells its
// caller how far it is, and the meter that makes them.
package progress

// A Func receives the events of one operation. Calls never overlap, and the
// operation waits for each, so a Func must be quick. None comes after the
// operation has returned. A nil Func is allowed.
type Func func(Event)

// An Event is a [Tick], a [Problem] or a [Finished]. More types may be added;
// a Func ignores those it does not know.
type Event interface{ event() }

// A Phase says what an operation is busy with. Operations may have phases
// other than these.
type Phase string

// The phases.
const (
	Open   Phase = "open"   // keys, log and index are read
	Plan   Phase = "plan"   // what is to be done is being found out
	Read   Phase = "read"   // the source is read and stored
	Write  Phase = "write"  // the target is written
	Verify Phase = "verify" // stored data is read and checked
	Copy   Phase = "copy"   // data goes from one repository to another
	Delete Phase = "delete" // stored objects are deleted
	Commit Phase = "commit" // the result is made durable and visible
)

// A Count is how much of something is done.
type Count struct {
	Done  int64
	Total int64 // 0 while unknown, else at least Done; in a backup what the parent held, a guess
}

// A Tick says how far the operation is. Ticks come at most ten a second, not
// one a chunk, and their numbers only grow.
type Tick struct {
	Phase Phase

	Files Count // entries of every kind
	Bytes Count // content, in bytes

	New      int64 // bytes of chunks that were not stored before
	Stored   int64 // bytes of objects put
	Requests int64 // requests to the backend
	Retries  int64 // requests that were repeats
}

// A Kind says what is the matter with an item.
type Kind string

// The kinds of problem.
const (
	Unreadable  Kind = "unreadable"   // the source could not deliver it
	Changed     Kind = "changed"      // it changed while it was read; what was read is stored
	Unsupported Kind = "unsupported"  // a socket, for one: nothing is stored
	NotRestored Kind = "not restored" // the target could not take it, or not all of it
	Damaged     Kind = "damaged"      // stored bytes are missing or wrong
)

// A Problem is one item that was not handled as asked. The operation goes on.
type Problem struct {
	Path string // raw bytes; empty where no item is meant
	What Kind
	Err  error
}

// Finished comes exactly once, last. Err is what the operation returns.
type Finished struct{ Err error }

func (Tick) event()     {}
func (Problem) event()  {}
func (Finished) event() {}

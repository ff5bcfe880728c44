package backend

import "time"

// A Cause names what has to be looked after when a store does not work. It is
// stable: programs may show a page for each.
type Cause string

// The causes that backends tell apart. Beside each: the sentinel that errors.Is
// finds, too.
const (
	WrongKey      Cause = "wrong key"         // ErrUnauthorized: unknown user, or a secret that does not fit
	Expired       Cause = "expired"           // ErrUnauthorized: a token or signature that was good once
	NoCredentials Cause = "no credentials"    // ErrUnauthorized: none were found
	ClockSkew     Cause = "clock skew"        // ErrUnauthorized: this machine's clock is wrong
	Denied        Cause = "denied"            // ErrUnauthorized: known, but not allowed to do this
	NoStore       Cause = "no such store"     // ErrNotExist: no bucket, no container of that name
	WrongRegion   Cause = "wrong region"      // ErrUnavailable: the bucket is elsewhere
	NoHost        Cause = "no such host"      // ErrUnavailable: the name does not resolve
	Unreachable   Cause = "unreachable"       // ErrUnavailable: no connection, or it broke
	Untrusted     Cause = "untrusted"         // ErrUnauthorized: TLS; the server's certificate is not trusted
	Throttled     Cause = "throttled"         // ErrUnavailable: asked to slow down
	Mangled       Cause = "mangled"           // ErrUnavailable: bytes changed on their way; a checksum noticed
	Archived      Cause = "archived"          // ErrUnavailable: an object was moved to cold storage
	Immutable     Cause = "immutable"         // ErrUnauthorized: a lock or hold keeps an object from being deleted
	Misconfigured Cause = "not set up for us" // ErrUnsupported: the store, as it is set up, cannot be used
	Undurable     Cause = "not made durable"  // none: a disk lost what was written, and will not say so again
)

// A TroubleError says what about a store, its settings or the way there keeps a
// call from working, and what a person can do about it.
type TroubleError struct {
	Cause Cause
	// Advice is what to do next, as one sentence without a full stop.
	Advice string
	// After is how long the store asks callers to wait; 0: it did not say.
	After time.Duration
	Err   error // what the store or the network said
}

// Error returns the cause as the store told it; the advice is apart, for those
// who show it.
func (e *TroubleError) Error() string {
	if e.Err == nil {
		return string(e.Cause)
	}
	return string(e.Cause) + ": " + e.Err.Error()
}

// Unwrap returns what the store or the network said.
func (e *TroubleError) Unwrap() error { return e.Err }

// Is reports whether target is the sentinel that stands for the cause.
func (e *TroubleError) Is(target error) bool { return target != nil && target == e.Kind() }

// Kind returns the sentinel that stands for the cause, or nil if none does.
func (e *TroubleError) Kind() error {
	switch e.Cause {
	case WrongKey, Expired, NoCredentials, ClockSkew, Denied, Untrusted, Immutable:
		return ErrUnauthorized
	case NoStore:
		return ErrNotExist
	case Misconfigured:
		return ErrUnsupported
	case Undurable:
		return nil
	default:
		return ErrUnavailable
	}
}

// Retriable reports whether the same call may succeed a moment later without
// anybody doing anything.
func (e *TroubleError) Retriable() bool {
	switch e.Cause {
	case Unreachable, Throttled, Mangled, NoHost:
		return true
	default:
		return false
	}
}

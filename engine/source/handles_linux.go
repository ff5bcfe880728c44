package source

import (
	"container/list"
	"errors"
	"sync"

	"golang.org/x/sys/unix"
)

// idleHandles is how many directories stay open that no one uses at the
// moment. Walks go depth first and files are read a little behind them, so
// few directories are in use at a time; 128 leaves most of the 1,024
// descriptors that a process may have by default.
const idleHandles = 128

// A handle is an open directory.
type handle struct {
	fd   int
	path string // relative to the root

	refs int           // guarded by handles.mu
	idle *list.Element // in handles.idle if refs is 0; guarded by handles.mu
}

// handles keeps directories open by path. Each is opened by its name in the
// directory above, so paths may be of any length and no element of them is
// ever a symbolic link.
type handles struct {
	open func(dir int, name string) (fd int, err error)

	mu     sync.Mutex // guards what follows
	byPath map[string]*handle
	idle   *list.List // of *handle; the least recently used first
}

// newHandles returns handles below the open directory fd, which it takes over.
func newHandles(fd int, open func(dir int, name string) (int, error)) *handles {
	// A reference that is never released keeps the root open.
	root := &handle{fd: fd, refs: 1}
	return &handles{open: open, byPath: map[string]*handle{"": root}, idle: list.New()}
}

// acquire opens the directory at path, or takes it if it is open. The caller
// releases it.
func (h *handles) acquire(path string) (*handle, error) {
	if d := h.take(path); d != nil {
		return d, nil
	}
	above, name := splitPath(path)
	parent, err := h.acquire(above)
	if err != nil {
		return nil, err
	}
	fd, err := h.open(parent.fd, name)
	h.release(parent)
	if err != nil {
		return nil, err
	}
	return h.insert(&handle{fd: fd, path: path, refs: 1}), nil
}

// take returns the directory at path if it is open.
func (h *handles) take(path string) *handle {
	h.mu.Lock()
	defer h.mu.Unlock()
	d := h.byPath[path]
	if d == nil {
		return nil
	}
	if d.refs == 0 {
		h.idle.Remove(d.idle)
		d.idle = nil
	}
	d.refs++
	return d
}

// insert adds d, unless another goroutine was faster: then d is closed and the
// other's handle is returned.
func (h *handles) insert(d *handle) *handle {
	h.mu.Lock()
	other := h.byPath[d.path]
	if other == nil {
		h.byPath[d.path] = d
		h.mu.Unlock()
		return d
	}
	if other.refs == 0 {
		h.idle.Remove(other.idle)
		other.idle = nil
	}
	other.refs++
	h.mu.Unlock()
	_ = unix.Close(d.fd) // nothing was written to it
	return other
}

// release gives d back. It stays open until others need its place.
func (h *handles) release(d *handle) {
	var victim *handle
	h.mu.Lock()
	d.refs--
	if d.refs == 0 {
		d.idle = h.idle.PushBack(d)
		if h.idle.Len() > idleHandles {
			victim, _ = h.idle.Remove(h.idle.Front()).(*handle)
			delete(h.byPath, victim.path)
		}
	}
	h.mu.Unlock()
	if victim != nil {
		_ = unix.Close(victim.fd) // nothing was written to it
	}
}

// close closes every directory.
func (h *handles) close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	var errs []error
	for _, d := range h.byPath {
		errs = append(errs, unix.Close(d.fd))
	}
	h.byPath = nil
	return errors.Join(errs...)
}

// retry calls f again while a signal interrupts it.
func retry[T any](f func() (T, error)) (T, error) {
	for {
		v, err := f()
		if err != unix.EINTR { //nolint:errorlint // a bare errno
			return v, err
		}
	}
}

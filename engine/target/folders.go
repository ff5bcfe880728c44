package target

import (
	"container/list"
	"errors"
	"os"
	"sync"
)

// idleFolders is how many directories stay open that no one uses at the
// moment. A restore writes a directory at a time, more or less, and each open
// one may cost two descriptors, of 1,024 that a process may have by default.
const idleFolders = 64

// A folder is an open directory of the target. All that is done in it is done
// by names in it, never by paths.
type folder struct {
	path string // relative to the target
	root *os.Root
	system

	refs int           // guarded by folders.mu
	idle *list.Element // in folders.idle if refs is 0; guarded by folders.mu
}

// newFolder returns root as a folder that holds one reference. It takes over
// root unless it fails.
func newFolder(path string, root *os.Root) (*folder, error) {
	s, err := newSystem(root)
	if err != nil {
		return nil, err
	}
	return &folder{path: path, root: root, system: s, refs: 1}, nil
}

func (f *folder) close() error {
	return errors.Join(f.system.close(), f.root.Close())
}

// folders keeps directories open by path, so that making a file does not walk
// its path again.
type folders struct {
	mu     sync.Mutex // guards what follows
	byPath map[string]*folder
	idle   *list.List // of *folder; the least recently used first
}

// newFolders returns folders below top. Its reference is never released, which
// keeps it open. Without top there are none.
func newFolders(top *folder) *folders {
	s := &folders{byPath: map[string]*folder{}, idle: list.New()}
	if top != nil {
		s.byPath[""] = top
	}
	return s
}

// take returns the directory at path if it is open. The caller releases it.
func (s *folders) take(path string) *folder {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.byPath[path]
	if f != nil {
		s.use(f)
	}
	return f
}

// use adds a reference. The caller holds mu.
func (s *folders) use(f *folder) {
	if f.refs == 0 {
		s.idle.Remove(f.idle)
		f.idle = nil
	}
	f.refs++
}

// hold adds a reference to a directory that the caller holds already.
func (s *folders) hold(f *folder) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.use(f)
}

// open opens the directory that is name in parent and path in the target,
// unless another goroutine was faster. The caller releases it.
func (s *folders) open(parent *folder, path, name string) (*folder, error) {
	root, err := parent.root.OpenRoot(name)
	if err != nil {
		return nil, err
	}
	f, err := newFolder(path, root)
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	s.mu.Lock()
	other := s.byPath[path]
	if other == nil {
		s.byPath[path] = f
		s.mu.Unlock()
		return f, nil
	}
	s.use(other)
	s.mu.Unlock()
	_ = f.close() // nothing was written to it
	return other, nil
}

// release gives f back. It stays open until others need its place.
func (s *folders) release(f *folder) {
	var victim *folder
	s.mu.Lock()
	f.refs--
	if f.refs == 0 {
		f.idle = s.idle.PushBack(f)
		if s.idle.Len() > idleFolders {
			victim, _ = s.idle.Remove(s.idle.Front()).(*folder)
			delete(s.byPath, victim.path)
		}
	}
	s.mu.Unlock()
	if victim != nil {
		_ = victim.close() // nothing was written to it
	}
}

// close closes every directory.
func (s *folders) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, f := range s.byPath {
		errs = append(errs, f.close())
	}
	s.byPath = map[string]*folder{}
	return errors.Join(errs...)
}

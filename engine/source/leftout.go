package source

import (
	"path/filepath"
	"slices"
	"sync"
)

// A Leaver is a [View] that can tell which paths of the operating system it left
// out because its source was told to skip them, by name or under another name
// of the same file. What patterns exclude is not among them. It knows them once
// the directories above have been read.
type Leaver interface {
	LeftOut() []string
}

// LeftOut returns what v left out, in byte order, if it can tell.
func LeftOut(v View) []string {
	if l, ok := v.(Leaver); ok {
		return l.LeftOut()
	}
	return nil
}

// A Link is a symbolic link that was followed.
type Link struct {
	Path   string // of the link, absolute
	Target string // what it leads to, absolute and without further links
}

// A Follower is a [View] that can tell which of its roots are symbolic links,
// so that what they lead to is shown.
type Follower interface {
	Followed() []Link
}

// Followed returns the roots of v that are symbolic links, if it can tell.
func Followed(v View) []Link {
	if f, ok := v.(Follower); ok {
		return f.Followed()
	}
	return nil
}

// Followed returns the root if it is a symbolic link. What links lead to it is
// not told: the system is full of those.
func (v *dirView) Followed() []Link {
	if v.link.Path == "" {
		return nil
	}
	return []Link{v.link}
}

// Followed returns what the parts followed, in their order.
func (v *joinView) Followed() []Link {
	var links []Link
	for _, part := range v.parts {
		links = append(links, Followed(part)...)
	}
	return links
}

// leftOut collects paths. Its methods are safe for concurrent use.
type leftOut struct {
	mu    sync.Mutex // guards paths
	paths []string
}

// maxLeftOut bounds how many paths are remembered.
const maxLeftOut = 1000

func (l *leftOut) add(root, rel string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if path := filepath.Join(root, filepath.FromSlash(rel)); len(l.paths) < maxLeftOut && !slices.Contains(l.paths, path) {
		l.paths = append(l.paths, path)
	}
}

// LeftOut implements Leaver.
func (l *leftOut) LeftOut() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	paths := slices.Clone(l.paths)
	slices.Sort(paths)
	return paths
}

// LeftOut returns what the parts left out.
func (v *joinView) LeftOut() []string {
	var paths []string
	for _, part := range v.parts {
		paths = append(paths, LeftOut(part)...)
	}
	slices.Sort(paths)
	return slices.Compact(paths)
}

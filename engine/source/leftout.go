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

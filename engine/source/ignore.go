package source

import (
	"bytes"
	"container/list"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"sync"

	"github.com/cairn-backup/cairn/manifest"
)

// maxIgnore bounds the ignore files that are in force for one directory, in
// bytes. Parsed they take up to a hundred times that.
const maxIgnore = 256 << 10

// maxScopes bounds how many directories are remembered. Walks go depth first,
// so what is forgotten is seldom asked for again.
const maxScopes = 256

// A filter knows what is left out of a tree by patterns. Its methods are safe
// for concurrent use.
type filter struct {
	exclude *matcher // nil: leaves nothing out
	names   []string // of ignore files

	mu     sync.Mutex // guards what follows
	byPath map[string]*list.Element
	recent *list.List // of *scope; the least recently used first
	bytes  int        // of text that the scopes in recent were read from
}

func newFilter(exclude *matcher, names []string) *filter {
	return &filter{exclude: exclude, names: slices.Clone(names), byPath: map[string]*list.Element{}, recent: list.New()}
}

// A scope is what the ignore files of a directory and of those above it say.
// It never changes.
type scope struct {
	dir      string
	own      *matcher         // nil: none in this directory
	above    *scope           // the next directory above that has one
	dirOnly  bool             // some pattern here or above is for directories only
	size     int              // of the text of own and of all above, in bytes
	problems map[string]error // ignore files in dir that are of no use, by name
}

// rules say what is left out of one directory.
type rules struct {
	exclude *matcher
	scope   *scope // nil: without ignore files
}

// rules returns what is left out of the directory at rel.
func (v *dirView) rules(ctx context.Context, rel string) rules {
	r := rules{exclude: v.filter.exclude}
	if len(v.filter.names) > 0 {
		r.scope = v.scope(ctx, rel)
	}
	return r
}

// A verdict says whether an entry is left out, as far as its path tells.
type verdict uint8

const (
	keep    verdict = iota
	leave           // whatever it is
	ifDir           // left out if it is a directory
	ifOther         // left out if it is none
)

// verdict says, from its path alone, whether the entry name of the directory at
// rel is left out; with an error it is an ignore file that is of no use.
func (r rules) verdict(rel, name string) (verdict, error) {
	if r.exclude == nil && r.scope == nil {
		return keep, nil
	}
	path := joinPath(rel, name)
	other := r.decide(path, false) == out
	dir := other
	if r.exclude != nil && r.exclude.dirOnly || r.scope != nil && r.scope.dirOnly {
		dir = r.decide(path, true) == out
	}
	var err error
	if r.scope != nil && r.scope.dir == rel {
		err = r.scope.problems[name]
	}
	switch {
	case dir && other:
		return leave, nil
	case dir:
		return ifDir, err
	case other:
		return ifOther, nil
	}
	return keep, err
}

// decide asks the patterns of the source, then those of the ignore files, the
// innermost first.
func (r rules) decide(path string, dir isDir) decision {
	if r.exclude != nil {
		if d := r.exclude.decide(path, dir); d != undecided {
			return d
		}
	}
	for s := r.scope; s != nil; s = s.above {
		if s.own == nil {
			continue
		}
		inner := path
		if s.dir != "" {
			inner = path[len(s.dir)+1:]
		}
		if d := s.own.decide(inner, dir); d != undecided {
			return d
		}
	}
	return undecided
}

// leaves reports whether the verdict on an entry of kind k is to leave it.
func (w verdict) leaves(k manifest.NodeKind) bool {
	return w == leave || w == ifDir && k == manifest.Dir || w == ifOther && k != manifest.Dir
}

// scope returns what the ignore files say of the directory at rel.
func (v *dirView) scope(ctx context.Context, rel string) *scope {
	if s := v.filter.take(rel); s != nil {
		return s
	}
	var above *scope
	if rel != "" {
		dir, _ := splitPath(rel)
		above = v.scope(ctx, dir)
		if above.own == nil && above.above != nil {
			above = above.above // which always has its own
		}
	}
	s := v.readScope(ctx, rel, above)
	if ctx.Err() == nil { // else it may lack what could not be read any more
		v.filter.put(s)
	}
	return s
}

// readScope reads the ignore files of the directory at rel.
func (v *dirView) readScope(ctx context.Context, rel string, above *scope) *scope {
	s := &scope{dir: rel, above: above}
	if above != nil {
		s.size, s.dirOnly = above.size, above.dirOnly
	}
	var m matcher
	for _, name := range v.filter.names {
		text, err := v.readIgnore(ctx, joinPath(rel, name), maxIgnore-s.size)
		if err != nil {
			if s.problems == nil {
				s.problems = map[string]error{}
			}
			s.problems[name] = err
			continue
		}
		s.size += len(text)
		m.addFile(text)
	}
	if len(m.rules) > 0 {
		s.own = &m
		s.dirOnly = s.dirOnly || m.dirOnly
	}
	return s
}

// readIgnore returns the content of the ignore file at rel, nothing if there is
// none, which must not be longer than limit.
func (v *dirView) readIgnore(ctx context.Context, rel string, limit int) ([]byte, error) {
	f, err := v.openRegular(ctx, rel)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrChanged) {
		return nil, nil // none, or something else of that name
	}
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // nothing was written to it
	text, err := io.ReadAll(io.LimitReader(f, int64(limit)+1))
	if err == nil && len(text) > limit {
		err = v.fail("read", rel, fmt.Errorf("%w: more than %d KiB are in force here", ErrIgnoreFile, maxIgnore>>10))
	}
	return text, err
}

// addFile adds the lines of an ignore file. Those that cannot match are as if
// they were not there.
func (m *matcher) addFile(text []byte) {
	text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf")) // a byte order mark
	for line := range strings.SplitSeq(string(text), "\n") {
		if r, ok, err := parseRule(line); err == nil && ok {
			m.add(r)
		}
	}
}

// take returns the scope of the directory at rel if it is remembered.
func (f *filter) take(rel string) *scope {
	f.mu.Lock()
	defer f.mu.Unlock()
	e := f.byPath[rel]
	if e == nil {
		return nil
	}
	f.recent.MoveToBack(e)
	s, _ := e.Value.(*scope)
	return s
}

// put remembers s and forgets what there is no room for.
func (f *filter) put(s *scope) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.byPath[s.dir] != nil {
		return // another goroutine was faster
	}
	f.byPath[s.dir] = f.recent.PushBack(s)
	f.bytes += s.text()
	for f.recent.Len() > 1 && (f.recent.Len() > maxScopes || f.bytes > maxIgnore) {
		old, _ := f.recent.Remove(f.recent.Front()).(*scope)
		delete(f.byPath, old.dir)
		f.bytes -= old.text()
	}
}

// text returns how many bytes of text s was read from itself.
func (s *scope) text() int {
	if s.above == nil {
		return s.size
	}
	return s.size - s.above.size
}

package source

import (
	"fmt"
	"strings"
)

// A matcher decides which paths are left out, by the rules of gitignore(5).
// The last pattern that matches decides, so patterns are looked at from the
// last to the first. Most are plain names or suffixes: one look into a map
// and a few comparisons stand for all of those.
type matcher struct {
	dirOnly  bool           // some pattern is for directories only
	names    map[string]int // plain names: the last rule that has it, of either kind
	dirNames map[string]int // plain names of rules that are for directories only
	rest     []int          // all other rules, first to last
	rules    []rule
}

// A rule is one parsed pattern.
type rule struct {
	include  bool // "!"
	dirOnly  bool // "/" at the end
	anywhere bool // matches a name at any depth
	suffix   string
	glob     []segment // one name, or the names of a path from the top
}

// newMatcher parses patterns. It returns nil if none leaves anything out.
func newMatcher(patterns []string) (*matcher, error) {
	m := &matcher{}
	for _, p := range patterns {
		r, ok, err := parseRule(p)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", p, err)
		}
		if ok {
			m.add(r)
		}
	}
	if len(m.rules) == 0 {
		return nil, nil //nolint:nilnil // no patterns, no matcher
	}
	return m, nil
}

func (m *matcher) add(r rule) {
	if m.names == nil {
		m.names, m.dirNames = map[string]int{}, map[string]int{}
	}
	i := len(m.rules)
	m.dirOnly = m.dirOnly || r.dirOnly
	m.rules = append(m.rules, r)
	name, plain := r.plain()
	switch {
	case !plain:
		m.rest = append(m.rest, i)
	case r.dirOnly:
		m.dirNames[name] = i
	default:
		m.names[name] = i
	}
}

// plain returns the only name that a rule matches, at any depth.
func (r rule) plain() (string, bool) {
	if !r.anywhere || r.suffix != "" {
		return "", false
	}
	return r.glob[0].literal()
}

// isDir says what a path leads to.
type isDir bool

// A decision is what patterns say of a path.
type decision uint8

const (
	undecided decision = iota // no pattern matches
	leftIn                    // by a pattern with "!"
	out
)

// decide returns what the last pattern that matches path, an entry relative to
// the top, says of it. What is above it is not looked at: nobody asks for what
// is in a directory that is left out.
func (m *matcher) decide(path string, dir isDir) decision {
	_, name := splitPath(path)
	best := -1
	if i, ok := m.names[name]; ok {
		best = i
	}
	if i, ok := m.dirNames[name]; ok && bool(dir) {
		best = max(best, i)
	}
	for k := len(m.rest) - 1; k >= 0 && m.rest[k] > best; k-- {
		if i := m.rest[k]; m.rules[i].matches(path, name, dir) {
			best = i
		}
	}
	switch {
	case best < 0:
		return undecided
	case m.rules[best].include:
		return leftIn
	}
	return out
}

func (r rule) matches(path, name string, dir isDir) bool {
	switch {
	case r.dirOnly && !bool(dir):
		return false
	case r.suffix != "":
		return strings.HasSuffix(name, r.suffix)
	case r.anywhere:
		return r.glob[0].match(name)
	}
	return matchPath(r.glob, path)
}

// parseRule parses one line of a gitignore file; ok is false for blank lines
// and comments.
func parseRule(line string) (r rule, ok bool, err error) {
	p := strings.TrimSuffix(line, "\r")
	p = trimSpaces(p)
	if p == "" || p[0] == '#' {
		return rule{}, false, nil
	}
	if p[0] == '!' {
		r.include = true
		p = p[1:]
	}
	if strings.HasSuffix(p, "/") {
		r.dirOnly = true
		p = p[:len(p)-1]
	}
	r.anywhere = !strings.Contains(p, "/")
	p = strings.TrimPrefix(p, "/")
	if p == "" || strings.ContainsRune(p, 0) {
		return rule{}, false, ErrPattern
	}
	if r.anywhere && len(p) > 1 && p[0] == '*' && !strings.ContainsAny(p[1:], `*?[\`) {
		r.suffix = p[1:]
		return r, true, nil
	}
	r.glob, err = parseGlob(p)
	return r, true, err
}

// trimSpaces cuts trailing spaces that no backslash keeps.
func trimSpaces(p string) string {
	end := 0 // behind the last byte that counts
	for i := 0; i < len(p); i++ {
		if p[i] == '\\' && i+1 < len(p) {
			i++
			end = i + 1
		} else if p[i] != ' ' {
			end = i + 1
		}
	}
	return p[:end]
}

package engine

import (
	"errors"
	"fmt"
	"path"
	"strings"
)

// A picker says which items a restore writes. It is used by one goroutine.
type picker struct {
	patterns [][]string // each by segments
	hit      []bool     // by pattern: an item that it names was met
}

type picked uint8

const (
	pickNone  picked = iota
	pickAbove        // a directory on the way to what was asked for
	pickItem         // asked for, or below what was
)

// errPattern says that a path or pattern cannot match anything.
var errPattern = errors.New("bad path pattern")

// newPicker makes a picker of paths, each with path.Match patterns as segments.
func newPicker(paths []string) (*picker, error) {
	p := new(picker)
	for _, s := range paths {
		clean := strings.Trim(path.Clean("/"+s), "/")
		if clean == "" {
			return new(picker), nil // all of it
		}
		segments := strings.Split(clean, "/")
		for _, seg := range segments {
			if _, err := path.Match(seg, ""); err != nil {
				return nil, fmt.Errorf("%w %q", errPattern, s)
			}
		}
		p.patterns = append(p.patterns, segments)
	}
	p.hit = make([]bool, len(p.patterns))
	return p, nil
}

func (p *picker) all() bool { return len(p.patterns) == 0 }

// missed says what was asked for and not met: an ErrIncomplete, or nil.
func (p *picker) missed() error {
	var paths []string
	for i, hit := range p.hit {
		if !hit {
			paths = append(paths, strings.Join(p.patterns[i], "/"))
		}
	}
	if len(paths) == 0 {
		return nil
	}
	return fmt.Errorf("%w: nothing in the snapshot matches %q", ErrIncomplete, paths)
}

func (p *picker) choose(name string) picked {
	if p.all() {
		return pickItem
	}
	if name == "" {
		return pickAbove
	}
	segments := strings.Split(name, "/")
	best := pickNone
	for i, pattern := range p.patterns {
		n := min(len(pattern), len(segments))
		if !match(pattern[:n], segments[:n]) {
			continue
		}
		if len(segments) >= len(pattern) {
			p.hit[i] = true
			best = pickItem
		} else if best == pickNone {
			best = pickAbove
		}
	}
	return best
}

func match(pattern, segments []string) bool {
	for i := range pattern {
		// A name is taken literally as well, so that one with brackets can be named.
		if ok, err := path.Match(pattern[i], segments[i]); (err != nil || !ok) && pattern[i] != segments[i] {
			return false
		}
	}
	return true
}

package source

import (
	"strings"
	"unicode/utf8"
)

// A segment is the part of a pattern that matches one name of a path, or, if
// it is "**", any number of names.
type segment struct {
	globstar bool
	tokens   []token
}

type tokenKind uint8

const (
	literalToken tokenKind = iota
	anyToken               // ?
	starToken              // *
	classToken             // [...]
	slashToken             // only while parsing
)

// A token matches one rune (or a byte that is no UTF-8), a literal text, or,
// if it is a star, anything.
type token struct {
	kind    tokenKind
	text    string // literalToken
	negated bool   // classToken
	ranges  []runeRange
}

type runeRange struct{ low, high rune }

// broken is what a byte that is no UTF-8 counts as: 0xDC00 and the byte, as
// Python does it, so that it equals no rune and two bytes differ.
const broken = 0xDC00

// decode returns the first rune of s and its length in bytes.
func decode(s string) (rune, int) {
	r, n := utf8.DecodeRuneInString(s)
	if r == utf8.RuneError && n == 1 {
		return broken + rune(s[0]), 1
	}
	return r, n
}

// parseGlob parses a pattern without slash at either end into its segments.
func parseGlob(p string) ([]segment, error) {
	tokens, err := tokenize(p)
	if err != nil {
		return nil, err
	}
	var segments []segment
	start := 0
	for i := 0; i <= len(tokens); i++ {
		if i == len(tokens) || tokens[i].kind == slashToken {
			segments = append(segments, newSegment(tokens[start:i]))
			start = i + 1
		}
	}
	return segments, nil
}

// newSegment makes "**" a globstar where it is alone, and a star elsewhere.
func newSegment(tokens []token) segment {
	var s segment
	stars := 0
	for _, t := range tokens {
		last := len(s.tokens) - 1
		switch {
		case t.kind == starToken:
			stars++
			if last >= 0 && s.tokens[last].kind == starToken {
				continue
			}
		case t.kind == literalToken && last >= 0 && s.tokens[last].kind == literalToken:
			s.tokens[last].text += t.text
			continue
		}
		s.tokens = append(s.tokens, t)
	}
	s.globstar = stars > 1 && len(s.tokens) == 1
	return s
}

func tokenize(p string) ([]token, error) {
	var tokens []token
	for len(p) > 0 {
		n := 1
		var t token
		switch p[0] {
		case '*':
			t.kind = starToken
		case '?':
			t.kind = anyToken
		case '/':
			t.kind = slashToken
		case '[':
			var err error
			if t, n, err = parseClass(p); err != nil {
				return nil, err
			}
		case '\\':
			if len(p) == 1 {
				return nil, ErrPattern
			}
			n = 2
			t = token{kind: literalToken, text: p[1:2]}
			if p[1] == '/' {
				t = token{kind: slashToken}
			}
		default:
			t = token{kind: literalToken, text: p[:1]}
		}
		tokens = append(tokens, t)
		p = p[n:]
	}
	return tokens, nil
}

// parseClass parses the bracket expression that p begins with and returns its
// length in bytes. A "]" that comes first is a member of it.
func parseClass(p string) (t token, n int, err error) {
	t.kind = classToken
	i := 1
	if i < len(p) && (p[i] == '!' || p[i] == '^') {
		t.negated = true
		i++
	}
	previous := rune(-1) // what a "-" would be a range from
	for first := true; ; first = false {
		if i >= len(p) {
			return token{}, 0, ErrPattern
		}
		switch {
		case p[i] == ']' && !first:
			return t, i + 1, nil
		case p[i] == '-' && previous >= 0 && i+1 < len(p) && p[i+1] != ']':
			r, size, err := member(p[i+1:])
			if err != nil {
				return token{}, 0, err
			}
			t.ranges = append(t.ranges, runeRange{previous, r})
			previous = -1
			i += 1 + size
			continue
		case strings.HasPrefix(p[i:], "[:"):
			name, size := className(p[i:])
			if size > 0 {
				ranges, ok := posixClass(name)
				if !ok {
					return token{}, 0, ErrPattern
				}
				t.ranges = append(t.ranges, ranges...)
				previous = -1
				i += size
				continue
			}
		}
		r, size, err := member(p[i:])
		if err != nil {
			return token{}, 0, err
		}
		t.ranges = append(t.ranges, runeRange{r, r})
		previous = r
		i += size
	}
}

// member returns the member of a bracket expression that p begins with.
func member(p string) (r rune, n int, err error) {
	if p[0] != '\\' {
		r, n = decode(p)
		return r, n, nil
	}
	if len(p) == 1 {
		return 0, 0, ErrPattern
	}
	r, n = decode(p[1:])
	return r, n + 1, nil
}

// className returns the name in "[:name:]" and the length of the whole, or 0
// if the bracket that ends it is not preceded by a colon.
func className(p string) (name string, n int) {
	end := strings.IndexByte(p[2:], ']') + 2
	if end < 3 || p[end-1] != ':' {
		return "", 0
	}
	return p[2 : end-1], end + 1
}

// posixClass returns the members of a named class, ASCII only.
func posixClass(name string) ([]runeRange, bool) {
	switch name {
	case "alnum":
		return []runeRange{{'0', '9'}, {'A', 'Z'}, {'a', 'z'}}, true
	case "alpha":
		return []runeRange{{'A', 'Z'}, {'a', 'z'}}, true
	case "blank":
		return []runeRange{{' ', ' '}, {'\t', '\t'}}, true
	case "cntrl":
		return []runeRange{{0, 0x1f}, {0x7f, 0x7f}}, true
	case "digit":
		return []runeRange{{'0', '9'}}, true
	case "graph":
		return []runeRange{{'!', '~'}}, true
	case "lower":
		return []runeRange{{'a', 'z'}}, true
	case "print":
		return []runeRange{{' ', '~'}}, true
	case "punct":
		return []runeRange{{'!', '/'}, {':', '@'}, {'[', '`'}, {'{', '~'}}, true
	case "space":
		return []runeRange{{' ', ' '}, {'\t', '\r'}}, true
	case "upper":
		return []runeRange{{'A', 'Z'}}, true
	case "xdigit":
		return []runeRange{{'0', '9'}, {'A', 'F'}, {'a', 'f'}}, true
	}
	return nil, false
}

// literal returns the only name that the segment matches.
func (s segment) literal() (string, bool) {
	if len(s.tokens) == 1 && s.tokens[0].kind == literalToken {
		return s.tokens[0].text, true
	}
	return "", false
}

// match reports whether the segment matches name. After a mismatch only the
// last star is tried longer, since what lies before it cannot help; so the
// time is at most the product of both lengths.
func (s segment) match(name string) bool {
	t, rest := 0, name
	star, from := -1, "" // the last star, and what it was tried at
	for {
		switch {
		case t < len(s.tokens) && s.tokens[t].kind == starToken:
			star, from = t, rest
			t++
			continue
		case t < len(s.tokens):
			if n := s.tokens[t].accept(rest); n > 0 {
				rest = rest[n:]
				t++
				continue
			}
		case rest == "":
			return true
		}
		if star < 0 || from == "" {
			return false
		}
		_, n := decode(from)
		from = from[n:]
		t, rest = star+1, from
	}
}

// accept returns how many bytes of s the token matches, 0 if none.
func (t token) accept(s string) int {
	if t.kind == literalToken {
		if strings.HasPrefix(s, t.text) {
			return len(t.text)
		}
		return 0
	}
	if s == "" {
		return 0
	}
	r, n := decode(s)
	if t.kind == anyToken {
		return n
	}
	for _, m := range t.ranges {
		if m.low <= r && r <= m.high {
			if t.negated {
				return 0
			}
			return n
		}
	}
	if t.negated {
		return n
	}
	return 0
}

// matchPath reports whether the segments match the whole of path, by the same
// plan as match with names for runes. A globstar at the end stands for one
// name at least: what is in a directory, and not the directory.
func matchPath(segments []segment, path string) bool {
	s, rest, end := 0, path, false
	star, from, spent := -1, "", false
	next := func(p string) (name, tail string, last bool) {
		name, tail, more := strings.Cut(p, "/")
		return name, tail, !more
	}
	for {
		switch {
		case s < len(segments) && segments[s].globstar:
			if s == len(segments)-1 {
				return !end
			}
			star, from, spent = s, rest, end
			s++
			continue
		case s < len(segments) && !end:
			if name, tail, last := next(rest); segments[s].match(name) {
				rest, end = tail, last
				s++
				continue
			}
		case s == len(segments) && end:
			return true
		}
		if star < 0 || spent {
			return false
		}
		_, from, spent = next(from)
		s, rest, end = star+1, from, spent
	}
}

package source

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestExclude(t *testing.T) {
	tests := []struct {
		patterns string // one a line
		out      []string
		in       []string
	}{
		{"foo", []string{"foo", "a/foo", "a/b/foo/"}, []string{"foo2", "afoo"}},
		{"/foo", []string{"foo", "foo/"}, []string{"a/foo"}},
		{"foo/", []string{"foo/", "a/foo/"}, []string{"foo", "a/foo"}},
		{"a/foo", []string{"a/foo"}, []string{"b/a/foo"}},
		{"*.o", []string{"x.o", "a/x.o", ".o"}, []string{"x.oo"}},
		{"*.o\n!keep.o", []string{"x.o"}, []string{"keep.o", "a/keep.o"}},
		{"!keep.o\n*.o", []string{"keep.o"}, nil},
		{"foo\n!foo/", []string{"foo"}, []string{"foo/"}},
		{"foo/*", []string{"foo/a", "foo/b/"}, []string{"foo/", "foo/a/b", "x/foo/a"}},
		{"foo/**", []string{"foo/a", "foo/a/b"}, []string{"foo/"}},
		{"**/foo", []string{"foo", "a/foo", "a/b/foo"}, []string{"afoo"}},
		{"a/**/b", []string{"a/b", "a/x/b", "a/x/y/b"}, []string{"ab", "c/a/b", "a/xb"}},
		{"/**", []string{"a", "a/b"}, nil},
		{"a?c", []string{"abc", "aéc", "a\xffc"}, []string{"ac", "abbc"}},
		{"[a-c]x", []string{"ax", "cx"}, []string{"dx", "-x"}},
		{"[!a-c]x", []string{"dx"}, []string{"ax", "x"}},
		{"[]-]x", []string{"]x", "-x"}, []string{"ax"}},
		{"[[:digit:]]*", []string{"1", "1a"}, []string{"a1"}},
		{"[é-ü]", []string{"ö"}, []string{"z"}},
		{`\#x`, []string{"#x"}, nil},
		{"#x\n\n  \n", nil, []string{"#x", "  "}},
		{`\!x`, []string{"!x"}, []string{"x"}},
		{"x  ", []string{"x"}, []string{"x  "}},
		{`x\ `, []string{"x "}, []string{"x"}},
		{"x\r", []string{"x"}, nil},
		{`a\*b`, []string{"a*b"}, []string{"axb"}},
		{"{a,b}", []string{"{a,b}"}, []string{"a"}},
		{"a*b*c", []string{"abc", "aXbXbXc"}, []string{"abcd", "acb"}},
		{"***", []string{"a"}, nil},
	}
	for _, tt := range tests {
		m, err := newMatcher(strings.Split(tt.patterns, "\n"))
		if err != nil {
			t.Errorf("%q: %v", tt.patterns, err)
			continue
		}
		for want, paths := range map[bool][]string{true: tt.out, false: tt.in} {
			for _, p := range paths {
				name, dir := strings.CutSuffix(p, "/")
				if got := m != nil && m.decide(name, isDir(dir)) == out; got != want {
					t.Errorf("%q leaves out %q: %v, want %v", tt.patterns, p, got, want)
				}
			}
		}
	}
}

func TestExcludeRefusesWhatCannotMatch(t *testing.T) {
	for _, p := range []string{"[", "a[b", "[]", "[a", `a\`, "/", "!", "[[:nope:]]", "a\x00b", `[\`} {
		if _, err := newMatcher([]string{p}); !errors.Is(err, ErrPattern) {
			t.Errorf("newMatcher(%q) = %v, want ErrPattern", p, err)
		}
	}
	if _, err := (&DirSource{path: t.TempDir(), Exclude: []string{"["}}).Open(t.Context()); !errors.Is(err, ErrPattern) {
		t.Errorf("Open = %v, want ErrPattern", err)
	}
}

// TestExcludeIsNotExponential gives patterns that take naive matchers hours.
func TestExcludeIsNotExponential(t *testing.T) {
	m, err := newMatcher([]string{strings.Repeat("*a", 100) + "b", "/" + strings.Repeat("**/a/", 100) + "b"})
	if err != nil {
		t.Fatal(err)
	}
	if m.decide(strings.Repeat("a", 255), false) == out || m.decide(strings.Repeat("a/", 2000)+"c", false) == out {
		t.Error("excluded")
	}
}

// TestExcludeAgreesWithGit asks git about random patterns and paths.
func TestExcludeAgreesWithGit(t *testing.T) {
	git, err := exec.LookPath("git")
	if err != nil {
		t.Skip("git is not installed")
	}
	repo := t.TempDir()
	if out, err := exec.CommandContext(t.Context(), git, "init", "-q", repo).CombinedOutput(); err != nil {
		t.Skipf("git init: %v: %s", err, out)
	}
	// Directories: names that end in d. Git looks at them to know.
	var paths []string
	names := []string{"a", "b", "ab", "a-b", "ad", "bd", "]", "*d", "a b", "#a", "!a", "aaa"}
	for _, x := range names {
		paths = append(paths, x)
		if !strings.HasSuffix(x, "d") {
			continue
		}
		for _, y := range names {
			paths = append(paths, x+"/"+y)
			if strings.HasSuffix(y, "d") {
				paths = append(paths, x+"/"+y+"/a", x+"/"+y+"/ab")
			}
		}
	}
	for _, p := range paths {
		dir := filepath.Dir(p)
		if strings.HasSuffix(p, "d") {
			dir = p
		}
		if err := os.MkdirAll(filepath.Join(repo, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	piece := rapid.SampledFrom([]string{
		"a", "b", "d", "ad", "bd", "*", "**", "?", "/", "/", "/**/", "**/", "/**", "[a-b]", "[!a]", "[^b]", "[]]", "[]-]",
		"[a/b]", "[[:alpha:]]", "[[:x]", "[a-]", "[-b]", `\a`, `\*`, `\]`, "-", "#", "!", " ", "]", `[\]]`, `[a\-b]`, "[", `\`,
	})
	line := rapid.Map(rapid.SliceOfN(piece, 1, 6), func(p []string) string { return strings.Join(p, "") }).
		Filter(func(p string) bool { return !gitQuirk.MatchString(p) })
	rapid.Check(t, func(rt *rapid.T) {
		patterns := rapid.SliceOfN(line, 1, 4).Draw(rt, "patterns")
		var good []string // git takes those that cannot match as not there
		for _, p := range patterns {
			if _, _, err := parseRule(p); err == nil {
				good = append(good, p)
			}
		}
		if err := os.WriteFile(filepath.Join(repo, ".git/info/exclude"), []byte(strings.Join(patterns, "\n")+"\n"), 0o600); err != nil {
			rt.Fatal(err)
		}
		ignored := gitIgnores(rt, git, repo, paths)
		m, err := newMatcher(good)
		if err != nil {
			rt.Fatal(err)
		}
		for _, p := range paths {
			if got := m != nil && withParents(m, p); got != ignored[p] {
				rt.Fatalf("%q leave out %q: %v, git says %v", good, p, got, ignored[p])
			}
		}
	})
}

// Of "a**/b" git 2.39 cuts off the plain start, and then takes the rest for
// "**/b", against its own documentation; and of "**\/b" it does not know that
// no directory will do as well.
var gitQuirk = regexp.MustCompile(`[^/*]\*\*|\\/`)

// gitIgnores returns which of the paths git leaves out.
func gitIgnores(t *rapid.T, git, repo string, paths []string) map[string]bool {
	cmd := exec.CommandContext(t.Context(), git, "-C", repo, "check-ignore", "-z", "--stdin", "--no-index")
	cmd.Stdin = strings.NewReader(strings.Join(paths, "\x00"))
	out, err := cmd.Output()
	if exit := (*exec.ExitError)(nil); err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 1) {
		t.Fatal(err)
	}
	ignored := map[string]bool{}
	for p := range strings.SplitSeq(string(out), "\x00") {
		ignored[p] = true
	}
	return ignored
}

// withParents is what a walk makes of the patterns: it enters no directory
// that is left out.
func withParents(m *matcher, path string) bool {
	for i := range path {
		if path[i] == '/' && m.decide(path[:i], true) == out {
			return true
		}
	}
	return m.decide(path, isDir(strings.HasSuffix(path, "d"))) == out
}

// FuzzExclude matches any patterns with any path by a plain recursion as well.
func FuzzExclude(f *testing.F) {
	f.Add("a/**/b\n*.o", "a/x/b")
	f.Add("[!a-c]?*\xff", "d\xffx\xff")
	f.Fuzz(func(t *testing.T, patterns, path string) {
		if len(patterns) > 40 || len(path) > 40 {
			return
		}
		for p := range strings.SplitSeq(patterns, "\n") {
			r, ok, err := parseRule(p)
			if err != nil || !ok || r.suffix != "" {
				continue
			}
			_, name := splitPath(path)
			if got, want := r.glob[0].match(name), plainMatch(r.glob[0].tokens, name); got != want {
				t.Errorf("%q matches %q: %v, want %v", p, name, got, want)
			}
			if got, want := matchPath(r.glob, path), plainPath(r.glob, strings.Split(path, "/")); got != want {
				t.Errorf("%q matches the path %q: %v, want %v", p, path, got, want)
			}
		}
	})
}

func plainMatch(tokens []token, s string) bool {
	if len(tokens) == 0 {
		return s == ""
	}
	if tokens[0].kind == starToken {
		for rest := s; ; {
			if plainMatch(tokens[1:], rest) {
				return true
			}
			if rest == "" {
				return false
			}
			_, n := decode(rest)
			rest = rest[n:]
		}
	}
	n := tokens[0].accept(s)
	return n > 0 && plainMatch(tokens[1:], s[n:])
}

func plainPath(segments []segment, names []string) bool {
	if len(segments) == 0 {
		return len(names) == 0
	}
	if segments[0].globstar {
		least := 0
		if len(segments) == 1 {
			least = 1
		}
		for i := least; i <= len(names); i++ {
			if plainPath(segments[1:], names[i:]) {
				return true
			}
		}
		return false
	}
	return len(names) > 0 && plainMatch(segments[0].tokens, names[0]) && plainPath(segments[1:], names[1:])
}

func BenchmarkExclude(b *testing.B) {
	m, err := newMatcher([]string{
		"node_modules/", ".cache", "*.o", "*.pyc", "*.tmp", "~*", "/proc", "/sys", "target/debug", "**/build/**/out",
		"*.swp", "*.log", "Thumbs.db", ".DS_Store", "a[0-9].txt", "/var/*/cache", "*.bak", "core.*", "*~", "!keep.o",
	})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if m.decide("home/user/src/project/internal/file_name.go", false) == out {
			b.Fatal("excluded")
		}
	}
}

package source

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/cairn-backup/cairn/manifest"
)

// files makes files below dir: paths and contents, in pairs.
func files(t *testing.T, dir string, pairs ...string) {
	t.Helper()
	for pair := range slices.Chunk(pairs, 2) {
		path := filepath.Join(dir, pair[0])
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(pair[1]), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// view opens a source; the view is closed at the end of the test.
func view(t *testing.T, s Source) View {
	t.Helper()
	v, err := s.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.Close() })
	return v
}

// walk returns all paths that v shows below its only root, and the errors.
func walk(t *testing.T, v View) (paths []string, errs map[string]error) {
	t.Helper()
	errs = map[string]error{}
	root := v.Info().Roots[0].Name
	var into func(path string)
	into = func(path string) {
		for n, err := range v.ReadDir(t.Context(), path) {
			at := path + "/" + n.Name
			rel := strings.TrimPrefix(at, root+"/")
			if err != nil {
				errs[rel] = err
				continue
			}
			paths = append(paths, rel)
			if n.Kind == manifest.Dir {
				into(at)
			}
		}
	}
	into(root)
	return paths, errs
}

func TestIgnoreFiles(t *testing.T) {
	tests := []struct {
		name    string
		exclude []string
		ignore  []string
		files   []string // paths and contents
		want    string
	}{
		{
			name: "here and below", ignore: []string{".i"},
			files: []string{"x.o", "", "a/.i", "*.o\n", "a/x.o", "", "a/y", "", "a/b/x.o", "", "b/x.o", ""},
			want:  "a a/.i a/b a/y b b/x.o x.o",
		},
		{
			name: "anchored to its own directory", ignore: []string{".i"},
			files: []string{"a/.i", "/x\nb/y\n", "a/x", "", "a/b/x", "", "a/b/y", "", "x", "", "b/y", ""},
			want:  "a a/.i a/b a/b/x b b/y x",
		},
		{
			name: "the deepest decides", ignore: []string{".i"},
			files: []string{".i", "*.o\n", "x.o", "", "a/.i", "!x.o\n", "a/x.o", "", "a/y.o", "", "a/b/.i", "x.o", "a/b/x.o", ""},
			want:  ".i a a/.i a/b a/b/.i a/x.o",
		},
		{
			name: "what a directory leaves out stays out", ignore: []string{".i"},
			files: []string{".i", "a/\n", "a/.i", "!*\n", "a/x", ""},
			want:  ".i",
		},
		{
			name: "directories only", ignore: []string{".i"},
			files: []string{".i", "a/\n", "a", "", "b/a/x", ""},
			want:  ".i a b",
		},
		{
			name: "the options decide first", ignore: []string{".i"}, exclude: []string{"*.o", "!keep"},
			files: []string{".i", "!x.o\nkeep\nother\n", "x.o", "", "keep", "", "other", ""},
			want:  ".i keep",
		},
		{
			name: "the last name wins", ignore: []string{".i", ".j"},
			files: []string{".i", "x\n!y", ".j", "!x\ny", "x", "", "y", ""},
			want:  ".i .j x",
		},
		{
			name: "byte order mark, line ends and lines that cannot match", ignore: []string{".i"},
			files: []string{".i", "\xef\xbb\xbfx\r\n# y\n[\n\n\\\nz  \n", "x", "", "y", "", "z", "", "[", ""},
			want:  ".i [ y",
		},
		{name: "only if asked for", files: []string{".i", "x", ".gitignore", "x", "x", ""}, want: ".gitignore .i x"},
		{name: "it may leave itself out", ignore: []string{".i"}, files: []string{".i", ".i\nx", "x", "", "y", ""}, want: "y"},
		{name: "a directory of that name", ignore: []string{".i"}, files: []string{".i/x", "y", "y", ""}, want: ".i .i/x y"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			files(t, dir, tt.files...)
			d := Dir(dir)
			d.Exclude, d.IgnoreFiles = tt.exclude, tt.ignore
			paths, errs := walk(t, view(t, d))
			if got := strings.Join(paths, " "); got != tt.want || len(errs) > 0 {
				t.Errorf("the view shows %q, %v, want %q", got, errs, tt.want)
			}
		})
	}
}

// TestIgnoreFileOfNoUse: what cannot be read, or is too large, leaves nothing
// out and is told.
func TestIgnoreFileOfNoUse(t *testing.T) {
	dir := t.TempDir()
	long := "x\n" + strings.Repeat("# comment\n", maxIgnore/10+1)
	files(t, dir, "x", "", ".i", "y\n", "a/.i", long, "a/x", "", "a/y", "", "b/.i", "x", "b/x", "")
	d := Dir(dir)
	d.IgnoreFiles = []string{".i"}
	paths, errs := walk(t, view(t, d))
	if got := strings.Join(paths, " "); got != ".i a a/x b b/.i x" {
		t.Errorf("the view shows %q", got)
	}
	err := errs["a/.i"]
	if !errors.Is(err, ErrIgnoreFile) || !errors.Is(err, ErrSource) || len(errs) != 1 {
		t.Errorf("the errors are %v", errs)
	}
	if want := "read " + filepath.ToSlash(dir) + "/a/.i: ignore files are too large: more than 256 KiB are in force here"; err.Error() != want {
		t.Errorf("the error is %q, want %q", err, want)
	}
}

// TestIgnoreFileNames: none leads anywhere else.
func TestIgnoreFileNames(t *testing.T) {
	for _, name := range []string{"", ".", "..", "../x", "a/b", "a\x00"} {
		d := Dir(t.TempDir())
		d.IgnoreFiles = []string{".i", name}
		if _, err := d.Open(t.Context()); !errors.Is(err, ErrPattern) {
			t.Errorf("Open with %q = %v, want ErrPattern", name, err)
		}
	}
}

// TestIgnoreFilesAreForgotten: whatever the tree is, few of its ignore files are
// in memory, and what was forgotten is read again.
func TestIgnoreFilesAreForgotten(t *testing.T) {
	dir := t.TempDir()
	const dirs = 2 * maxScopes
	text := "x\n" + strings.Repeat("#", maxIgnore/100)
	for i := range dirs {
		files(t, dir, fmt.Sprintf("top/d%04d/.i", i), text, fmt.Sprintf("top/d%04d/x", i), "")
	}
	files(t, dir, "top/.i", "nothing", "top/d0000/sub/x", "")
	d := Dir(dir)
	d.IgnoreFiles = []string{".i"}
	v := view(t, d)
	paths, errs := walk(t, v)
	if want := 3 + 2*dirs; len(paths) != want || len(errs) > 0 { // top and its file, sub
		t.Errorf("the view shows %d paths, %v, want %d", len(paths), errs, want)
	}
	f := v.(*dirView).filter
	if f.recent.Len() != len(f.byPath) || f.recent.Len() > maxScopes || f.bytes > maxIgnore || f.bytes < maxIgnore/2 {
		t.Errorf("%d and %d directories are remembered, %d bytes", f.recent.Len(), len(f.byPath), f.bytes)
	}
	root := v.Info().Roots[0].Name
	for n, err := range v.ReadDir(t.Context(), root+"/top/d0000/sub") {
		t.Errorf("a forgotten directory shows %q, %v", n.Name, err)
	}
}

// TestIgnoreFilesAgreeWithGit asks git about random ignore files in a tree.
func TestIgnoreFilesAgreeWithGit(t *testing.T) {
	git, err := exec.LookPath("git")
	if err != nil {
		t.Skip("git is not installed")
	}
	repo := t.TempDir()
	if out, err := exec.CommandContext(t.Context(), git, "init", "-q", repo).CombinedOutput(); err != nil {
		t.Skipf("git init: %v: %s", err, out)
	}
	dirs := []string{"", "ad", "ad/bd", "ad/bd/ad", "bd"}
	var all []string
	for _, d := range dirs {
		if d != "" {
			all = append(all, d)
		}
		for _, name := range []string{"a", "b", "ab", "a-b", "ba", "x.a"} {
			files(t, repo, joinPath(d, name), "")
			all = append(all, joinPath(d, name))
		}
	}
	piece := rapid.SampledFrom([]string{"a", "b", "ad", "bd", "*", "?", "/", "[a-b]", "[!a]", "-", ".", "**/", "/**"})
	line := rapid.Custom(func(t *rapid.T) string {
		p := strings.Join(rapid.SliceOfN(piece, 1, 4).Draw(t, "line"), "")
		return rapid.SampledFrom([]string{"", "", "", "!", "/", "!/"}).Draw(t, "start") + p + rapid.SampledFrom([]string{"", "", "/"}).Draw(t, "end")
	}).Filter(func(p string) bool { return !gitQuirk.MatchString(p) })
	rapid.Check(t, func(rt *rapid.T) {
		for _, d := range dirs {
			text := strings.Join(rapid.SliceOfN(line, 0, 3).Draw(rt, "in "+d), "\n")
			if err := os.WriteFile(filepath.Join(repo, d, ".gitignore"), []byte(text), 0o600); err != nil {
				rt.Fatal(err)
			}
		}
		ignored := gitIgnores(rt, git, repo, all)
		d := Dir(repo)
		d.Exclude, d.IgnoreFiles = []string{"/.git", ".gitignore"}, []string{".gitignore"}
		v, err := d.Open(t.Context())
		if err != nil {
			rt.Fatal(err)
		}
		defer v.Close()
		shown, errs := walk(t, v)
		if len(errs) > 0 {
			rt.Fatal(errs)
		}
		for _, p := range all {
			if got := !slices.Contains(shown, p); got != ignored[p] {
				rt.Fatalf("%q is left out: %v, git says %v", p, got, ignored[p])
			}
		}
	})
}

// FuzzIgnoreFile takes anything for an ignore file.
func FuzzIgnoreFile(f *testing.F) {
	f.Add([]byte("*.o\n!keep.o\n/a/**/b/\n"), "a/x/b")
	f.Add([]byte("\xef\xbb\xbf[[:alpha:]]\r\n\\ \n[\n\x00"), "a")
	f.Fuzz(func(t *testing.T, text []byte, path string) {
		if len(text) > 1000 || len(path) > 200 {
			return
		}
		var m matcher
		m.addFile(text)
		var good []string
		for line := range strings.SplitSeq(string(bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))), "\n") {
			if _, ok, err := parseRule(line); ok && err == nil {
				good = append(good, line)
			}
		}
		whole, err := newMatcher(good)
		if err != nil || len(good) != len(m.rules) {
			t.Fatalf("%d rules of %q: %v", len(m.rules), good, err)
		}
		for _, dir := range []isDir{false, true} {
			want := undecided
			if whole != nil {
				want = whole.decide(path, dir)
			}
			if got := m.decide(path, dir); got != want {
				t.Errorf("%q says %d of %q, want %d", text, got, path, want)
			}
		}
	})
}

// TestFollowed tells of a root that is a link, and of no other link.
func TestFollowed(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	files(t, dir, "real/file", "content")
	if err := os.Symlink("real", filepath.Join(dir, "link")); err != nil {
		t.Skipf("no symbolic links here: %v", err)
	}
	if err := os.Symlink("file", filepath.Join(dir, "real", "inner")); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	v := view(t, Join(Dir(filepath.Join(dir, "real")), Dir(link), Dir(filepath.Join(link, "file")), Dir(filepath.Join(link, "inner"))))
	want := []Link{
		{Path: link, Target: filepath.Join(dir, "real")},
		{Path: filepath.Join(link, "inner"), Target: filepath.Join(dir, "real", "file")},
	}
	if got := Followed(v); !slices.Equal(got, want) {
		t.Errorf("Followed() = %v, want %v", got, want)
	}
	if got := Followed(view(t, FS("x", os.DirFS(dir)))); got != nil {
		t.Errorf("an fs.FS followed %v", got)
	}
	// What a link leads to must be there.
	if err := os.Symlink("absent", filepath.Join(dir, "dangling")); err != nil {
		t.Fatal(err)
	}
	if _, err := Dir(filepath.Join(dir, "dangling")).Open(t.Context()); !errors.Is(err, fs.ErrNotExist) || !errors.Is(err, ErrSource) {
		t.Errorf("Open of a link to nothing: %v", err)
	}
}

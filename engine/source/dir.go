package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cairn-backup/cairn/manifest"
)

// A DirSource is a directory, or a single file, of this machine. Its fields
// are set before Open and not changed after.
//
// On Linux a path may have any depth, nothing is followed out of the tree, and
// nodes hold everything that the system tells. Elsewhere extended attributes
// are left out.
type DirSource struct {
	path string

	// Exclude holds patterns of entries to leave out, in the syntax of
	// gitignore(5) and relative to the directory: the last pattern that
	// matches decides; "!" takes an entry in again, unless a directory above
	// it is left out; a slash at the end means directories only; a slash
	// elsewhere ties the pattern to the top; "*", "?" and "[a-z]" match
	// within a name, "**" any number of names. "?" and "[...]" match one
	// UTF-8 sequence, or one byte that is none. Empty patterns and those that
	// begin with "#" are ignored; one that cannot match is ErrPattern.
	Exclude []string

	// IgnoreFiles holds names of files, such as ".gitignore", whose lines are
	// patterns as well, for the directory that such a file lies in and all
	// below, relative to it. Exclude decides first; then the file that lies
	// deepest; in one directory the name that comes last here. Lines that
	// cannot match are as if they were not there, as git has it. Only regular
	// files count. One that cannot be read, or with which those in force for
	// its directory hold more than 256 KiB, leaves nothing out, and
	// is itself listed with an error, so that a backup tells of it.
	// Default: none; no file of the tree decides what is backed up.
	IgnoreFiles []string

	// OneFileSystem leaves out what lies on another file system than the
	// directory itself. The directories that such file systems are mounted
	// on are kept, empty.
	OneFileSystem bool

	// ExcludeCaches leaves out what is in directories with a valid
	// CACHEDIR.TAG, all but the tag (https://bford.info/cachedir).
	ExcludeCaches bool

	// Pages holds patterns, with the syntax and the order of Exclude, of files to
	// store by pages of 4 KiB, such as images of disks: of those a backup stores the
	// pages that changed. They share little with files of the same content at other
	// places; see docs/adr/0007-page-profile.md for what that is worth. A pattern
	// stands for what is below a directory as well. What it takes out again with
	// "!" is cut by content, also a database. For a source that is one file the
	// patterns are matched with its name.
	// Default: databases of SQLite and bbolt by pages, all else by content.
	Pages []string

	// Skip holds paths of files and directories to leave out wherever they
	// show up, by device and inode: the repository and its cache. Those that
	// do not exist are ignored.
	Skip []string
}

var _ Source = (*DirSource)(nil)

// Dir returns a source that is the directory or file at path. If path is a
// symbolic link, the source is what it leads to; links below are entries.
func Dir(path string) *DirSource { return &DirSource{path: path} }

// Open opens the directory.
func (d *DirSource) Open(ctx context.Context) (View, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	root, err := rootOf(d.path)
	if err != nil {
		return nil, err
	}
	exclude, err := newMatcher(d.Exclude)
	if err != nil {
		return nil, err
	}
	pages, err := newMatcher(d.Pages)
	if err != nil {
		return nil, err
	}
	for _, name := range d.IgnoreFiles {
		if strings.ContainsAny(name, "/\x00") || !validPath(name) {
			return nil, fmt.Errorf("%q is no name of an ignore file: %w", name, ErrPattern)
		}
	}
	v := &dirView{
		tree:   tree{root: root},
		filter: newFilter(exclude, d.IgnoreFiles),
		oneFS:  d.OneFileSystem,
		caches: d.ExcludeCaches,
		pages:  pages,
	}
	if v.skip, err = lookAll(d.Skip); err != nil {
		return nil, err
	}
	if err := v.open(); err != nil {
		return nil, errors.Join(err, v.Close())
	}
	return v, nil
}

// A dirView is a view of a directory that never leads out of the tree. How it
// reaches entries is the business of its dirSystem.
type dirView struct {
	tree
	leftOut
	filter *filter
	oneFS  bool
	caches bool
	pages  *matcher // nil: says nothing of any file
	skip   []fs.FileInfo
	link   Link // the root, if it is one
	owners owners

	dirSystem
}

var (
	_ View      = (*dirView)(nil)
	_ Completer = (*dirView)(nil)
	_ Follower  = (*dirView)(nil)
)

// resolve returns the root's path without symbolic links. They are followed
// here and nowhere else.
func (v *dirView) resolve() (string, error) {
	path, err := filepath.EvalSymlinks(v.root.Path)
	if err != nil {
		return "", v.fail("open", "", err)
	}
	if fi, err := os.Lstat(v.root.Path); err == nil && fi.Mode()&fs.ModeSymlink != 0 {
		v.link = Link{Path: filepath.FromSlash(v.root.Path), Target: path}
	}
	return path, nil
}

// A listing is what a directory holds.
type listing struct {
	rel   string   // the directory
	names []string // sorted
	rules rules    // which of them are left out
}

// ReadDir yields nodes with all that one look tells.
func (v *dirView) ReadDir(ctx context.Context, path string) iter.Seq2[manifest.Node, error] {
	return func(yield func(manifest.Node, error) bool) {
		if err := ctx.Err(); err != nil {
			yield(manifest.Node{}, err)
			return
		}
		if path == "" {
			yield(v.rootNode())
			return
		}
		rel, err := v.inside(path)
		if err != nil {
			yield(manifest.Node{}, err)
			return
		}
		names, err := v.names(rel)
		if err != nil {
			yield(manifest.Node{}, v.fail("read", rel, err))
			return
		}
		slices.Sort(names)
		if _, found := slices.BinarySearch(names, cacheTag); v.caches && found && v.tagged(ctx, rel) {
			names = []string{cacheTag}
		}
		v.yieldAll(ctx, listing{rel, names, v.rules(ctx, rel)}, yield)
	}
}

// tagged reports whether the directory at rel has a valid CACHEDIR.TAG.
func (v *dirView) tagged(ctx context.Context, rel string) bool {
	f, err := v.openRegular(ctx, joinPath(rel, cacheTag))
	if err != nil {
		return false
	}
	defer f.Close() //nolint:errcheck // nothing was written to it
	var head [len(cacheSignature)]byte
	_, err = io.ReadFull(f, head[:])
	return err == nil && string(head[:]) == cacheSignature
}

// OpenFile opens the regular file at path.
func (v *dirView) OpenFile(ctx context.Context, path string) (io.ReadCloser, error) {
	rel, err := v.inside(path)
	if err != nil {
		return nil, err
	}
	f, err := v.openRegular(ctx, rel)
	if err != nil {
		return nil, err
	}
	return f, nil
}

// grain returns the grain of an open file at rel: as the patterns say, and else
// as the file begins.
func (v *dirView) grain(rel string, file io.ReaderAt, size int64) (int, error) {
	wish := v.paged(rel)
	if wish == leftIn {
		return 0, nil
	}
	grain, err := grainOf(file, size)
	if wish == out && grain == 0 && err == nil {
		grain = imageGrain
	}
	return grain, err
}

// paged returns what the patterns of Pages say of the file at rel: out if it is
// to be stored by pages, leftIn if by content. The pattern of the deepest entry on
// the way counts.
func (v *dirView) paged(rel string) decision {
	if v.pages == nil {
		return undecided
	}
	if rel == "" {
		rel = filepath.Base(v.root.Path)
	}
	d := v.pages.decide(rel, false)
	for up, _ := splitPath(rel); d == undecided && up != ""; up, _ = splitPath(up) {
		d = v.pages.decide(up, true)
	}
	return d
}

// lookAll returns what is at the paths, without those that do not exist.
func lookAll(paths []string) ([]fs.FileInfo, error) {
	var infos []fs.FileInfo
	for _, path := range paths {
		fi, err := os.Stat(path)
		switch {
		case err == nil:
			infos = append(infos, fi)
		case !errors.Is(err, fs.ErrNotExist):
			// What cannot be told apart cannot be left out.
			return nil, &Error{Op: "stat", Path: path, Err: cause(err)}
		}
	}
	return infos, nil
}

// Info describes the directory.
func (v *dirView) Info() Info {
	return Info{Kind: manifest.KindFiles, Name: v.root.Name, Roots: []manifest.Root{v.root}}
}

// Finish does nothing: a directory has no consistency of its own to check.
func (v *dirView) Finish(ctx context.Context) error { return ctx.Err() }

// The tag of cache directories and how a valid one begins.
const (
	cacheTag       = "CACHEDIR.TAG"
	cacheSignature = "Signature: 8a477f597d28d172789f06886806bc55"
)

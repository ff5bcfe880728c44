package source

import (
	"context"
	"errors"
	"io/fs"
	"os"

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

	// OneFileSystem leaves out what lies on another file system than the
	// directory itself. The directories that such file systems are mounted
	// on are kept, empty.
	OneFileSystem bool

	// ExcludeCaches leaves out what is in directories with a valid
	// CACHEDIR.TAG, all but the tag (https://bford.info/cachedir).
	ExcludeCaches bool

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
	v := &dirView{
		tree:    tree{root: root},
		exclude: exclude,
		oneFS:   d.OneFileSystem,
		caches:  d.ExcludeCaches,
	}
	if v.skip, err = lookAll(d.Skip); err != nil {
		return nil, err
	}
	if err := v.open(); err != nil {
		return nil, errors.Join(err, v.Close())
	}
	return v, nil
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

// A verdict says whether an entry is left out, as far as its path tells.
type verdict uint8

const (
	keep    verdict = iota
	leave           // whatever it is
	ifDir           // left out if it is a directory
	ifOther         // left out if it is none
)

// verdict says, from its path alone, whether the entry at rel is left out.
func (v *dirView) verdict(rel string) verdict {
	if v.exclude == nil {
		return keep
	}
	other := v.exclude.excluded(rel, false)
	dir := other
	if v.exclude.dirOnly {
		dir = v.exclude.excluded(rel, true)
	}
	switch {
	case dir && other:
		return leave
	case dir:
		return ifDir
	case other:
		return ifOther
	}
	return keep
}

// leaves reports whether the verdict on an entry of kind k is to leave it.
func (w verdict) leaves(k manifest.NodeKind) bool {
	return w == leave || w == ifDir && k == manifest.Dir || w == ifOther && k != manifest.Dir
}

// The tag of cache directories and how a valid one begins.
const (
	cacheTag       = "CACHEDIR.TAG"
	cacheSignature = "Signature: 8a477f597d28d172789f06886806bc55"
)

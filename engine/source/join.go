package source

import (
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/cairn-backup/cairn/manifest"
)

// Join returns a source that shows the roots of all sources side by side. Its
// kind and profile are those of the sources if they agree, and otherwise files
// and the default. It is as consistent as each source is by itself: they are
// opened one after the other.
func Join(sources ...Source) Source { return joined(slices.Clone(sources)) }

type joined []Source

// Open opens all sources.
func (s joined) Open(ctx context.Context) (View, error) {
	if len(s) == 0 {
		return nil, &Error{Op: "open", Path: "sources", Err: errors.New("none given")}
	}
	v := &joinView{}
	for _, source := range s {
		part, err := source.Open(ctx)
		if err != nil {
			return nil, errors.Join(err, v.Close())
		}
		v.parts = append(v.parts, part)
	}
	v.arrange()
	return v, nil
}

type joinView struct {
	parts []View
	info  Info
	roots []joinRoot // by name
}

// A joinRoot is a root of a part under the name that it has in the whole.
type joinRoot struct {
	name  string
	part  View
	inner string // the name that the part knows it by
}

var (
	_ Completer = (*joinView)(nil)
	_ Labeler   = (*joinView)(nil)
)

// arrange names the roots so that no two are called the same.
func (v *joinView) arrange() {
	v.info = v.parts[0].Info()
	v.info.Roots = nil
	var names, paths []string
	for _, part := range v.parts {
		info := part.Info()
		if info.Kind != v.info.Kind {
			v.info.Kind = manifest.KindFiles
		}
		if info.Profile != v.info.Profile {
			v.info.Profile = ""
		}
		names = append(names, info.Name)
		for _, r := range info.Roots {
			v.roots = append(v.roots, joinRoot{part: part, inner: r.Name})
			paths = append(paths, r.Path)
		}
	}
	v.info.Name = strings.Join(names, ",")
	v.info.Roots = manifest.UniqueNames(paths)
	for i, r := range v.info.Roots {
		v.roots[i].name = r.Name
	}
	slices.SortFunc(v.roots, func(a, b joinRoot) int { return cmp.Compare(a.name, b.name) })
}

// Info describes all parts.
func (v *joinView) Info() Info { return v.info }

// find returns the part that path lies in and the path that it has there.
func (v *joinView) find(path string) (View, string, error) {
	name, rest, below := strings.Cut(path, "/")
	i, found := slices.BinarySearchFunc(v.roots, name, func(r joinRoot, name string) int { return cmp.Compare(r.name, name) })
	if !found {
		return nil, "", &Error{Op: "open", Path: path, Err: fs.ErrNotExist}
	}
	inner := v.roots[i].inner
	if below {
		inner += "/" + rest
	}
	return v.roots[i].part, inner, nil
}

// ReadDir yields what the part yields.
func (v *joinView) ReadDir(ctx context.Context, path string) iter.Seq2[manifest.Node, error] {
	if path == "" {
		return v.top(ctx)
	}
	part, inner, err := v.find(path)
	if err != nil {
		return func(yield func(manifest.Node, error) bool) { yield(manifest.Node{}, err) }
	}
	return part.ReadDir(ctx, inner)
}

// top yields the roots of all parts.
func (v *joinView) top(ctx context.Context) iter.Seq2[manifest.Node, error] {
	return func(yield func(manifest.Node, error) bool) {
		for _, root := range v.roots {
			n, err := one(ctx, root)
			n.Name = root.name
			if ctx.Err() != nil {
				n, err = manifest.Node{}, ctx.Err()
			}
			if !yield(n, err) || n.Name == "" {
				return
			}
		}
	}
}

// one returns the node of one root.
func one(ctx context.Context, root joinRoot) (manifest.Node, error) {
	for n, err := range root.part.ReadDir(ctx, "") {
		if n.Name == root.inner || n.Name == "" && err != nil {
			return n, err
		}
	}
	return manifest.Node{}, &Error{Op: "open", Path: root.inner, Err: fs.ErrNotExist}
}

// OpenFile opens the file in its part.
func (v *joinView) OpenFile(ctx context.Context, path string) (io.ReadCloser, error) {
	part, inner, err := v.find(path)
	if err != nil {
		return nil, err
	}
	return part.OpenFile(ctx, inner)
}

// Complete completes n if its part leaves anything out.
func (v *joinView) Complete(ctx context.Context, path string, n *manifest.Node) error {
	part, inner, err := v.find(path)
	if err != nil {
		return err
	}
	return Complete(ctx, part, inner, n)
}

// Labels returns the labels of all parts. A key that an earlier part has taken
// gets a number: key, key.2, key.3.
func (v *joinView) Labels() map[string]string {
	all := map[string]string{}
	for _, part := range v.parts {
		labels := Labels(part)
		for _, key := range slices.Sorted(maps.Keys(labels)) {
			name := key
			for n := 2; ; n++ {
				if _, taken := all[name]; !taken {
					break
				}
				name = key + "." + strconv.Itoa(n)
			}
			all[name] = labels[key]
		}
	}
	return all
}

// Finish finishes every part.
func (v *joinView) Finish(ctx context.Context) error {
	var errs []error
	for _, part := range v.parts {
		errs = append(errs, part.Finish(ctx))
	}
	return errors.Join(errs...)
}

// Close closes every part, the last opened first.
func (v *joinView) Close() error {
	var errs []error
	for _, part := range slices.Backward(v.parts) {
		errs = append(errs, part.Close())
	}
	return errors.Join(errs...)
}

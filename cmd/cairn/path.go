package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/manifest"
)

// A view is the content of a snapshot as the command line shows it: where the
// snapshot has one root that is a directory, paths are relative to it, else
// they begin with the name of a root. A path that is absolute is taken as the
// one that was backed up.
type view struct {
	*engine.FS
	snap manifest.Snapshot
	top  string // what paths are relative to: "." or the name of the root
}

func openView(ctx context.Context, repo *engine.Repository, s manifest.Snapshot) (*view, error) {
	fsys, err := repo.FS(ctx, s.ID)
	if err != nil {
		return nil, err
	}
	v := &view{FS: fsys, snap: s, top: "."}
	if len(s.Roots) == 1 {
		info, err := fsys.Stat(s.Roots[0].Name)
		if err != nil {
			return nil, err
		}
		if info.IsDir() {
			v.top = s.Roots[0].Name
		}
	}
	return v, nil
}

// item finds the item at arg of a snapshot and hands it to use, with its name in
// the FS.
func (a *app) item(ctx context.Context, ref, arg string, where stream, use func(v *view, name string, info fs.FileInfo) error) error {
	repo, _, err := a.open(ctx, reads)
	if err != nil {
		return err
	}
	defer repo.Close() // only read
	s, err := a.snapshot(ctx, repo, ref, where)
	if err != nil {
		return err
	}
	v, err := openView(ctx, repo, s)
	if err != nil {
		return err
	}
	name, info, err := v.stat(arg)
	if err != nil {
		return err
	}
	return use(v, name, info)
}

// relative returns arg as a path in the view's terms, "" for the top.
func (v *view) relative(arg string) string {
	clean := path.Clean("/" + arg)
	if strings.HasPrefix(arg, "/") {
		for _, r := range v.snap.Roots {
			root := path.Clean(strings.ReplaceAll(r.Path, `\`, "/"))
			rest, ok := strings.CutPrefix(clean, strings.TrimSuffix(root, "/"))
			if !ok || (rest != "" && rest[0] != '/') {
				continue
			}
			if v.top != "." {
				return strings.Trim(rest, "/")
			}
			return strings.Trim(r.Name+rest, "/")
		}
	}
	return strings.Trim(clean, "/")
}

// inside returns the FS's name of a path in the view's terms.
func (v *view) inside(rel string) string { return path.Join(v.top, rel) }

// original returns the path that was backed up as the FS's name.
func (v *view) original(name string) string { return original(v.snap.Roots, name) }

// original returns the path that was backed up as name, which begins with the
// name of a root.
func original(roots []manifest.Root, name string) string {
	root, rest, _ := strings.Cut(name, "/")
	for _, r := range roots {
		if r.Name == root {
			if rest == "" {
				return r.Path
			}
			return strings.TrimSuffix(r.Path, "/") + "/" + rest
		}
	}
	return name
}

// stat returns the node at arg, and its name in the FS.
func (v *view) stat(arg string) (string, fs.FileInfo, error) {
	name := v.inside(v.relative(arg))
	info, err := v.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return name, nil, withHint(fmt.Errorf("snapshot %s has no %s", v.snap.ID.Short(), printable(arg)),
			"cairn ls %s shows what is in it", v.snap.ID.Short())
	}
	return name, info, err
}

// has reports whether the view has an item whose path the segments of a pattern
// match. A segment is a pattern as in path.Match, or literally a name.
func (v *view) has(segments []string) (bool, error) {
	return v.hasBelow(v.top, segments)
}

func (v *view) hasBelow(dir string, segments []string) (bool, error) {
	name := path.Join(dir, segments[0])
	info, err := v.Stat(name)
	switch {
	case err == nil && len(segments) == 1:
		return true, nil
	case err == nil && info.IsDir():
		return v.hasBelow(name, segments[1:])
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return false, err
	}
	if !strings.ContainsAny(segments[0], `*?[\`) {
		return false, nil
	}
	entries, err := v.ReadDir(dir)
	if err != nil {
		return false, err
	}
	for _, e := range entries {
		ok, err := path.Match(segments[0], e.Name())
		if err != nil {
			return false, usagef("%q is no pattern", printableText(segments[0]))
		}
		if !ok || (len(segments) > 1 && !e.IsDir()) {
			continue
		}
		if len(segments) == 1 {
			return true, nil
		}
		if found, err := v.hasBelow(path.Join(dir, e.Name()), segments[1:]); found || err != nil {
			return found, err
		}
	}
	return false, nil
}

// nodeOf returns the node that info describes.
func nodeOf(info fs.FileInfo) *manifest.Node {
	n, ok := info.Sys().(*manifest.Node)
	if !ok {
		panic("cairn: an engine.FS whose infos are no nodes")
	}
	return n
}

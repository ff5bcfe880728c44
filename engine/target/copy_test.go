package target_test

import (
	"context"
	"errors"
	"io"
	"slices"
	"testing"

	"github.com/cairn-backup/cairn/engine/source"
	"github.com/cairn-backup/cairn/engine/target"
	"github.com/cairn-backup/cairn/manifest"
)

// A tree is what a source shows: complete nodes by path, and contents.
type tree struct {
	nodes map[string]manifest.Node
	data  map[string]string // of regular files, only if asked for
	holes map[string]int    // ranges of data of each file
}

// read reads all that the source shows, with the root's name cut off.
func read(t *testing.T, src source.Source) tree {
	t.Helper()
	got := tree{map[string]manifest.Node{}, map[string]string{}, map[string]int{}}
	err := visit(t.Context(), src, func(v source.View, at, rel string, n manifest.Node) error {
		got.nodes[rel] = n
		if n.Kind != manifest.File {
			return nil
		}
		f, err := v.OpenFile(t.Context(), at)
		if err != nil {
			return err
		}
		data, err := io.ReadAll(f)
		got.data[rel] = string(data)
		if s, ok := f.(source.Sparse); ok {
			for off := int64(0); ; got.holes[rel]++ {
				_, end, err := s.NextData(off)
				if err != nil {
					break
				}
				off = end
			}
		}
		return errors.Join(err, f.Close())
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// visit calls f for every entry of the only root of src, parents first.
func visit(ctx context.Context, src source.Source, f func(v source.View, at, rel string, n manifest.Node) error) error {
	v, err := src.Open(ctx)
	if err != nil {
		return err
	}
	root := v.Info().Roots[0].Name
	var walk func(dir string) error
	walk = func(dir string) error {
		for n, err := range v.ReadDir(ctx, dir) {
			if err != nil {
				return err
			}
			at, rel := n.Name, ""
			if dir != "" {
				at = dir + "/" + n.Name
				rel = at[len(root)+1:]
			}
			if err := source.Complete(ctx, v, at, &n); err != nil {
				return err
			}
			if err := f(v, at, rel, n); err != nil {
				return err
			}
			if n.Kind == manifest.Dir {
				if err := walk(at); err != nil {
					return err
				}
			}
		}
		return nil
	}
	return errors.Join(walk(""), v.Finish(ctx), v.Close())
}

// restore copies what src shows to dst, without committing.
func restore(ctx context.Context, src source.Source, dst target.Target) (target.Writer, error) {
	w, err := dst.Begin(ctx, target.Need{})
	if err != nil {
		return nil, err
	}
	linked := map[uint64]bool{}
	return w, visit(ctx, src, func(v source.View, at, rel string, n manifest.Node) error {
		if n.Kind == manifest.Socket {
			return nil
		}
		if n.Kind != manifest.File || linked[n.Link] {
			return w.Make(ctx, rel, n)
		}
		linked[n.Link] = n.Link != 0
		return copyFile(ctx, v, at, w, rel, n)
	})
}

func copyFile(ctx context.Context, v source.View, at string, w target.Writer, rel string, n manifest.Node) error {
	in, err := v.OpenFile(ctx, at)
	if err != nil {
		return err
	}
	out, err := w.Create(ctx, rel, n)
	if err != nil {
		return errors.Join(err, in.Close())
	}
	s, ok := in.(source.Sparse)
	for off := int64(0); ok; {
		start, end, err := s.NextData(off)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if _, err := io.Copy(io.NewOffsetWriter(out, start), io.NewSectionReader(s, start, end-start)); err != nil {
			return err
		}
		off = end
	}
	return errors.Join(out.Close(), in.Close())
}

// copyTree copies src to dst and returns what could not be restored.
func copyTree(t *testing.T, src source.Source, dst target.Target) target.Skipped {
	t.Helper()
	w, err := restore(t.Context(), src, dst)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := w.Abort(); err != nil {
		t.Errorf("Abort after Commit: %v", err)
	}
	return target.SkippedBy(w)
}

// compare reports every difference that a restore must not make.
func compare(t *testing.T, got, want tree) {
	t.Helper()
	for path, w := range want.nodes {
		g, ok := got.nodes[path]
		if !ok {
			t.Errorf("%q is missing", path)
			continue
		}
		if path == "" {
			g.Name = w.Name
		}
		if !sameNode(g, w) {
			t.Errorf("%q is\n  %+v, want\n  %+v", path, g, w)
		}
		if got.data[path] != want.data[path] {
			t.Errorf("%q has other content", path)
		}
	}
	for path := range got.nodes {
		if _, ok := want.nodes[path]; !ok {
			t.Errorf("%q should not be there", path)
		}
	}
	for a := range want.nodes {
		for b := range want.nodes {
			if l, m := want.nodes[a].Link, want.nodes[b].Link; (l != 0 && l == m) != (got.nodes[a].Link != 0 && got.nodes[a].Link == got.nodes[b].Link) {
				t.Errorf("%q and %q: one file in one tree, two in the other", a, b)
			}
		}
	}
}

// sameNode compares all but what belongs to one copy of a file.
func sameNode(a, b manifest.Node) bool {
	same := slices.EqualFunc(a.Xattrs, b.Xattrs, func(x, y manifest.Xattr) bool {
		return x.Name == y.Name && string(x.Value) == string(y.Value)
	})
	return same && a.Name == b.Name && a.Kind == b.Kind && a.Mode == b.Mode && a.UID == b.UID && a.GID == b.GID &&
		a.Owner == b.Owner && a.Group == b.Group && a.MTime == b.MTime && a.Size == b.Size &&
		a.Target == b.Target && a.Device == b.Device && (a.Link == 0) == (b.Link == 0)
}

package enginetest

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
)

// maxDifferences bounds what Compare reports.
const maxDifferences = 50

// Compare compares two trees, or two files, by content and every piece of
// metadata that the system tells and a backup keeps: kind, permissions with
// setuid, setgid and sticky bit, owner, modification time, size, link target,
// device number, extended attributes, and which names are hard links of one
// file. It returns a line for each difference, at most 50, and an error if it
// could not compare. Times of access and change, inode numbers and the layout
// of holes are not compared; see [Holes].
func Compare(want, got string) ([]string, error) {
	a, err := scan(want)
	if err != nil {
		return nil, err
	}
	b, err := scan(got)
	if err != nil {
		return nil, err
	}
	c := comparison{want: want, got: got}
	for _, path := range slices.Sorted(maps.Keys(a)) {
		if _, ok := b[path]; !ok {
			c.add(path, "is missing")
			continue
		}
		if err := c.entry(path, a[path], b[path]); err != nil {
			return c.lines, err
		}
	}
	for _, path := range slices.Sorted(maps.Keys(b)) {
		if _, ok := a[path]; !ok {
			c.add(path, "should not be there")
		}
	}
	c.links(a, b)
	return c.lines, nil
}

// entry is everything about one name but its content. Two are equal if their
// fields are.
type entry struct {
	mode   fs.FileMode
	mtime  int64 // Unix nanoseconds
	size   int64 // of regular files
	target string
	sys    sysEntry
}

type comparison struct {
	want, got string
	lines     []string
}

func (c *comparison) add(path, format string, args ...any) {
	if len(c.lines) < maxDifferences {
		c.lines = append(c.lines, fmt.Sprintf("%q: ", path)+fmt.Sprintf(format, args...))
	}
}

func (c *comparison) entry(path string, a, b entry) error {
	switch {
	case a.mode != b.mode:
		c.add(path, "mode is %v, want %v", b.mode, a.mode)
	case a.mtime != b.mtime:
		c.add(path, "time is %d, want %d", b.mtime, a.mtime)
	case a.size != b.size:
		c.add(path, "size is %d, want %d", b.size, a.size)
	case a.target != b.target:
		c.add(path, "leads to %q, want %q", b.target, a.target)
	}
	for _, d := range a.sys.differences(b.sys) {
		c.add(path, "%s", d)
	}
	if !a.mode.IsRegular() || !b.mode.IsRegular() || a.size != b.size {
		return nil
	}
	at, err := firstDifference(filepath.Join(c.want, path), filepath.Join(c.got, path))
	if err == nil && at >= 0 {
		c.add(path, "content differs at byte %d", at)
	}
	return err
}

// links compares which names are one file.
func (c *comparison) links(a, b map[string]entry) {
	groups := func(entries map[string]entry) map[string]string {
		first := make(map[inode]string)
		group := make(map[string]string)
		for _, path := range slices.Sorted(maps.Keys(entries)) {
			e := entries[path]
			if e.mode.IsDir() || e.sys.inode == (inode{}) {
				continue
			}
			if _, ok := first[e.sys.inode]; !ok {
				first[e.sys.inode] = path
			}
			group[path] = first[e.sys.inode]
		}
		return group
	}
	ga, gb := groups(a), groups(b)
	for _, path := range slices.Sorted(maps.Keys(ga)) {
		if _, ok := gb[path]; ok && ga[path] != gb[path] {
			c.add(path, "is a hard link of %q, want %q", gb[path], ga[path])
		}
	}
}

// firstDifference returns where two files differ first, or -1.
func firstDifference(want, got string) (at int64, err error) {
	a, err := os.Open(want)
	if err != nil {
		return 0, err
	}
	defer a.Close() // only read
	b, err := os.Open(got)
	if err != nil {
		return 0, err
	}
	defer b.Close() // only read
	pa, pb := make([]byte, 64<<10), make([]byte, 64<<10)
	for {
		n, erra := io.ReadFull(a, pa)
		m, errb := io.ReadFull(b, pb)
		if !bytes.Equal(pa[:n], pb[:m]) {
			i := 0
			for i < min(n, m) && pa[i] == pb[i] {
				i++
			}
			return at + int64(i), nil
		}
		at += int64(n)
		if erra != nil || errb != nil {
			return -1, cmp.Or(noEnd(erra), noEnd(errb))
		}
	}
}

// noEnd returns err unless it says that the file ended.
func noEnd(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return err
}

// scan looks at everything in a tree.
func scan(top string) (map[string]entry, error) {
	entries := make(map[string]entry)
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(top, path)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		e := entry{mode: info.Mode(), mtime: info.ModTime().UnixNano()}
		if e.mode.IsRegular() {
			e.size = info.Size()
		}
		if e.mode&fs.ModeSymlink != 0 {
			if e.target, err = os.Readlink(path); err != nil {
				return err
			}
		}
		if e.sys, err = sysOf(path, info); err != nil {
			return err
		}
		entries[rel] = e
		return nil
	})
	return entries, err
}

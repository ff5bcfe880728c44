package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A tree is everything that a restore must bring back, by path. Paths and all
// else that need not be UTF-8 are quoted as in Go, so that a tree can be kept as
// JSON.
type tree map[string]entry

// An entry is what there is to know about one item.
type entry struct {
	Kind   string            `json:"kind"` // file, dir, symlink, fifo, char, block
	Mode   string            `json:"mode"` // octal, with setuid, setgid and sticky bits
	UID    uint32            `json:"uid"`
	GID    uint32            `json:"gid"`
	MTime  string            `json:"mtime,omitempty"` // seconds.nanoseconds
	Size   int64             `json:"size,omitempty"`
	SHA256 string            `json:"sha256,omitempty"`
	Holes  int64             `json:"holes,omitempty"` // bytes, if there are 64 KiB of them
	Target string            `json:"target,omitempty"`
	Device string            `json:"device,omitempty"` // major:minor
	Links  string            `json:"links,omitempty"`  // first of the paths of the same file, if there are several
	Xattrs map[string]string `json:"xattrs,omitempty"`
}

// readTree reads the tree below dir, itself included as ".". It does so by
// itself, with no code of the program.
func readTree(t *testing.T, dir string) tree {
	t.Helper()
	all := make(tree)
	first := make(map[[2]uint64]string)
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		e, st, err := readEntry(path)
		if err != nil {
			return err
		}
		if st.Nlink > 1 && e.Kind != "dir" {
			id := [2]uint64{st.Dev, st.Ino}
			if _, ok := first[id]; !ok {
				first[id] = quoted(rel)
			}
			e.Links = first[id]
		}
		all[quoted(rel)] = e
		return nil
	})
	must(t, err)
	return all
}

func readEntry(path string) (e entry, st unix.Stat_t, err error) {
	if err := unix.Lstat(path, &st); err != nil {
		return e, st, fmt.Errorf("lstat %q: %w", path, err)
	}
	e.Mode = "0" + strconv.FormatUint(uint64(st.Mode&0o7777), 8)
	e.UID, e.GID = st.Uid, st.Gid
	e.MTime = fmt.Sprintf("%d.%09d", st.Mtim.Sec, st.Mtim.Nsec)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		e.Kind, e.Size = "file", st.Size
		if e.SHA256, err = hashFile(path); err == nil {
			e.Holes, err = holesOf(path, st.Size)
		}
	case unix.S_IFDIR:
		e.Kind = "dir"
	case unix.S_IFLNK:
		e.Kind = "symlink"
		var target string
		target, err = os.Readlink(path)
		e.Target = quoted(target)
	case unix.S_IFIFO:
		e.Kind = "fifo"
	case unix.S_IFCHR, unix.S_IFBLK:
		e.Kind = map[uint32]string{unix.S_IFCHR: "char", unix.S_IFBLK: "block"}[st.Mode&unix.S_IFMT]
		e.Device = fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	default:
		e.Kind = "socket"
	}
	if err == nil {
		e.Xattrs, err = xattrsOf(path)
	}
	return e, st, err
}

func hashFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// holesOf returns how many bytes of a file are holes of 64 KiB and more: smaller
// ones are up to the file system.
func holesOf(path string, size int64) (total int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for at := int64(0); at < size; {
		data, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			data, err = size, nil
		}
		if err != nil {
			return 0, err
		}
		if data-at >= 64<<10 {
			total += data - at
		}
		if data == size {
			break
		}
		if at, err = unix.Seek(int(f.Fd()), data, unix.SEEK_HOLE); err != nil {
			return 0, err
		}
	}
	return total, nil
}

func xattrsOf(path string) (map[string]string, error) {
	list := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, list)
	if errors.Is(err, unix.ENOTSUP) || n == 0 && err == nil {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listxattr %q: %w", path, err)
	}
	all := make(map[string]string)
	for name := range strings.SplitSeq(strings.TrimSuffix(string(list[:n]), "\x00"), "\x00") {
		value := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			return nil, fmt.Errorf("getxattr %q %s: %w", path, name, err)
		}
		all[name] = quoted(string(value[:n]))
	}
	return all, nil
}

// quoted makes text of what may be any bytes; nothing becomes nothing.
func quoted(s string) string {
	q := strconv.QuoteToASCII(s)
	return q[1 : len(q)-1]
}

// compare fails the test if got is not tr.
func (tr tree) compare(t *testing.T, what string, got tree) {
	t.Helper()
	bad := 0
	for _, path := range slices.Sorted(maps.Keys(tr)) {
		g, ok := got[path]
		switch {
		case !ok:
			t.Errorf("%s: %s is missing", what, path)
		case !g.is(tr[path]):
			t.Errorf("%s: %s is\n%+v, want\n%+v", what, path, g, tr[path])
		default:
			continue
		}
		if bad++; bad == 20 {
			t.Fatalf("%s: and so on", what)
		}
	}
	for path := range got {
		if _, ok := tr[path]; !ok {
			t.Errorf("%s: %s should not be there", what, path)
		}
	}
	if bad > 0 || len(tr) == 0 || len(got) != len(tr) {
		t.Fatalf("%s: %d items, want %d", what, len(got), len(tr))
	}
}

func (e entry) is(want entry) bool {
	// A run of zeros may come back as a hole; a hole comes back as one.
	if e.Holes >= want.Holes {
		e.Holes = want.Holes
	}
	return reflect.DeepEqual(e, want)
}

// only returns the part of the tree that f keeps, changed as f likes.
func (tr tree) only(f func(path string, e *entry) bool) tree {
	part := make(tree, len(tr))
	for path, e := range tr {
		if f(path, &e) {
			part[path] = e
		}
	}
	return part
}

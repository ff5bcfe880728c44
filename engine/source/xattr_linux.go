package source

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/cairn-backup/cairn/manifest"
)

// Complete reads the extended attributes, and a symbolic link's target.
func (v *dirView) Complete(ctx context.Context, path string, n *manifest.Node) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	rel, err := v.inside(path)
	if err != nil {
		return err
	}
	p, err := v.locate(rel)
	if err != nil {
		return v.fail("open", rel, err)
	}
	defer p.done()
	if n.Kind == manifest.Symlink {
		if n.Target, err = readlink(p); err != nil {
			return v.fail("readlink", rel, err)
		}
	}
	n.Xattrs, err = xattrs(p)
	if errors.Is(err, unix.ENOENT) && unix.Access("/proc/self/fd", unix.F_OK) != nil {
		n.Xattrs, err = v.openXattrs(p, n.Kind)
	}
	if err != nil {
		return v.fail("listxattr", rel, err)
	}
	return nil
}

// openXattrs does without /proc, which is not everywhere mounted: it opens the
// entry, which takes the right to read it, and is not done to what opening has
// an effect on.
func (v *dirView) openXattrs(p place, kind manifest.NodeKind) ([]manifest.Xattr, error) {
	if kind != manifest.File && kind != manifest.Dir {
		return nil, nil
	}
	fd, err := v.openAt(p.dir, p.name, unix.O_NONBLOCK)
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(fd) }() // nothing was written to it
	return xattrs(place{dir: -1, self: fd})
}

func readlink(p place) (string, error) {
	for size := 256; ; size *= 4 {
		buf := make([]byte, size)
		n, err := retry(func() (int, error) { return unix.Readlinkat(p.dir, p.name, buf) })
		if err != nil {
			if errors.Is(err, unix.EINVAL) {
				err = ErrChanged // no link any more
			}
			return "", err
		}
		if n < size {
			return string(buf[:n]), nil
		}
	}
}

// procPath names the entry to calls that take a path only. Its directory is
// given by descriptor, so the path is short and nothing above the entry can be
// exchanged; the calls do not follow the entry itself.
func (p place) procPath() string {
	if p.dir < 0 {
		return "/proc/self/fd/" + strconv.Itoa(p.self)
	}
	return "/proc/self/fd/" + strconv.Itoa(p.dir) + "/" + p.name
}

// xattrs returns the extended attributes that can be read, by name.
func xattrs(p place) ([]manifest.Xattr, error) {
	list := func(buf []byte) (int, error) { return unix.Llistxattr(p.procPath(), buf) }
	get := func(name string, buf []byte) (int, error) { return unix.Lgetxattr(p.procPath(), name, buf) }
	if p.dir < 0 { // the path would name the link in /proc
		list = func(buf []byte) (int, error) { return unix.Flistxattr(p.self, buf) }
		get = func(name string, buf []byte) (int, error) { return unix.Fgetxattr(p.self, name, buf) }
	}
	all, err := grow(list)
	if errors.Is(err, unix.ENOTSUP) {
		return nil, nil
	}
	if err != nil || len(all) == 0 {
		return nil, err
	}
	var found []manifest.Xattr
	for name := range bytes.SplitSeq(bytes.TrimSuffix(all, []byte{0}), []byte{0}) {
		value, err := grow(func(buf []byte) (int, error) { return get(string(name), buf) })
		switch {
		case err == nil:
			found = append(found, manifest.Xattr{Name: string(name), Value: value})
		case errors.Is(err, unix.ENODATA), errors.Is(err, unix.ENOTSUP),
			errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
			// Gone by now, or listed and yet for others only.
		default:
			return nil, err
		}
	}
	slices.SortFunc(found, func(a, b manifest.Xattr) int { return cmp.Compare(a.Name, b.Name) })
	return found, nil
}

// grow calls read with a buffer that is large enough. What it reads may grow
// between two calls.
func grow(read func([]byte) (int, error)) ([]byte, error) {
	var small [256]byte
	n, err := retry(func() (int, error) { return read(small[:]) })
	if err == nil {
		return bytes.Clone(small[:n]), nil
	}
	for size := 4096; errors.Is(err, unix.ERANGE) && size <= 1<<20; size *= 4 {
		buf := make([]byte, size)
		if n, err = retry(func() (int, error) { return read(buf) }); err == nil {
			return bytes.Clone(buf[:n]), nil
		}
	}
	return nil, err
}

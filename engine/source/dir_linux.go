package source

import (
	"context"
	"io/fs"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/cairn-backup/cairn/manifest"
)

// A dirSystem reaches entries through descriptors: every directory is opened
// by its name in the one above, entries are looked at and opened by their names
// in their directory, and links are never followed.
type dirSystem struct {
	skipped map[inode]bool // of skip
	dev     uint64         // of the root
	handles *handles       // of the root; nil if it is no directory
	above   int            // what lies above a root that is no directory
	base    string         // and the root's name there
	buffers sync.Pool      // of *[]byte for getdents
	atime   atomic.Bool    // O_NOATIME was refused once
}

// open opens the root.
func (v *dirView) open() error {
	v.above = -1
	v.skipped = map[inode]bool{}
	for _, fi := range v.skip {
		if st, ok := fi.Sys().(*syscall.Stat_t); ok {
			v.skipped[inode{uint64(st.Dev), st.Ino}] = true //nolint:unconvert // narrower on some systems
		}
	}
	path, err := v.resolve()
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return v.fail("stat", "", err)
	}
	if v.skipped[inodeOf(&st)] {
		return v.fail("open", "", ErrSkipped)
	}
	v.dev = inodeOf(&st).dev
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		fd, err := v.openDir(unix.AT_FDCWD, path)
		if err != nil {
			return v.fail("open", "", err)
		}
		v.handles = newHandles(fd, v.openDir)
		return nil
	}
	v.base = filepath.Base(path)
	v.above, err = retry(func() (int, error) {
		return unix.Open(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return v.fail("open", "", err)
	}
	return nil
}

// Close closes the directories that are open.
func (v *dirView) Close() error {
	var err error
	if v.handles != nil {
		err = v.handles.close()
	}
	if v.above >= 0 {
		err = unix.Close(v.above)
	}
	v.handles, v.above = nil, -1
	if err != nil {
		return v.fail("close", "", err)
	}
	return nil
}

// openAt opens name in the directory dir for reading, without changing its
// access time where that is permitted.
func (v *dirView) openAt(dir int, name string, flags int) (int, error) {
	flags |= unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	if !v.atime.Load() {
		fd, err := retry(func() (int, error) { return unix.Openat(dir, name, flags|unix.O_NOATIME, 0) })
		if err != unix.EPERM { //nolint:errorlint // a bare errno
			return fd, err
		}
		// Only an owner may ask for it. Someone who reads one file of another
		// reads many, so trying each time would cost a call for each.
		v.atime.Store(true)
	}
	return retry(func() (int, error) { return unix.Openat(dir, name, flags, 0) })
}

func (v *dirView) openDir(dir int, name string) (int, error) {
	return v.openAt(dir, name, unix.O_DIRECTORY)
}

// place is an entry as system calls name it.
type place struct {
	dir  int // a descriptor, or -1: the entry is the root, open as self
	name string
	self int
	done func()
}

// locate returns the place of the entry at rel; the caller calls done.
func (v *dirView) locate(rel string) (place, error) {
	if v.handles == nil {
		if rel != "" {
			return place{}, fs.ErrNotExist
		}
		return place{dir: v.above, name: v.base, self: -1, done: func() {}}, nil
	}
	above, name := splitPath(rel)
	h, err := v.handles.acquire(above)
	if err != nil {
		return place{}, err
	}
	p := place{dir: h.fd, name: name, self: -1, done: func() { v.handles.release(h) }}
	if rel == "" {
		p.dir, p.self = -1, h.fd
	}
	return p, nil
}

func (p place) stat(st *unix.Stat_t) error {
	_, err := retry(func() (struct{}, error) {
		if p.dir < 0 {
			return struct{}{}, unix.Fstat(p.self, st)
		}
		return struct{}{}, unix.Fstatat(p.dir, p.name, st, unix.AT_SYMLINK_NOFOLLOW)
	})
	return err
}

func (v *dirView) rootNode() (manifest.Node, error) {
	p, err := v.locate("")
	if err != nil {
		return manifest.Node{Name: v.root.Name}, v.fail("open", "", err)
	}
	defer p.done()
	var st unix.Stat_t
	if err := p.stat(&st); err != nil {
		return manifest.Node{Name: v.root.Name}, v.fail("stat", "", err)
	}
	n := v.node(&st)
	n.Name = v.root.Name
	return n, nil
}

// names returns the names in the directory at rel.
func (v *dirView) names(rel string) ([]string, error) {
	if v.handles == nil {
		return nil, unix.ENOTDIR
	}
	h, err := v.handles.acquire(rel)
	if err != nil {
		return nil, err
	}
	defer v.handles.release(h)
	if v.oneFS && rel != "" {
		var st unix.Stat_t
		if err := unix.Fstat(h.fd, &st); err != nil {
			return nil, err
		}
		if inodeOf(&st).dev != v.dev {
			return nil, nil
		}
	}
	// The handle is shared, and with it the place of its getdents. A second
	// description of the same directory has its own.
	fd, err := v.openDir(h.fd, ".")
	if err != nil {
		return nil, err
	}
	names, err := v.getdents(fd)
	_ = unix.Close(fd) // nothing was written to it
	return names, err
}

func (v *dirView) getdents(fd int) ([]string, error) {
	buf, ok := v.buffers.Get().(*[]byte)
	if !ok {
		b := make([]byte, 32<<10) // as glibc's readdir
		buf = &b
	}
	defer v.buffers.Put(buf)
	var names []string
	for {
		n, err := retry(func() (int, error) { return unix.ReadDirent(fd, *buf) })
		if err != nil {
			return nil, err
		}
		if n <= 0 {
			return names, nil
		}
		_, _, names = unix.ParseDirent((*buf)[:n], -1, names)
	}
}

// batch is how many entries are looked at before they are handed out. No
// handle is held while a caller works on them, so a walk that descends while
// it iterates holds no descriptors.
const batch = 32

// yieldAll yields the entries of a directory.
func (v *dirView) yieldAll(ctx context.Context, l listing, yield func(manifest.Node, error) bool) {
	names := l.names
	stats := make([]unix.Stat_t, min(batch, len(names)))
	errs := make([]error, len(stats))
	for len(names) > 0 {
		n := min(batch, len(names))
		l.names = names[:n]
		if err := v.statAll(ctx, l, stats, errs); err != nil {
			yield(manifest.Node{}, err)
			return
		}
		for i, name := range l.names {
			if errs[i] == errLeftOut { //nolint:errorlint // a mark, never wrapped
				continue
			}
			if errs[i] != nil {
				if !yield(manifest.Node{Name: name}, v.fail("stat", joinPath(l.rel, name), errs[i])) {
					return
				}
				continue
			}
			node := v.node(&stats[i])
			node.Name = name
			if !yield(node, nil) {
				return
			}
		}
		names = names[n:]
	}
}

// errLeftOut marks entries that are not part of the source.
const errLeftOut = unix.Errno(0)

// statAll looks at the entries of l.
func (v *dirView) statAll(ctx context.Context, l listing, stats []unix.Stat_t, errs []error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	h, err := v.handles.acquire(l.rel)
	if err != nil {
		return v.fail("read", l.rel, err)
	}
	defer v.handles.release(h)
	for i, name := range l.names {
		w, err := l.rules.verdict(l.rel, name)
		if err != nil {
			errs[i] = err
			continue
		}
		if w == leave {
			errs[i] = errLeftOut
			continue
		}
		st := &stats[i]
		errs[i] = place{dir: h.fd, name: name}.stat(st)
		if errs[i] != nil || !v.leavesOut(w, st) {
			continue
		}
		errs[i] = errLeftOut
		if v.skipped[inodeOf(st)] {
			v.add(v.root.Path, joinPath(l.rel, name))
		}
	}
	return nil
}

// leavesOut reports whether an entry is no part of the source.
func (v *dirView) leavesOut(w verdict, st *unix.Stat_t) bool {
	id := inodeOf(st)
	k := kindOf(st.Mode)
	return w.leaves(k) || v.skipped[id] || v.oneFS && id.dev != v.dev && k != manifest.Dir
}

// openRegular opens the regular file at rel.
func (v *dirView) openRegular(ctx context.Context, rel string) (*file, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	p, err := v.locate(rel)
	if err != nil {
		return nil, v.fail("open", rel, err)
	}
	defer p.done()
	if p.dir < 0 {
		return nil, v.fail("open", rel, ErrChanged)
	}
	// Without O_NONBLOCK what became a pipe would wait for its writer.
	fd, err := v.openAt(p.dir, p.name, unix.O_NONBLOCK)
	if err == unix.ELOOP || err == unix.ENXIO { //nolint:errorlint // a bare errno
		return nil, v.fail("open", rel, ErrChanged) // a link or a socket now
	}
	if err != nil {
		return nil, v.fail("open", rel, err)
	}
	f := &file{view: v, rel: rel, fd: fd}
	if _, err := f.Again(); err != nil {
		_ = f.Close() // nothing was written to it
		return nil, err
	}
	return f, nil
}

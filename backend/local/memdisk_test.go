package local

import (
	"bytes"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// memDisk is a file system in memory that knows what is durable: the bytes of
// a file as of its last fsync, the names in a directory as of its last fsync.
type memDisk struct {
	has method // the first way of publishing that it has

	mu   sync.Mutex // guards all below
	root *node
}

// A node is a file or directory. A file may have no name, or two.
type node struct {
	data, durable []byte

	names, durableNames map[string]*node // nil for a file

	modified time.Time
	lost     bool // an fsync failed: later ones report success and do nothing
}

func newMemDisk(has method) *memDisk { return &memDisk{has: has, root: newDir()} }

func newDir() *node {
	return &node{names: make(map[string]*node), durableNames: make(map[string]*node), modified: time.Now()}
}

// A survival says what a power cut leaves of that which was not fsynced.
type survival int

const (
	onlyDurable survival = iota // nothing
	namesOnly                   // the names, and none of the bytes: rename without fsync
	everything                  // all: the process was killed, the machine was not
	anything                    // some names, and some of the bytes
	survivals
)

// afterCrash returns the disk as it is found after a power cut.
func (d *memDisk) afterCrash(s survival, rng *rand.Rand) *memDisk {
	d.mu.Lock()
	defer d.mu.Unlock()
	return &memDisk{has: d.has, root: d.root.afterCrash(s, rng, make(map[*node]*node))}
}

func (n *node) afterCrash(s survival, rng *rand.Rand, seen map[*node]*node) *node {
	if found, ok := seen[n]; ok {
		return found
	}
	left := &node{modified: n.modified}
	seen[n] = left
	if n.names == nil {
		left.data = n.durable
		switch {
		case s == everything:
			left.data = n.data
		case s == anything && len(n.data) > len(n.durable):
			left.data = n.data[:len(n.durable)+rng.IntN(len(n.data)-len(n.durable)+1)]
		}
		left.durable = left.data
		return left
	}
	left.names, left.durableNames = make(map[string]*node), make(map[string]*node)
	keep := func(name string, child *node) {
		c := child.afterCrash(s, rng, seen)
		left.names[name], left.durableNames[name] = c, c
	}
	for name, child := range n.durableNames {
		// A removal may have come to the disk.
		gone := n.names[name] != child
		if !gone || s == onlyDurable || s == anything && rng.IntN(2) == 0 {
			keep(name, child)
		}
	}
	for name, child := range n.names {
		fresh := n.durableNames[name] != child
		if fresh && s != onlyDurable && (s != anything || rng.IntN(2) == 0) {
			keep(name, child)
		}
	}
	return left
}

// find returns the node of a name. The caller holds mu.
func (d *memDisk) find(name string) (*node, error) {
	n := d.root
	if name == "." {
		return n, nil
	}
	for element := range strings.SplitSeq(name, "/") {
		if n.names == nil {
			return nil, &fs.PathError{Op: "find", Path: name, Err: syscall.ENOTDIR}
		}
		child, ok := n.names[element]
		if !ok {
			return nil, &fs.PathError{Op: "find", Path: name, Err: syscall.ENOENT}
		}
		n = child
	}
	return n, nil
}

// add gives n a name. The caller holds mu.
func (d *memDisk) add(name string, n *node) error {
	dir, err := d.find(path.Dir(name))
	if err != nil {
		return err
	}
	if dir.names == nil {
		return &fs.PathError{Op: "add", Path: name, Err: syscall.ENOTDIR}
	}
	if _, taken := dir.names[path.Base(name)]; taken {
		return &fs.PathError{Op: "add", Path: name, Err: syscall.EEXIST}
	}
	dir.names[path.Base(name)] = n
	return nil
}

func (d *memDisk) makeRoot() error { return nil }

func (d *memDisk) close() error { return nil }

func (d *memDisk) mkdir(dir string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.add(dir, newDir())
}

func (d *memDisk) createUnnamed(dir string) (tempFile, error) {
	if d.has > unnamed {
		return nil, errNoMethod
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, err := d.find(dir); err != nil {
		return nil, err
	}
	return &memFile{d: d, n: &node{modified: time.Now()}}, nil
}

func (d *memDisk) linkUnnamed(f tempFile, name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.add(name, f.(*memFile).n)
}

func (d *memDisk) createTemp(name string) (tempFile, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := &memFile{d: d, n: &node{modified: time.Now()}}
	if err := d.add(name, f.n); err != nil {
		return nil, err
	}
	return f, nil
}

func (d *memDisk) link(from, to string) error {
	if d.has > linked {
		return errNoMethod
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	n, err := d.find(from)
	if err != nil {
		return err
	}
	return d.add(to, n)
}

func (d *memDisk) rename(from, to string) error {
	if d.has > renamed {
		return errNoMethod
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	n, err := d.find(from)
	if err != nil {
		return err
	}
	if err := d.add(to, n); err != nil {
		return err
	}
	dir, err := d.find(path.Dir(from))
	if err != nil {
		return err
	}
	delete(dir.names, path.Base(from))
	return nil
}

func (d *memDisk) syncFile(name string) error { return d.sync(name) }

func (d *memDisk) syncDir(dir string) error { return d.sync(dir) }

func (d *memDisk) sync(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, err := d.find(name)
	if err != nil {
		return err
	}
	n.sync()
	return nil
}

func (n *node) sync() {
	if n.lost {
		return
	}
	n.durable = bytes.Clone(n.data)
	if n.names != nil {
		n.durableNames = make(map[string]*node, len(n.names))
		maps.Copy(n.durableNames, n.names)
	}
}

// lose does to a file or directory what a failed fsync does.
func (d *memDisk) lose(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if n, err := d.find(name); err == nil {
		n.lost = true
	}
}

func (d *memDisk) remove(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, err := d.find(name); err != nil {
		return err
	}
	dir, err := d.find(path.Dir(name))
	if err != nil {
		return err
	}
	delete(dir.names, path.Base(name))
	return nil
}

func (d *memDisk) lstat(name string) (fs.FileInfo, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, err := d.find(name)
	if err != nil {
		return nil, err
	}
	return n.info(path.Base(name)), nil
}

func (d *memDisk) sameFile(x, y string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	a, err := d.find(x)
	if err != nil {
		return false
	}
	b, err := d.find(y)
	return err == nil && a == b
}

func (d *memDisk) open(name string) (readFile, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, err := d.find(name)
	if err != nil {
		return nil, err
	}
	return &memReader{Reader: bytes.NewReader(n.data), info: n.info(path.Base(name))}, nil
}

func (d *memDisk) readDir(dir string, keep func(string) bool) ([]fs.FileInfo, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, err := d.find(dir)
	if err != nil {
		return nil, err
	}
	if n.names == nil {
		return nil, syscall.ENOTDIR
	}
	var infos []fs.FileInfo
	for name, child := range n.names {
		if keep(name) {
			infos = append(infos, child.info(name))
		}
	}
	return infos, nil
}

// memFile is a file that is being written.
type memFile struct {
	d *memDisk
	n *node
}

func (f *memFile) Write(p []byte) (int, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	f.n.data = append(slices.Clip(f.n.data), p...)
	return len(p), nil
}

func (f *memFile) Sync() error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	f.n.sync()
	return nil
}

func (f *memFile) Close() error { return nil }

type memReader struct {
	*bytes.Reader
	info fs.FileInfo
}

func (r *memReader) Stat() (fs.FileInfo, error) { return r.info, nil }

func (r *memReader) Close() error { return nil }

type memInfo struct {
	name     string
	size     int64
	mode     fs.FileMode
	modified time.Time
}

// info describes n. The caller holds the disk's mu.
func (n *node) info(name string) fs.FileInfo {
	i := memInfo{name: name, size: int64(len(n.data)), mode: 0o600, modified: n.modified}
	if n.names != nil {
		i.mode = fs.ModeDir | 0o700
	}
	return i
}

func (i memInfo) Name() string       { return i.name }
func (i memInfo) Size() int64        { return i.size }
func (i memInfo) Mode() fs.FileMode  { return i.mode }
func (i memInfo) ModTime() time.Time { return i.modified }
func (i memInfo) IsDir() bool        { return i.mode.IsDir() }
func (i memInfo) Sys() any           { return nil }

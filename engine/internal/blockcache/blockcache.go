// Package blockcache keeps sealed blocks of metadata packs as files of this
// machine, so that they need not be read again from a store that is far away.
//
// A block lies there as it is stored, encrypted and authenticated, and whoever
// takes one opens it as if the store had sent it: what is damaged here is not
// worse than what is not here. Any number of processes may share a directory,
// without locks: a file gets its name when it is complete, and any may be gone
// at any time.
package blockcache

import (
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// A Place names a block: the pack, and where it begins there.
type Place struct {
	Pack   [16]byte
	Offset uint32 // bytes
}

// Options say where a cache is.
type Options struct {
	Dir      string // made with mode 0700 if its parent exists
	Limit    int64  // of all files, in bytes
	ReadOnly bool   // nothing is written, not even when a block was used
}

// A Cache keeps what was used last. Its methods are safe for concurrent use,
// and a nil Cache holds nothing. They return no errors: what cannot be kept is
// read from the store again.
type Cache struct {
	opts Options

	mu       sync.Mutex // guards what follows
	room     int64      // bytes that may be put before the files are counted again
	counting bool       // a goroutine counts the files
}

// New returns the cache in a directory. It does no I/O. Without a directory or
// a limit it is nil.
func New(o Options) *Cache {
	if o.Dir == "" || o.Limit <= 0 {
		return nil
	}
	return &Cache{opts: o} // there is no room until the files were counted
}

const (
	// used is how old the time of a file is at least when it is set anew.
	used = 10 * time.Minute
	// stale is how old a temporary file is whose writer is gone.
	stale = time.Hour
	// temporary is how the names of files begin that are not complete.
	temporary = "tmp-"
)

// path returns where a block is kept: <2 hex>/<32 hex>-<8 hex>.
func (c *Cache) path(p Place) string {
	name := hex.EncodeToString(p.Pack[:])
	return filepath.Join(c.opts.Dir, name[:2], fmt.Sprintf("%s-%08x", name, p.Offset))
}

// Get returns the n bytes of the block at p, if they are here. Nobody has
// looked at what they are.
func (c *Cache) Get(p Place, n int) ([]byte, bool) {
	if c == nil {
		return nil, false
	}
	path := c.path(p)
	fi, err := os.Lstat(path)
	if err != nil || !fi.Mode().IsRegular() || fi.Size() != int64(n) {
		return nil, false
	}
	data, err := os.ReadFile(path)
	if err != nil || len(data) != n {
		return nil, false
	}
	if now := time.Now(); !c.opts.ReadOnly && now.Sub(fi.ModTime()) > used {
		_ = os.Chtimes(path, now, now) // else it is taken for older than it is
	}
	return data, true
}

// Has reports whether the n bytes of the block at p are here.
func (c *Cache) Has(p Place, n int) bool {
	if c == nil {
		return false
	}
	fi, err := os.Lstat(c.path(p))
	return err == nil && fi.Mode().IsRegular() && fi.Size() == int64(n)
}

// Put keeps the block at p. It neither retains nor changes data.
func (c *Cache) Put(p Place, data []byte) {
	if c == nil || c.opts.ReadOnly || int64(len(data)) > c.opts.Limit || !c.reserve(int64(len(data))) {
		return
	}
	_ = c.write(c.path(p), data) // the next one reads it from the store
}

// Drop forgets the block at p, which is damaged.
func (c *Cache) Drop(p Place) {
	if c != nil && !c.opts.ReadOnly {
		_ = os.Remove(c.path(p)) // it is not believed next time either
	}
}

func (c *Cache) write(path string, data []byte) error {
	dir := filepath.Dir(path)
	for _, d := range []string{c.opts.Dir, dir} {
		if err := os.Mkdir(d, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	f, err := os.CreateTemp(dir, temporary) // 0600
	if err != nil {
		return err
	}
	// Not synced: after a power cut it may hold anything, and is found out.
	_, err = f.Write(data)
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// reserve takes n bytes of the room that is left, and makes room if there is
// none. It is false while another goroutine does that.
func (c *Cache) reserve(n int64) bool {
	c.mu.Lock()
	if c.room >= n {
		c.room -= n
		c.mu.Unlock()
		return true
	}
	busy := c.counting
	c.counting = true
	c.mu.Unlock()
	if busy {
		return false
	}
	room := c.prune(n)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counting = false
	c.room = room - n
	return c.room >= 0
}

// An entry is a file of the cache.
type entry struct {
	path string
	size int64
	used time.Time
}

// prune removes what was not used for longest until there is room for n bytes
// at least, and returns how many may be put before it is asked again. That is
// a sixteenth of the limit at most, since other processes put files as well,
// and each may go beyond the limit by that.
func (c *Cache) prune(n int64) int64 {
	entries, total := c.entries()
	share := max(c.opts.Limit/16, n)
	if total+n > c.opts.Limit {
		slices.SortFunc(entries, func(a, b entry) int {
			return cmp.Or(a.used.Compare(b.used), strings.Compare(a.path, b.path))
		})
		for _, e := range entries {
			if total+share <= c.opts.Limit {
				break
			}
			if err := os.Remove(e.path); err == nil || errors.Is(err, fs.ErrNotExist) {
				total -= e.size
			}
		}
	}
	return min(c.opts.Limit-total, share)
}

// entries returns the files and their size, and removes what writers left that
// did not end well.
func (c *Cache) entries() (entries []entry, total int64) {
	now := time.Now()
	// What cannot be looked at cannot be counted, and is not this cache's.
	_ = filepath.WalkDir(c.opts.Dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil //nolint:nilerr // the rest counts
		}
		fi, err := d.Info()
		if err != nil {
			return nil //nolint:nilerr // gone
		}
		if strings.HasPrefix(d.Name(), temporary) && now.Sub(fi.ModTime()) > stale {
			_ = os.Remove(path) // it is tried again
			return nil
		}
		entries = append(entries, entry{path: path, size: fi.Size(), used: fi.ModTime()})
		total += fi.Size()
		return nil
	})
	return entries, total
}

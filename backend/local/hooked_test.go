package local

import (
	"fmt"
	"io/fs"
	"regexp"
	"sync"
)

// hooked calls a hook before each call of a disk that changes or syncs
// something, or looks up a name. If the hook returns an error, the call fails
// with it and has no effect.
type hooked struct {
	disk
	hook func(call string) error

	mu  sync.Mutex // guards log
	log []string   // the calls that went through or failed, by the hook or not
}

var randomPart = regexp.MustCompile(`\.tmp-[0-9a-f]{32}`)

func (h *hooked) call(format string, args ...any) error {
	call := randomPart.ReplaceAllString(fmt.Sprintf(format, args...), ".tmp-*")
	h.mu.Lock()
	h.log = append(h.log, call)
	h.mu.Unlock()
	if h.hook == nil {
		return nil
	}
	return h.hook(call)
}

// calls returns the log so far and starts a new one.
func (h *hooked) calls() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	log := h.log
	h.log = nil
	return log
}

func (h *hooked) mkdir(dir string) error {
	if err := h.call("mkdir %s", dir); err != nil {
		return err
	}
	return h.disk.mkdir(dir)
}

func (h *hooked) createUnnamed(dir string) (tempFile, error) {
	if err := h.call("open %s O_TMPFILE", dir); err != nil {
		return nil, err
	}
	f, err := h.disk.createUnnamed(dir)
	if err != nil {
		return nil, err
	}
	return &hookedFile{tempFile: f, h: h, name: "unnamed file"}, nil
}

func (h *hooked) linkUnnamed(f tempFile, name string) error {
	if err := h.call("linkat unnamed file -> %s", name); err != nil {
		return err
	}
	return h.disk.linkUnnamed(f.(*hookedFile).tempFile, name)
}

func (h *hooked) createTemp(name string) (tempFile, error) {
	if err := h.call("open %s O_CREAT|O_EXCL", name); err != nil {
		return nil, err
	}
	f, err := h.disk.createTemp(name)
	if err != nil {
		return nil, err
	}
	return &hookedFile{tempFile: f, h: h, name: name}, nil
}

func (h *hooked) link(from, to string) error {
	if err := h.call("link %s -> %s", from, to); err != nil {
		return err
	}
	return h.disk.link(from, to)
}

func (h *hooked) rename(from, to string) error {
	if err := h.call("rename %s -> %s NOREPLACE", from, to); err != nil {
		return err
	}
	return h.disk.rename(from, to)
}

func (h *hooked) syncFile(name string) error {
	if err := h.call("fsync %s", name); err != nil {
		h.lose(name)
		return &syncError{err}
	}
	return h.disk.syncFile(name)
}

func (h *hooked) syncDir(dir string) error {
	if err := h.call("fsync dir %s", dir); err != nil {
		h.lose(dir)
		return &syncError{err}
	}
	return h.disk.syncDir(dir)
}

// lose lets a disk that models it forget what the failed fsync was about.
func (h *hooked) lose(name string) {
	if m, ok := h.disk.(*memDisk); ok {
		m.lose(name)
	}
}

func (h *hooked) remove(name string) error {
	if err := h.call("unlink %s", name); err != nil {
		return err
	}
	return h.disk.remove(name)
}

func (h *hooked) lstat(name string) (fs.FileInfo, error) {
	if err := h.call("lstat %s", name); err != nil {
		return nil, err
	}
	return h.disk.lstat(name)
}

type hookedFile struct {
	tempFile
	h    *hooked
	name string
}

func (f *hookedFile) Write(p []byte) (int, error) {
	if err := f.h.call("write %s %d bytes", f.name, len(p)); err != nil {
		n, _ := f.tempFile.Write(p[:len(p)/2]) // some of it got there
		return n, err
	}
	return f.tempFile.Write(p)
}

func (f *hookedFile) Sync() error {
	if err := f.h.call("fsync %s", f.name); err != nil {
		return err
	}
	return f.tempFile.Sync()
}

func (f *hookedFile) Close() error {
	if err := f.h.call("close %s", f.name); err != nil {
		return err
	}
	return f.tempFile.Close()
}

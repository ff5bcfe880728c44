package engine_test

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/engine/source"
)

// TestDeepPaths: a path that is longer than any system call takes is backed up,
// shown, checked and restored.
func TestDeepPaths(t *testing.T) {
	const levels = 300
	name := strings.Repeat("d", 30) // 9,300 bytes
	// down goes down from dir, level by level.
	down := func(dir string, make func(fd int) error) int {
		t.Helper()
		fd, err := unix.Open(dir, unix.O_PATH, 0)
		for range levels {
			if err == nil {
				err = make(fd)
			}
			if err != nil {
				t.Fatal(err)
			}
			next, openErr := unix.Openat(fd, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_DIRECTORY, 0)
			_ = unix.Close(fd)
			fd, err = next, openErr
		}
		if err != nil {
			t.Fatal(err)
		}
		return fd
	}
	src := t.TempDir()
	fd := down(src, func(fd int) error { return unix.Mkdirat(fd, name, 0o700) })
	f, err := unix.Openat(fd, "file", unix.O_CREAT|unix.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Write(f, []byte("deep")); err != nil {
		t.Fatal(err)
	}
	_ = unix.Close(f)
	_ = unix.Close(fd)

	r, _ := fresh(t)
	report := backUp(t, r, source.Dir(src), engine.BackupOptions{})
	if n := len(report.Snapshot.Missing); n > 0 || report.Snapshot.Stats.Dirs != levels+1 {
		t.Fatalf("%d items are missing of %+v", n, report.Snapshot.Stats)
	}
	again := backUp(t, r, source.Dir(src), engine.BackupOptions{})
	if !again.Unchanged {
		t.Error("nothing changed, and that was not seen")
	}
	whole(t, r)
	fsys, err := r.FS(t.Context(), report.Snapshot.ID)
	if err != nil {
		t.Fatal(err)
	}
	path := report.Snapshot.Roots[0].Name + strings.Repeat("/"+name, levels) + "/file"
	if data, err := readAll(fsys, path); err != nil || string(data) != "deep" {
		t.Errorf("the snapshot shows %q, %v", data, err)
	}
	fd = down(restore(t, r, report.Snapshot.ID), func(int) error { return nil })
	defer unix.Close(fd)
	f, err = unix.Openat(fd, "file", unix.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(f)
	buf := make([]byte, 10)
	if n, err := unix.Read(f, buf); err != nil || string(buf[:n]) != "deep" {
		t.Errorf("the restored file holds %q, %v", buf[:n], err)
	}
}

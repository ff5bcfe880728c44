package target_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cairn-backup/cairn/engine/source"
	"github.com/cairn-backup/cairn/engine/target"
	"github.com/cairn-backup/cairn/manifest"
)

func TestRoundTripDeep(t *testing.T) {
	outer := t.TempDir()
	src := filepath.Join(outer, "src")
	must(t, os.Mkdir(src, 0o700))
	fd, err := unix.Open(src, unix.O_PATH, 0)
	must(t, err)
	for range 1000 { // 9,000 bytes
		must(t, unix.Mkdirat(fd, "dddddddd", 0o750))
		next, err := unix.Openat(fd, "dddddddd", unix.O_PATH, 0)
		must(t, err)
		must(t, unix.Close(fd))
		fd = next
	}
	must(t, unix.Symlinkat("x", fd, "link"))
	must(t, unix.Mknodat(fd, "fifo", unix.S_IFIFO|0o600, 0))
	f, err := unix.Openat(fd, "file", unix.O_CREAT|unix.O_WRONLY, 0o600)
	must(t, err)
	must(t, unix.Linkat(fd, "file", fd, "hard", 0))
	must(t, errors.Join(unix.Close(f), unix.Close(fd)))

	dst := filepath.Join(outer, "dst")
	copyTree(t, source.Dir(src), target.Dir(dst))
	compare(t, read(t, source.Dir(dst)), read(t, source.Dir(src)))

	aborted := filepath.Join(outer, "aborted")
	w, err := restore(t.Context(), source.Dir(src), target.Dir(aborted))
	must(t, err)
	must(t, w.Abort())
	if _, err := os.Stat(aborted); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after Abort: %v", err)
	}
}

// TestInheritance restores into directories that hand something down.
func TestInheritance(t *testing.T) {
	m := maker{t, t.TempDir()}
	m.plain()
	want := read(t, source.Dir(m.dir))
	for _, exists := range []bool{true, false} {
		outer := t.TempDir()
		must(t, unix.Chmod(outer, 0o2770))
		if os.Geteuid() == 0 {
			must(t, os.Chown(outer, -1, 4321))
			must(t, unix.Chmod(outer, 0o2770))
		}
		dst := filepath.Join(outer, "dst")
		if exists {
			must(t, os.Mkdir(dst, 0o2777))
		}
		heir := map[bool]string{true: dst, false: outer}[exists]
		if err := unix.Setxattr(heir, "system.posix_acl_default", acl(999), 0); err != nil {
			t.Logf("no ACLs here: %v", err)
		}
		if err := unix.Setxattr(heir, "system.posix_acl_access", acl(998), 0); err != nil {
			t.Logf("no ACLs here: %v", err)
		}
		before := read(t, source.Dir(outer))
		copyTree(t, source.Dir(m.dir), target.Dir(dst))
		compare(t, read(t, source.Dir(dst)), want)

		if exists { // and an Abort in the middle of Commit gives it all back
			must(t, os.RemoveAll(dst))
			must(t, os.Mkdir(dst, 0o2777))
			if err := unix.Setxattr(dst, "system.posix_acl_default", acl(999), 0); err != nil {
				continue
			}
			must(t, unix.Setxattr(dst, "system.posix_acl_access", acl(998), 0))
			w, err := restore(t.Context(), source.Dir(m.dir), target.Dir(dst))
			must(t, err)
			must(t, w.Abort())
			after := read(t, source.Dir(outer))
			for _, path := range []string{"", "dst"} { // whose times have changed
				n := after.nodes[path]
				n.MTime, n.Name = before.nodes[path].MTime, before.nodes[path].Name
				after.nodes[path] = n
			}
			compare(t, after, before)
		}
	}
}

func TestFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting takes root")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m,nr_inodes=20"); err != nil {
		t.Skipf("mount: %v", err)
	}
	defer func() { must(t, unix.Unmount(dir, 0)) }()
	for _, need := range []target.Need{{Bytes: 2 << 20}, {Entries: 100}} {
		if _, err := target.Dir(dir).Begin(t.Context(), need); !errors.Is(err, target.ErrNoSpace) {
			t.Errorf("Begin(%+v) = %v, want ErrNoSpace", need, err)
		}
	}
	w := begin(t, dir)
	if err := put(t.Context(), w, "large", strings.Repeat("x", 2<<20)); !errors.Is(err, target.ErrNoSpace) || !errors.Is(err, unix.ENOSPC) {
		t.Errorf("writing too much: %v, want ErrNoSpace", err)
	}
	must(t, w.Abort())
	w = begin(t, dir)
	var err error
	for i := 0; i < 100 && err == nil; i++ {
		err = put(t.Context(), w, fmt.Sprintf("d%d/f", i), "")
	}
	if !errors.Is(err, target.ErrNoSpace) {
		t.Errorf("making too many: %v, want ErrNoSpace", err)
	}
	must(t, w.Abort())
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("after Abort there are %v, %v", entries, err)
	}
}

// nobody names the directory of a test that has dropped to another user.
const nobody = "CAIRN_TEST_NOBODY"

func TestAsAnotherUser(t *testing.T) {
	if dir := os.Getenv(nobody); dir != "" {
		asAnotherUser(t, dir)
		return
	}
	if os.Geteuid() != 0 {
		asAnotherUser(t, t.TempDir())
		return
	}
	dir := t.TempDir()
	must(t, os.Chmod(filepath.Dir(dir), 0o755))
	must(t, os.Chown(dir, 65534, 65534))
	must(t, os.Mkdir(filepath.Join(dir, "roots"), 0o755))
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestAsAnotherUser$")
	cmd.Env = append(os.Environ(), nobody+"="+dir)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("as another user: %v\n%s", err, out)
	}
}

func asAnotherUser(t *testing.T, dir string) {
	t.Helper()
	src := filepath.Join(dir, "src")
	must(t, os.Mkdir(src, 0o700))
	m := maker{t, src}
	m.plain()
	dst := filepath.Join(dir, "dst")
	if s := copyTree(t, source.Dir(src), target.Dir(dst)); s != (target.Skipped{}) {
		t.Errorf("skipped %+v of what is all theirs", s)
	}
	compare(t, read(t, source.Dir(dst)), read(t, source.Dir(src)))

	w := begin(t, filepath.Join(dir, "foreign"))
	n := manifest.Node{Kind: manifest.File, Mode: 0o6755, UID: 0, GID: 0, Xattrs: []manifest.Xattr{
		{Name: "trusted.x", Value: []byte("x")}, {Name: "user.x", Value: []byte("x")},
	}}
	f, err := w.Create(t.Context(), "suid", n)
	must(t, err)
	must(t, f.Close())
	must(t, w.Make(t.Context(), "null", manifest.Node{Kind: manifest.CharDevice, Device: 1<<32 | 3}))
	must(t, w.Commit(t.Context()))
	if s := target.SkippedBy(w); s != (target.Skipped{Owners: 1, Devices: 1, Xattrs: 1}) {
		t.Errorf("skipped %+v, want one of each", s)
	}
	fi, err := os.Stat(filepath.Join(dir, "foreign", "suid"))
	if err != nil || fi.Mode() != 0o755 {
		t.Errorf("a setuid file of root's is restored as %v, %v: it must not run as another", fi.Mode(), err)
	}
	if _, err := target.Dir(filepath.Join(dir, "roots")).Begin(t.Context(), target.Need{}); os.Geteuid() == 65534 && err == nil {
		w := begin(t, filepath.Join(dir, "roots"))
		if err := put(t.Context(), w, "f", "x"); !errors.Is(err, fs.ErrPermission) || !errors.Is(err, target.ErrTarget) {
			t.Errorf("Create in root's directory = %v, want permission denied", err)
		}
	}
	if _, err := target.Dir("/proc/nothing").Begin(t.Context(), target.Need{}); !errors.Is(err, target.ErrTarget) {
		t.Errorf("Begin in /proc = %v", err)
	}
	for _, d := range []string{"src/closed", "dst/closed"} { // or they cannot be removed
		must(t, os.Chmod(filepath.Join(dir, d), 0o700))
	}
}

func TestNoOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	dst := filepath.Join(t.TempDir(), "dst")
	d := target.Dir(dst)
	d.NoOwner = true
	w, err := d.Begin(t.Context(), target.Need{})
	must(t, err)
	for name, uid := range map[string]uint32{"mine": 0, "theirs": 1234} {
		f, err := w.Create(t.Context(), name, manifest.Node{Kind: manifest.File, Mode: 0o4711, UID: uid})
		must(t, err)
		must(t, f.Close())
	}
	must(t, w.Commit(t.Context()))
	if s := target.SkippedBy(w); s != (target.Skipped{}) {
		t.Errorf("skipped %+v; nobody asked for owners", s)
	}
	for name, want := range map[string]uint32{"mine": 0o4711, "theirs": 0o711} {
		var st unix.Stat_t
		must(t, unix.Stat(filepath.Join(dst, name), &st))
		if st.Uid != 0 || st.Mode&0o7777 != want {
			t.Errorf("%s belongs to %d, mode %o, want 0 and %o", name, st.Uid, st.Mode&0o7777, want)
		}
	}
}

func TestTargetThroughLink(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "real"), 0o700))
	must(t, os.Symlink("real", filepath.Join(dir, "link")))
	w := begin(t, filepath.Join(dir, "link"))
	must(t, put(t.Context(), w, "f", "x"))
	must(t, w.Commit(t.Context()))
	if data, err := os.ReadFile(filepath.Join(dir, "real", "f")); err != nil || string(data) != "x" {
		t.Errorf("%q, %v", data, err)
	}
}

// BenchmarkSmallFiles restores files of 200 bytes, a hundred a directory.
func BenchmarkSmallFiles(b *testing.B) {
	dir, err := os.MkdirTemp(os.Getenv("CAIRN_BENCH_DIR"), "cairn")
	if err != nil {
		b.Fatal(err)
	}
	defer os.RemoveAll(dir)
	w, err := target.Dir(filepath.Join(dir, "dst")).Begin(b.Context(), target.Need{})
	if err != nil {
		b.Fatal(err)
	}
	content := make([]byte, 200)
	n := manifest.Node{Kind: manifest.File, Mode: 0o644, Size: 200, UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()), MTime: manifest.TimeOf(time.Now())}
	i := 0
	b.ReportAllocs()
	for b.Loop() {
		f, err := w.Create(b.Context(), fmt.Sprintf("d%d/f%d", i/100, i%100), n)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := f.WriteAt(content, 0); err != nil {
			b.Fatal(err)
		}
		if err := f.Close(); err != nil {
			b.Fatal(err)
		}
		i++
	}
	b.StopTimer()
	if err := w.Commit(b.Context()); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkPlainFiles is the same with the os package, for comparison.
func BenchmarkPlainFiles(b *testing.B) {
	dir, err := os.MkdirTemp(os.Getenv("CAIRN_BENCH_DIR"), "cairn")
	if err != nil {
		b.Fatal(err)
	}
	defer os.RemoveAll(dir)
	content := make([]byte, 200)
	i := 0
	b.ReportAllocs()
	for b.Loop() {
		d := filepath.Join(dir, fmt.Sprintf("d%d", i/100))
		if i%100 == 0 {
			if err := os.Mkdir(d, 0o700); err != nil {
				b.Fatal(err)
			}
		}
		name := filepath.Join(d, fmt.Sprintf("f%d", i%100))
		if err := os.WriteFile(name, content, 0o644); err != nil {
			b.Fatal(err)
		}
		if err := os.Chtimes(name, time.Time{}, time.Unix(1e9, 0)); err != nil {
			b.Fatal(err)
		}
		i++
	}
}

// A file that is discarded is closed as it is, and Abort removes it: nothing has
// to be written to the disk for that.
func TestDiscard(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dst")
	w, err := target.Dir(path).Begin(t.Context(), target.Need{Bytes: 10, Entries: 2})
	if err != nil {
		t.Fatal(err)
	}
	f, err := w.Create(t.Context(), "file", manifest.Node{Kind: manifest.File, Mode: 0o600, Size: 10})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("part"), 0); err != nil {
		t.Fatal(err)
	}
	d, ok := f.(target.Discarder)
	if !ok {
		t.Fatal("the file cannot be discarded")
	}
	if err := errors.Join(d.Discard(), d.Discard()); err != nil {
		t.Error(err)
	}
	if info, err := os.Stat(filepath.Join(path, "file")); err != nil || info.Size() != 4 {
		t.Errorf("the discarded file: %v, %v; want it unfinished", info, err)
	}
	if err := f.Close(); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("Close = %v", err)
	}
	if err := w.Abort(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("behind Abort: %v", err)
	}
}

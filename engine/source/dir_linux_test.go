package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cairn-backup/cairn/manifest"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// open opens a view that is closed when the test ends, and returns its first
// root's name.
func open(t *testing.T, s Source) (View, string) {
	t.Helper()
	v, err := s.Open(t.Context())
	must(t, err)
	t.Cleanup(func() {
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	})
	return v, v.Info().Roots[0].Name
}

// entries returns the entries of a directory and every error on the way.
func entries(t *testing.T, v View, path string) (nodes []manifest.Node, err error) {
	t.Helper()
	for n, e := range v.ReadDir(t.Context(), path) {
		if e != nil {
			err = errors.Join(err, e)
		}
		if n.Name != "" {
			nodes = append(nodes, n)
		}
	}
	return nodes, err
}

func names(nodes []manifest.Node) string {
	var s []string
	for _, n := range nodes {
		s = append(s, n.Name)
	}
	return strings.Join(s, " ")
}

// wantNames checks the names in a directory.
func wantNames(t *testing.T, v View, path, want string) {
	t.Helper()
	nodes, err := entries(t, v, path)
	if err != nil {
		t.Error(err)
	}
	if got := names(nodes); got != want {
		t.Errorf("%q holds %q, want %q", path, got, want)
	}
}

func readFile(t *testing.T, v View, path string) (string, error) {
	t.Helper()
	f, err := v.OpenFile(t.Context(), path)
	if err != nil {
		return "", err
	}
	data, err := io.ReadAll(f)
	return string(data), errors.Join(err, f.Close())
}

func TestDirRoots(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "file"), []byte("content"), 0o640))
	must(t, os.Symlink("file", filepath.Join(dir, "to-file")))
	must(t, os.Mkdir(filepath.Join(dir, "sub"), 0o700))
	must(t, os.Symlink("sub", filepath.Join(dir, "to-dir")))
	must(t, unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600))
	for name, kind := range map[string]manifest.NodeKind{
		"file": manifest.File, "to-file": manifest.File, "sub": manifest.Dir, "to-dir": manifest.Dir, "fifo": manifest.FIFO,
	} {
		v, root := open(t, Dir(filepath.Join(dir, name)))
		if info := v.Info(); root != name || info.Roots[0].Path != filepath.Join(dir, name) || info.Kind != manifest.KindFiles {
			t.Errorf("%s: Info() = %+v", name, info)
		}
		nodes, err := entries(t, v, "")
		if err != nil || len(nodes) != 1 || nodes[0].Name != name || nodes[0].Kind != kind {
			t.Errorf("%s: the roots are %+v, %v", name, nodes, err)
			continue
		}
		must(t, Complete(t.Context(), v, name, &nodes[0]))
		data, err := readFile(t, v, name)
		if kind == manifest.File && (err != nil || data != "content") {
			t.Errorf("%s: %q, %v", name, data, err)
		}
		if kind != manifest.File && !errors.Is(err, ErrChanged) {
			t.Errorf("%s: OpenFile = %v, want ErrChanged", name, err)
		}
		if _, err := entries(t, v, name); (kind == manifest.Dir) != (err == nil) {
			t.Errorf("%s: ReadDir = %v", name, err)
		}
	}
	_, err := Dir(filepath.Join(dir, "absent")).Open(t.Context())
	if !errors.Is(err, fs.ErrNotExist) || !errors.Is(err, ErrSource) {
		t.Errorf("Open of what is not there: %v", err)
	}
}

func TestDirOrderAndNames(t *testing.T) {
	dir := t.TempDir()
	want := []string{"-", "A", "B.txt", "a", "a b", "b\xff", "b\xff\xfe\n", strings.Repeat("x", 255), "é", "\xff"}
	for _, name := range want {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(name), 0o600))
	}
	v, root := open(t, Dir(dir))
	nodes, err := entries(t, v, root)
	must(t, err)
	for i, n := range nodes {
		if n.Name != want[i] {
			t.Errorf("entry %d is %q, want %q", i, n.Name, want[i])
		}
		if data, err := readFile(t, v, root+"/"+n.Name); err != nil || data != n.Name {
			t.Errorf("%q holds %q, %v", n.Name, data, err)
		}
	}
}

func TestDirRefusesPathsThatLeadOut(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "outside"), nil, 0o600))
	must(t, os.Mkdir(filepath.Join(dir, "in"), 0o700))
	must(t, os.Symlink("..", filepath.Join(dir, "in", "up")))
	v, _ := open(t, Dir(filepath.Join(dir, "in")))
	for _, p := range []string{"in/..", "in/../outside", "..", "other", "/", "in/", "in//x", "in/.", "in/up/outside", "in/up/../in", "inx"} {
		if _, err := v.OpenFile(t.Context(), p); !errors.Is(err, ErrSource) {
			t.Errorf("OpenFile(%q) = %v", p, err)
		}
		if nodes, err := entries(t, v, p); err == nil {
			t.Errorf("ReadDir(%q) lists %v", p, nodes)
		}
	}
}

// deep makes directories until the path is longer than a system call takes,
// and a file at the end.
func deep(t *testing.T, dir string, levels int) {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_PATH, 0)
	must(t, err)
	for range levels {
		must(t, unix.Mkdirat(fd, "dddddddd", 0o700))
		next, err := unix.Openat(fd, "dddddddd", unix.O_PATH, 0)
		must(t, err)
		must(t, unix.Close(fd))
		fd = next
	}
	f, err := unix.Openat(fd, "file", unix.O_CREAT|unix.O_WRONLY, 0o600)
	must(t, err)
	_, err = unix.Write(f, []byte("deep"))
	must(t, err)
	must(t, unix.Fsetxattr(f, "user.x", []byte("y"), 0))
	must(t, unix.Close(f))
	must(t, unix.Close(fd))
}

func TestDirDeepPaths(t *testing.T) {
	dir := t.TempDir()
	const levels = 1500 // 13,500 bytes
	deep(t, dir, levels)
	v, path := open(t, Dir(dir))
	for range levels {
		wantNames(t, v, path, "dddddddd")
		path += "/dddddddd"
	}
	nodes, err := entries(t, v, path)
	if err != nil || len(nodes) != 1 {
		t.Fatalf("the innermost directory lists %v, %v", nodes, err)
	}
	must(t, Complete(t.Context(), v, path+"/file", &nodes[0]))
	if data, err := readFile(t, v, path+"/file"); err != nil || data != "deep" || len(nodes[0].Xattrs) != 1 {
		t.Errorf("the innermost file: %q, %v, %+v", data, err, nodes[0])
	}
	open, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	if len(open) > idleHandles+50 {
		t.Errorf("%d descriptors are open", len(open))
	}
}

func TestDirHundredThousandEntries(t *testing.T) {
	const count = 100_000
	dir, err := os.MkdirTemp("/dev/shm", "cairn") // in memory it takes a second
	if err != nil {
		dir = t.TempDir()
	}
	defer os.RemoveAll(dir)
	for i := range count {
		fd, err := unix.Open(filepath.Join(dir, fmt.Sprintf("file%06d", (i*7919)%count)), unix.O_CREAT|unix.O_WRONLY, 0o600)
		must(t, err)
		must(t, unix.Close(fd))
	}
	v, root := open(t, Dir(dir))
	start := time.Now()
	seen := 0
	for n, err := range v.ReadDir(t.Context(), root) {
		if want := fmt.Sprintf("file%06d", seen); err != nil || n.Name != want {
			t.Fatalf("entry %d is %q, %v", seen, n.Name, err)
		}
		seen++
	}
	if seen != count {
		t.Errorf("%d entries, want %d", seen, count)
	}
	t.Log(time.Since(start))
}

func TestDirSkipAndExclude(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{"repo", "keep/repo", "keep/sub", "cache", "tagged", "mistagged"} {
		must(t, os.MkdirAll(filepath.Join(dir, d), 0o700))
		must(t, os.WriteFile(filepath.Join(dir, d, "f.tmp"), nil, 0o600))
		must(t, os.WriteFile(filepath.Join(dir, d, "f"), nil, 0o600))
	}
	must(t, os.WriteFile(filepath.Join(dir, "tagged", cacheTag), []byte(cacheSignature+"\n# more"), 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "mistagged", cacheTag), []byte("Signature: none"), 0o600))
	must(t, os.Symlink("repo", filepath.Join(dir, "link")))

	d := Dir(dir)
	d.Skip = []string{filepath.Join(dir, "keep", "..", "link"), filepath.Join(dir, "keep/sub/f"), filepath.Join(dir, "absent")}
	d.Exclude = []string{"*.tmp", "!/keep/f.tmp", "/cache/", "keep/repo"}
	d.ExcludeCaches = true
	v, root := open(t, d)
	wantNames(t, v, root, "keep link mistagged tagged")
	wantNames(t, v, root+"/keep", "sub")
	wantNames(t, v, root+"/keep/sub", "")
	wantNames(t, v, root+"/tagged", cacheTag)
	wantNames(t, v, root+"/mistagged", "CACHEDIR.TAG f")

	d = Dir(filepath.Join(dir, "link"))
	d.Skip = []string{filepath.Join(dir, "repo")}
	if _, err := d.Open(t.Context()); !errors.Is(err, ErrSkipped) {
		t.Errorf("Open of the repository itself: %v, want ErrSkipped", err)
	}
}

func TestDirOneFileSystem(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting takes root")
	}
	dir := t.TempDir()
	mount := filepath.Join(dir, "mount")
	must(t, os.Mkdir(mount, 0o700))
	if err := unix.Mount("tmpfs", mount, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("mount: %v", err)
	}
	defer func() { must(t, unix.Unmount(mount, 0)) }()
	must(t, os.WriteFile(filepath.Join(mount, "inside"), nil, 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "bound"), nil, 0o600))
	must(t, unix.Mount(filepath.Join(mount, "inside"), filepath.Join(dir, "bound"), "", unix.MS_BIND, ""))
	defer func() { must(t, unix.Unmount(filepath.Join(dir, "bound"), 0)) }()

	all, root := open(t, Dir(dir))
	wantNames(t, all, root, "bound mount")
	wantNames(t, all, root+"/mount", "inside")
	d := Dir(dir)
	d.OneFileSystem = true
	one, root := open(t, d)
	wantNames(t, one, root, "mount")
	wantNames(t, one, root+"/mount", "")
	for _, v := range []View{all, one} { // or they keep the mount busy
		must(t, v.Close())
	}
}

func TestDirChangesWhileRead(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for i := range 100 {
		must(t, os.WriteFile(at(fmt.Sprintf("f%02d", i)), []byte("before"), 0o600))
	}
	v, root := open(t, Dir(dir))
	var failed []string
	seen := map[string]manifest.Node{}
	for n, err := range v.ReadDir(t.Context(), root) {
		seen[n.Name] = n
		if n.Name == "f00" {
			must(t, os.Remove(at("f99"))) // listed, and gone before it is looked at
		}
		if err != nil {
			failed = append(failed, n.Name)
			if !errors.Is(err, fs.ErrNotExist) || !errors.Is(err, ErrSource) {
				t.Errorf("%s: %v", n.Name, err)
			}
		}
	}
	if !slices.Equal(failed, []string{"f99"}) || len(seen) != 100 {
		t.Errorf("%d entries, failed are %q", len(seen), failed)
	}

	must(t, os.Remove(at("f01")))
	must(t, os.Remove(at("f02")))
	must(t, unix.Mkfifo(at("f02"), 0o600)) // opening it must not wait
	must(t, os.Remove(at("f03")))
	must(t, os.Symlink("f05", at("f03")))
	must(t, os.Remove(at("f04")))
	must(t, os.Mkdir(at("f04"), 0o700))
	must(t, os.Remove(at("f06")))
	sock, err := net.ListenUnix("unix", &net.UnixAddr{Name: at("f06")})
	if err == nil {
		defer sock.Close()
	}
	for name, want := range map[string]error{"f01": fs.ErrNotExist, "f02": ErrChanged, "f03": ErrChanged, "f04": ErrChanged, "f06": ErrChanged} {
		if _, err := v.OpenFile(t.Context(), root+"/"+name); !errors.Is(err, want) || !errors.Is(err, ErrSource) {
			t.Errorf("OpenFile(%s) = %v, want %v", name, err, want)
		}
	}
}

func TestDirAgainTellsEveryChange(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "f")
	must(t, os.WriteFile(name, []byte("before"), 0o600))
	v, root := open(t, Dir(dir))
	nodes, err := entries(t, v, root)
	must(t, err)
	f, err := v.OpenFile(t.Context(), root+"/f")
	must(t, err)
	defer f.Close()
	again := func() manifest.Node {
		t.Helper()
		a, ok := f.(Again)
		if !ok {
			t.Fatal("the file has no second look")
		}
		n, err := a.Again()
		must(t, err)
		return n
	}
	n := again()
	if n.Size != nodes[0].Size || n.Look != nodes[0].Look || n.MTime != nodes[0].MTime {
		t.Errorf("the unchanged file looks like %+v, in the list like %+v", n, nodes[0])
	}
	time.Sleep(20 * time.Millisecond) // the clock of file times ticks each 10 ms or less
	must(t, os.WriteFile(name, []byte("behind"), 0o600))
	changed := again()
	if changed.Look == n.Look || changed.MTime == n.MTime {
		t.Error("a file of the same size that was written to looks the same")
	}
	time.Sleep(20 * time.Millisecond)
	must(t, os.Chtimes(name, time.Unix(1, 0), n.MTime.Time()))
	if back := again(); back.MTime != n.MTime || back.Look == n.Look {
		t.Error("a file whose time was set back looks the same")
	}
	must(t, os.Remove(name))
	must(t, os.WriteFile(name, []byte("other"), 0o600))
	if nodes, err = entries(t, v, root); err != nil || nodes[0].Look.Ino == again().Look.Ino {
		t.Errorf("another file has the same inode: %+v, %v", nodes, err)
	}
}

func TestDirCancelled(t *testing.T) {
	v, root := open(t, Dir(t.TempDir()))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	check := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, context.Canceled) || errors.Is(err, ErrSource) {
			t.Errorf("%s: %v, want nothing but context.Canceled", what, err)
		}
	}
	for _, path := range []string{"", root} {
		for _, err := range v.ReadDir(ctx, path) {
			check("ReadDir", err)
		}
	}
	_, err := v.OpenFile(ctx, root)
	check("OpenFile", err)
	check("Finish", v.Finish(ctx))
	_, err = Dir("/").Open(ctx)
	check("Open", err)
}

func TestSparse(t *testing.T) {
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, "f"))
	must(t, err)
	_, err = f.WriteAt(make([]byte, 1<<16), 1<<20)
	must(t, err)
	must(t, f.Truncate(4<<20))
	must(t, f.Close())
	v, root := open(t, Dir(dir))
	r, err := v.OpenFile(t.Context(), root+"/f")
	must(t, err)
	defer r.Close()
	s, ok := r.(Sparse)
	if !ok {
		t.Fatal("the file does not tell its holes")
	}
	for _, tt := range []struct{ off, start, end int64 }{{0, 1 << 20, 1<<20 + 1<<16}, {1<<20 + 5, 1<<20 + 5, 1<<20 + 1<<16}, {2 << 20, -1, 0}, {4 << 20, -1, 0}, {5 << 20, -1, 0}} {
		start, end, err := s.NextData(tt.off)
		if tt.start < 0 && !errors.Is(err, io.EOF) || tt.start >= 0 && (err != nil || start != tt.start || end != tt.end) {
			t.Errorf("NextData(%d) = %d, %d, %v", tt.off, start, end, err)
		}
	}
	if n, err := s.Seek(-10, io.SeekEnd); n != 4<<20-10 || err != nil {
		t.Errorf("Seek = %d, %v", n, err)
	}
	if data, err := io.ReadAll(r); len(data) != 10 || err != nil {
		t.Errorf("%d bytes after Seek, %v", len(data), err)
	}
}

// TestDirConcurrently has many goroutines walk and read one view.
func TestDirConcurrently(t *testing.T) {
	dir := t.TempDir()
	const dirs, files = 3 * idleHandles, 5
	for i := range dirs {
		d := filepath.Join(dir, fmt.Sprintf("d%03d", i), "e")
		must(t, os.MkdirAll(d, 0o700))
		for j := range files {
			must(t, os.WriteFile(filepath.Join(d, fmt.Sprint(j)), []byte(d), 0o600))
		}
	}
	v, root := open(t, Dir(dir))
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range dirs {
				path := fmt.Sprintf("%s/d%03d/e", root, (i*(2*g+1))%dirs)
				for n, err := range v.ReadDir(t.Context(), path) {
					if err != nil {
						t.Error(err)
						return
					}
					f, err := v.OpenFile(t.Context(), path+"/"+n.Name)
					if err != nil {
						t.Error(err)
						return
					}
					data, err := io.ReadAll(f)
					if err != nil || !strings.HasSuffix(string(data), path[len(root):]) {
						t.Errorf("%s holds %q, %v", path, data, err)
					}
					if err := f.Close(); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
}

// BenchmarkWalk lists a tree of many small directories, that of CAIRN_BENCH_TREE, or
// 200 directories of 50 empty files, as a backup does, and as filepath.WalkDir does
// with a look at each entry.
func BenchmarkWalk(b *testing.B) {
	dir := os.Getenv("CAIRN_BENCH_TREE")
	if dir == "" {
		dir = b.TempDir()
		for i := range 10_000 {
			sub := filepath.Join(dir, fmt.Sprintf("d%03d", i/50))
			if err := os.MkdirAll(sub, 0o700); err != nil {
				b.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(sub, fmt.Sprintf("f%02d", i%50)), nil, 0o600); err != nil {
				b.Fatal(err)
			}
		}
	}
	for name, walk := range map[string]func(b *testing.B, dir string) int{"Dir": walkSource, "WalkDir": walkPlain} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			count := 0
			for b.Loop() {
				count += walk(b, dir)
			}
			b.ReportMetric(float64(count)/b.Elapsed().Seconds(), "entries/s")
		})
	}
}

func walkSource(b *testing.B, dir string) (count int) {
	b.Helper()
	v, err := Dir(dir).Open(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	defer v.Close()
	var walk func(path string)
	walk = func(path string) {
		var subs []string
		for n, err := range v.ReadDir(b.Context(), path) {
			if err != nil {
				b.Fatal(err)
			}
			count++
			if n.Kind == manifest.Dir {
				subs = append(subs, n.Name)
			}
		}
		for _, s := range subs {
			walk(joinPath(path, s))
		}
	}
	walk("")
	return count
}

func walkPlain(b *testing.B, dir string) (count int) {
	b.Helper()
	err := filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		count++
		_, err = e.Info()
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	return count
}

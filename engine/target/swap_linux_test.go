package target_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
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

// fill makes n files of one content in dir.
func fill(t *testing.T, dir, content string, n int) {
	t.Helper()
	must(t, os.MkdirAll(dir, 0o755))
	for i := range n {
		must(t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("f%d", i)), []byte(content), 0o600))
	}
}

// content returns the one content of all n files in dir.
func content(dir string, n int) (string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	all, files := "", 0
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".cairn-") || e.Name() == "lost+found" {
			continue
		}
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return "", err
		}
		if files++; files > 1 && string(data) != all {
			return "", fmt.Errorf("%s is %.20q, others are %.20q", e.Name(), data, all)
		}
		all = string(data)
	}
	if files != n {
		return "", fmt.Errorf("%d files, want %d", files, n)
	}
	return all, nil
}

// swapIn restores n files of one content.
func swapIn(ctx context.Context, s *target.SwapTarget, content string, n int) error {
	w, err := s.Begin(ctx, target.Need{})
	if err != nil {
		return err
	}
	top := node(manifest.Dir)
	top.Mode, top.MTime = 0o751, manifest.Time{Sec: 1e9}
	err = w.Make(ctx, "", top)
	for i := 0; err == nil && i < n; i++ {
		err = put(ctx, w, fmt.Sprintf("f%d", i), content)
	}
	if err == nil {
		err = w.Commit(ctx)
	}
	if err != nil {
		return errors.Join(err, w.Abort())
	}
	return nil
}

func tmpfs(t *testing.T, dir, options string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting takes root")
	}
	must(t, os.MkdirAll(dir, 0o755))
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		t.Skipf("mount: %v", err)
	}
	t.Cleanup(func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) })
}

func names(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return strings.Join(all, " ")
}

// TestSwapGenerations: each exchange keeps the one before, and no more.
func TestSwapGenerations(t *testing.T) {
	dir := t.TempDir()
	app := filepath.Join(dir, "app")
	must(t, os.Symlink("app", filepath.Join(dir, "link")))
	for i, path := range []string{app, app, filepath.Join(dir, "link"), app} {
		s := target.Swap(path)
		s.KeepNone = i == 3
		must(t, swapIn(t.Context(), s, fmt.Sprint(i), 5))
		got, err := content(app, 5)
		if err != nil || got != fmt.Sprint(i) {
			t.Fatalf("%d: %q, %v", i, got, err)
		}
		if old, err := content(filepath.Join(dir, ".app.cairn-old"), 5); i > 0 && i < 3 && (err != nil || old != fmt.Sprint(i-1)) {
			t.Fatalf("%d: old one %q, %v", i, old, err)
		}
		fi, err := os.Stat(app)
		if err != nil || fi.Mode().Perm() != 0o751 || fi.ModTime().Unix() != 1e9 {
			t.Errorf("%d: %v, %v", i, fi, err)
		}
	}
	must(t, target.Discard(t.Context(), app))
	must(t, target.Discard(t.Context(), app))
	if got := names(t, dir); got != "app link" {
		t.Errorf("there are %s", got)
	}
}

// TestSwapHooks: the order of the calls, and that every error leaves the old one.
func TestSwapHooks(t *testing.T) {
	for _, fails := range []string{"", "verify", "quiesce", "resume", "cancel"} {
		t.Run(fails, func(t *testing.T) {
			dir := t.TempDir()
			app := filepath.Join(dir, "app")
			fill(t, app, "old", 3)
			before := read(t, source.Dir(app))
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var calls []string
			hook := func(name string) error {
				now, err := content(app, 3)
				must(t, err)
				calls = append(calls, name+" "+now)
				if name == "quiesce" && fails == "cancel" {
					cancel()
				}
				if name == fails {
					return errors.New("no")
				}
				return nil
			}
			s := target.Swap(app)
			s.Verify = func(_ context.Context, staged string) error {
				got, err := content(staged, 3)
				if err != nil || got != "new" {
					t.Errorf("staged is %q, %v", got, err)
				}
				return hook("verify")
			}
			s.Quiesce = func(context.Context) error { return hook("quiesce") }
			s.Resume = func(ctx context.Context) error { must(t, ctx.Err()); return hook("resume") }
			err := swapIn(ctx, s, "new", 3)
			want := map[string]string{
				"": "verify old, quiesce old, resume new", "verify": "verify old", "quiesce": "verify old, quiesce old",
				"resume": "verify old, quiesce old, resume new", "cancel": "verify old, quiesce old, resume old",
			}[fails]
			if got := strings.Join(calls, ", "); got != want {
				t.Errorf("calls: %s, want %s", got, want)
			}
			if (err == nil) != (fails == "") || fails == "resume" != errors.Is(err, target.ErrResume) || fails == "cancel" != errors.Is(err, context.Canceled) {
				t.Errorf("error: %v", err)
			}
			if fails == "" || fails == "resume" {
				return
			}
			compare(t, read(t, source.Dir(app)), before)
			if got := names(t, dir); got != "app" {
				t.Errorf("there are %s", got)
			}
		})
	}
}

// TestSwapRefuses: what speaks against it is said before anything is staged.
func TestSwapRefuses(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	fill(t, filepath.Join(dir, "app", "sub"), "old", 3)
	must(t, os.WriteFile(filepath.Join(dir, "db"), nil, 0o600))
	must(t, unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600))
	before := read(t, source.Dir(dir))
	refuse := func(name string, need target.Need, want error, says string) {
		t.Helper()
		_, err := target.Swap(filepath.Join(dir, name)).Begin(t.Context(), need)
		if !errors.Is(err, want) || !errors.Is(err, target.ErrTarget) || !strings.Contains(err.Error(), says) {
			t.Errorf("Begin(%s) = %v, want %v, %q", name, err, want, says)
		}
	}
	refuse("app", target.Need{Bytes: 1 << 60}, target.ErrNoSpace, "needed")
	refuse("fifo", target.Need{}, target.ErrNotSwappable, "neither")
	refuse("no/app", target.Need{}, fs.ErrNotExist, "")
	if _, err := target.Swap("/").Begin(t.Context(), target.Need{}); !errors.Is(err, target.ErrNotSwappable) {
		t.Errorf("Begin(/) = %v", err)
	}
	must(t, os.Symlink(filepath.Join(dir, "app", "sub"), filepath.Join(outside, "link")))
	for path, says := range map[string]string{
		filepath.Join(dir, "app"): "lies in it", filepath.Join(dir, "app", "sub"): "lies in it", filepath.Join(outside, "link"): "lies in it",
		filepath.Join(dir, "app", "absent"): "", outside: "", filepath.Join(dir, "db"): "",
	} {
		s := target.Swap(filepath.Join(dir, "app"))
		s.Skip = []string{filepath.Join(dir, "fifo"), path}
		w, err := s.Begin(t.Context(), target.Need{})
		if says == "" {
			must(t, err)
			must(t, w.Abort())
		} else if !errors.Is(err, target.ErrNotSwappable) || !strings.Contains(err.Error(), says) {
			t.Errorf("Begin without %s = %v", path, err)
		}
	}
	for name, file := range map[string]string{"app": "app/sub/f1", "db": "db"} {
		cmd := exec.CommandContext(t.Context(), "sleep", "100")
		f, err := os.Open(filepath.Join(dir, file))
		must(t, err)
		cmd.Stdin = f
		must(t, cmd.Start())
		must(t, f.Close())
		refuse(name, target.Need{}, target.ErrInUse, fmt.Sprintf("process %d", cmd.Process.Pid))
		s := target.Swap(filepath.Join(dir, name))
		s.Force = true
		w, err := s.Begin(t.Context(), target.Need{})
		must(t, err)
		refuse(name, target.Need{}, target.ErrInUse, "another restore")
		if err := target.Recover(t.Context(), filepath.Join(dir, name)); !errors.Is(err, target.ErrInUse) {
			t.Errorf("Recover during a restore = %v", err)
		}
		must(t, w.Abort())
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	got := read(t, source.Dir(dir))
	top := got.nodes[""]
	top.MTime = before.nodes[""].MTime
	got.nodes[""] = top
	compare(t, got, before)
	if os.Geteuid() != 0 {
		return
	}
	tmpfs(t, filepath.Join(dir, "app", "sub", "mount"), "size=1m")
	refuse("app", target.Need{}, target.ErrNotSwappable, "mounted at "+filepath.Join(dir, "app", "sub", "mount"))
}

// TestSwapKinds: a directory does not become a file, nor the other way round.
func TestSwapKinds(t *testing.T) {
	dir := t.TempDir()
	fill(t, filepath.Join(dir, "app"), "old", 1)
	must(t, os.WriteFile(filepath.Join(dir, "db"), []byte("old"), 0o600))
	if err := swapIn(t.Context(), target.Swap(filepath.Join(dir, "db")), "new", 2); !errors.Is(err, target.ErrNotSwappable) {
		t.Errorf("a directory over a file: %v", err)
	}
	w, err := target.Swap(filepath.Join(dir, "app")).Begin(t.Context(), target.Need{})
	must(t, err)
	must(t, put(t.Context(), w, "db", "new"))
	if err := w.Commit(t.Context()); !errors.Is(err, target.ErrNotSwappable) {
		t.Errorf("a file over a directory: %v", err)
	}
	must(t, w.Abort())
	if got := names(t, dir); got != "app db" {
		t.Errorf("there are %s", got)
	}
}

// TestSwapMountPoint exchanges the children of a mount point, where nothing can
// be renamed; and a full file system leaves the old ones.
func TestSwapMountPoint(t *testing.T) {
	dir := t.TempDir()
	app := filepath.Join(dir, "a b")
	tmpfs(t, app, "size=4m")
	fill(t, app, "old", 5)
	must(t, os.Mkdir(filepath.Join(app, "lost+found"), 0o700))
	must(t, swapIn(t.Context(), target.Swap(app), "new", 7))
	if got, err := content(app, 7); err != nil || got != "new" {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := content(filepath.Join(app, ".cairn-old"), 5); err != nil || got != "old" {
		t.Errorf("old: %q, %v", got, err)
	}
	if fi, err := os.Stat(app); err != nil || fi.Mode().Perm() != 0o751 {
		t.Errorf("%v, %v", fi, err)
	}
	if err := swapIn(t.Context(), target.Swap(app), strings.Repeat("x", 1<<20), 5); !errors.Is(err, target.ErrNoSpace) {
		t.Errorf("a full file system: %v", err)
	}
	if got, err := content(app, 7); err != nil || got != "new" {
		t.Errorf("afterwards %q, %v", got, err)
	}
	must(t, target.Discard(t.Context(), app))
	if got := names(t, app); strings.Contains(got, "cairn") {
		t.Errorf("there are %s", got)
	}
	if got := names(t, dir); got != "a b" {
		t.Errorf("beside it there are %s", got)
	}

	file := filepath.Join(dir, "file")
	must(t, os.WriteFile(file, nil, 0o600))
	must(t, unix.Mount(filepath.Join(app, "f1"), file, "", unix.MS_BIND, ""))
	defer func() { must(t, unix.Unmount(file, 0)) }()
	if _, err := target.Swap(file).Begin(t.Context(), target.Need{}); !errors.Is(err, target.ErrNotSwappable) {
		t.Errorf("a mounted file: %v", err)
	}
}

// TestSwapForbidden runs as a user who may not write the directory.
func TestSwapForbidden(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("becoming someone else takes root")
	}
	dir, err := os.MkdirTemp("", "cairn") //nolint:usetesting // the parent of t.TempDir is closed to others
	must(t, err)
	defer os.RemoveAll(dir) // of a test
	must(t, os.Chmod(dir, 0o755))
	exe := filepath.Join(dir, "test")
	data, err := os.ReadFile(os.Args[0])
	must(t, err)
	must(t, os.WriteFile(exe, data, 0o755))
	fill(t, filepath.Join(dir, "closed", "app"), "old", 1)
	must(t, os.Mkdir(filepath.Join(dir, "sticky"), 0o700))
	must(t, os.Chmod(filepath.Join(dir, "sticky"), 0o777|fs.ModeSticky))
	fill(t, filepath.Join(dir, "sticky", "app"), "old", 1)
	for _, path := range []string{"closed/app", "sticky/app"} {
		cmd := exec.CommandContext(t.Context(), exe, "-test.run=TestSwapHelper")
		cmd.Env = append(os.Environ(), "CAIRN_SWAP="+filepath.Join(dir, path))
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(out), target.ErrNotSwappable.Error()) {
			t.Errorf("%s: %v %s", path, err, out)
		}
		if got := names(t, filepath.Join(dir, filepath.Dir(path))); got != "app" {
			t.Errorf("%s: there are %s", path, got)
		}
	}
}

// TestSwapHelper is what TestSwapKilled and TestSwapForbidden run: it restores
// to the target again and again.
func TestSwapHelper(t *testing.T) {
	path := os.Getenv("CAIRN_SWAP")
	if path == "" {
		t.Skip("this is a helper")
	}
	for i := 0; ; i++ {
		if err := swapIn(t.Context(), target.Swap(path), strings.Repeat(fmt.Sprint(i), 5000), 20); err != nil {
			t.Fatal(err)
		}
		fmt.Println("exchanged") // the test reads it
	}
}

// TestSwapKilled kills the helper at random moments: what is there after
// Recover is one generation, whole, and once there was one it does not go away.
func TestSwapKilled(t *testing.T) {
	for _, mounted := range []bool{false, true} {
		t.Run(fmt.Sprintf("mounted=%v", mounted), func(t *testing.T) {
			dir, err := os.MkdirTemp("/dev/shm", "cairn")
			if err != nil {
				t.Skip("too slow on a disk")
			}
			t.Cleanup(func() { must(t, os.RemoveAll(dir)) }) // after the unmount
			app := filepath.Join(dir, "app")
			if mounted {
				tmpfs(t, app, "size=100m")
			}
			fill(t, app, "first", 20)
			rng := rand.New(rand.NewPCG(1, 2))
			var out strings.Builder
			slow := 1 // a machine that has much to do comes to no exchange in the time of one that has not
			for i := range 25 {
				cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=TestSwapHelper")
				cmd.Env = append(os.Environ(), "CAIRN_SWAP="+app)
				cmd.Stdout, cmd.Stderr = &out, &out
				must(t, cmd.Start())
				time.Sleep(time.Duration(slow*(30+rng.IntN(120))) * time.Millisecond) // the moment of the kill is what is random
				_ = cmd.Process.Kill()
				_ = cmd.Wait()
				must(t, target.Recover(t.Context(), app))
				if got, err := content(app, 20); err != nil || got == "" {
					t.Fatalf("kill %d: %v", i, err)
				}
				if !strings.Contains(out.String(), "exchanged") {
					slow = min(2*slow, 64)
				}
			}
			if !strings.Contains(out.String(), "exchanged") {
				t.Errorf("nothing was ever exchanged: %s", out.String())
			}
		})
	}
}

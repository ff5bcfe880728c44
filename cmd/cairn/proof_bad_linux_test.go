package main

import (
	"context"
	"io"
	"iter"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cairn-backup/cairn/backend/mem"
	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/engine/source"
	"github.com/cairn-backup/cairn/manifest"
)

// TestBadRepository names what is no repository, cannot be opened, or belongs to
// another program. Nothing is changed there.
func TestBadRepository(t *testing.T) {
	t.Parallel()
	p := newProgram(t)
	fillTree(t, p.at("src"), 50_000, 20)
	pass, wrong := p.at("pass"), p.at("wrong")
	must(t, os.WriteFile(pass, []byte("right one\n"), 0o600))
	must(t, os.WriteFile(wrong, []byte("wrong one\n"), 0o600))
	p.exits(0, "init")
	p.exits(0, "key", "add", "--new-passphrase-file", pass)
	id := p.backup(p.at("src"))
	words := p
	words.key = ""
	every := func(q program, code int, pattern string) {
		t.Helper()
		before := readTree(t, filepath.Dir(q.repo))
		for _, args := range [][]string{
			{"backup", p.at("src")}, {"snapshots"}, {"restore", id, "--target", p.at("none")}, {"check"}, {"delete", id}, {"key", "list"},
		} {
			q.says(code, pattern, args...)
		}
		if exists(p.at("none")) {
			t.Error("a restore that cannot begin made its target")
		}
		before.compare(t, q.repo, readTree(t, filepath.Dir(q.repo)))
	}
	in := func(dir string) program {
		q := p
		q.repo = filepath.Join(p.at(dir), "repo")
		must(t, os.MkdirAll(q.repo, 0o755))
		return q
	}

	wrongWords := words
	wrongWords.extra = []string{envPassphraseFile + "=" + wrong}
	wrongWords.exits(exitWrongKey, "snapshots") // a cache of its own beside it
	every(func() program { q := wrongWords; q.repo = moved(t, p, "a"); return q }(), exitWrongKey, "does not open the repository")
	other := in("b")
	other.key = p.at("other")
	other.exits(0, "init")
	stranger := p
	stranger.key, stranger.repo = other.key, moved(t, p, "c")
	every(stranger, exitWrongKey, "does not open the repository")
	rightWords := words
	rightWords.extra = []string{envPassphraseFile + "=" + pass}
	if got := rightWords.snapshots(); len(got) != 1 {
		t.Errorf("the right passphrase shows %v", got)
	}

	every(in("empty"), exitNoRepository, "no repository .*\n.*init")
	absent := in("absent")
	must(t, os.Remove(absent.repo))
	every(absent, exitNoRepository, "no repository .*\n.*init")

	newer := p
	newer.repo = moved(t, p, "newer")
	config, err := os.ReadFile(filepath.Join(newer.repo, "config"))
	must(t, err)
	config[8] = 2 // the format
	must(t, os.Chmod(filepath.Join(newer.repo, "config"), 0o600))
	must(t, os.WriteFile(filepath.Join(newer.repo, "config"), config, 0o600))
	every(newer, exitNewerFormat, "update cairn")
	newer.exits(exitNewerFormat, "init") // never over it

	for name, make := range map[string]func(dir string){"restic": p.restic, "borg": p.borg, "kopia": p.kopia} {
		q := in(name)
		make(q.repo)
		every(q, exitNoRepository, "is a "+name+" repository")
		q.exits(exitNoRepository, "init")
	}
	p.restores(id, readTree(t, p.at("src")))
}

// moved copies the repository of p to another place.
func moved(t *testing.T, p program, name string) string {
	t.Helper()
	to := filepath.Join(p.at(name), "repo")
	copyTree(t, p.repo, to)
	return to
}

func (p program) restic(dir string) {
	p.tool(dir, []string{"RESTIC_PASSWORD=x", "RESTIC_REPOSITORY=" + dir}, "restic", "init")
	if !exists(filepath.Join(dir, "config")) {
		for _, name := range []string{"data", "index", "keys", "locks", "snapshots"} {
			must(p.t, os.MkdirAll(filepath.Join(dir, name), 0o755))
		}
		must(p.t, os.WriteFile(filepath.Join(dir, "config"), noise(155, 1), 0o600))
	}
}

func (p program) borg(dir string) {
	p.tool(dir, []string{"BORG_PASSPHRASE=x", "BORG_BASE_DIR=" + p.at("borgbase")}, "borg", "init", "-e", "repokey", dir)
	if !exists(filepath.Join(dir, "config")) {
		must(p.t, os.WriteFile(filepath.Join(dir, "README"), []byte("This is a Borg Backup repository.\n"), 0o600))
		must(p.t, os.WriteFile(filepath.Join(dir, "config"), []byte("[repository]\nversion = 1\n"), 0o600))
	}
}

func (p program) kopia(dir string) {
	must(p.t, os.WriteFile(filepath.Join(dir, "kopia.repository.f"), []byte(`{"tool":"https://github.com/kopia/kopia"}`), 0o600))
}

// tool runs another backup program, if it is installed.
func (p program) tool(dir string, env []string, name string, args ...string) {
	if _, err := exec.LookPath(name); err != nil {
		p.t.Logf("%s is not installed: its files are made by hand", name)
		return
	}
	cmd := exec.CommandContext(p.t.Context(), name, args...)
	cmd.Env = append(env, "HOME="+p.dir, "PATH="+os.Getenv("PATH"))
	if out, err := cmd.CombinedOutput(); err != nil {
		p.t.Fatalf("%s in %s: %v\n%s", name, dir, err, out)
	}
}

// TestFullDisk backs up to a disk that becomes full, and restores to one.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	needRoot(t, "it mounts a small file system")
	p := newProgram(t)
	disk := p.at("disk")
	mount(t, disk, 40)
	p.repo = filepath.Join(disk, "repo")
	fillTree(t, p.at("small"), 4*mib, 30)
	fillTree(t, p.at("large"), 60*mib, 31)
	small, large := readTree(t, p.at("small")), readTree(t, p.at("large"))
	p.exits(0, "init")
	first := p.backup(p.at("small"))

	p.says(1, `(?i)no space.*\nhint: .*space`, "backup", p.at("large"))
	if got := p.snapshots(); len(got) != 1 {
		t.Errorf("after a backup that failed: snapshots %v", got)
	}
	p.check()
	p.restores(first, small)
	must(t, unix.Mount("", disk, "", unix.MS_REMOUNT, "size=200m"))
	second := p.backup(p.at("large"))
	p.check()
	p.restores(second, large)

	target := p.at("target disk")
	mount(t, target, 20)
	for _, to := range []string{target, filepath.Join(target, "below")} {
		r := p.says(1, `(?i)space`, "restore", second, "--target", to)
		if strings.Contains(r.stdout, "every byte verified") {
			t.Errorf("it says that all is well: %v", r)
		}
	}
	p.exits(0, "restore", first, "--target", filepath.Join(target, "small"))
	p.restores(second, large)
	// Full for everything, the smallest record included.
	must(t, unix.Mount("", disk, "", unix.MS_REMOUNT, "size=200m"))
	fill(t, disk)
	p.says(1, `(?i)no space`, "backup", p.at("small"))
	p.says(1, `(?i)no space`, "delete", first)
	if got := p.snapshots(); len(got) != 2 {
		t.Errorf("on a full disk: snapshots %v", got)
	}
	p.restores(first, small) // the cache is elsewhere, but need not be
	p.check()
}

// mount mounts a file system of so many MiB at dir, until the test ends.
func mount(t *testing.T, dir string, size int) {
	t.Helper()
	must(t, os.MkdirAll(dir, 0o755))
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+strconv.Itoa(size)+"m"); err != nil {
		t.Skipf("mount: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
}

// fill leaves no byte of a file system free.
func fill(t *testing.T, dir string) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "fill"))
	must(t, err)
	defer f.Close()
	for n := mib; n >= 1; {
		if _, err := f.Write(make([]byte, n)); err != nil {
			n /= 2
		}
	}
}

// TestReadOnlyRepository reads from a file system that is mounted read-only:
// what only reads works, what writes says why it cannot.
func TestReadOnlyRepository(t *testing.T) {
	t.Parallel()
	needRoot(t, "it mounts a file system")
	p := newProgram(t)
	fillTree(t, p.at("src"), 200_000, 40)
	want := readTree(t, p.at("src"))
	p.exits(0, "init")
	id := p.backup(p.at("src"))
	if err := unix.Mount(p.repo, p.repo, "", unix.MS_BIND, ""); err != nil {
		t.Skipf("mount: %v", err)
	}
	defer func() { must(t, unix.Unmount(p.repo, unix.MNT_DETACH)) }()
	must(t, unix.Mount("", p.repo, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	p.restores(id, want)
	p.check()
	for _, args := range [][]string{{"backup", p.at("src")}, {"delete", id}, {"tag", id, "--add", "x"}, {"key", "add", "--new-key-file", p.at("second")}} {
		p.says(1, "read-only", args...)
	}
	must(t, os.RemoveAll(p.cache))
	p.restores(id, want)
}

// TestPermissionDenied is somebody who may not do what he tries.
func TestPermissionDenied(t *testing.T) {
	t.Parallel()
	needRoot(t, "it becomes another user")
	p := newProgram(t)
	openFor(t, p.dir)
	src := p.at("src")
	fillTree(t, src, 100_000, 50)
	fillTree(t, filepath.Join(src, "closed"), 10_000, 51)
	must(t, os.Chmod(filepath.Join(src, "closed"), 0o700))
	must(t, os.WriteFile(filepath.Join(src, "secret"), []byte("x"), 0o600))
	p.exits(0, "init")
	id := p.backup(src)
	must(t, os.Chmod(p.key, 0o644))

	other := p
	other.user = nobody
	other.cache = p.at("nobody/cache")
	must(t, os.Mkdir(p.at("nobody"), 0o700))
	must(t, os.Chown(p.at("nobody"), nobody, nobody))
	// A repository that he may not read.
	must(t, os.Chmod(p.repo, 0o700))
	for _, args := range [][]string{{"snapshots"}, {"restore", id, "--target", p.at("nobody/t0")}, {"backup", src}, {"check"}} {
		other.says(1, "permission denied", args...)
	}
	// One of his own: what he may not read is listed, the rest is there.
	mine := other
	mine.repo = p.at("nobody/repo")
	mine.exits(0, "init")
	r := mine.exits(exitPartial, "backup", "--json", src)
	doc := lastDocument[backupJSONResult](t, r)
	if len(doc.Missing) != 2 {
		t.Errorf("missing are %v, want closed and secret", doc.Missing)
	}
	mine.says(1, "permission denied", "backup", "--on-unreadable=fail", src)
	if got := mine.snapshots(); len(got) != 1 {
		t.Errorf("snapshots %v", got)
	}
	mine.exits(0, "restore", "latest", "--target", p.at("nobody/t1"))
	part := readTree(t, src).only(func(path string, e *entry) bool {
		e.UID, e.GID = nobody, nobody
		return path != "secret" && !strings.HasPrefix(path, "closed/")
	})
	part.compare(t, "what nobody may read", readTree(t, p.at("nobody/t1")))
	mine.check()
	// A target that he may not write.
	mine.says(1, "permission denied", "restore", "latest", "--target", p.at("t2"))
	must(t, os.Mkdir(p.at("t3"), 0o755))
	mine.says(1, "permission denied", "restore", "latest", "--target", p.at("t3"))
}

// TestSourceMoves backs up what is being changed: files that grow, shrink, are
// replaced and vanish. All else is as it was, and what the snapshot holds can be
// restored.
func TestSourceMoves(t *testing.T) {
	t.Parallel()
	r := seeded(t)
	p := newProgram(t)
	p.exits(0, "init")
	still := filepath.Join(p.at("src"), "still")
	fillTree(t, still, 2*mib, 60)
	want := readTree(t, still)
	busy := filepath.Join(p.at("src"), "busy")
	for range scale(2, 4, 30) {
		must(t, os.RemoveAll(busy))
		fillTree(t, busy, 24*mib, 61)
		var files []string
		for path, e := range readTree(t, busy) {
			if e.Kind == "file" {
				files = append(files, filepath.Join(busy, path))
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			for ctx.Err() == nil {
				path := files[r.IntN(len(files))]
				disturb(r, path)
				time.Sleep(200 * time.Microsecond)
			}
		})
		res := p.run("backup", "--json", p.at("src"))
		cancel()
		wg.Wait()
		if res.code != exitDone && res.code != exitPartial {
			t.Fatal(res)
		}
		id := snapshotOfOutput(t, res)
		target := p.at("target")
		p.exits(0, "restore", id, "--target", target)
		want.compare(t, "what nobody touched", readTree(t, filepath.Join(target, "still")))
		must(t, os.RemoveAll(target))
	}
	p.check()
}

// disturb changes what is at path in one of several ways. It never follows a link
// and never waits for the other end of a FIFO.
func disturb(r *rand.Rand, path string) {
	const noFollow = unix.O_WRONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK
	switch r.IntN(6) {
	case 0:
		_ = os.Remove(path)
	case 1:
		if f, err := os.OpenFile(path, noFollow, 0); err == nil {
			_ = f.Truncate(r.Int64N(9 * mib))
			_ = f.Close()
		}
	case 2:
		if f, err := os.OpenFile(path, noFollow|unix.O_APPEND, 0); err == nil {
			_, _ = f.Write(noise(1+r.IntN(mib/8), 1))
			_ = f.Close()
		}
	case 3:
		_ = os.Remove(path)
		_ = os.Mkdir(path, 0o755)
	case 4:
		_ = os.Remove(path)
		_ = os.Symlink("/nowhere/at/all", path)
	case 5:
		_ = os.Remove(path)
		_ = unix.Mkfifo(path, 0o644)
	}
}

// TestBadTarget restores to what no restore may touch.
func TestBadTarget(t *testing.T) {
	t.Parallel()
	p := newProgram(t)
	fillTree(t, p.at("src"), 50_000, 70)
	want := readTree(t, p.at("src"))
	p.exits(0, "init")
	id := p.backup(p.at("src"))
	outside := p.at("outside")
	must(t, os.Mkdir(outside, 0o755))

	must(t, os.WriteFile(p.at("file"), []byte("mine"), 0o644))
	p.says(1, "file", "restore", id, "--target", p.at("file"))
	must(t, os.MkdirAll(p.at("full/sub"), 0o755))
	p.says(1, "not empty", "restore", id, "--target", p.at("full"))
	// The names of the snapshot's own directories lead elsewhere.
	must(t, os.Mkdir(p.at("linked"), 0o755))
	for _, name := range []string{"d0", "d1", "d2"} {
		must(t, os.Symlink(outside, filepath.Join(p.at("linked"), name)))
	}
	p.says(1, "not empty", "restore", id, "--target", p.at("linked"))
	must(t, os.Symlink("nowhere", p.at("dangling")))
	p.exits(1, "restore", id, "--target", p.at("dangling"))
	p.exits(1, "restore", id, "--target", filepath.Join(p.at("file"), "below"))
	p.exits(1, "restore", id, "--target", p.repo)
	p.exits(exitUsage, "restore", id, "--target", "")
	if got := readTree(t, outside); len(got) != 1 {
		t.Errorf("something was written outside: %v", got)
	}
	if got, err := os.ReadFile(p.at("file")); err != nil || string(got) != "mine" {
		t.Errorf("the file is %q, %v", got, err)
	}
	p.restores(id, want)
}

// TestNonsense gives command lines that mean nothing: each is refused with 2,
// says so, and does nothing.
func TestNonsense(t *testing.T) {
	t.Parallel()
	p := newProgram(t)
	p.exits(0, "init")
	before := readTree(t, p.repo)
	for _, args := range [][]string{
		{"bakcup", "x"},
		{"--nonsense"},
		{"backup"},
		{"backup", "--nonsense", "/etc"},
		{"restore"},
		{"restore", "x"},
		{"backup", "--on-unreadable=perhaps", "/etc"},
		{"backup", "--time", "yesterday", "/etc"},
		{"snapshots", "--latest", "many"},
		{"restore", "zz", "--target", "t"},
		{"delete"},
		{"check", "extra"},
		{"init", "extra"},
		{"key", "frobnicate"},
		{"repair", "nothing"},
		{"ls"},
		{"backup", "--exclude", "[", "/etc"},
		{"-r", "ftp://host/x", "snapshots"},
		{"backup", "--host"},
		{"tag", "latest", "--add", ""},
	} {
		r := p.says(exitUsage, "^cairn: ", args...)
		if strings.Contains(r.stderr, "panic") || strings.Contains(r.stderr, "goroutine") {
			t.Errorf("%v", r)
		}
	}
	before.compare(t, "the repository", readTree(t, p.repo))
	if exists(p.at("t")) {
		t.Error("a target was made")
	}
}

// TestInterrupt sends SIGINT once while much is being read: the program ends
// within a second with 130, nothing is published, and the next run completes.
func TestInterrupt(t *testing.T) {
	p := newProgram(t) // not beside others: it measures time
	fillTree(t, p.at("src"), scale[int64](60, 80, 400)*mib, 80)
	want := readTree(t, p.at("src"))
	p.exits(0, "init")
	interrupted := 0
	for i := range scale(2, 2, 10) {
		before := p.packBytes()
		s := p.start("backup", "--json", p.at("src"))
		for p.packBytes()-before < int64(1+i*8)*mib && time.Since(s.begin) < 10*time.Second {
			time.Sleep(time.Millisecond)
		}
		sent := time.Now()
		must(t, s.cmd.Process.Signal(syscall.SIGINT))
		r := s.wait()
		if took := time.Since(sent); took > time.Second && r.code != 0 {
			t.Errorf("it ended %v after SIGINT, want a second", took)
		}
		if r.code == exitInterrupted {
			interrupted++
			if got := p.snapshots(); len(got) != 0 {
				t.Errorf("published after SIGINT: %v", got)
			}
			p.check()
		}
		if r.code != exitInterrupted && r.code != 0 {
			t.Errorf("%v, want %d", r, exitInterrupted)
		}
		if r.code == 0 {
			p.exits(0, "delete", snapshotOfOutput(t, r))
		}
	}
	if interrupted == 0 {
		t.Error("every backup was over before the signal came: nothing is shown")
	}
	p.restores(p.backup(p.at("src")), want)

	s := p.start("restore", "latest", "--target", p.at("target"))
	for !exists(filepath.Join(p.at("target"), "d0")) && time.Since(s.begin) < 10*time.Second {
		time.Sleep(time.Millisecond)
	}
	must(t, s.cmd.Process.Signal(syscall.SIGINT))
	if r := s.wait(); r.code != exitInterrupted && r.code != 0 {
		t.Errorf("a restore: %v, want %d", r, exitInterrupted)
	}
	p.restores(p.snapshots()[len(p.snapshots())-1], want)
}

// TestHostileNames tries to put names into a repository that would lead a
// restore out of its target. A snapshot cannot hold them.
func TestHostileNames(t *testing.T) {
	t.Parallel()
	b := new(mem.Backend)
	repo, err := engine.OpenOrInit(t.Context(), b, engine.Passphrase("x"), engine.Options{})
	must(t, err)
	defer repo.Close()
	for _, name := range []string{"../x", "..", ".", "/etc/x", "a/b", "", "nul\x00", "x/../../y"} {
		for _, kind := range []manifest.NodeKind{manifest.File, manifest.Dir, manifest.Symlink} {
			_, err := repo.Backup(t.Context(), hostile{manifest.Node{Name: name, Kind: kind, Mode: 0o644, Target: "/etc"}}, engine.BackupOptions{})
			if err == nil {
				t.Errorf("a snapshot holds a %v called %q", kind, name)
			}
		}
	}
	for s, err := range repo.Snapshots(t.Context(), manifest.Filter{}) {
		t.Errorf("published: %v, %v", s.ID, err)
	}
}

// hostile is a source of one directory with one entry.
type hostile struct{ node manifest.Node }

func (h hostile) Open(context.Context) (source.View, error) { return h, nil }
func (h hostile) Finish(context.Context) error              { return nil }
func (h hostile) Close() error                              { return nil }

func (h hostile) Info() source.Info {
	return source.Info{Kind: "files", Roots: []manifest.Root{{Path: "/x", Name: "x"}}}
}

func (h hostile) OpenFile(context.Context, string) (io.ReadCloser, error) {
	return io.NopCloser(strings.NewReader("")), nil
}

func (h hostile) ReadDir(_ context.Context, path string) iter.Seq2[manifest.Node, error] {
	return func(yield func(manifest.Node, error) bool) {
		switch path {
		case "":
			yield(manifest.Node{Name: "x", Kind: manifest.Dir, Mode: 0o755}, nil)
		case "x":
			yield(h.node, nil)
		}
	}
}

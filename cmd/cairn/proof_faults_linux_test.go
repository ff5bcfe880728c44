package main

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A sysFault makes system calls of one name fail, from one of them on.
type sysFault struct {
	call, errno string
}

// sysFaults are what a disk, a mount or an administrator does to a program. The
// call write is not among them: the runtime itself writes to descriptors that
// cannot fail. TestFullDisk and TestFillsUp have it fail in earnest.
var sysFaults = []sysFault{
	{"fsync", "EIO"},
	{"fsync", "ENOSPC"},
	{"linkat", "EIO"},
	{"linkat", "EACCES"},
	{"linkat", "ENOSPC"},
	{"renameat", "EIO"},
	{"mkdirat", "EROFS"},
	{"mkdirat", "EACCES"},
	{"openat", "EACCES"},
	{"openat", "EROFS"},
	{"openat", "EIO"},
	{"openat", "EMFILE"},
	{"pread64", "EIO"},
	{"pwrite64", "ENOSPC"},
	{"pwrite64", "EIO"},
	{"getdents64", "EIO"},
	{"unlinkat", "EACCES"},
}

// strace runs the program with the options of strace.
func (p program) strace(options []string, args ...string) result {
	p.t.Helper()
	exe, err := executable()
	must(p.t, err)
	s := &started{p: p, args: args, cmd: p.cmd(), begin: time.Now()}
	path, err := exec.LookPath("strace")
	must(p.t, err)
	s.cmd.Path = path
	s.cmd.ExtraFiles = []*os.File{exe} // is descriptor 3
	s.cmd.Args = append(append([]string{"strace", "-f", "-qq"}, options...), "/proc/self/fd/3")
	s.cmd.Args = append(s.cmd.Args, args...)
	s.cmd.Stdout, s.cmd.Stderr = &s.out, &s.errOut
	must(p.t, s.cmd.Start())
	return s.wait()
}

// traced reports whether strace works here.
func (p program) traced() bool {
	path, err := exec.LookPath("strace")
	return err == nil && exec.CommandContext(p.t.Context(), path, "-qq", "-o", "/dev/null", "true").Run() == nil
}

// calls counts the system calls of a command by name.
func (p program) calls(args ...string) map[string]int {
	p.t.Helper()
	names := make([]string, 0, len(sysFaults))
	for _, f := range sysFaults {
		names = append(names, f.call)
	}
	out := p.at("calls")
	if r := p.strace([]string{"-e", "trace=" + strings.Join(names, ","), "-o", out}, args...); r.code != 0 {
		p.t.Fatal(r)
	}
	f, err := os.Open(out)
	must(p.t, err)
	defer f.Close()
	counts := make(map[string]int)
	call := regexp.MustCompile(`^\d+ +(\w+)\(`)
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if m := call.FindStringSubmatch(lines.Text()); m != nil {
			counts[m[1]]++
		}
	}
	return counts
}

// TestSystemFaults makes a system call of the program fail, one of each kind or
// all from one on. It ends with a sentence and no panic; nothing that was
// committed is lost; and once the fault is gone the operation completes.
func TestSystemFaults(t *testing.T) {
	t.Parallel()
	r := seeded(t)
	p := newProgram(t)
	if !p.traced() {
		t.Skip("needs strace, and the right to trace: it makes system calls fail")
	}
	fillTree(t, p.at("small"), mib, 70)
	fillTree(t, p.at("large"), 3*mib, 71)
	f := faulty{program: p, small: readTree(t, p.at("small")), large: readTree(t, p.at("large"))}
	p.exits(0, "init")
	f.first = p.backup(p.at("small"))
	fillTree(t, p.at("dead"), 2*mib, 72)
	copyTree(t, p.at("small"), p.at("dead/small"))
	p.exits(0, "delete", p.backup(p.at("dead")))
	must(t, os.Rename(p.repo, p.at("base")))
	must(t, os.Rename(p.cache, p.at("basecache")))

	counts := make(map[string]map[string]int)
	for op, args := range f.operations() {
		f.reset()
		counts[op] = f.calls(args...)
	}
	rounds := f.rounds(r, counts)
	rounds = rounds[:min(len(rounds), scale(3, 5, 120))]
	failed := 0
	for _, round := range rounds {
		f.reset()
		begin := time.Now()
		if f.round(round) {
			failed++
		}
		t.Logf("%+v: %v", round, time.Since(begin))
		if t.Failed() {
			t.Fatalf("round: %+v", round)
		}
	}
	t.Logf("%d of %d operations failed", failed, len(rounds))
	if failed == 0 && len(rounds) > 20 {
		t.Error("no operation failed: nothing is shown")
	}
}

type faulty struct {
	program
	first        string
	small, large tree
}

func (f *faulty) operations() map[string][]string {
	return map[string][]string{
		"backup":  {"backup", "--json", f.at("large")},
		"restore": {"restore", f.first, "--target", f.at("target")},
		"delete":  {"delete", f.first},
		"gc":      {"gc", "--spare", "0", "--keep-deleted", "0", "--dead-share", "1%", "--walk", "--sweep"},
	}
}

func (f *faulty) reset() {
	for _, dir := range []string{f.repo, f.cache, f.at("target")} {
		must(f.t, os.RemoveAll(dir))
	}
	copyTree(f.t, f.at("base"), f.repo)
	copyTree(f.t, f.at("basecache"), f.cache)
}

// A faultRound is one operation and the fault that it meets.
type faultRound struct {
	op    string
	fault sysFault
	at    int  // of the calls of that name
	stays bool // all calls from that one on fail
}

// rounds returns what can happen, in a random order: of each kind of call up to
// 12 of those that an operation makes.
func (f *faulty) rounds(r *rand.Rand, counts map[string]map[string]int) []faultRound {
	var rounds []faultRound
	for op := range f.operations() {
		for _, fault := range sysFaults {
			n := counts[op][fault.call]
			for _, at := range r.Perm(n)[:min(n, 12)] {
				// A store that has no descriptors left is tried again for a minute.
				stays := fault.errno != "EMFILE" && r.IntN(2) == 0
				rounds = append(rounds, faultRound{op, fault, at + 1, stays})
			}
		}
	}
	r.Shuffle(len(rounds), func(i, j int) { rounds[i], rounds[j] = rounds[j], rounds[i] })
	return rounds
}

// round reports whether the operation failed.
func (f *faulty) round(round faultRound) bool {
	t := f.t
	t.Helper()
	when := fmt.Sprint(round.at)
	if round.stays {
		when += "+"
	}
	inject := fmt.Sprintf("inject=%s:error=%s:when=%s", round.fault.call, round.fault.errno, when)
	args := f.operations()[round.op]
	r := f.strace([]string{"-o", "/dev/null", "-e", "trace=" + round.fault.call, "-e", inject}, args...)
	f.told(r)
	// The fault is gone.
	ids := f.snapshots()
	f.check()
	switch round.op {
	case "backup":
		f.afterBackup(r, ids)
	case "restore":
		if r.code == 0 {
			f.small.compare(t, "restored", readTree(t, f.at("target")))
		}
		f.restores(f.first, f.small)
	case "gc":
		f.restores(f.first, f.small)
		f.exits(0, args...)
		f.check()
		f.restores(f.first, f.small)
		f.restores(f.backup(f.at("large")), f.large)
	case "delete":
		if r.code == 0 && len(ids) != 0 {
			t.Errorf("%v: it is still there", r)
		}
		if len(ids) > 0 {
			f.restores(f.first, f.small)
			f.exits(0, "delete", f.first)
		}
	}
	return r.code != 0
}

// told checks that a command that failed says why, and did not break.
func (f *faulty) told(r result) {
	f.t.Helper()
	broken := regexp.MustCompile(`(?m)^(panic:|fatal error:|goroutine \d+|runtime:)`).MatchString(r.stderr)
	if broken || r.code < 0 || r.code != 0 && strings.TrimSpace(r.stderr) == "" {
		f.t.Errorf("with a fault: %v", r)
	}
}

func (f *faulty) afterBackup(r result, ids []string) {
	t := f.t
	t.Helper()
	want := []string{f.first}
	if r.code == 0 || r.code == exitPartial || len(ids) == 2 {
		// What failed may be visible all the same where it says that the outcome is not known.
		said := r.reported() && (r.code == 0 || r.code == exitPartial)
		if len(ids) != 2 || said && ids[1] != snapshotOfOutput(t, r) {
			t.Fatalf("%v, and the snapshots are %v", r, ids)
		}
		want = ids
		if r.code != exitPartial { // else some files could not be read, and it says so
			f.restores(ids[1], f.large)
		}
	}
	if !sameIDs(ids, want) {
		t.Errorf("%v, and the snapshots are %v", r, ids)
	}
	f.restores(f.first, f.small)
	f.restores(f.backup(f.at("large")), f.large)
	f.check()
}

// TestFillsUp backs up to disks that become full at different moments, and
// restores to such. Once there is room both complete.
func TestFillsUp(t *testing.T) {
	t.Parallel()
	needRoot(t, "it mounts a small file system")
	p := newProgram(t)
	disk := p.at("disk")
	mount(t, disk, 64)
	p.repo = filepath.Join(disk, "repo")
	fillTree(t, p.at("small"), mib, 72)
	fillTree(t, p.at("large"), 24*mib, 73)
	f := faulty{program: p, small: readTree(t, p.at("small")), large: readTree(t, p.at("large"))}
	p.exits(0, "init")
	f.first = p.backup(p.at("small"))
	must(t, os.CopyFS(p.at("base"), os.DirFS(p.repo)))
	must(t, os.Rename(p.cache, p.at("basecache")))
	full := 0
	for kib := 1536; kib < 30<<10; kib += scale(12<<10, 10<<10, 500) {
		f.reset()
		must(t, unix.Mount("", disk, "", unix.MS_REMOUNT, fmt.Sprintf("size=%dk", kib)))
		r := f.run("backup", "--json", f.at("large"))
		f.told(r)
		ids := f.snapshots()
		if r.code != 0 {
			full++
			if !strings.Contains(strings.ToLower(r.stderr), "space") {
				t.Errorf("on a disk of %d KiB: %v", kib, r)
			}
		}
		f.check()
		must(t, unix.Mount("", disk, "", unix.MS_REMOUNT, "size=128m"))
		f.afterBackup(r, ids)
		if t.Failed() {
			t.Fatalf("on a disk of %d KiB", kib)
		}
	}
	if full == 0 {
		t.Error("no disk was full")
	}
}

// TestTakenAway takes the right to write to the repository away while a backup
// runs, by the mount and by the modes, and gives it back.
func TestTakenAway(t *testing.T) {
	t.Parallel()
	needRoot(t, "it mounts, and becomes another user")
	for name, way := range map[string]struct {
		take, give func(t *testing.T, repo string) error
		says       string
	}{
		"mount": {
			func(_ *testing.T, repo string) error {
				return unix.Mount("", repo, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, "")
			},
			func(_ *testing.T, repo string) error {
				return unix.Mount("", repo, "", unix.MS_BIND|unix.MS_REMOUNT, "")
			},
			"read-only",
		},
		"modes": {
			func(_ *testing.T, repo string) error { return ownDirs(repo, 0, 0o755) },
			func(_ *testing.T, repo string) error { return ownDirs(repo, nobody, 0o700) },
			"permission denied",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newProgram(t)
			openFor(t, p.dir)
			p.dir = p.at("home")
			must(t, os.Mkdir(p.dir, 0o755))
			p.repo, p.key, p.cache = p.at("repo"), p.at("key"), p.at("cache")
			fillTree(t, p.at("small"), mib, 74)
			fillTree(t, p.at("large"), scale[int64](48, 48, 160)*mib, 75)
			must(t, os.Chown(p.dir, nobody, nobody))
			p.user = nobody
			f := faulty{program: p, small: readTree(t, p.at("small")), large: readTree(t, p.at("large"))}
			p.exits(0, "init")
			f.first = p.backup(p.at("small"))
			if err := unix.Mount(p.repo, p.repo, "", unix.MS_BIND, ""); err != nil {
				t.Skipf("mount: %v", err)
			}
			defer func() { must(t, unix.Unmount(p.repo, unix.MNT_DETACH)) }()
			before := p.packBytes()
			s := p.start("backup", "--json", p.at("large"))
			for p.packBytes() < before+12*mib && time.Since(s.begin) < 20*time.Second {
				time.Sleep(time.Millisecond)
			}
			// The mount is busy while a file is open for writing.
			for time.Since(s.begin) < 30*time.Second && errors.Is(way.take(t, p.repo), unix.EBUSY) {
				time.Sleep(100 * time.Microsecond)
			}
			r := s.wait()
			f.told(r)
			ids := p.snapshots()
			p.exits(0, "check", "--no-record")
			f.restoresAs(f.first, f.small)
			must(t, way.give(t, p.repo))
			switch {
			case r.code == 0:
				t.Log("the backup was faster")
			case !strings.Contains(r.stderr, way.says):
				t.Errorf("want %q: %v", way.says, r)
			case len(ids) != 1:
				t.Errorf("%v, and the snapshots are %v", r, ids)
			}
			second := p.backup(p.at("large"))
			f.restoresAs(second, f.large)
			p.check()
		})
	}
}

// restoresAs restores as a user who owns what he restores.
func (f *faulty) restoresAs(id string, want tree) {
	f.t.Helper()
	root := *f
	root.user = 0
	root.cache = f.at("rootcache")
	root.restores(id, want)
}

// ownDirs gives the directories of a repository to a user.
func ownDirs(dir string, user int, mode fs.FileMode) error {
	return filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist): // a temporary file
			return nil
		case err != nil || !e.IsDir():
			return err
		}
		return errors.Join(os.Chown(path, user, user), os.Chmod(path, mode))
	})
}

package main

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestPowerLoss cuts the power under the program, again and again, while it
// backs up, deletes, collects and restores in a repository on a real file
// system: the kernel is told to drop the file system as it is, without flushing
// its journal, and it is mounted again. What was reported as done must be there,
// whole, and nothing may be damaged.
func TestPowerLoss(t *testing.T) {
	onLossyDisks(t, powerLoss)
}

// onLossyDisks calls f with a program and a disk of each kind.
func onLossyDisks(t *testing.T, f func(t *testing.T, p program, d *lossyDisk)) {
	t.Helper()
	needRoot(t, "it mounts file systems")
	for _, fs := range []struct{ name, size string }{{"ext4", "192M"}, {"xfs", "384M"}} {
		t.Run(fs.name, func(t *testing.T) {
			t.Parallel()
			if _, err := exec.LookPath("mkfs." + fs.name); err != nil {
				t.Skipf("there is no mkfs.%s: %v", fs.name, err)
			}
			p := inMemory(t)
			d := &lossyDisk{t: t, image: p.at("image"), dir: p.at("disk")}
			d.make(fs.name, fs.size)
			f(t, p, d)
		})
	}
}

func powerLoss(t *testing.T, p program, d *lossyDisk) {
	// The cache, too: else a process that outlives the power by a moment could
	// remember there what the disk has lost.
	p.repo, p.cache = filepath.Join(d.dir, "repo"), filepath.Join(d.dir, "cache")
	l := newLedger(p, seeded(t), "src")
	p.exits(0, "init")
	var whole time.Duration
	for range 3 {
		l.change()
		begin := time.Now()
		for _, do := range []func(runner) result{l.backs, l.forgets, l.collects} {
			if r := do(p.run); r.code != 0 {
				t.Fatal(r)
			}
		}
		whole = max(whole, time.Since(begin))
		l.settle()
	}
	cut := 0
	for round := range rounds(t, 1, 3, 100) {
		off, dark := make(chan error, 1), make(chan struct{})
		time.AfterFunc(l.someMoment(whole), func() {
			close(dark)
			off <- d.shutdown()
		})
		run := func(args ...string) result { return p.start(args...).endsWith(dark) }
		for i := 0; ; i++ {
			do := []func(runner) result{l.backs, l.forgets, l.collects, l.restoresOne}[i%4]
			r := do(run)
			if r.code != 0 {
				l.counts["cut off "+r.args[0]]++
				break // or it failed for another reason: what follows tells
			}
			if i%4 == 3 {
				l.change()
			}
		}
		must(t, <-off)
		cut++
		d.again()
		if round%3 == 2 {
			must(t, os.RemoveAll(p.cache))
		}
		l.whole()
		if r := l.backs(p.run); r.code != 0 {
			t.Fatal(r)
		}
		l.settle()
		if t.Failed() {
			t.Fatalf("round %d", round)
		}
	}
	d.control()
	l.report(t, cut)
}

// TestPowerLossRestored cuts the power when a restore has just reported that it is
// done: of few entries, each of which is made durable by itself, with entries that
// cannot be, of many, and over live data.
func TestPowerLossRestored(t *testing.T) {
	onLossyDisks(t, func(t *testing.T, p program, d *lossyDisk) {
		p.exits(0, "init")
		for _, c := range restoredShapes {
			t.Run(c.name, func(t *testing.T) {
				p, d := p, *d
				p.t, d.t = t, t
				for range rounds(t, 1, 2, 20) {
					restoredIsDurable(p, &d, c.inPlace, c.fill)
				}
			})
		}
		d.control()
	})
}

// restoredShapes are the trees that are restored: fill makes one in an empty
// directory.
var restoredShapes = []struct {
	name    string
	inPlace bool
	fill    func(dir string) error
}{
	{"few", false, fillFew},
	{"few in place", true, fillFew},
	{"few, and a link", false, func(dir string) error {
		link := filepath.Join(dir, "a link")
		return errors.Join(fillFew(dir), os.Symlink("large", link), os.Lchown(link, 17, 18))
	}},
	{"many", false, func(dir string) error {
		err := fillFew(dir)
		for i := range 60 {
			err = errors.Join(err, os.WriteFile(filepath.Join(dir, "below", fmt.Sprint(i)), []byte{byte(i), 1}, 0o640))
		}
		return err
	}},
}

func fillFew(dir string) error {
	large := bytes.Repeat([]byte("a file of some size, which ends in a page that is not full"), 200_000)
	below := filepath.Join(dir, "below")
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "large"), large, 0o604),
		os.Mkdir(below, 0o751),
		os.WriteFile(filepath.Join(below, "small"), []byte("small"), 0o400),
		os.Link(filepath.Join(below, "small"), filepath.Join(dir, "the same")),
		os.WriteFile(filepath.Join(below, "empty"), nil, 0o600),
		os.Mkdir(filepath.Join(below, "nothing in it"), 0o700),
		os.Chown(below, 5, 6),
	)
}

// restoredIsDurable restores what fill makes, and cuts the power as soon as that
// is reported.
func restoredIsDurable(p program, d *lossyDisk, inPlace bool, fill func(string) error) {
	t := p.t
	t.Helper()
	src, dst := filepath.Join(d.dir, "src"), filepath.Join(d.dir, "dst")
	must(t, errors.Join(os.RemoveAll(src), os.RemoveAll(dst), os.Mkdir(src, 0o711)))
	must(t, fill(src))
	want := readTree(t, src)
	id := snapshotOfOutput(t, p.exits(0, "backup", "--json", src))
	args := []string{"restore", id, "--target", dst}
	if inPlace {
		must(t, errors.Join(os.RemoveAll(filepath.Join(src, "below")), os.WriteFile(filepath.Join(src, "large"), []byte("other"), 0o600)))
		args, dst = []string{"restore", id, "--in-place"}, src
	}
	p.exits(0, args...)
	must(t, d.shutdown())
	d.again()
	want.compare(t, "the restored tree", readTree(t, dst))
}

// endsWith kills the command a little after done is closed, if it still runs: a
// process does not outlive the power, but may be told first that a write failed.
//
// What it reports from then on nobody has heard. It may even be wrong: of a
// directory whose changes were dropped, xfs says after a shutdown that it is
// synced, since nothing of it is waiting to be written any more.
func (s *started) endsWith(done <-chan struct{}) result {
	s.p.t.Helper()
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		select {
		case <-ended:
			return
		case <-done:
		}
		select {
		case <-ended:
		case <-time.After(30 * time.Millisecond):
			_ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL) // it may have ended
		}
	}()
	r := s.wait()
	select {
	case <-done:
		r.code, r.stdout = -1, ""
	default:
	}
	return r
}

// inMemory is newProgram with everything in memory, where there is room.
func inMemory(t *testing.T) program {
	t.Helper()
	f, err := executable()
	must(t, err)
	return programIn(t, f, memoryDir(t))
}

// memoryDir returns a directory in memory if there is room, for many small files
// that are synced one by one.
func memoryDir(t *testing.T) string {
	t.Helper()
	const shm = "/dev/shm"
	var st unix.Statfs_t
	if unix.Statfs(shm, &st) != nil || st.Bavail*uint64(st.Bsize) < 1<<30 { //nolint:gosec // a size
		return t.TempDir()
	}
	dir, err := os.MkdirTemp(shm, "cairn-proof-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// A lossyDisk is a file system in a file, whose power can be cut.
type lossyDisk struct {
	t          *testing.T
	image, dir string
	mounted    bool
}

func (d *lossyDisk) make(kind, size string) {
	t := d.t
	must(t, errors.Join(os.WriteFile(d.image, nil, 0o600), os.Mkdir(d.dir, 0o700)))
	for _, args := range [][]string{{"truncate", "-s", size, d.image}, {"mkfs." + kind, "-q", d.image}} {
		if out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", args[0], err, out)
		}
	}
	t.Cleanup(func() {
		if d.mounted {
			_ = unix.Unmount(d.dir, unix.MNT_DETACH) // the test has said what is wrong
		}
	})
	if err := d.mount(); err != nil {
		t.Skipf("this system mounts no %s: %v", kind, err)
	}
}

func (d *lossyDisk) mount() error {
	out, err := exec.CommandContext(d.t.Context(), "mount", "-o", "loop", d.image, d.dir).CombinedOutput()
	if err != nil {
		return fmt.Errorf("mount: %w: %s", err, out)
	}
	d.mounted = true
	return nil
}

// shutdown cuts the power: EXT4_IOC_SHUTDOWN, or XFS_IOC_GOINGDOWN, which has the
// same number, without a flush of the journal.
func (d *lossyDisk) shutdown() error {
	dir, err := os.Open(d.dir)
	if err != nil {
		return err
	}
	defer dir.Close()
	return unix.IoctlSetPointerInt(int(dir.Fd()), 0x8004587d, 2) //nolint:gosec // a descriptor
}

// again mounts the disk after the power was cut.
func (d *lossyDisk) again() {
	d.t.Helper()
	for i := 0; ; i++ {
		err := unix.Unmount(d.dir, 0)
		if err == nil {
			break
		}
		if i == 100 { // a process that was cut off is about to end
			d.t.Fatalf("unmount: %v", err)
		}
		time.Sleep(20 * time.Millisecond)
	}
	d.mounted = false
	must(d.t, d.mount())
}

// control shows that the power is cut: what is not synced is lost.
func (d *lossyDisk) control() {
	d.t.Helper()
	name := filepath.Join(d.dir, "control")
	must(d.t, os.WriteFile(name, []byte("not synced"), 0o600))
	must(d.t, d.shutdown())
	d.again()
	if data, err := os.ReadFile(name); err == nil && len(data) > 0 {
		d.t.Error("what was not synced survived: the power was not cut")
	}
}

// countsLine says how often things happened.
func countsLine(counts map[string]int) string {
	var parts []string
	for _, what := range slices.Sorted(maps.Keys(counts)) {
		parts = append(parts, fmt.Sprintf("%d %s", counts[what], what))
	}
	return strings.Join(parts, ", ")
}

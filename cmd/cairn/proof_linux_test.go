package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The files proof_*_test.go run the program itself, built once, as processes of
// their own: what it promises must hold for a process that is killed, for
// several at once, and on a full disk. .ci/prove runs them at full length.

// envProve makes the proofs as long as they are meant to be.
const envProve = "CAIRN_PROVE"

// scale returns the first of its arguments with -short, the third when
// everything is to be proven at full length, else the second.
func scale[T any](short, normal, full T) T {
	switch {
	case os.Getenv(envProve) != "":
		return full
	case testing.Short():
		return short
	}
	return normal
}

// executable builds the program once. The file is open and has no name any
// more, so nobody has to remove it; a child finds it among its own descriptors.
var executable = sync.OnceValues(func() (*os.File, error) {
	dir, err := os.MkdirTemp("", "cairn-proof-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "cairn")
	if out, err := exec.CommandContext(context.Background(), "go", "build", "-o", path, ".").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("go build: %w\n%s", err, out)
	}
	return os.Open(path)
})

// A program runs cairn with one environment. Its methods fail the test.
type program struct {
	t     *testing.T
	path  string
	dir   string // home and all else of this test
	repo  string
	key   string
	cache string
	extra []string // of the environment; the last of several wins
	user  uint32   // 0: as the test itself
}

// newProgram returns a program whose home, repository, key and cache are in a
// directory of the test's own. Nothing of them is made yet.
func newProgram(t *testing.T) program {
	t.Helper()
	f, err := executable()
	if err != nil {
		t.Fatal(err)
	}
	return programIn(t, f, t.TempDir())
}

func programIn(t *testing.T, exe *os.File, dir string) program {
	return program{
		t: t, path: fmt.Sprintf("/proc/self/fd/%d", exe.Fd()), dir: dir,
		repo: filepath.Join(dir, "repo"), key: filepath.Join(dir, "key"), cache: filepath.Join(dir, "cache"),
	}
}

func (p program) at(name string) string { return filepath.Join(p.dir, name) }

// cmd returns a command that leads a process group, which ends with the test.
func (p program) cmd(args ...string) *exec.Cmd {
	cmd := exec.CommandContext(p.t.Context(), p.path, args...)
	cmd.Args[0] = "cairn"
	cmd.Env = append([]string{
		"HOME=" + p.dir, "PATH=" + os.Getenv("PATH"), "TZ=UTC",
		envRepo + "=" + p.repo, envKeyFile + "=" + p.key, envCacheDir + "=" + p.cache,
	}, p.extra...)
	cmd.Dir = p.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if p.user != 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: p.user, Gid: p.user}
	}
	return cmd
}

// A result is what a command did.
type result struct {
	args           []string
	code           int // -1: killed by a signal
	stdout, stderr string
	took           time.Duration
}

func (r result) String() string {
	return fmt.Sprintf("cairn %q exits with %d\nstdout: %s\nstderr: %s", r.args, r.code, r.stdout, r.stderr)
}

// started is a command that runs.
type started struct {
	p           program
	args        []string
	cmd         *exec.Cmd
	out, errOut bytes.Buffer
	begin       time.Time
}

func (p program) start(args ...string) *started {
	p.t.Helper()
	s := &started{p: p, args: args, cmd: p.cmd(args...), begin: time.Now()}
	s.cmd.Stdout, s.cmd.Stderr = &s.out, &s.errOut
	if err := s.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	return s
}

// wait returns what the command did, once it has ended.
func (s *started) wait() result {
	s.p.t.Helper()
	var exit *exec.ExitError
	if err := s.cmd.Wait(); err != nil && !errors.As(err, &exit) {
		s.p.t.Fatal(err)
	}
	return result{s.args, s.cmd.ProcessState.ExitCode(), s.out.String(), s.errOut.String(), time.Since(s.begin)}
}

// killAfter kills the process group with SIGKILL after a while, if it still
// runs then.
func (s *started) killAfter(d time.Duration) result {
	s.p.t.Helper()
	timer := time.AfterFunc(d, func() {
		_ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL) // it may have ended
	})
	defer timer.Stop()
	return s.wait()
}

// run runs a command to its end, whatever that is.
func (p program) run(args ...string) result {
	p.t.Helper()
	return p.start(args...).wait()
}

// exits runs a command that must exit with code.
func (p program) exits(code int, args ...string) result {
	p.t.Helper()
	r := p.run(args...)
	if r.code != code {
		p.t.Fatalf("%v\nwant %d", r, code)
	}
	return r
}

// says is exits with a pattern that stderr must match.
func (p program) says(code int, pattern string, args ...string) result {
	p.t.Helper()
	r := p.exits(code, args...)
	if !regexp.MustCompile(pattern).MatchString(r.stderr) {
		p.t.Errorf("%v\nwant on stderr %q", r, pattern)
	}
	return r
}

// backup backs up and returns the id of the snapshot.
func (p program) backup(args ...string) string {
	p.t.Helper()
	return snapshotOfOutput(p.t, p.exits(0, append([]string{"backup", "--json"}, args...)...))
}

// snapshotOfOutput returns the id that backup --json reports.
func snapshotOfOutput(t *testing.T, r result) string {
	t.Helper()
	doc := lastDocument[backupJSONResult](t, r)
	if doc.Event != "result" || doc.Snapshot.ID == "" {
		t.Fatalf("no result: %v", r)
	}
	return doc.Snapshot.ID
}

// backupJSONResult is what the proofs read of a backup's result.
type backupJSONResult struct {
	Event    string
	Snapshot struct{ ID string }
	New      int64
	Stored   int64
	Resumed  bool
	Missing  []struct{ Path string }
	Changed  []struct{ Path string }
}

func lastDocument[T any](t *testing.T, r result) T {
	t.Helper()
	text := strings.TrimSpace(r.stdout)
	var v T
	if err := json.Unmarshal([]byte(text[strings.LastIndexByte(text, '\n')+1:]), &v); err != nil {
		t.Fatalf("%v: %v", err, r)
	}
	return v
}

// reported says whether a backup that was killed had reported its snapshot.
func (r result) reported() bool { return strings.Contains(r.stdout, `"event":"result"`) }

// snapshots returns the ids of all snapshots, oldest first.
func (p program) snapshots() []string {
	p.t.Helper()
	doc := lastDocument[struct{ Snapshots []struct{ ID string } }](p.t, p.exits(0, "snapshots", "--json"))
	var ids []string
	for _, s := range doc.Snapshots {
		ids = append(ids, s.ID)
	}
	return ids
}

var unrecorded = regexp.MustCompile(`(\d+) packs? \((\d+) bytes\) (?:is|are) stored that no record names`)

// check reads every byte of the repository, which must hold no damage, and
// returns how many bytes of packs are stored that no record names.
func (p program) check() int64 {
	p.t.Helper()
	r := p.exits(0, "check", "--read-data", "--json")
	doc := lastDocument[struct {
		Damaged bool
		Notes   []string
	}](p.t, r)
	if doc.Damaged {
		p.t.Fatalf("damaged: %v", r)
	}
	m := unrecorded.FindStringSubmatch(strings.Join(doc.Notes, "\n"))
	if m == nil {
		return 0
	}
	n, err := strconv.ParseInt(m[2], 10, 64)
	must(p.t, err)
	return n
}

// restores restores a snapshot to a new place and compares it with want.
func (p program) restores(id string, want tree) {
	p.t.Helper()
	dir, err := os.MkdirTemp(p.dir, "restored-")
	must(p.t, err)
	defer os.RemoveAll(dir)
	p.exits(0, "restore", id, "--target", dir)
	want.compare(p.t, "snapshot "+id[:8], readTree(p.t, dir))
}

// packBytes returns the size of all packs.
func (p program) packBytes() int64 {
	p.t.Helper()
	var n int64
	must(p.t, filepath.WalkDir(filepath.Join(p.repo, "packs"), func(_ string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) || err == nil && !e.Type().IsRegular() {
			return nil
		}
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err == nil {
			n += info.Size()
		}
		return err
	}))
	return n
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// seeded returns a source of chance whose seed is in the test's log, and that
// CAIRN_SEED repeats.
func seeded(t *testing.T) *rand.Rand {
	t.Helper()
	seed := rand.Uint64()
	if s := os.Getenv("CAIRN_SEED"); s != "" {
		var err error
		seed, err = strconv.ParseUint(s, 10, 64)
		must(t, err)
	}
	t.Logf("CAIRN_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 1))
}

const mib = 1 << 20

// fillTree writes files of random bytes of about size bytes together, large and
// small ones, into dir. What is written depends on seed alone.
func fillTree(t *testing.T, dir string, size int64, seed byte) {
	t.Helper()
	random := rand.NewChaCha8([32]byte{seed})
	r := rand.New(random)
	buf := make([]byte, 8*mib)
	for i := 0; size > 0; i++ {
		n := int64(64 + r.IntN(6000)) // nine of ten files are small
		if i%10 == 0 {
			n = int64(mib + r.IntN(7*mib))
		}
		n = min(n, size)
		path := filepath.Join(dir, fmt.Sprintf("d%d", i%7), fmt.Sprintf("f%05d", i))
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		_, _ = random.Read(buf[:n]) // it never fails
		must(t, os.WriteFile(path, buf[:n], 0o644))
		size -= n
	}
	// What has just changed is read again, whatever its times say; what is
	// older is not.
	old := time.Now().Add(-time.Hour).Truncate(time.Second)
	must(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		return os.Chtimes(path, old, old)
	}))
}

// needRoot skips a test that cannot be made without being root.
func needRoot(t *testing.T, why string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: " + why)
	}
}

// nobody is a user without any rights.
const nobody = 65534

// openFor lets every user get at what is in a directory of the test's.
func openFor(t *testing.T, dir string) {
	t.Helper()
	for d := dir; len(d) > len(os.TempDir()); d = filepath.Dir(d) {
		info, err := os.Stat(d)
		must(t, err)
		must(t, os.Chmod(d, info.Mode().Perm()|0o055))
	}
}

// copyTree copies files and directories, as a user would with cp -r.
func copyTree(t *testing.T, from, to string) {
	t.Helper()
	must(t, os.CopyFS(to, os.DirFS(from)))
}

// sameIDs compares two lists of snapshots in any order.
func sameIDs(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

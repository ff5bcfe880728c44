//go:build unix

package local

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/cairn-backup/cairn/backend"
)

const nobody = 65534

// asNobody runs the calling test again as another user if this one is root,
// who may do everything, and returns whether the caller is that other run.
func asNobody(t *testing.T) bool {
	t.Helper()
	if os.Getuid() != 0 {
		return true
	}
	// Neither the test binary nor t.TempDir is open to others.
	dir := t.TempDir()
	exe, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Skipf("cannot copy the test binary: %v", err)
	}
	binary := filepath.Join(dir, "local.test")
	if err := errors.Join(
		os.WriteFile(binary, exe, 0o755),
		os.Chmod(filepath.Dir(dir), 0o755),
		os.Chmod(dir, 0o777),
	); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), binary, "-test.v", "-test.run=^"+t.Name()+"$")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "TMPDIR="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, os.ErrPermission) {
		t.Skipf("cannot run as user %d: %v", nobody, err)
	}
	if err != nil {
		t.Errorf("as user %d: %v\n%s", nobody, err, out)
	}
	return false
}

func TestPermissions(t *testing.T) {
	if !asNobody(t) {
		return
	}
	b, dir := newStore(t)
	if err := b.Put(t.Context(), "packs/ab/1", []byte("x")); err != nil {
		t.Fatalf("Put = %v", err)
	}
	chmod := func(name string, mode os.FileMode) {
		t.Helper()
		if err := os.Chmod(filepath.Join(dir, name), mode); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.Chmod(filepath.Join(dir, name), 0o700) })
	}
	refused := func(call string, err error) {
		t.Helper()
		if !errors.Is(err, backend.ErrUnauthorized) {
			t.Errorf("%s = %v, want ErrUnauthorized", call, err)
		}
	}

	chmod("packs/ab", 0o500)
	for _, m := range methods {
		b.method.Store(int32(m.m))
		refused("Put into a directory without w", b.Put(t.Context(), "packs/ab/2", nil))
		if got := method(b.method.Load()); got != m.m {
			t.Errorf("lacking a permission counts as lacking %s", m.name)
		}
	}
	refused("Delete in a directory without w", b.Delete(t.Context(), "packs/ab/1"))
	if got := read(t, b, "packs/ab/1"); string(got) != "x" {
		t.Errorf("Get = %q", got)
	}

	chmod("packs/ab", 0o700)
	chmod("packs/ab/1", 0)
	_, err := b.Get(t.Context(), "packs/ab/1", 0, -1)
	refused("Get of a file without r", err)
	refused("Put over a file without r, whose durability nobody can vouch for", b.Put(t.Context(), "packs/ab/1", nil))

	// A listing that cannot see everything must not look complete.
	chmod("packs/ab", 0)
	err = nil
	for _, e := range b.List(t.Context(), "") {
		err = e
	}
	refused("List of a directory without r", err)
	_, err = b.Stat(t.Context(), "packs/ab/1")
	refused("Stat in a directory without x", err)

	chmod(".", 0o500)
	refused("Put that needs a directory where none may be made", b.Put(t.Context(), "log/1", nil))
	refused("Init where none may be made", New(filepath.Join(dir, "sub")).Init(t.Context()))
	chmod(".", 0)
	fresh := New(dir)
	defer fresh.Close()
	_, err = fresh.Stat(t.Context(), "packs/ab/1")
	refused("Stat in a store without x", err)
}

// A directory that another user made and owns the parent of can be used.
func TestInitInForeignParent(t *testing.T) {
	if os.Getuid() == 0 {
		dir := t.TempDir()
		if err := errors.Join(
			os.Chmod(filepath.Dir(dir), 0o755),
			os.Chmod(dir, 0o711), // not to be opened by others
			os.Mkdir(filepath.Join(dir, "repo"), 0o700),
			os.Chown(filepath.Join(dir, "repo"), nobody, nobody),
		); err != nil {
			t.Fatal(err)
		}
		t.Setenv("CAIRN_TEST_FOREIGN", filepath.Join(dir, "repo"))
	}
	if !asNobody(t) {
		return
	}
	dir, ok := os.LookupEnv("CAIRN_TEST_FOREIGN")
	if !ok {
		t.Skip("only root can make a directory for another user")
	}
	b := New(dir)
	defer b.Close()
	if err := b.Init(t.Context()); err != nil {
		t.Errorf("Init = %v, want nil", err)
	}
	if err := b.Put(t.Context(), "config", nil); err != nil {
		t.Errorf("Put = %v, want nil", err)
	}
}

// A FIFO in an object's place does not make Get wait for its writer.
func TestFIFO(t *testing.T) {
	b, dir := newStore(t)
	if err := syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Skipf("no FIFOs here: %v", err)
	}
	if _, err := b.Get(t.Context(), "fifo", 0, -1); !errors.Is(err, backend.ErrNotExist) {
		t.Errorf("Get of a FIFO = %v, want ErrNotExist", err)
	}
	if err := b.Put(t.Context(), "fifo", nil); !errors.Is(err, backend.ErrInvalidKey) {
		t.Errorf("Put over a FIFO = %v, want ErrInvalidKey", err)
	}
	if got := keys(t, b, ""); len(got) != 0 {
		t.Errorf("List = %v, want nothing", got)
	}
}

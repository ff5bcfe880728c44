package source

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/cairn-backup/cairn/manifest"
)

// nobody is the directory that a test looks at when it has dropped to another
// user, since root can read everything.
const nobody = "CAIRN_TEST_NOBODY"

func TestPermissionDenied(t *testing.T) {
	dir := os.Getenv(nobody)
	if dir != "" {
		checkDenied(t, dir)
		return
	}
	dir = t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "closed"), 0o700))
	must(t, os.WriteFile(filepath.Join(dir, "closed", "in"), nil, 0o600))
	must(t, os.Mkdir(filepath.Join(dir, "listed"), 0o700))
	must(t, os.WriteFile(filepath.Join(dir, "listed", "in"), nil, 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "open"), []byte("data"), 0o644))
	must(t, os.WriteFile(filepath.Join(dir, "secret"), []byte("data"), 0o600))
	if os.Geteuid() != 0 {
		must(t, os.Chmod(filepath.Join(dir, "closed"), 0o000))
		must(t, os.Chmod(filepath.Join(dir, "listed"), 0o400))
		must(t, os.Chmod(filepath.Join(dir, "secret"), 0o000))
		checkDenied(t, dir)
		must(t, os.Chmod(filepath.Join(dir, "closed"), 0o700))
		must(t, os.Chmod(filepath.Join(dir, "listed"), 0o700))
		return
	}
	must(t, os.Chmod(filepath.Join(dir, "listed"), 0o704))
	must(t, os.Chmod(dir, 0o755))
	must(t, os.Chmod(filepath.Dir(dir), 0o755))
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestPermissionDenied$")
	cmd.Env = append(os.Environ(), nobody+"="+dir)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("as another user: %v\n%s", err, out)
	}
}

func checkDenied(t *testing.T, dir string) {
	t.Helper()
	v, err := Dir(dir).Open(t.Context())
	must(t, err)
	defer v.Close()
	root := v.Info().Roots[0].Name
	nodes, err := entries(t, v, root)
	if err != nil || len(nodes) != 4 {
		t.Errorf("the directory lists %v, %v", nodes, err)
	}
	denied := func(what string, err error) {
		t.Helper()
		var typed *Error
		if !errors.Is(err, fs.ErrPermission) || !errors.Is(err, ErrSource) || !errors.As(err, &typed) {
			t.Errorf("%s: %v, want a source error that says permission denied", what, err)
		}
	}
	_, err = entries(t, v, root+"/closed")
	denied("closed directory", err)
	_, err = v.OpenFile(t.Context(), root+"/secret")
	denied("closed file", err)
	if data, err := readFile(t, v, root+"/open"); err != nil || data != "data" {
		t.Errorf("open file: %q, %v", data, err)
	}
	// A directory that can be listed, but not searched.
	_, err = entries(t, v, root+"/listed")
	denied("listed directory", err)
	n := manifest.Node{Kind: manifest.File}
	if err := Complete(t.Context(), v, root+"/secret", &n); err != nil {
		t.Errorf("Complete of a closed file: %v", err)
	}
}

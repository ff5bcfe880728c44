package sqlite_test

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/cairn-backup/cairn/engine/source/sqlite"
)

// nobody is a user who owns nothing.
const nobody = 65534

// TestOtherUser backs up databases of another user. What it must not leave are
// -wal and -shm files that the owner of the database cannot write to.
func TestOtherUser(t *testing.T) {
	if path := os.Getenv("CAIRN_SQLITE_OTHER"); path != "" {
		s := sqlite.File(path)
		s.Dir = os.Getenv("CAIRN_SQLITE_TEMP")
		v, err := s.Open(t.Context())
		switch {
		case err == nil:
			mustClose(t, v)
			t.Log("said: whole")
		case errors.Is(err, sqlite.ErrWALFiles):
			t.Log("said: ErrWALFiles")
		default:
			t.Log("said:", err)
		}
		return
	}
	if os.Getuid() != 0 {
		t.Skip("it takes root to be another user")
	}
	base := t.TempDir()
	// Others may not enter what testing makes.
	if err := os.Chmod(filepath.Dir(base), 0o755); err != nil { //nolint:gosec // nothing in it is secret
		t.Fatal(err)
	}
	text, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	program, temp := filepath.Join(base, "test"), filepath.Join(base, "temp")
	for _, err := range []error{os.WriteFile(program, text, 0o600), os.Chmod(program, 0o755), os.Chmod(base, 0o755), os.Mkdir(temp, 0o700), os.Chown(temp, nobody, nobody)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		name    string
		journal string
		dir     fs.FileMode
		open    bool
		want    string
	}{
		{"rollback", "DELETE", 0o755, false, "whole"},
		{"rollback, shared directory", "DELETE", 0o777, false, "whole"},
		{"closed", "WAL", 0o755, false, "ErrWALFiles"},
		{"closed, shared directory", "WAL", 0o777, false, "ErrWALFiles"},
		{"open", "WAL", 0o755, true, "whole"},
		{"open, shared directory", "WAL", 0o777, true, "whole"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(base, strings.ReplaceAll(tt.name, " ", "-"))
			path := filepath.Join(dir, "a.db")
			if err := errors.Join(os.Mkdir(dir, 0o700), os.Chmod(dir, tt.dir)); err != nil {
				t.Fatal(err)
			}
			db := makeSmall(t, path, "journal_mode("+tt.journal+")")
			if !tt.open {
				mustClose(t, db)
			}
			if err := os.Chmod(path, 0o644); err != nil {
				t.Fatal(err)
			}
			before := entriesOf(t, dir)
			cmd := exec.CommandContext(t.Context(), program, "-test.run=^TestOtherUser$", "-test.v")
			cmd.Dir = base
			cmd.Env = append(os.Environ(), "CAIRN_SQLITE_OTHER="+path, "CAIRN_SQLITE_TEMP="+temp)
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
			out, err := cmd.CombinedOutput()
			if err != nil || !strings.Contains(string(out), "said: "+tt.want+"\n") {
				t.Errorf("%v, want %s:\n%s", err, tt.want, out)
			}
			if after := entriesOf(t, dir); !slices.Equal(before, after) {
				t.Errorf("the directory held %v, and now %v", before, after)
			}
			empty(t, temp)
		})
	}
}

func entriesOf(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// sqliteProgram builds testdata/sqlite, a module of its own.
func sqliteProgram(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sqlite")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", path, ".")
	cmd.Dir = "../../testdata/sqlite"
	if out, err := cmd.CombinedOutput(); err != nil {
		if os.Getenv(envProve) == "" && os.Getenv("CI") == "" {
			t.Skipf("testdata/sqlite does not build, perhaps for want of a network: %s", out)
		}
		t.Fatalf("build testdata/sqlite: %v\n%s", err, out)
	}
	return path
}

// TestDatabase backs up a directory of programs and sources with a SQLite
// database in it, changes the database, backs up again, and restores all: every
// byte, every piece of metadata, and SQLite's own check. Changed pages all over
// the database cost little.
func TestDatabase(t *testing.T) {
	t.Parallel()
	program := sqliteProgram(t)
	sqlite := func(args ...string) {
		t.Helper()
		if out, err := exec.CommandContext(t.Context(), program, args...).CombinedOutput(); err != nil {
			t.Fatalf("sqlite %q: %v\n%s", args, err, out)
		}
	}
	p := newProgram(t)
	src := p.at("src")
	db := filepath.Join(src, "data", "shop.db")
	must(t, os.MkdirAll(filepath.Dir(db), 0o750))
	size := scale[int64](8, 64, 1024) * mib
	sqlite("make", db, strconv.FormatInt(size, 10))
	toolchain(t, filepath.Join(src, "go"))

	p.exits(0, "init")
	states := make(map[string]tree)
	backup := func(what string) backupJSONResult {
		t.Helper()
		r := p.exits(0, "backup", "--json", src)
		states[snapshotOfOutput(t, r)] = readTree(t, src)
		doc := lastDocument[backupJSONResult](t, r)
		t.Logf("%s: %d MiB new, %d MiB stored in %v", what, doc.New/mib, doc.Stored/mib, r.took)
		return doc
	}
	first := backup("all of it")
	if first.New < size/2 {
		t.Errorf("only %d bytes are new", first.New)
	}
	sqlite("rows", db, "1")
	backup("1 % of the rows")
	sqlite("pages", db, "1000")
	pages := backup("1,000 pages")
	if limit := int64(64 * mib); pages.Stored > limit {
		t.Errorf("after changes to 1,000 pages %d MiB are stored, want at most %d", pages.Stored/mib, limit/mib)
	}
	if same := backup("nothing"); same.New != 0 || same.Stored > 16<<10 {
		t.Errorf("after no change %d bytes are new and %d stored", same.New, same.Stored)
	}

	must(t, os.RemoveAll(p.cache))
	for _, id := range p.snapshots() {
		target := p.at("restored-" + id)
		p.exits(0, "restore", id, "--target", target)
		states[id].compare(t, "snapshot "+id, readTree(t, target))
		restored := filepath.Join(target, "data", "shop.db")
		sqlite("check", restored)
		must(t, os.RemoveAll(target))
	}
	p.check()
}

// toolchain puts programs and sources at dir: the Go toolchain as it is, or a
// part of it.
func toolchain(t *testing.T, dir string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "env", "GOROOT").Output()
	must(t, err)
	root := strings.TrimSpace(string(out))
	parts := scale([]string{"src/encoding"}, []string{"src/encoding", "src/net", "src/unicode", "lib"}, []string{"."})
	for _, part := range parts {
		to := filepath.Join(dir, part)
		must(t, os.MkdirAll(filepath.Dir(to), 0o755))
		out, err := exec.CommandContext(t.Context(), "cp", "-a", filepath.Join(root, part), to).CombinedOutput()
		if err != nil {
			t.Fatalf("cp: %v\n%s", err, out)
		}
	}
}

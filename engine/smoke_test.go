package engine_test

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/cairn-backup/cairn/backend/mem"
	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/engine/source"
	"github.com/cairn-backup/cairn/engine/target"
)

func TestSmoke(t *testing.T) {
	ctx := t.Context()
	src := t.TempDir()
	rng := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{0, 1, 100, 511, 512, 513, 5000, 100_000, 3_000_000} {
		p := make([]byte, n)
		for i := range p {
			p[i] = byte(rng.Uint32())
		}
		os.MkdirAll(filepath.Join(src, "a", "b"), 0o755)
		if err := os.WriteFile(filepath.Join(src, "a", "b", "f"+string(rune('a'+n%23))), p, 0o640); err != nil {
			t.Fatal(err)
		}
	}
	b := new(mem.Backend)
	key := filepath.Join(t.TempDir(), "key")
	if err := engine.NewKeyFile(key); err != nil {
		t.Fatal(err)
	}
	r, err := engine.OpenOrInit(ctx, b, engine.KeyFile(key), engine.Options{CacheDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	rep, err := r.Backup(ctx, source.Dir(src), engine.BackupOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", rep)
	rep2, err := r.Backup(ctx, source.Dir(src), engine.BackupOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", rep2)
	dst := filepath.Join(t.TempDir(), "out")
	rr, err := r.Restore(ctx, rep.Snapshot.ID, target.Dir(dst), engine.RestoreOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", rr)
	if out, err := exec.Command("diff", "-r", src, dst).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	c, err := r.Check(ctx, engine.CheckOptions{Depth: engine.DepthData})
	if err != nil || len(c.Findings) > 0 {
		t.Fatalf("%+v %v", c, err)
	}
	t.Logf("%+v", c)
}

package local

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// TestTrace compares the calls of Put and Delete on a real directory with
// testdata/trace.golden, which
//
//	go test ./backend/local -run TestTrace -update
//
// rewrites. Each line is one call to the file system, in order.
func TestTrace(t *testing.T) {
	var got bytes.Buffer
	for _, m := range methods {
		dir := filepath.Join(t.TempDir(), "repo")
		first := New(dir)
		if err := first.Init(t.Context()); err != nil {
			t.Fatal(err)
		}
		// What the file system under the test lacks does not show.
		h := &hooked{disk: first.disk}
		b := newBackend(h)
		b.method.Store(int32(m.m))
		defer b.Close()
		step := func(call string, err error) {
			fmt.Fprintf(&got, "# %s, %s = %v\n", m.name, call, err)
			for _, line := range h.calls() {
				fmt.Fprintln(&got, line)
			}
			fmt.Fprintln(&got)
		}
		ctx := t.Context()
		step("Put packs/ab/1", b.Put(ctx, "packs/ab/1", []byte("hello")))
		step("Put packs/ab/2", b.Put(ctx, "packs/ab/2", []byte("world")))
		step("Put packs/ab/2 again", b.Put(ctx, "packs/ab/2", []byte("again")))
		step("Put config", b.Put(ctx, "config", nil))
		step("Delete packs/ab/1", b.Delete(ctx, "packs/ab/1"))
		step("Delete packs/ab/1 again", b.Delete(ctx, "packs/ab/1"))
		if now := method(b.method.Load()); now != m.m {
			t.Skipf("%s: the file system of %s does not have it", m.name, dir)
		}
	}
	golden := filepath.Join("testdata", "trace.golden")
	if *update {
		if err := os.WriteFile(golden, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Errorf("the calls are\n%s\nwant\n%s", got.Bytes(), want)
	}
}

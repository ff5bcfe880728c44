//go:build unix

package engine_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/engine/target"
)

// TestRestoreToTar restores to a stream, which GNU tar unpacks to the same tree.
func TestRestoreToTar(t *testing.T) {
	gnu, err := exec.LookPath("tar")
	if err != nil {
		t.Skip("no tar here")
	}
	r := overRepo(t)
	large := make([]byte, 5<<20)
	rand.NewChaCha8([32]byte{3}).Read(large)
	for seed := range uint64(8) {
		src, dst := t.TempDir(), t.TempDir()
		s := &shaker{rand.New(rand.NewPCG(seed, 1)), large}
		if err := s.fill(src, 2); err != nil {
			t.Fatal(err)
		}
		if seed == 0 { // more than one sequence, and holes of every kind
			huge := make([]byte, 80<<20)
			rand.NewChaCha8([32]byte{4}).Read(huge)
			clear(huge[:1<<20])
			clear(huge[50<<20 : 60<<20])
			if err := errors.Join(os.WriteFile(filepath.Join(src, "huge"), huge, 0o600),
				os.WriteFile(filepath.Join(src, "zeros"), make([]byte, 3<<20), 0o600)); err != nil {
				t.Fatal(err)
			}
		}
		id := overBackup(t, r, src)
		var stream bytes.Buffer
		rep, err := r.Restore(t.Context(), id, target.Tar(&stream), engine.RestoreOptions{})
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), gnu, "-xpf", "-", "-C", dst)
		cmd.Stdin = bytes.NewReader(stream.Bytes())
		if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
			t.Fatalf("tar: %v %s", err, out)
		}
		want := state(t, src)
		sameState(t, state(t, dst), want)
		if n := rep.Files + rep.Dirs + rep.Others; n != uint64(len(want)) {
			t.Errorf("%d entries, want %d", n, len(want))
		}
	}
}

// TestTarCancelled ends soon, and what was written is no whole archive.
func TestTarCancelled(t *testing.T) {
	r := overRepo(t)
	src := t.TempDir()
	huge := make([]byte, 100<<20)
	rand.NewChaCha8([32]byte{5}).Read(huge)
	if err := os.WriteFile(filepath.Join(src, "huge"), huge, 0o600); err != nil {
		t.Fatal(err)
	}
	id := overBackup(t, r, src)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var stream bytes.Buffer
	w := writerFunc(func(p []byte) (int, error) {
		if stream.Len() > 40<<20 {
			cancel()
		}
		return stream.Write(p)
	})
	if _, err := r.Restore(ctx, id, target.Tar(w), engine.RestoreOptions{}); !errors.Is(err, context.Canceled) {
		t.Fatalf("Restore = %v, want Canceled", err)
	}
	if stream.Len() > 60<<20 {
		t.Errorf("%d bytes were written after all", stream.Len())
	}
	tr := tar.NewReader(&stream)
	var err error
	for err == nil {
		if _, err = tr.Next(); err == nil {
			_, err = io.Copy(io.Discard, tr)
		}
	}
	if err == io.EOF { //nolint:errorlint // EOF alone is a whole archive
		t.Error("the archive looks whole")
	}
}

// TestTarReaderGone: who reads the stream may go away.
func TestTarReaderGone(t *testing.T) {
	r := overRepo(t)
	src := t.TempDir()
	if err := os.WriteFile(filepath.Join(src, "f"), bytes.Repeat([]byte("x y z"), 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	id := overBackup(t, r, src)
	gone := errors.New("gone")
	w := writerFunc(func([]byte) (int, error) { return 0, gone })
	for _, mode := range []engine.Unreadable{engine.Fail, engine.Skip} {
		_, err := r.Restore(t.Context(), id, target.Tar(w), engine.RestoreOptions{OnError: mode})
		if !errors.Is(err, gone) || !errors.Is(err, target.ErrTarget) {
			t.Errorf("Restore = %v, want %v", err, gone)
		}
	}
}

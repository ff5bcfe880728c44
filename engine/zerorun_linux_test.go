package engine_test

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cairn-backup/cairn/backend/mem"
	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/engine/source"
)

// TestRunsOfZeros: zeros that are no hole of the file system are one of the
// backup, and what of them shares a chunk with other bytes is all that is stored.
func TestRunsOfZeros(t *testing.T) {
	const run, chunk = 8 << 20, 96 << 10
	data := append(random(1, 300_000), make([]byte, run)...)
	data = append(append(data, random(2, 300_000)...), make([]byte, run)...)
	r := open(t, mem.New(), engine.Options{})
	src := source.Stream("data", func(_ context.Context, w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
	report := backUp(t, r, src, engine.BackupOptions{})
	// Two chunks straddle a border and two end at one; tree pages come on top.
	if stored := report.Snapshot.Stats.New; stored < 600_000 || stored > 600_000+4*chunk {
		t.Errorf("%d bytes are new, of 600,000 that are no zeros", stored)
	}
	out := filepath.Join(restore(t, r, report.Snapshot.ID), "data")
	if got, err := os.ReadFile(out); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes came back, %v", len(got), err)
	}
	var st unix.Stat_t
	if err := unix.Stat(out, &st); err != nil {
		t.Fatal(err)
	}
	// A chunk of zeros that had been named and stored would be written.
	if written := st.Blocks * 512; written > 600_000+4*chunk+64<<10 {
		t.Errorf("%d bytes were written, of %d that are no zeros", written, 600_000)
	}
}

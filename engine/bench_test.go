package engine_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/cairn-backup/cairn/backend/mem"
	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/engine/source"
	"github.com/cairn-backup/cairn/engine/target"
)

// benchSize is how much data each benchmark works on, in bytes.
const benchSize = 64 << 20

// benchData returns content by its name: what cannot be compressed, or words.
func benchData(kind string) []byte {
	p := make([]byte, benchSize)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(p) // it never fails
	if kind == "random" {
		return p
	}
	words := bytes.Fields([]byte("package func return error if err nil for range var type struct string int byte "))
	text := make([]byte, 0, benchSize+64)
	for i := 0; len(text) < benchSize; i++ {
		// Sixteen random bits a word: about as compressible as source code.
		text = append(text, words[int(p[2*i])%len(words)]...)
		text = append(text, "abcdefghijklmnop"[p[2*i+1]&15], " \n"[p[2*i+1]>>7])
	}
	return text[:benchSize]
}

// benchDir returns a directory of 16 files, old enough to count as unchanged
// from now on.
func benchDir(b *testing.B, data []byte) string {
	b.Helper()
	dir := b.TempDir()
	for i := range 16 {
		piece := data[i*len(data)/16 : (i+1)*len(data)/16]
		if err := os.WriteFile(filepath.Join(dir, string(rune('a'+i))), piece, 0o600); err != nil {
			b.Fatal(err)
		}
	}
	settle(b)
	return dir
}

// timed runs f again and again, and reports CPU time besides wall time, which
// other work on the machine does not change. What before does is not counted.
func timed(b *testing.B, before func(), f func() error) {
	b.Helper()
	b.SetBytes(benchSize)
	b.ReportAllocs()
	var cpu time.Duration
	n := 0
	for ; b.Loop(); n++ {
		b.StopTimer()
		before()
		b.StartTimer()
		begin := cpuTime(b)
		if err := f(); err != nil {
			b.Fatal(err)
		}
		cpu += cpuTime(b) - begin
	}
	b.ReportMetric(float64(cpu)/float64(n)/benchSize, "cpu-ns/B")
}

func nothing() {}

// BenchmarkBackup backs up into an empty repository, and once more.
func BenchmarkBackup(b *testing.B) {
	for _, kind := range []string{"text", "random"} {
		src := source.Dir(benchDir(b, benchData(kind)))
		b.Run("first/"+kind, func(b *testing.B) {
			var r *engine.Repository
			timed(b, func() { r = open(b, mem.New(), engine.Options{}) }, func() error {
				_, err := r.Backup(b.Context(), src, engine.BackupOptions{})
				return err
			})
		})
		r := open(b, mem.New(), engine.Options{})
		backUp(b, r, src, engine.BackupOptions{})
		b.Run("unchanged/"+kind, func(b *testing.B) {
			timed(b, nothing, func() error {
				_, err := r.Backup(b.Context(), src, engine.BackupOptions{})
				return err
			})
		})
		b.Run("reread/"+kind, func(b *testing.B) {
			timed(b, nothing, func() error {
				_, err := r.Backup(b.Context(), src, engine.BackupOptions{Reread: true})
				return err
			})
		})
	}
}

// BenchmarkUnchanged backs up 20,000 small files in 200 directories again.
func BenchmarkUnchanged(b *testing.B) {
	const files = 20_000
	dir := b.TempDir()
	for i := range files {
		sub := filepath.Join(dir, fmt.Sprintf("d%03d", i/100))
		if err := os.MkdirAll(sub, 0o700); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(sub, fmt.Sprintf("f%02d", i%100)), fmt.Append(nil, i), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	settle(b)
	r := open(b, mem.New(), engine.Options{})
	backUp(b, r, source.Dir(dir), engine.BackupOptions{})
	b.ReportAllocs()
	begin, n := cpuTime(b), 0
	for ; b.Loop(); n++ {
		backUp(b, r, source.Dir(dir), engine.BackupOptions{})
	}
	b.ReportMetric(float64(cpuTime(b)-begin)/float64(n)/files, "cpu-ns/file")
}

// BenchmarkRestore restores into a directory, and checks every byte.
func BenchmarkRestore(b *testing.B) {
	for _, kind := range []string{"text", "random"} {
		r := open(b, mem.New(), engine.Options{})
		id := backUp(b, r, source.Dir(benchDir(b, benchData(kind))), engine.BackupOptions{}).Snapshot.ID
		b.Run(kind, func(b *testing.B) {
			dst := filepath.Join(b.TempDir(), "restored")
			timed(b, func() { _ = os.RemoveAll(dst) }, func() error { // Restore refuses what is left
				_, err := r.Restore(b.Context(), id, target.Dir(dst), engine.RestoreOptions{})
				return err
			})
		})
		b.Run("check/"+kind, func(b *testing.B) {
			timed(b, nothing, func() error {
				_, err := r.Check(b.Context(), engine.CheckOptions{Depth: engine.DepthData})
				return err
			})
		})
	}
}

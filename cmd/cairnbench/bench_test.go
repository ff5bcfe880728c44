package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// digest names the content of a directory.
func digest(t *testing.T, dir string) string {
	t.Helper()
	h := sha256.New()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		p, err := os.ReadFile(path)
		rel, _ := filepath.Rel(dir, path) // it lies in dir
		fmt.Fprintf(h, "%s %d ", rel, len(p))
		h.Write(p)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

func TestSetsFollowFromTheSeed(t *testing.T) {
	for _, name := range setNames() {
		t.Run(name, func(t *testing.T) {
			s := newSet(name, options{scale: 0.002, noGoroot: true})
			var made, changed [2]string
			for i := range made {
				dir := t.TempDir()
				if err := s.make(t.Context(), dir); err != nil {
					t.Fatal(err)
				}
				made[i] = digest(t, dir)
				if err := s.change(t.Context(), dir, 0); err != nil {
					t.Fatal(err)
				}
				changed[i] = digest(t, dir)
			}
			if made[0] != made[1] || changed[0] != changed[1] {
				t.Errorf("two runs differ: %v, %v", made, changed)
			}
			if made[0] == changed[0] {
				t.Error("nothing changed")
			}
		})
	}
}

func TestSparseSetHasItsSize(t *testing.T) {
	dir := t.TempDir()
	s := sparseSet{size: 10 << 20, data: 2 << 20}
	if err := s.make(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(dir, sparseName))
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() != s.size {
		t.Errorf("size = %d, want %d", info.Size(), s.size)
	}
}

func TestSameTrees(t *testing.T) {
	content := bytes.Repeat([]byte("content "), 100_000)
	when := time.Unix(1_700_000_000, 123)
	build := func(t *testing.T) string {
		t.Helper()
		dir := t.TempDir()
		for _, err := range []error{
			os.Mkdir(filepath.Join(dir, "d"), 0o755),
			os.WriteFile(filepath.Join(dir, "d", "f"), content, 0o644),
			os.WriteFile(filepath.Join(dir, "g"), nil, 0o644),
			os.Symlink("g", filepath.Join(dir, "l")),
			os.Chtimes(filepath.Join(dir, "d", "f"), when, when),
			os.Chtimes(filepath.Join(dir, "g"), when, when),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
		return dir
	}
	tests := []struct {
		name   string
		change func(dir string) error
		want   string // in the error; "": none
	}{
		{"equal", func(string) error { return nil }, ""},
		{"byte", func(dir string) error {
			other := bytes.Clone(content)
			other[len(other)-1] ^= 1
			f := filepath.Join(dir, "d", "f")
			if err := os.WriteFile(f, other, 0o644); err != nil {
				return err
			}
			return os.Chtimes(f, when, when)
		}, "differs between"},
		{"size", func(dir string) error { return os.Truncate(filepath.Join(dir, "d", "f"), 1) }, "has 1 bytes"},
		{"time", func(dir string) error { return os.Chtimes(filepath.Join(dir, "g"), when, when.Add(1)) }, "is of"},
		{"mode", func(dir string) error { return os.Chmod(filepath.Join(dir, "g"), 0o600) }, "has mode"},
		{"link", func(dir string) error {
			l := filepath.Join(dir, "l")
			if err := os.Remove(l); err != nil {
				return err
			}
			return os.Symlink("d", l)
		}, "points to"},
		{"missing in the middle", func(dir string) error { return os.Remove(filepath.Join(dir, "g")) }, "g is missing"},
		{"missing at the end", func(dir string) error { return os.Remove(filepath.Join(dir, "l")) }, "l is missing"},
		{"another name", func(dir string) error { return os.Rename(filepath.Join(dir, "g"), filepath.Join(dir, "f")) }, "f is no entry"},
		{"one more", func(dir string) error { return os.WriteFile(filepath.Join(dir, "z"), nil, 0o644) }, "has 4 entries"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			want, got := build(t), build(t)
			if err := tt.change(got); err != nil {
				t.Fatal(err)
			}
			err := sameTrees(t.Context(), want, got)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("sameTrees = %v, want %q", err, tt.want)
			}
		})
	}
}

func TestSummarize(t *testing.T) {
	var results []result
	for round, cpu := range [][2]float64{{1, 2}, {9, 10}, {2, 8}} {
		results = append(results,
			result{Set: "db", Tool: "cairn", Op: opFirst, Round: round + 1, CPU: cpu[0], Peak: int64(round)},
			result{Set: "db", Tool: "restic", Op: opFirst, Round: round + 1, CPU: cpu[1], Added: 10})
	}
	got := summarize(results)
	if len(got) != 2 {
		t.Fatalf("summarize gave %d lines, want 2", len(got))
	}
	if c := got[0]; c.CPU != 2 || c.Ratio != 0 || c.Peak != 2 {
		t.Errorf("cairn: %+v", c)
	}
	if r := got[1]; r.CPU != 8 || r.Ratio != 0.5 || r.Added != 10 {
		t.Errorf("restic: %+v", r)
	}
}

func TestUsage(t *testing.T) {
	for _, args := range []string{"--only nothing", "--tools tar", "--scale 0", "--rounds 0", "more", "--what"} {
		if code := run(t.Context(), strings.Fields(args), io.Discard, io.Discard); code != 2 {
			t.Errorf("cairnbench %s ended with %d, want 2", args, code)
		}
	}
}

// TestRun measures the whole way once, with very little data.
func TestRun(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the command line")
	}
	dir := t.TempDir()
	var out, log bytes.Buffer
	args := []string{"--dir", dir, "--scale", "0.002", "--rounds", "1", "--tools", "cairn", "--only", "db,many", "--json"}
	if code := run(t.Context(), args, &out, &log); code != 0 {
		t.Fatalf("cairnbench ended with %d\n%s", code, &log)
	}
	var r report
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Results) != 12 || len(r.Summary) != 12 {
		t.Errorf("%d results and %d lines, want 12 and 12", len(r.Results), len(r.Summary))
	}
	for _, m := range r.Results {
		if m.CPU <= 0 || m.Wall <= 0 || m.Repository <= 0 {
			t.Errorf("implausible: %+v", m)
		}
		if m.Op == opUnchanged && m.Added > 16<<10 {
			t.Errorf("%s: an unchanged backup added %d bytes", m.Set, m.Added)
		}
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

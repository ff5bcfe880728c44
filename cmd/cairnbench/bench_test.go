package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
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
			s := newSet(name, options{scale: 0.001, backups: 5, noGoroot: true})
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

func TestDiskImageHasItsSize(t *testing.T) {
	dir := t.TempDir()
	s := vmSet{size: 10 << 20, data: 2 << 20}
	if err := s.make(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(dir, vmName))
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
			err := sameTrees(t.Context(), want, got, 0)
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
	for _, args := range []string{"--only nothing", "--tools rsync", "--scale 0", "--rounds 0", "--history 2", "--until first", "--dir x --until later", "more", "--what"} {
		if code := run(t.Context(), strings.Fields(args), io.Discard, io.Discard); code != 2 {
			t.Errorf("cairnbench %s ended with %d, want 2", args, code)
		}
	}
}

// TestMain lets the program run its kernels and steps, for which it starts itself.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && slices.Contains([]string{kernelArg, growStepArg, lineArg}, os.Args[1]) {
		os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// measured runs the program and returns its report.
func measured(t *testing.T, args ...string) report {
	t.Helper()
	var out, log bytes.Buffer
	if code := run(t.Context(), append(args, "--json"), &out, &log); code != 0 {
		t.Fatalf("cairnbench %q ended with %d\n%s", args, code, &log)
	}
	var r report
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		t.Fatal(err)
	}
	return r
}

// TestRun measures the whole way once, with very little data.
func TestRun(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the command line")
	}
	dir := t.TempDir()
	r := measured(t, "--dir", dir, "--scale", "0.001", "--rounds", "1", "--tools", "cairn", "--only", "db,history", "--history", "4")
	if want := 8 + 7; len(r.Results) != want || len(r.Summary) != want {
		t.Errorf("%d results and %d lines, want %d", len(r.Results), len(r.Summary), want)
	}
	for _, m := range r.Results {
		if m.CPU <= 0 || m.Wall <= 0 || m.Repository <= 0 {
			t.Errorf("implausible: %+v", m)
		}
		if m.Op == opUnchanged && m.Added > 16<<10 {
			t.Errorf("%s: an unchanged backup added %d bytes", m.Set, m.Added)
		}
		if m.Op == opCollect && (m.Requests == nil || *m.Requests == 0) {
			t.Errorf("%s: a collection reports no requests", m.Set)
		}
		if got := m.Meanwhile > 0; got != (m.Op == opCollect && m.Set == "history") {
			t.Errorf("%s %s: %d backups meanwhile", m.Set, m.Op, m.Meanwhile)
		}
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 2 { // the program and the state
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// cheap are tools that need no program but this one and cp.
const cheap = "cp,kernels"

func TestFloors(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	r := measured(t, "--scale", "0.0005", "--rounds", "2", "--tools", cheap, "--only", "big,vm", "--no-goroot")
	if want := 2 * 2 * (3 + 4); len(r.Results) != want {
		t.Errorf("%d results, want %d", len(r.Results), want)
	}
}

func TestGoesOnWhereItEnded(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	dir := t.TempDir()
	args := []string{"--dir", dir, "--scale", "0.0005", "--rounds", "1", "--only", "db"}
	count := func(r report, tool string, o op) (n int) {
		for _, m := range r.Results {
			if m.Tool == tool && m.Op == o {
				n++
			}
		}
		return n
	}
	r := measured(t, append(args, "--tools", "cp", "--until", "unchanged")...)
	if count(r, "cp", opFirst) != 1 || count(r, "cp", opRestore) != 0 {
		t.Fatalf("until unchanged: %+v", r.Results)
	}
	first := r.Results[0]
	r = measured(t, append(args, "--tools", "cp")...)
	if len(r.Results) != 3 || r.Results[0].Wall != first.Wall {
		t.Errorf("the second run did not go on: %+v", r.Results)
	}
	// Another tool needs the data as it was before the change.
	r = measured(t, append(args, "--tools", cheap)...)
	if len(r.Results) != 7 || r.Results[0].Wall != first.Wall {
		t.Errorf("the third run did not go on: %+v", r.Results)
	}
}

func TestBeginsAnewAfterAnInterruption(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	dir := t.TempDir()
	args := []string{"--dir", dir, "--scale", "0.0005", "--rounds", "1", "--only", "db", "--tools", "cp"}
	first := measured(t, append(args, "--until", "changed")...).Results[0]
	s, err := loadState(dir, options{scale: 0.0005})
	if err != nil {
		t.Fatal(err)
	}
	s.Running = first.chain() // as it stands while an operation runs
	if err := s.save(); err != nil {
		t.Fatal(err)
	}
	r := measured(t, args...)
	if len(r.Results) != 3 || r.Results[0].Wall == first.Wall {
		t.Errorf("an interrupted chain went on: %+v", r.Results)
	}
	if _, err := loadState(dir, options{scale: 1}); err == nil {
		t.Error("a directory of another scale is taken")
	}
}

func TestDoomed(t *testing.T) {
	if got := allButLast(3); !slices.Equal(got, []int{1, 2}) {
		t.Errorf("allButLast(3) = %v", got)
	}
	if got := everyOther(6); !slices.Equal(got, []int{1, 3, 5}) {
		t.Errorf("everyOther(6) = %v", got)
	}
	if got := everyOther(100); len(got) != 50 {
		t.Errorf("everyOther(100) has %d", len(got))
	}
}

func TestRowsAreUpdatedInPlace(t *testing.T) {
	dir := t.TempDir()
	s := dbSet{pages: 500, rows: 80}
	read := func() []byte {
		p, err := os.ReadFile(filepath.Join(dir, dbName))
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	if err := s.make(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	before := read()
	if err := s.change(t.Context(), dir, 0); err != nil {
		t.Fatal(err)
	}
	after := read()
	pages := 0
	for at := pageSize; at < len(before); at += pageSize { // the first is new
		a, b := before[at:at+pageSize], after[at:at+pageSize]
		if !bytes.Equal(a, b) {
			pages++
		}
		if n := 8 + 2*rowsPerPage; !bytes.Equal(a[:n], b[:n]) {
			t.Fatalf("page %d: another header or other pointers", at/pageSize)
		}
	}
	if pages < 60 || pages > 80 {
		t.Errorf("%d pages changed, want about 74", pages)
	}
}

func TestRequests(t *testing.T) {
	for out, want := range map[string]int64{
		`{"requests":7}`: 7,
		"{\"a\":1}\n{\"requests\":{\"put\":2,\"get\":3}}\n": 5,
	} {
		if got := requests([]byte(out)); got == nil || *got != want {
			t.Errorf("requests(%q) = %v, want %d", out, got, want)
		}
	}
	for _, out := range []string{"", "text", `{"a":1}`, `{"requests":"x"}`} {
		if got := requests([]byte(out)); got != nil {
			t.Errorf("requests(%q) = %d, want none", out, *got)
		}
	}
}

func TestBounds(t *testing.T) {
	all := []summary{
		{Set: "db", Tool: "cairn", Op: opFirst, CPU: 6, Repository: 100, Peak: 151 << 20},
		{Set: "db", Tool: "restic", Op: opFirst, CPU: 10, Repository: 100},
		{Set: "db", Tool: "kopia", Op: opFirst, CPU: 2, Repository: 200}, // does not compress
		{Set: "db", Tool: "cairn", Op: opChanged, CPU: 1, Added: 11},
		{Set: "db", Tool: "restic", Op: opChanged, CPU: 3, Added: 100},
		{Set: "many", Tool: "cairn", Op: opFirst, CPU: 6},
		{Set: "many", Tool: "borg", Op: opFirst, CPU: 10},
		{Set: "many", Tool: "kernels", Op: opFirst, CPU: 5},
		{Set: "many", Tool: "cairn", Op: opUnchanged, CPU: 0.2},
		{Set: "many", Tool: "kernels", Op: opUnchanged, CPU: 0.1},
		{Set: "many", Tool: "cairn", Op: opDelete, CPU: 1},
		{Set: "many", Tool: "cairn", Op: opCollect, CPU: 1},
		{Set: "many", Tool: "restic", Op: opDelete, CPU: 1},
		{Set: "many", Tool: "restic", Op: opCollect, CPU: 2},
	}
	want := map[string]bool{
		"db first backup":                        false,
		"db changed backup":                      true,
		"db stored by the changed backup":        false,
		"db repository after the first backup":   true,
		"db highest memory":                      false,
		"many first backup":                      true, // 1.25 times the kernels is more than half of borg
		"many unchanged backup":                  true,
		"many delete and collect":                true,
		"many repository after the first backup": true,
	}
	for _, b := range bounds(all) {
		holds, ok := want[b.Set+" "+b.What]
		if !ok || holds != b.Holds {
			t.Errorf("%+v, want %v (known: %v)", b, holds, ok)
		}
		delete(want, b.Set+" "+b.What)
	}
	if len(want) > 0 {
		t.Errorf("missing: %v", want)
	}
}

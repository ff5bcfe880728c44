package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFileIsReadAsWritten(t *testing.T) {
	want := map[string]cost{"Kernel/split/random": {instructions: 7_000_000}, "Lookup": {bytes: 53744, allocs: 10}}
	got, release, err := parse(string(format(want)))
	if err != nil || release != goRelease() {
		t.Fatal(release, err)
	}
	if diffs := compare(want, got); len(diffs) > 0 {
		t.Error(diffs)
	}
	for _, text := range []string{"", "release go1.26\n", "release go1.26\nname 1 B x allocs 3 instructions\n"} {
		if _, _, err := parse(text); err == nil {
			t.Errorf("%q was read", text)
		}
	}
}

func TestCompare(t *testing.T) {
	want := map[string]cost{"a": {bytes: 100, allocs: 2, instructions: 1000}}
	for _, c := range []struct {
		got  map[string]cost
		diff string
	}{
		{map[string]cost{"a": {bytes: 100, allocs: 2, instructions: 1049}}, ""},
		{map[string]cost{"a": {bytes: 100, allocs: 2}}, ""}, // not counted here
		{map[string]cost{"a": {bytes: 100, allocs: 2, instructions: 1051}}, "+5.1 %"},
		{map[string]cost{"a": {bytes: 100, allocs: 2, instructions: 900}}, "-10.0 %"},
		{map[string]cost{"a": {bytes: 101, allocs: 2, instructions: 1000}}, "101 B"},
		{map[string]cost{"a": {bytes: 100, allocs: 3, instructions: 1000}}, "3 allocations"},
		{map[string]cost{}, "was not measured"},
		{map[string]cost{"a": want["a"], "b": {}}, "b: is not in the file"},
	} {
		diffs := strings.Join(compare(want, c.got), "\n")
		if (c.diff == "") != (diffs == "") || !strings.Contains(diffs, c.diff) {
			t.Errorf("%v: %q, want %q", c.got, diffs, c.diff)
		}
	}
}

// What valgrind prints of an instruction that it does not know ends the counting,
// not the comparison.
func TestUnknownInstruction(t *testing.T) {
	dir := t.TempDir()
	script := "#!/bin/sh\necho 'vex amd64->IR: unhandled instruction bytes: 0xF 0x1 0xF9'\nexit 2\n"
	if err := os.WriteFile(filepath.Join(dir, "valgrind"), []byte(script), 0o700); err != nil { //nolint:gosec // a program
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH"))
	var out strings.Builder
	m := &measurer{instructions: true, out: &out, got: map[string]cost{"Kernel/x": {bytes: 7, instructions: 9}}}
	if err := m.count(t.Context(), "nothing"); !errors.Is(err, errUncountable) {
		t.Fatalf("count = %v, want %v", err, errUncountable)
	}
	m.uncountable(errUncountable)
	if c := m.got["Kernel/x"]; c != (cost{bytes: 7}) || m.instructions || out.Len() == 0 {
		t.Errorf("left: %+v, %v, said %q", c, m.instructions, out.String())
	}
}

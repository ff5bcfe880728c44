package main

import (
	"encoding/json"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestGrow measures every part at a size that takes no time.
func TestGrow(t *testing.T) {
	if testing.Short() {
		t.Skip("builds cairn")
	}
	o, err := parseGrow([]string{
		"--chunks", "400,1200", "--files", "150,300", "--entries", "10,20", "--snapshots", "2,4", "--sparse", "1", "--restored", "1", "--json",
		"--dir", t.TempDir(),
	}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	var out, said strings.Builder
	if err := grow(t.Context(), o, &out, &said); err != nil {
		t.Fatalf("%v\n%s", err, said.String())
	}
	var doc struct {
		Growth    []growth
		Exponents []exponent
	}
	if err := json.Unmarshal([]byte(out.String()), &doc); err != nil {
		t.Fatal(err)
	}
	if len(doc.Growth) != 9 {
		t.Fatalf("%d parts and sizes were measured, want 9", len(doc.Growth))
	}
	if n, _ := doc.Growth[1].value("fill: chunks"); n != 1200 {
		t.Errorf("%v chunks were made, want 1200", n)
	}
	for name, least := range map[string]float64{
		"first backup of a machine: read of the store MiB": 1200 * 32 / (1 << 20), // every ID
		"restore of a new machine: read of the store MiB":  1,
		"backup of data: written to the store MiB":         1,
		"index: hits a CPU s":                              100,
		"index: disk B a chunk":                            50,
		"open after a kill: open wall s":                   1e-6,
		"restore of a new machine: first byte: requests":   3,
	} {
		if v, ok := doc.Growth[1].value(name); !ok || v < least {
			t.Errorf("%s: %v, want at least %v", name, v, least)
		}
	}
	if !slices.ContainsFunc(doc.Exponents, func(e exponent) bool { return e.Part == "chunks" && e.Name == "fill: chunks" && e.Power > 0.99 }) {
		t.Error("the number of chunks does not grow in proportion to itself")
	}
	if left, err := os.ReadDir(o.dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

func TestFit(t *testing.T) {
	var all []growth
	for _, n := range []uint64{1000, 10_000, 50_000} {
		size := float64(n)
		all = append(all, growth{"chunks", n, []figure{{"linear", 3 * size}, {"root", math.Sqrt(size)}, {"constant", 7}, {"zero", 0}}})
	}
	want := map[string]float64{"linear": 1, "root": 0.5, "constant": 0}
	fits := exponents(all)
	if len(fits) != len(want) {
		t.Errorf("%d fits, want %d", len(fits), len(want))
	}
	for _, f := range fits {
		if math.Abs(f.Power-want[f.Name]) > 1e-6 {
			t.Errorf("%s grows by the power of %v, want %v", f.Name, f.Power, want[f.Name])
		}
	}
	var text strings.Builder
	if err := writeGrowth(&text, nil, all); err != nil || !strings.Contains(text.String(), "0.50") {
		t.Errorf("%v\n%s", err, text.String())
	}
}

func TestGrowRefuses(t *testing.T) {
	for _, args := range [][]string{{"--chunks", "0"}, {"--chunks", "many"}, {"--parts", "dogs"}, {"--restored", "0"}, {"more"}} {
		if _, err := parseGrow(args, io.Discard); err == nil {
			t.Errorf("%v was taken", args)
		}
	}
	if code := run(t.Context(), []string{"grow", "--chunks", "0"}, io.Discard, io.Discard); code != 2 {
		t.Errorf("exit code %d, want 2", code)
	}
	if code := run(t.Context(), []string{growStepArg, "{}"}, io.Discard, io.Discard); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
}

func TestStatusField(t *testing.T) {
	text := "VmRSS:\t   9000 kB\nRssAnon:\t    1234 kB\n"
	if n := statusField(text, "RssAnon:"); n != 1234 {
		t.Errorf("%d, want 1234", n)
	}
	if n := statusField(text, "RssShmem:"); n != 0 {
		t.Errorf("%d, want 0", n)
	}
	if _, err := os.Stat(filepath.Join("/proc", "self", "status")); err == nil && anonymous() < 1<<20 {
		t.Errorf("this process has %d bytes of anonymous memory", anonymous())
	}
}

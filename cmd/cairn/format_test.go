package main

import (
	"errors"
	"testing"
	"time"
)

func TestSize(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 10188: "9.9 KiB", 10200: "10 KiB", 1<<20 - 1: "1.0 MiB",
		812 << 20: "812 MiB", 3328599655: "3.1 GiB", 1 << 62: "4.0 EiB",
	} {
		if got := size(n); got != want {
			t.Errorf("size(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestCount(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 12034: "12,034", 1234567: "1,234,567", -1000: "-1,000"} {
		if got := count(n); got != want {
			t.Errorf("count(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestSpan(t *testing.T) {
	for d, want := range map[time.Duration]string{
		400 * time.Millisecond: "0.4 s", 12 * time.Second: "12 s", 129 * time.Second: "2 min 09 s", 62 * time.Minute: "1 h 02 min",
	} {
		if got := span(d); got != want {
			t.Errorf("span(%v) = %q, want %q", d, got, want)
		}
	}
}

func TestPrintable(t *testing.T) {
	for name, want := range map[string]string{
		"plain name": "plain name", "caf\u00e9": "caf\u00e9", "caf\xe9": `"caf\xe9"`, "\x1b[2J": `"\x1b[2J"`, "a\nb": `"a\nb"`, "": `""`,
		"\u202etxt.exe": `"\u202etxt.exe"`,
	} {
		if got := printable(name); got != want {
			t.Errorf("printable(%q) = %s, want %s", name, got, want)
		}
	}
}

func TestOneLine(t *testing.T) {
	err := errors.Join(errors.New("first"), errors.New("second \x1b[31m \xff"))
	if got, want := oneLine(err), `first; second \x1b[31m \xff`; got != want {
		t.Errorf("oneLine(%q) = %q, want %q", err, got, want)
	}
}

func TestEdits(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"json", "json", 0}, {"jsno", "json", 2}, {"", "abc", 3}, {"quite", "quiet", 2}, {"tag", "target", 3}} {
		if got := edits(tt.a, tt.b); got != tt.want {
			t.Errorf("edits(%q, %q) = %d, want %d", tt.a, tt.b, got, tt.want)
		}
	}
}

func TestShellQuote(t *testing.T) {
	for s, want := range map[string]string{"/a/b-c": "/a/b-c", "": "''", "it's": `'it'\''s'`, "a b": "'a b'", "$x": "'$x'"} {
		if got := shellQuote(s); got != want {
			t.Errorf("shellQuote(%q) = %s, want %s", s, got, want)
		}
	}
}

func TestParseTime(t *testing.T) {
	for s, want := range map[string]time.Time{
		"2026-01-02T03:04:05Z":           time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		"2026-01-02T03:04:05.000000007Z": time.Date(2026, 1, 2, 3, 4, 5, 7, time.UTC),
		"2026-01-02T03:04:05+02:00":      time.Date(2026, 1, 2, 1, 4, 5, 0, time.UTC),
		"2026-01-02 03:04:05":            time.Date(2026, 1, 2, 3, 4, 5, 0, time.Local),
		"2026-01-02":                     time.Date(2026, 1, 2, 0, 0, 0, 0, time.Local),
	} {
		if got, err := parseTime(s); err != nil || !got.Equal(want) {
			t.Errorf("parseTime(%q) = %v, %v, want %v", s, got, err, want)
		}
	}
	for _, s := range []string{"", "now", "2026-13-01", "1767322800"} {
		if got, err := parseTime(s); !errors.Is(err, errUsage) {
			t.Errorf("parseTime(%q) = %v, %v, want a usage error", s, got, err)
		}
	}
}

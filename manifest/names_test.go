package manifest

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestUniqueNames(t *testing.T) {
	tests := []struct{ paths, want string }{
		{"/var/lib/app", "app"},
		{"/", "root"},
		{"//a//b/", "b"},
		{"/a/data /b/data /c/x", "a_data b_data x"},
		{"/a/x/data /b/x/data /c/data", "a_x_data b_x_data c_data"},
		{"/data /a/data", "data a_data"},
		{"/a/b /a/b", "a_b a_b_2"},
		{"/x/a_b/c /x/a/b_c", "c b_c"},
		{"/a_b/c /a/b_c /c", "a_b_c b_c c"},
		{"/a_b/c /a/b_c /c /b_c", "a_b_c a_b_c_2 c b_c"},
		{"/a/b /a/b /x/a_b_2 /a_b_2", "a_b a_b_3 x_a_b_2 a_b_2"},
		{"C:/Users/x D:/Users/x", "C_Users_x D_Users_x"},
		{"C:/ D:/", "C D"},
		{"/ /root", "root root_2"},
	}
	for _, tt := range tests {
		var got []string
		for _, r := range UniqueNames(strings.Fields(tt.paths)) {
			got = append(got, r.Name)
		}
		if got := strings.Join(got, " "); got != tt.want {
			t.Errorf("UniqueNames(%s) = %s, want %s", tt.paths, got, tt.want)
		}
	}
}

func TestUniqueNamesAreNames(t *testing.T) {
	element := rapid.OneOf(rapid.SampledFrom([]string{"a", "b", "a_b", ".", "..", "", "root", "_", "a_2"}),
		rapid.Just(strings.Repeat("l", 255)))
	rapid.Check(t, func(t *rapid.T) {
		paths := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) string {
			return "/" + strings.Join(rapid.SliceOfN(element, 0, 4).Draw(t, "elements"), "/")
		}), 0, 8).Draw(t, "paths")
		seen := make(map[string]bool)
		for i, r := range UniqueNames(paths) {
			if err := checkName(r.Name); err != nil || len(r.Name) > maxRootName || r.Path != paths[i] || seen[r.Name] {
				t.Fatalf("UniqueNames(%q)[%d] = %q, %q (%v)", paths, i, r.Path, r.Name, err)
			}
			seen[r.Name] = true
		}
	})
}

func TestTime(t *testing.T) {
	tests := []struct {
		time Time
		text string
	}{
		{Time{}, "1970-01-01T00:00:00.000000000Z"},
		{Time{Sec: -1, Nsec: 999_999_999}, "1969-12-31T23:59:59.999999999Z"},
		{TimeOf(time.Date(2026, 1, 2, 16, 4, 5, 0, time.FixedZone("", 3600))), "2026-01-02T15:04:05.000000000Z"},
		{TimeOf(time.Date(2300, 1, 1, 0, 0, 0, 7, time.UTC)), "2300-01-01T00:00:00.000000007Z"},
		{TimeOf(time.Date(1600, 1, 1, 0, 0, 0, 7, time.UTC)), "1600-01-01T00:00:00.000000007Z"},
		{Time{Sec: firstSecond}, "0000-01-01T00:00:00.000000000Z"},
		{Time{Sec: lastSecond, Nsec: 999_999_999}, "9999-12-31T23:59:59.999999999Z"},
		{Time{Sec: lastSecond + 1, Nsec: 1}, "@253402300800.000000001"},
		{Time{Sec: -1 << 63}, "@-9223372036854775808.000000000"},
	}
	for _, tt := range tests {
		p, err := tt.time.MarshalText()
		if err != nil || string(p) != tt.text {
			t.Errorf("MarshalText(%d, %d) = %s, %v, want %s", tt.time.Sec, tt.time.Nsec, p, err, tt.text)
		}
		var got Time
		if err := got.UnmarshalText(p); err != nil || got != tt.time {
			t.Errorf("UnmarshalText(%s) = %v, %v", p, got, err)
		}
	}
	for _, bad := range []string{"", "@", "@1.5", "@1.0000000000", "2026-01-02T15:04:05Z", "2026-01-02T15:04:05.000000000+01:00", "@5.000000000"} {
		if err := new(Time).UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("UnmarshalText(%q) = nil", bad)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		sec := rapid.Int64Range(-1<<40, 1<<40)
		a := Time{Sec: sec.Draw(t, "a"), Nsec: rapid.Uint32Range(0, 999_999_999).Draw(t, "na")}
		b := Time{Sec: sec.Draw(t, "b"), Nsec: rapid.Uint32Range(0, 999_999_999).Draw(t, "nb")}
		if TimeOf(a.Time()) != a || a.Compare(b) != a.Time().Compare(b.Time()) {
			t.Fatalf("%v and %v do not convert or compare like time.Time", a, b)
		}
	})
}

func TestID(t *testing.T) {
	id := NewID()
	if id.IsZero() || id == NewID() {
		t.Error("NewID is not random")
	}
	if got, err := ParseID(id.String()); err != nil || got != id {
		t.Errorf("ParseID(%s) = %s, %v", id, got, err)
	}
	p, _ := id.MarshalText()
	var got ID
	if err := got.UnmarshalText(p); err != nil || got != id || len(id.Short()) != 8 || !strings.HasPrefix(id.String(), id.Short()) {
		t.Errorf("UnmarshalText(%s) = %s, %v; Short = %s", p, got, err, id.Short())
	}
	for _, bad := range []string{"", id.String()[1:], id.String() + "0", strings.Repeat("A", 32), strings.Repeat("g", 32)} {
		if _, err := ParseID(bad); err == nil {
			t.Errorf("ParseID(%q) = nil", bad)
		}
	}
}

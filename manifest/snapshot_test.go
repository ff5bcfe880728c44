package manifest

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/cairn-backup/cairn/chunk"
)

func testSummary() Summary {
	return Summary{
		ID: ID{1, 2, 3}, Start: Time{Sec: 1_770_000_000, Nsec: 5}, End: Time{Sec: 1_770_000_060},
		Kind: KindFiles, Name: "app", Host: "host", User: "user", Platform: "linux/amd64",
		Program: "cairn", Version: "1.0.0", Tags: []string{"weekly", "a"}, Labels: map[string]string{"k": "v", "a": ""},
		Parent: ID{9}, Complete: true, Stats: Stats{1, 2, 3, 4, 5, 6, 7, 8, 9}, Group: [16]byte{7}, Depth: 3,
	}
}

func testSnapshot() Snapshot {
	return Snapshot{
		Summary: testSummary(),
		Roots:   []Root{{Path: "/var/lib/app", Name: "app"}, {Path: "/srv/\xff", Name: "\xff"}},
		Missing: []Missing{{Path: "/var/lib/app/\xfe", Reason: "permission denied"}},
		Tree:    testID("tree"),
	}
}

var textGen = rapid.StringN(0, 20, 40)

var summaryGen = rapid.Custom(func(t *rapid.T) Summary {
	id := testID(rapid.Int().Draw(t, "id"))
	s := Summary{
		ID: ID(id[:16]), Start: timeGen.Draw(t, "start"), End: timeGen.Draw(t, "end"),
		Kind: "files", Name: textGen.Draw(t, "name"), Host: textGen.Draw(t, "host"), User: textGen.Draw(t, "user"),
		Tags:     rapid.SliceOfN(rapid.StringN(1, 5, 20), 0, 4).Draw(t, "tags"),
		Labels:   rapid.MapOfN(textGen, textGen, 0, 4).Draw(t, "labels"),
		Complete: rapid.Bool().Draw(t, "complete"), Depth: rapid.Uint32().Draw(t, "depth"),
		Stats: Stats{Files: rapid.Uint64().Draw(t, "files"), Changed: rapid.Uint64().Draw(t, "changed")},
	}
	if len(s.Tags) == 0 {
		s.Tags = nil
	}
	if len(s.Labels) == 0 {
		s.Labels = nil
	}
	return s
})

func TestSnapshotRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := testSnapshot()
		want.Summary = summaryGen.Draw(t, "summary")
		p, err := EncodeSummary(want.Summary)
		if err != nil {
			t.Fatalf("EncodeSummary: %v", err)
		}
		summary, err := DecodeSummary(p)
		if err != nil || !reflect.DeepEqual(summary, want.Summary) {
			t.Fatalf("DecodeSummary = %+v, %v, want %+v", summary, err, want.Summary)
		}
		body, err := EncodeBody(want)
		if err != nil {
			t.Fatalf("EncodeBody: %v", err)
		}
		got, err := DecodeBody(summary, body)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("DecodeBody = %+v, %v, want %+v", got, err, want)
		}
	})
}

func TestSummaryNotEncoded(t *testing.T) {
	s := testSummary()
	plain, err := EncodeSummary(s)
	if err != nil {
		t.Fatal(err)
	}
	s.Pinned, s.Note = true, "kept for the audit"
	if p, err := EncodeSummary(s); err != nil || string(p) != string(plain) {
		t.Errorf("annotations change the encoded summary (%v)", err)
	}
}

func TestBodyOfAnother(t *testing.T) {
	s := testSnapshot()
	p, err := EncodeBody(s)
	if err != nil {
		t.Fatal(err)
	}
	other := s.Summary
	other.ID[0]++
	if _, err := DecodeBody(other, p); !errors.Is(err, ErrMalformed) {
		t.Errorf("DecodeBody for another snapshot: %v, want ErrMalformed", err)
	}
}

func TestSnapshotLimits(t *testing.T) {
	many := func(n int) []string {
		list := make([]string, n)
		for i := range list {
			list[i] = fmt.Sprint(i)
		}
		return list
	}
	summaries := map[string]func(*Summary){
		"no id":        func(s *Summary) { s.ID = ID{} },
		"no kind":      func(s *Summary) { s.Kind = "" },
		"nanoseconds":  func(s *Summary) { s.End.Nsec = 1e9 },
		"long text":    func(s *Summary) { s.Host = strings.Repeat("h", MaxText+1) },
		"not UTF-8":    func(s *Summary) { s.User = "\xff" },
		"many tags":    func(s *Summary) { s.Tags = many(MaxTags + 1) },
		"long tag":     func(s *Summary) { s.Tags = []string{strings.Repeat("t", MaxTag+1)} },
		"empty tag":    func(s *Summary) { s.Tags = []string{""} },
		"long label":   func(s *Summary) { s.Labels = map[string]string{strings.Repeat("l", MaxLabel+1): ""} },
		"long value":   func(s *Summary) { s.Labels = map[string]string{"l": strings.Repeat("l", MaxValue+1)} },
		"label bytes":  func(s *Summary) { s.Labels = map[string]string{"l": "\xff"} },
		"large labels": func(s *Summary) { s.Labels = labels(1000, MaxValue) },
		"many labels":  func(s *Summary) { s.Labels = labels(MaxLabels+1, 1) },
	}
	for name, change := range summaries {
		t.Run(name, func(t *testing.T) {
			s := testSummary()
			change(&s)
			if _, err := EncodeSummary(s); !errors.Is(err, ErrInvalid) {
				t.Errorf("EncodeSummary: %v, want ErrInvalid", err)
			}
		})
	}
	bodies := map[string]func(*Snapshot){
		"no id":        func(s *Snapshot) { s.ID = ID{} },
		"no tree":      func(s *Snapshot) { s.Tree = chunk.ID{} },
		"name twice":   func(s *Snapshot) { s.Roots[1].Name = s.Roots[0].Name },
		"bad name":     func(s *Snapshot) { s.Roots[0].Name = "a/b" },
		"long path":    func(s *Snapshot) { s.Roots[0].Path = strings.Repeat("p", MaxPath+1) },
		"many roots":   func(s *Snapshot) { s.Roots = UniqueNames(many(MaxRoots + 1)) },
		"many missing": func(s *Snapshot) { s.Missing = make([]Missing, MaxMissing+1) },
		"reason bytes": func(s *Snapshot) { s.Missing[0].Reason = "\xff" },
		"long reason":  func(s *Snapshot) { s.Missing[0].Reason = strings.Repeat("r", MaxReason+1) },
		"large": func(s *Snapshot) {
			for range MaxBody / MaxPath {
				s.Missing = append(s.Missing, Missing{Path: strings.Repeat("p", MaxPath)})
			}
		},
	}
	for name, change := range bodies {
		t.Run("body "+name, func(t *testing.T) {
			s := testSnapshot()
			change(&s)
			if _, err := EncodeBody(s); !errors.Is(err, ErrInvalid) {
				t.Errorf("EncodeBody: %v, want ErrInvalid", err)
			}
		})
	}
}

func labels(n, size int) map[string]string {
	m := make(map[string]string, n)
	for i := range n {
		m[fmt.Sprint(i)] = strings.Repeat("v", size)
	}
	return m
}

func TestLimitMissing(t *testing.T) {
	var all []Missing
	for i := range 3 * MaxMissing {
		all = append(all, Missing{Path: fmt.Sprintf("/%d", i), Reason: strings.Repeat("é", i%1000) + "\xff"})
	}
	all[1].Path = strings.Repeat("p", MaxPath+1)
	s := testSnapshot()
	for name, all := range map[string][]Missing{
		"many": all, "none": nil, "large": {{Path: strings.Repeat("p", MaxPath), Reason: strings.Repeat("r", 1<<20)}, {Path: "/x"}},
	} {
		s.Missing = LimitMissing(all)
		if _, err := EncodeBody(s); err != nil {
			t.Errorf("%s: EncodeBody: %v", name, err)
		}
		if len(all) > 0 && len(s.Missing) < 2 {
			t.Errorf("%s: LimitMissing keeps %d", name, len(s.Missing))
		}
	}
}

func TestAnnotation(t *testing.T) {
	yes, note := true, "note"
	s := testSummary()
	got := Annotation{Add: []string{"new", "a"}, Remove: []string{"weekly", "a"}, Pin: &yes, Note: &note}.Apply(s)
	if want := []string{"a", "new"}; !reflect.DeepEqual(got.Tags, want) || !got.Pinned || got.Note != note {
		t.Errorf("Apply = %v, %t, %q, want %v, true, %q", got.Tags, got.Pinned, got.Note, want, note)
	}
	if want := testSummary(); !reflect.DeepEqual(s, want) {
		t.Errorf("Apply modified its argument: %+v", s)
	}
	if got := (Annotation{}).Apply(s); !reflect.DeepEqual(got, s) {
		t.Errorf("the zero Annotation changes %+v to %+v", s, got)
	}
	bad := "\xff"
	for _, a := range []Annotation{{Add: []string{""}}, {Remove: []string{"\xff"}}, {Note: &bad}} {
		if err := a.Validate(); !errors.Is(err, ErrInvalid) {
			t.Errorf("Validate(%+v) = %v, want ErrInvalid", a, err)
		}
	}
}

func TestFilter(t *testing.T) {
	s := testSummary()
	tests := []struct {
		name   string
		filter Filter
		want   bool
	}{
		{"zero", Filter{}, true},
		{"id", Filter{IDs: []ID{{5}, s.ID}}, true},
		{"other id", Filter{IDs: []ID{{5}}}, false},
		{"kind", Filter{Kinds: []Kind{KindFiles}}, true},
		{"other kind", Filter{Kinds: []Kind{KindStream}}, false},
		{"name", Filter{Names: []string{"app"}}, true},
		{"other name", Filter{Names: []string{"ap"}}, false},
		{"host", Filter{Hosts: []string{"x", "host"}}, true},
		{"other host", Filter{Hosts: []string{"x"}}, false},
		{"tags", Filter{Tags: []string{"a", "weekly"}}, true},
		{"one tag missing", Filter{Tags: []string{"a", "daily"}}, false},
		{"since", Filter{Since: s.Start}, true},
		{"since later", Filter{Since: s.End}, false},
		{"until", Filter{Until: s.Start}, false},
		{"until later", Filter{Until: s.End}, true},
		{"latest", Filter{Latest: 1}, true},
	}
	for _, tt := range tests {
		if got := tt.filter.Match(s); got != tt.want {
			t.Errorf("%s: Match = %t, want %t", tt.name, got, tt.want)
		}
	}
	all := []Summary{{Host: "a", Depth: 1}, {Host: "b", Depth: 2}, {Host: "a", Depth: 3}, {Host: "a", Depth: 4}}
	got := Filter{Hosts: []string{"a"}, Latest: 2}.Select(all)
	if len(got) != 2 || got[0].Depth != 3 || got[1].Depth != 4 {
		t.Errorf("Select = %+v, want the last two of host a", got)
	}
	if got := (Filter{}).Select(all); len(got) != 4 {
		t.Errorf("Select of the zero filter: %d, want 4", len(got))
	}
}

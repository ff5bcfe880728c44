package manifest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// taken makes a good snapshot; change changes it.
func taken(n byte, at string, change ...func(*Snapshot)) Snapshot {
	t, err := time.Parse("2006-01-02 15:04", at)
	if err != nil {
		panic(err)
	}
	s := Snapshot{Summary: Summary{
		ID: ID{n}, Start: TimeOf(t), Host: "web1", Complete: true, Stats: Stats{Files: 1000, Bytes: 10 << 20},
	}, Roots: []Root{{Path: "/srv"}}}
	for _, c := range change {
		c(&s)
	}
	return s
}

func incomplete(s *Snapshot)           { s.Complete, s.Stats.Missing = false, 1 }
func emptied(s *Snapshot)              { s.Stats = Stats{Dirs: 1} }
func shrunk(s *Snapshot)               { s.Stats.Bytes = 4 << 20 }
func pinned(s *Snapshot)               { s.Pinned = true }
func accepted(s *Snapshot)             { tagged(TagAccepted)(s) }
func files(n uint64) func(*Snapshot)   { return func(s *Snapshot) { s.Stats.Files = n } }
func bytesOf(n uint64) func(*Snapshot) { return func(s *Snapshot) { s.Stats.Bytes = n } }
func onHost(h string) func(*Snapshot) {
	return func(s *Snapshot) { s.Host, s.Group = h, [16]byte([]byte(h+strings.Repeat(".", 16))) }
}

func tagged(tags ...string) func(*Snapshot) {
	return func(s *Snapshot) { s.Tags = append(slices.Clone(s.Tags), tags...) }
}

// explain writes decisions: group, first digits, sign, why.
func explain(decisions []Decision) string {
	var b strings.Builder
	for _, d := range decisions {
		sign := "-"
		if d.Keep {
			sign = "+"
		}
		fmt.Fprintf(&b, "%d %s%s %s\n", d.Group, sign, d.Snapshot.ID.String()[:2], d.Why())
	}
	return b.String()
}

func TestPolicy(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Skipf("this machine knows no time zones: %v", err)
	}
	for _, tt := range []struct {
		name string
		p    Policy
		list []Snapshot
		at   string // default 2026-11-22 12:00
		in   *time.Location
		want string
	}{
		{"last", Policy{Last: 2}, []Snapshot{taken(3, "2026-01-03 00:00"), taken(1, "2026-01-01 00:00"), taken(2, "2026-01-02 00:00")}, "", nil, `
0 -01 beyond last 2
0 +02 last 2 of 2
0 +03 last 1 of 2
`},
		{"days and weeks", Policy{Daily: 2, Weekly: 2}, []Snapshot{
			taken(1, "2026-11-08 09:00"), taken(2, "2026-11-13 09:00"), taken(3, "2026-11-15 23:59"),
			taken(4, "2026-11-16 00:00"), taken(5, "2026-11-16 10:00"),
		}, "", nil, `
0 -01 beyond daily 2, beyond weekly 2
0 -02 beyond daily 2, weekly: 03000000 is newer (2026-W46)
0 +03 daily 2 of 2 (2026-11-15), weekly 2 of 2 (2026-W46)
0 -04 daily: 05000000 is newer (2026-11-16), weekly: 05000000 is newer (2026-W47)
0 +05 daily 1 of 2 (2026-11-16), weekly 1 of 2 (2026-W47)
`},
		{"the time zone moves midnight", Policy{Daily: 9, Monthly: Unlimited}, []Snapshot{
			taken(1, "2026-10-31 22:00"), taken(2, "2026-10-31 23:30"), taken(3, "2026-11-01 10:00"),
		}, "", berlin, `
0 +01 daily 2 of 9 (2026-10-31), monthly (2026-10)
0 -02 daily: 03000000 is newer (2026-11-01), monthly: 03000000 is newer (2026-11)
0 +03 daily 1 of 9 (2026-11-01), monthly (2026-11)
`},
		{"the hour that comes twice", Policy{Hourly: 9}, []Snapshot{
			taken(1, "2026-10-25 00:10"), taken(2, "2026-10-25 00:50"), taken(3, "2026-10-25 01:10"), taken(4, "2026-10-25 02:10"),
		}, "", berlin, `
0 -01 hourly: 02000000 is newer (2026-10-25 02h)
0 +02 hourly 3 of 9 (2026-10-25 02h)
0 +03 hourly 2 of 9 (2026-10-25 02h)
0 +04 hourly 1 of 9 (2026-10-25 03h)
`},
		{"the year of a week", Policy{Weekly: 9, Yearly: 9}, []Snapshot{taken(1, "2026-12-31 00:00"), taken(2, "2027-01-01 00:00")}, "2027-01-02 00:00", nil, `
0 +01 yearly 2 of 9 (2026)
0 +02 weekly 1 of 9 (2026-W53), yearly 1 of 9 (2027)
`},
		{"within is counted from the newest", Policy{Within: Period{Days: 7}}, []Snapshot{
			taken(1, "2020-01-01 11:59"), taken(2, "2020-01-01 12:00"), taken(3, "2020-01-08 12:00"),
		}, "", nil, `
0 -01 not within 7d
0 +02 within 7d
0 +03 within 7d
`},
		{"within a month", Policy{WithinDaily: Period{Months: 1}}, []Snapshot{
			taken(1, "2026-02-27 00:00"), taken(2, "2026-02-28 00:00"), taken(3, "2026-03-31 00:00"), taken(4, "2026-03-31 00:01"),
		}, "", nil, `
0 -01 not within-daily 1m
0 -02 not within-daily 1m
0 -03 within-daily: 04000000 is newer (2026-03-31)
0 +04 within-daily 1m (2026-03-31)
`},
		{"tags and pins", Policy{Last: 1, Tags: [][]string{{"a", "b"}, {"c"}}}, []Snapshot{
			taken(1, "2026-01-01 00:00", tagged("a")), taken(2, "2026-01-02 00:00", tagged("b", "a")), taken(3, "2026-01-03 00:00", tagged("c")),
			taken(4, "2026-01-04 00:00", pinned), taken(5, "2026-01-05 00:00"),
		}, "", nil, `
0 -01 beyond last 1
0 +02 tag a+b
0 +03 tag c
0 +04 pinned
0 +05 last 1 of 1
`},
		{"a rule by tag leaves the last good one", Policy{Tags: [][]string{{"x"}}}, []Snapshot{
			taken(1, "2026-01-01 00:00"), taken(2, "2026-01-02 00:00"), taken(3, "2026-01-03 00:00", incomplete),
			taken(4, "2026-01-01 00:00", onHost("b"), incomplete), taken(5, "2026-01-02 00:00", onHost("b"), emptied),
		}, "", nil, `
0 -01 no rule keeps it
0 +02 newest
0 +03 incomplete; newest
1 +04 incomplete; newest
1 +05 empty; newest
`},
		{"unless it is told to", Policy{Tags: [][]string{{"x"}}, MayEmpty: true}, []Snapshot{taken(1, "2026-01-01 00:00")}, "", nil, `
0 -01 no rule keeps it
`},
		{"doubtful ones use no place", Policy{Last: 2}, []Snapshot{
			taken(1, "2026-01-01 00:00"), taken(2, "2026-01-02 00:00"), taken(3, "2026-01-03 00:00"), taken(4, "2026-01-04 00:00", incomplete),
			taken(5, "2026-01-05 00:00", emptied), taken(6, "2026-01-06 00:00", shrunk), taken(7, "2026-01-07 00:00", emptied),
		}, "", nil, `
0 -01 beyond last 2
0 +02 last 2 of 2
0 +03 last 1 of 2
0 +04 incomplete; last 1 of 2
0 +05 empty; last 2 of 2
0 +06 much smaller; last 1 of 2
0 +07 empty; last 1 of 2
`},
		{"a better one afterwards outdates them", Policy{Last: 1}, []Snapshot{
			taken(1, "2026-01-01 00:00"), taken(2, "2026-01-02 00:00", shrunk), taken(3, "2026-01-03 00:00", incomplete), taken(4, "2026-01-04 00:00"),
		}, "", nil, `
0 -01 beyond last 1
0 -02 much smaller; beyond last 1
0 -03 incomplete; beyond last 1
0 +04 last 1 of 1
`},
		{"what led to one may be forgotten", Policy{Last: 1, Monthly: 2}, []Snapshot{
			taken(1, "2026-01-31 00:00", files(1000)), taken(3, "2026-02-02 00:00", files(310)), taken(4, "2026-02-03 00:00", files(900), incomplete),
			taken(5, "2026-02-04 00:00", emptied),
		}, "", nil, `
0 +01 last 1 of 1, monthly 1 of 2 (2026-01)
0 +03 much smaller; last 1 of 1, monthly 1 of 2 (2026-02)
0 +04 incomplete; last 1 of 1, monthly 1 of 2 (2026-02)
0 +05 empty; last 1 of 1, monthly 1 of 2 (2026-02)
`},
		{"accepted", Policy{Last: 2}, []Snapshot{
			taken(1, "2026-01-01 00:00"), taken(2, "2026-01-02 00:00", shrunk, accepted), taken(3, "2026-01-03 00:00", shrunk),
		}, "", nil, `
0 -01 beyond last 2
0 +02 last 2 of 2
0 +03 last 1 of 2
`},
		{"incomplete ones are compared with each other while nothing is better", Policy{Last: 1}, []Snapshot{
			taken(1, "2026-01-01 00:00", incomplete), taken(2, "2026-01-02 00:00", incomplete), taken(3, "2026-01-03 00:00", incomplete, files(10)),
			taken(4, "2026-01-04 00:00", emptied),
		}, "", nil, `
0 -01 incomplete; beyond last 1
0 +02 incomplete; last 1 of 1
0 +03 much smaller; last 1 of 1
0 +04 empty; last 1 of 1
`},
		{"a complete one outdates incomplete ones", Policy{Last: 1}, []Snapshot{
			taken(1, "2026-01-01 00:00"), taken(2, "2026-01-02 00:00", incomplete, files(600)), taken(3, "2026-01-03 00:00", files(400)),
		}, "", nil, `
0 +01 last 1 of 1
0 -02 incomplete; beyond last 1
0 +03 much smaller; last 1 of 1
`},
		{"dated in the future", Policy{Last: 1, Within: Period{Days: 30}}, []Snapshot{
			taken(1, "2026-01-01 00:00"), taken(2, "2026-11-20 00:00"), taken(3, "2026-11-22 23:00"), taken(4, "2099-01-01 00:00"),
		}, "", nil, `
0 -01 beyond last 1, not within 30d
0 +02 within 30d
0 +03 last 1 of 1, within 30d
0 +04 in the future; last 1 of 1, within 30d
`},
		{"little is never much smaller", Policy{Last: 1}, []Snapshot{
			taken(1, "2026-01-01 00:00", files(100), bytesOf(1<<20)), taken(2, "2026-01-02 00:00", files(1), bytesOf(1)),
		}, "", nil, `
0 -01 beyond last 1
0 +02 last 1 of 1
`},
		{"but nothing is", Policy{Last: 1}, []Snapshot{
			taken(1, "2026-01-01 00:00", files(1), bytesOf(1)), taken(2, "2026-01-02 00:00", files(1), bytesOf(0)),
		}, "", nil, `
0 +01 last 1 of 1
0 +02 empty; last 1 of 1
`},
		{"what never had content is not empty", Policy{Last: 1}, []Snapshot{
			taken(1, "2026-01-01 00:00", emptied, func(s *Snapshot) { s.Stats.Others = 3 }),
			taken(2, "2026-01-02 00:00", emptied, func(s *Snapshot) { s.Stats.Others = 3 }),
		}, "", nil, `
0 -01 beyond last 1
0 +02 last 1 of 1
`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.at == "" {
				tt.at = "2026-11-22 12:00"
			}
			at, err := time.Parse("2006-01-02 15:04", tt.at)
			if err != nil {
				t.Fatal(err)
			}
			if tt.in != nil {
				at = at.In(tt.in)
			}
			decisions, err := tt.p.Apply(tt.list, at)
			if err != nil {
				t.Fatal(err)
			}
			if got := "\n" + explain(decisions); got != tt.want {
				t.Errorf("Apply decides%swant%s", got, tt.want)
			}
		})
	}
}

func TestPolicyGroups(t *testing.T) {
	named := func(host, name string, roots ...string) func(*Snapshot) {
		return func(s *Snapshot) {
			s.Host, s.Name, s.Roots = host, name, nil
			for _, r := range roots {
				s.Roots = append(s.Roots, Root{Path: r})
			}
			s.Group = [16]byte([]byte(fmt.Sprintf("%-16.16s", host+name+strings.Join(roots, ""))))
		}
	}
	list := []Snapshot{
		taken(1, "2026-01-01 00:00", named("a", "x", "/one", "/two")),
		taken(2, "2026-01-02 00:00", named("a", "y", "/two", "/one")),
		taken(3, "2026-01-03 00:00", named("b", "x", "/one", "/two")),
		taken(4, "2026-01-04 00:00", named("b", "y", "/one\" \"/two")),
		taken(5, "2026-01-05 00:00", named("a", "x", "/one", "/two")),
	}
	for by, want := range map[string][]int{
		"host,name,roots": {0, 1, 2, 3, 0}, "host": {0, 0, 1, 1, 0}, "name": {0, 1, 0, 1, 0}, "host,name": {0, 1, 2, 3, 0},
		"roots": {0, 0, 0, 1, 0}, "host,roots": {0, 0, 1, 2, 0}, "none": {0, 0, 0, 0, 0},
	} {
		g, err := ParseGroupBy(by)
		if err != nil || g.String() != by {
			t.Fatalf("ParseGroupBy(%q) = %v, %v", by, g, err)
		}
		decisions, err := Policy{Last: 1, GroupBy: g}.Apply(list, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		got := make([]int, len(list))
		for i, d := range decisions {
			got[d.Snapshot.ID[0]-1] = d.Group
			if i > 0 && d.Group < decisions[i-1].Group {
				t.Errorf("by %s: group %d comes after group %d", by, d.Group, decisions[i-1].Group)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("by %s: groups %v, want %v", by, got, want)
		}
	}
	if def, all := GroupBy(0), ByHost|ByName|ByRoots; def.String() != all.String() || def.NeedsRoots() || !ByRoots.NeedsRoots() {
		t.Errorf("the zero GroupBy is %v", def)
	}
	for _, bad := range []string{"", "host,", "paths", "host,none", "none,roots"} {
		if g, err := ParseGroupBy(bad); !errors.Is(err, ErrInvalid) {
			t.Errorf("ParseGroupBy(%q) = %v, %v", bad, g, err)
		}
	}
}

func TestPolicyValidate(t *testing.T) {
	for _, p := range []Policy{{}, {GroupBy: ByHost, MayEmpty: true}, {Tags: [][]string{}}} {
		if err := p.Validate(); !errors.Is(err, ErrEmptyPolicy) {
			t.Errorf("Validate of %+v: %v, want ErrEmptyPolicy", p, err)
		}
		if d, err := p.Apply([]Snapshot{taken(1, "2026-01-01 00:00")}, time.Now()); !errors.Is(err, ErrEmptyPolicy) || d != nil {
			t.Errorf("Apply of an empty policy = %v, %v", d, err)
		}
	}
	for _, p := range []Policy{
		{Last: -2},
		{Daily: 1, Yearly: -7},
		{Within: Period{Days: -1}},
		{WithinDaily: Period{Years: maxPeriod + 1}},
		{Tags: [][]string{{}}},
		{Tags: [][]string{{"a", ""}}},
		{Last: 1, GroupBy: ByNothing | ByHost},
		{Last: 1, GroupBy: 64},
	} {
		if err := p.Validate(); !errors.Is(err, ErrInvalid) {
			t.Errorf("Validate of %+v: %v, want ErrInvalid", p, err)
		}
	}
	p := Policy{Last: 3, Daily: Unlimited, Within: Period{Years: 1, Months: 5}, Tags: [][]string{{"a", "b"}, {"c"}}}
	if got, want := p.String(), "last 3, daily unlimited, within 1y5m, tag a+b, tag c"; got != want || p.Validate() != nil {
		t.Errorf("String = %q, want %q; Validate: %v", got, want, p.Validate())
	}
}

func TestPeriod(t *testing.T) {
	for text, want := range map[string]Period{
		"7d": {Days: 7}, "2w": {Days: 14}, "1w3d": {Days: 10}, "36h": {Hours: 36}, "1y5m": {Years: 1, Months: 5},
		"1y5m7d2h": {1, 5, 7, 2}, "0y1h": {Hours: 1}, "9999y": {Years: 9999},
	} {
		if got, err := ParsePeriod(text); got != want || err != nil {
			t.Errorf("ParsePeriod(%q) = %+v, %v", text, got, err)
		}
	}
	for _, bad := range []string{"", "0d", "7", "d", "7D", "1d1y", "1d1d", "-1d", "+1d", "1.5d", " 1d", "1d ", "10000d", "9999w", "1d99999999999999999999h", "1y5", "1s"} {
		if got, err := ParsePeriod(bad); !errors.Is(err, ErrInvalid) {
			t.Errorf("ParsePeriod(%q) = %+v, %v, want ErrInvalid", bad, got, err)
		}
	}
	for _, tt := range []struct{ p, from, want string }{
		{"1m", "2026-03-31 10:20", "2026-02-28 10:20"},
		{"1y", "2024-02-29 00:00", "2023-02-28 00:00"},
		{"13m", "2026-01-15 00:00", "2024-12-15 00:00"},
		{"1m1d", "2026-03-31 00:00", "2026-02-27 00:00"},
		{"36h", "2026-01-02 12:00", "2026-01-01 00:00"},
		{"400d", "2026-01-01 00:00", "2024-11-27 00:00"},
		{"9999y", "2026-01-01 00:00", "-7973-01-01 00:00"},
	} {
		from, err := time.Parse("2006-01-02 15:04", tt.from)
		p, err2 := ParsePeriod(tt.p)
		if err != nil || err2 != nil {
			t.Fatal(err, err2)
		}
		if got := p.Before(from).Format("2006-01-02 15:04"); got != tt.want {
			t.Errorf("%s before %s is %s, want %s", tt.p, tt.from, got, tt.want)
		}
	}
}

func FuzzParsePeriod(f *testing.F) {
	for _, s := range []string{"7d", "1y5m7d2h", "2w", "36h", "1w3d", "", "d", "1d1d", "-1d", "99999999999999999999y"} {
		f.Add(s)
	}
	from := time.Date(2026, 3, 31, 0, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParsePeriod(s)
		if err != nil {
			if !errors.Is(err, ErrInvalid) || !p.IsZero() {
				t.Fatalf("ParsePeriod(%q) = %+v, %v", s, p, err)
			}
			return
		}
		if p.IsZero() || !p.valid() || !p.Before(from).Before(from) {
			t.Fatalf("ParsePeriod(%q) = %+v, which leads from %v to %v", s, p, from, p.Before(from))
		}
		if again, err := ParsePeriod(p.String()); err != nil || again != p {
			t.Fatalf("ParsePeriod(%q) = %+v, whose String %q reads as %+v, %v", s, p, p.String(), again, err)
		}
	})
}

// BenchmarkPolicy decides about 10,000 snapshots of 20 groups by every calendar
// rule.
func BenchmarkPolicy(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 2))
	at := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	list := make([]Snapshot, 10_000)
	for i := range list {
		list[i] = taken(0, "2026-01-01 00:00", onHost(fmt.Sprintf("host-%02d", i%20)))
		list[i].ID = ID{byte(i), byte(i >> 8)}
		list[i].Start = TimeOf(at.Add(-time.Duration(i) * time.Hour))
		list[i].Complete = rng.IntN(10) > 0
	}
	p := Policy{Last: 10, Hourly: 24, Daily: 7, Weekly: 5, Monthly: 12, Yearly: 10, Within: Period{Days: 30}}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := p.Apply(list, at); err != nil {
			b.Fatal(err)
		}
	}
}

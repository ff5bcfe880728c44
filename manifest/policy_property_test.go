package manifest

import (
	"encoding/binary"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// policyMoment is when the policies of these tests are applied.
var policyMoment = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func drawZone(t *rapid.T) *time.Location {
	zones := []*time.Location{time.UTC, time.FixedZone("Nepal", 5*3600+45*60)}
	for _, name := range []string{"Europe/Berlin", "Australia/Lord_Howe", "America/Los_Angeles"} {
		if loc, err := time.LoadLocation(name); err == nil { // not every machine knows them
			zones = append(zones, loc)
		}
	}
	return rapid.SampledFrom(zones).Draw(t, "zone")
}

// drawSnapshot draws a snapshot that is so many hours old, or one from the
// future.
func drawSnapshot(t *rapid.T, n, hours int) Snapshot {
	s := Snapshot{Summary: Summary{Host: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "host"), Complete: true}}
	binary.BigEndian.PutUint64(s.ID[:], uint64(n)+1) //nolint:gosec // a small number
	s.Group[0] = s.Host[0]
	s.Start = TimeOf(policyMoment.Add(-time.Duration(hours) * time.Hour))
	drawCondition(t, &s)
	return s
}

// drawCondition draws how good a snapshot is.
func drawCondition(t *rapid.T, s *Snapshot) {
	s.Stats.Files = rapid.SampledFrom([]uint64{0, 99, 300, 700, 1000, 1000, 1000}).Draw(t, "files")
	s.Stats.Bytes = s.Stats.Files * rapid.SampledFrom([]uint64{0, 5000, 20_000, 20_000}).Draw(t, "size")
	if rapid.IntRange(0, 3).Draw(t, "whole") == 0 {
		s.Complete, s.Stats.Missing = false, 1
	}
	if rapid.IntRange(0, 9).Draw(t, "pinned") == 0 {
		s.Pinned = true
	}
	for _, tag := range []string{"x", "y", TagAccepted} {
		if rapid.IntRange(0, 7).Draw(t, tag) == 0 {
			s.Tags = append(s.Tags, tag)
		}
	}
}

func drawSnapshots(t *rapid.T) []Snapshot {
	list := make([]Snapshot, rapid.IntRange(0, 40).Draw(t, "snapshots"))
	for i := range list {
		hours := rapid.IntRange(-60, 60).Draw(t, "hours")
		if hours > 0 && rapid.Bool().Draw(t, "long ago") {
			hours *= rapid.SampledFrom([]int{12, 100, 1000}).Draw(t, "factor")
		}
		list[i] = drawSnapshot(t, i, hours)
	}
	return list
}

func drawPolicy(t *rapid.T) Policy {
	count := func(name string) int { return rapid.SampledFrom([]int{0, 0, 0, 1, 2, 3, 7, Unlimited}).Draw(t, name) }
	period := func(name string) Period {
		return rapid.SampledFrom([]Period{{}, {}, {}, {Hours: 5}, {Days: 3}, {Months: 2, Days: 1}, {Years: 1}}).Draw(t, name)
	}
	p := Policy{
		Last: count("last"), Hourly: count("hourly"), Daily: count("daily"), Weekly: count("weekly"), Monthly: count("monthly"), Yearly: count("yearly"),
		Within: period("within"), WithinDaily: period("within-daily"), WithinMonthly: period("within-monthly"),
		GroupBy: rapid.SampledFrom([]GroupBy{0, ByNothing, ByHost}).Draw(t, "group"),
	}
	p.Tags = rapid.SampledFrom([][][]string{nil, {{"x"}}, {{"x", "y"}, {"y", "z"}}}).Draw(t, "tags")
	if p.Validate() != nil {
		p.Daily = 2
	}
	return p
}

// naivePolicy decides about one snapshot of a list, as the documentation of Policy
// says it.
func naivePolicy(p Policy, list []Snapshot, s Snapshot, at time.Time) bool {
	counted := naivelyCounted(p, list, s, at)
	newest := counted[len(counted)-1].Start.Time()
	if at.Before(newest) {
		newest = at
	}
	layouts := map[Rule]string{
		RuleHourly: "2006-01-02 15 -0700", RuleDaily: "2006-01-02", RuleMonthly: "2006-01", RuleYearly: "2006",
		RuleWithinDaily: "2006-01-02", RuleWithinMonthly: "2006-01",
	}
	keeps := func(name Rule, limit int, within Period) bool {
		bucket := func(s Snapshot) string {
			switch name {
			case RuleLast, RuleWithin:
				return s.ID.String()
			case RuleWeekly:
				return fmt.Sprint(s.Start.Time().In(at.Location()).ISOWeek())
			default:
			}
			return s.Start.Time().In(at.Location()).Format(layouts[name])
		}
		names := make(map[string]bool)
		for _, c := range counted[1:] {
			names[bucket(c)] = true
		}
		if names[bucket(s)] {
			return false
		}
		if limit != 0 {
			return limit == Unlimited || len(names) < limit
		}
		return !within.IsZero() && !s.Start.Time().Before(within.Before(newest.In(at.Location())))
	}
	for _, tags := range p.Tags {
		if !slices.ContainsFunc(tags, func(tag string) bool { return !slices.Contains(s.Tags, tag) }) {
			return true
		}
	}
	none := p
	none.Tags, none.MayEmpty, none.GroupBy = nil, false, 0
	if none.Validate() != nil {
		return s.Pinned || !p.MayEmpty && len(counted) == 1
	}
	return s.Pinned || keeps(RuleLast, p.Last, Period{}) || keeps(RuleHourly, p.Hourly, Period{}) || keeps(RuleDaily, p.Daily, Period{}) ||
		keeps(RuleWeekly, p.Weekly, Period{}) || keeps(RuleMonthly, p.Monthly, Period{}) || keeps(RuleYearly, p.Yearly, Period{}) ||
		keeps(RuleWithin, 0, p.Within) || keeps(RuleWithinDaily, 0, p.WithinDaily) || keeps(RuleWithinMonthly, 0, p.WithinMonthly)
}

// naivelyCounted returns s and what counts against it, the oldest first.
func naivelyCounted(p Policy, list []Snapshot, s Snapshot, at time.Time) []Snapshot {
	accepted := func(s Snapshot) bool { return slices.Contains(s.Tags, TagAccepted) }
	whole := func(s Snapshot) bool { return s.Complete || accepted(s) }
	future := func(s Snapshot) bool { return s.Start.Time().Sub(at) > 24*time.Hour }
	counted := []Snapshot{s}
	sorted := slices.SortedFunc(slices.Values(list), func(a, b Snapshot) int {
		if c := a.Start.Compare(b.Start); c != 0 {
			return c
		}
		return slices.Compare(a.ID[:], b.ID[:])
	})
	for _, n := range sorted[slices.IndexFunc(sorted, func(c Snapshot) bool { return c.ID == s.ID })+1:] {
		b := counted[len(counted)-1]
		switch {
		case p.GroupBy != ByNothing && n.Host != s.Host:
		case future(n) && !future(b):
		case whole(s) && !whole(n):
		case accepted(n):
			counted = append(counted, n)
		case n.Stats.Bytes == 0 && b.Stats.Bytes > 0:
		case (b.Stats.Files > 100 || b.Stats.Bytes > 1<<20) && (2*n.Stats.Files < b.Stats.Files || 2*n.Stats.Bytes < b.Stats.Bytes):
		default:
			counted = append(counted, n)
		}
	}
	return counted
}

func mustApply(t *rapid.T, p Policy, list []Snapshot, at time.Time) []Decision {
	decisions, err := p.Apply(list, at)
	if err != nil {
		t.Fatal(err)
	}
	return decisions
}

// keptOf returns which snapshots are kept.
func keptOf(decisions []Decision) map[ID]bool {
	kept := make(map[ID]bool)
	for _, d := range decisions {
		if d.Keep {
			kept[d.Snapshot.ID] = true
		}
	}
	return kept
}

// TestPolicyModel: Apply decides as the naive reading of the documentation does,
// whatever the order of the list; pinned snapshots stay, and so does something of
// every group.
func TestPolicyModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		list, p := drawSnapshots(t), drawPolicy(t)
		at := policyMoment.In(drawZone(t))
		decisions := mustApply(t, p, list, at)
		if len(decisions) != len(list) {
			t.Fatalf("%d decisions about %d snapshots", len(decisions), len(list))
		}
		groups := make(map[int]bool)
		for _, d := range decisions {
			groups[d.Group] = groups[d.Group] || d.Keep
			if want := naivePolicy(p, list, *d.Snapshot, at); d.Keep != want {
				t.Fatalf("%v: kept is %t, want %t: %s\n%s", d.Snapshot.ID, d.Keep, want, d.Why(), explain(decisions))
			}
			if d.Snapshot.Pinned && !d.Keep || d.Why() == "" {
				t.Fatalf("%v is pinned: %s", d.Snapshot.ID, d.Why())
			}
		}
		for g, kept := range groups {
			if !kept {
				t.Fatalf("nothing of group %d is kept", g)
			}
		}
		shuffled := rapid.Permutation(list).Draw(t, "shuffled")
		if got, want := explain(mustApply(t, p, shuffled, at)), explain(decisions); got != want {
			t.Fatalf("in another order:\n%swant\n%s", got, want)
		}
	})
}

// TestPolicyDoubtful: a newer snapshot that is incomplete, empty or from the
// future takes nothing from those that are not; a good one brings none back.
func TestPolicyDoubtful(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		list, p := drawSnapshots(t), drawPolicy(t)
		at := policyMoment.In(drawZone(t))
		before := mustApply(t, p, list, at)
		n := drawSnapshot(t, len(list), -61)
		n.Tags = nil
		affected := func(*Snapshot) bool { return true }
		switch rapid.IntRange(0, 3).Draw(t, "what") {
		case 0:
			n.Start = TimeOf(at)
			n.Complete, n.Stats.Missing = false, 1
			list = slices.DeleteFunc(list, func(s Snapshot) bool { return s.Start.Compare(n.Start) >= 0 })
			before = mustApply(t, p, list, at)
			affected = func(s *Snapshot) bool { return !s.Complete && !slices.Contains(s.Tags, TagAccepted) }
		case 1:
			n.Stats = Stats{Dirs: 1}
			list = slices.DeleteFunc(list, func(s Snapshot) bool { return s.Stats.Bytes == 0 && slices.Contains(s.Tags, TagAccepted) })
			before = mustApply(t, p, list, at)
			affected = func(s *Snapshot) bool { return s.Stats.Bytes == 0 }
		case 2: // as it is: from the future
			affected = func(s *Snapshot) bool { return s.Start.Time().Sub(at) > 24*time.Hour }
		case 3:
			n.Tags = []string{TagAccepted}
			n.Start = TimeOf(at)
			list = slices.DeleteFunc(list, func(s Snapshot) bool { return s.Start.Compare(n.Start) >= 0 })
			before = mustApply(t, p, list, at)
		}
		after := keptOf(mustApply(t, p, append(slices.Clone(list), n), at))
		for _, d := range before {
			if kept := after[d.Snapshot.ID]; d.Keep && !kept && !affected(d.Snapshot) || !d.Keep && kept {
				t.Fatalf("%v: kept was %t, is %t after %+v", d.Snapshot.ID, d.Keep, kept, n)
			}
		}
	})
}

// TestPolicyLastGood: whatever is backed up, with the policy applied after each
// backup and what it does not keep forgotten, the last good snapshot stays.
func TestPolicyLastGood(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := drawPolicy(t)
		zone := drawZone(t)
		var list []Snapshot
		var good *Snapshot
		at := policyMoment
		for i := range rapid.IntRange(1, 60).Draw(t, "backups") {
			at = at.Add(time.Duration(rapid.SampledFrom([]int{1, 5, 24, 24 * 20}).Draw(t, "pause")) * time.Hour)
			n := Snapshot{Summary: Summary{Complete: true, Start: TimeOf(at)}}
			binary.BigEndian.PutUint64(n.ID[:], uint64(i)+1) //nolint:gosec // a small number
			drawCondition(t, &n)
			n.Pinned = false
			list = append(list, n)
			accepted := slices.Contains(n.Tags, TagAccepted)
			content := n.Stats.Bytes > 0 || good != nil && good.Stats.Bytes == 0 // what was accepted may be empty
			if accepted || n.Complete && content && (good == nil || !n.Stats.MuchSmaller(good.Stats)) {
				good = &n
			}
			kept := keptOf(mustApply(t, p, list, at.In(zone)))
			list = slices.DeleteFunc(list, func(s Snapshot) bool { return !kept[s.ID] })
			if good != nil && !kept[good.ID] {
				t.Fatalf("the last good snapshot, %v, was forgotten after backup %d", good.ID, i)
			}
		}
	})
}

package manifest

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// ErrEmptyPolicy reports a Policy without a rule.
var ErrEmptyPolicy = errors.New("the retention policy has no rule, and would forget every snapshot")

// Unlimited as a number of snapshots in a Policy keeps all that the rule counts.
const Unlimited = -1

// TagAccepted is the tag by which a person says of a snapshot that it is as it
// should be, however little it holds: it counts as good, and later ones are
// compared with it. See Policy.
const TagAccepted = "accepted"

// A Policy says which snapshots are kept. A snapshot is kept if at least one
// rule keeps it; pinned ones always are. A Policy needs at least one rule.
//
// The rules are applied to each group of snapshots by itself, from the newest
// snapshot to the oldest, by Summary.Start. Hours, days, weeks (from Monday, as
// in ISO 8601), months and years are those of a time zone that is given to
// Apply.
//
// Something that went wrong never pushes out the last good snapshot: a newer
// snapshot counts against an older one only if it is as good. To find out what
// counts against a snapshot, the newer ones are looked at in their order, each
// compared with the last that counted, or at first with the snapshot itself. One
// does not count, and has a Doubt, if
//
//   - it misses entries that could not be read, and the snapshot does not;
//   - it has no byte of content, and that has some;
//   - it is much smaller: Stats.MuchSmaller;
//   - it is dated more than a day after the moment of Apply, and that is not.
//
// So a rule keeps more snapshots than its number as long as there are such. One
// with TagAccepted counts always, unless it is dated in the future. A backup that
// failed made no snapshot at all.
type Policy struct {
	// Last keeps the newest so many; the others keep the newest snapshot of each
	// of the newest so many hours, days, weeks, months and years that have one.
	// 0: no such rule; Unlimited: all of them.
	Last, Hourly, Daily, Weekly, Monthly, Yearly int

	// Within keeps every snapshot that is at most so old; the others the newest
	// one of each hour, unitDay, unitWeek, month and year in that time. Age is counted
	// back from the newest snapshot that counts, or from the moment of Apply if that
	// is earlier: nothing is lost because no backup was made for a while.
	Within                                                               Period
	WithinHourly, WithinDaily, WithinWeekly, WithinMonthly, WithinYearly Period

	// Tags keeps the snapshots that have all tags of one of these lists.
	Tags [][]string

	// GroupBy says which snapshots belong together. Default: those of the same
	// host, name and roots.
	GroupBy GroupBy

	// MayEmpty allows that no snapshot of a group is kept, which Tags alone can lead
	// to. Otherwise a policy without other rules keeps as with Last 1, too.
	MayEmpty bool
}

// A GroupBy is a set of what the snapshots of one group have in common.
type GroupBy uint8

// What groups can be made by. The zero GroupBy is the first three together.
const (
	ByHost    GroupBy = 1 << iota
	ByName            // of the data set
	ByRoots           // the paths that were backed up
	ByNothing         // all snapshots are one group; not together with another
)

const byAll = ByHost | ByName | ByRoots

func (g GroupBy) orDefault() GroupBy {
	if g == 0 {
		return byAll
	}
	return g
}

// Has reports whether the snapshots of a group have in common all of what.
func (g GroupBy) Has(what GroupBy) bool { return g.orDefault()&what == what }

// NeedsRoots reports whether the summaries do not tell the groups apart: Apply
// looks at the roots, which are sealed apart from them.
func (g GroupBy) NeedsRoots() bool { return g&ByRoots != 0 && g != byAll }

// String returns g such as "host,name,roots" or "none".
func (g GroupBy) String() string {
	g = g.orDefault()
	var names []string
	for i, name := range []string{"host", "name", "roots", "none"} {
		if g&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, ",")
}

// ParseGroupBy reads what String writes, the names in any order.
func ParseGroupBy(s string) (GroupBy, error) {
	var g GroupBy
	for name := range strings.SplitSeq(s, ",") {
		switch name {
		case "host":
			g |= ByHost
		case "name":
			g |= ByName
		case "roots":
			g |= ByRoots
		case "none":
			g |= ByNothing
		default:
			return 0, fmt.Errorf("groups are by host, name, roots or none, not by %q: %w", name, ErrInvalid)
		}
	}
	return g, g.validate()
}

func (g GroupBy) validate() error {
	if g > ByNothing {
		return fmt.Errorf("groups by none and by something else: %w", ErrInvalid)
	}
	return nil
}

// Validate reports why p cannot be applied: ErrEmptyPolicy or ErrInvalid.
func (p Policy) Validate() error {
	rules := p.rules()
	if len(rules) == 0 && len(p.Tags) == 0 {
		return ErrEmptyPolicy
	}
	for _, r := range rules {
		if r.limit < Unlimited {
			return fmt.Errorf("a policy that keeps %s %d: %w", r.name, r.limit, ErrInvalid)
		}
		if !r.within.valid() {
			return fmt.Errorf("a policy that keeps %s %+v: %w", r.name, r.within, ErrInvalid)
		}
	}
	for _, tags := range p.Tags {
		if len(tags) == 0 {
			return fmt.Errorf("a policy that keeps an empty list of tags, which every snapshot has: %w", ErrInvalid)
		}
		if slices.Contains(tags, "") {
			return fmt.Errorf("a policy that keeps an empty tag, which no snapshot has: %w", ErrInvalid)
		}
	}
	return p.GroupBy.validate()
}

// String lists the rules: "last 3, daily 7, within 1y5m, tag a+b".
func (p Policy) String() string {
	var parts []string
	for _, r := range p.rules() {
		parts = append(parts, r.String())
	}
	for _, tags := range p.Tags {
		parts = append(parts, string(RuleTag)+" "+strings.Join(tags, "+"))
	}
	return strings.Join(parts, ", ")
}

// A Rule is the name of what keeps a snapshot.
type Rule string

// The rules of a Policy, and those that it has without being asked.
const (
	RuleLast          Rule = "last"
	RuleHourly        Rule = "hourly"
	RuleDaily         Rule = "daily"
	RuleWeekly        Rule = "weekly"
	RuleMonthly       Rule = "monthly"
	RuleYearly        Rule = "yearly"
	RuleWithin        Rule = "within"
	RuleWithinHourly  Rule = "within-hourly"
	RuleWithinDaily   Rule = "within-daily"
	RuleWithinWeekly  Rule = "within-weekly"
	RuleWithinMonthly Rule = "within-monthly"
	RuleWithinYearly  Rule = "within-yearly"
	RuleTag           Rule = "tag"
	RulePinned        Rule = "pinned"
	RuleNewest        Rule = "newest" // where no other rule counts or measures
)

// A rule keeps the newest snapshot of each bucket: the newest limit of them, or
// those within a period. One of limit and within is zero.
type rule struct {
	name   Rule
	unit   unit
	limit  int
	within Period
}

func (r rule) String() string {
	switch {
	case !r.within.IsZero():
		return string(r.name) + " " + r.within.String()
	case r.limit == Unlimited:
		return string(r.name) + " unlimited"
	}
	return string(r.name) + " " + strconv.Itoa(r.limit)
}

// rules returns those rules of p that count or measure.
func (p Policy) rules() []rule {
	all := [...]rule{
		{RuleLast, unitEach, p.Last, Period{}},
		{RuleHourly, unitHour, p.Hourly, Period{}},
		{RuleDaily, unitDay, p.Daily, Period{}},
		{RuleWeekly, unitWeek, p.Weekly, Period{}},
		{RuleMonthly, unitMonth, p.Monthly, Period{}},
		{RuleYearly, unitYear, p.Yearly, Period{}},
		{RuleWithin, unitEach, 0, p.Within},
		{RuleWithinHourly, unitHour, 0, p.WithinHourly},
		{RuleWithinDaily, unitDay, 0, p.WithinDaily},
		{RuleWithinWeekly, unitWeek, 0, p.WithinWeekly},
		{RuleWithinMonthly, unitMonth, 0, p.WithinMonthly},
		{RuleWithinYearly, unitYear, 0, p.WithinYearly},
	}
	rules := make([]rule, 0, len(all))
	for _, r := range all {
		if r.limit != 0 || !r.within.IsZero() {
			rules = append(rules, r)
		}
	}
	return rules
}

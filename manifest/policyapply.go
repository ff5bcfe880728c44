package manifest

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Doubt is why a snapshot does not count against the last good one before it;
// see Policy.
type Doubt string

// The doubts.
const (
	Good       Doubt = "" // no doubt
	Incomplete Doubt = "incomplete"
	Empty      Doubt = "empty"
	Smaller    Doubt = "much smaller"
	Future     Doubt = "in the future"
)

// A Decision says whether a snapshot is kept, and why.
type Decision struct {
	Snapshot *Snapshot // in the list that was given to Apply
	Group    int       // the number of its group, from 0
	Keep     bool
	Doubt    Doubt
	// Reasons are the rules that keep it or, if none does, every rule that
	// counts or measures and why it does not.
	Reasons []Reason
}

// A Reason says why a rule keeps a snapshot, or does not.
type Reason struct {
	Rule   Rule
	Limit  int      // how many the rule keeps; 0 if it does not count
	Within Period   // how long, or zero
	Bucket string   // the hour, day, week, month or year: 2026-11-22 15h, 2026-11-22, 2026-W47, 2026-11, 2026
	Number int      // of the snapshot or its bucket as the rule counts, from 1, the newest
	Newer  ID       // not kept: the newest snapshot of the same bucket; zero if it is this one
	Tags   []string // of RuleTag; not to be modified
}

// String returns, of a rule that keeps a snapshot, such as "daily 3 of 7
// (2026-11-22)".
func (r Reason) String() string {
	var b strings.Builder
	b.WriteString(string(r.Rule))
	switch {
	case len(r.Tags) > 0:
		b.WriteString(" " + strings.Join(r.Tags, "+"))
	case !r.Within.IsZero():
		b.WriteString(" " + r.Within.String())
	case r.Limit > 0 && r.Rule != RuleNewest:
		fmt.Fprintf(&b, " %d of %d", r.Number, r.Limit)
	}
	if r.Bucket != "" {
		b.WriteString(" (" + r.Bucket + ")")
	}
	return b.String()
}

// not returns why the rule does not keep a snapshot.
func (r Reason) not() string {
	switch {
	case !r.Newer.IsZero():
		return fmt.Sprintf("%s: %s is newer (%s)", r.Rule, r.Newer.Short(), r.Bucket)
	case r.Rule == RuleNewest:
		return "no rule keeps it"
	case !r.Within.IsZero():
		return fmt.Sprintf("not %s %s", r.Rule, r.Within)
	}
	return fmt.Sprintf("beyond %s %d", r.Rule, r.Limit)
}

// Explain returns each of the reasons as text: "daily 3 of 7 (2026-11-22)", or of
// a rule that does not keep it "beyond last 5".
func (d Decision) Explain() []string {
	texts := make([]string, len(d.Reasons))
	for i, r := range d.Reasons {
		if texts[i] = r.not(); d.Keep {
			texts[i] = r.String()
		}
	}
	return texts
}

// Why puts the doubt and the reasons into one line.
func (d Decision) Why() string {
	why := strings.Join(d.Explain(), ", ")
	if len(d.Reasons) == 0 {
		why = "no rule keeps it"
	}
	if d.Doubt != Good {
		why = string(d.Doubt) + "; " + why
	}
	return why
}

// MuchSmaller reports whether fewer than half of the files or of the bytes of
// before are left, where there were enough for that to mean something: more than
// 100 files or 1 MiB.
func (s Stats) MuchSmaller(before Stats) bool {
	if before.Files <= 100 && before.Bytes <= 1<<20 {
		return false
	}
	return s.Files < before.Files-before.Files/2 || s.Bytes < before.Bytes-before.Bytes/2
}

// Apply decides about every snapshot of list, which may be in any order, as of
// the moment at and in its time zone. The decisions come group by group, the
// group with the oldest snapshot first, and in each from the oldest to the
// newest; they depend on nothing but p, the snapshots and at. Of the snapshots
// nothing but the summaries is looked at, and Roots if p.GroupBy.NeedsRoots.
// Their times may lie in any year.
//
// The error is that of Validate.
func (p Policy) Apply(list []Snapshot, at time.Time) ([]Decision, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	sorted := make([]*Snapshot, len(list))
	for i := range list {
		sorted[i] = &list[i]
	}
	slices.SortFunc(sorted, newestLast)
	decisions := make([]Decision, 0, len(sorted))
	for n, group := range p.groups(sorted) {
		part := len(decisions)
		for _, s := range group {
			decisions = append(decisions, Decision{Snapshot: s, Group: n})
		}
		p.decide(decisions[part:], at)
	}
	return decisions, nil
}

// newestLast is an order of snapshots that does not depend on anything else.
func newestLast(a, b *Snapshot) int {
	return cmp.Or(a.Start.Compare(b.Start), a.End.Compare(b.End), bytes.Compare(a.ID[:], b.ID[:]))
}

// groups divides sorted and keeps its order.
func (p Policy) groups(sorted []*Snapshot) [][]*Snapshot {
	by := p.GroupBy.orDefault()
	type key struct {
		group             [16]byte
		host, name, roots string
	}
	number := make(map[key]int)
	var groups [][]*Snapshot
	for _, s := range sorted {
		var k key
		if by&ByHost != 0 {
			k.host = s.Host
		}
		if by&ByName != 0 {
			k.name = s.Name
		}
		switch {
		case by.NeedsRoots():
			k.roots = rootsKey(s.Roots)
		case by == byAll:
			k.group = s.Group
		}
		n, ok := number[k]
		if !ok {
			n = len(groups)
			number[k] = n
			groups = append(groups, nil)
		}
		groups[n] = append(groups[n], s)
	}
	return groups
}

// rootsKey is equal for equal sets of paths.
func rootsKey(roots []Root) string {
	paths := make([]string, len(roots))
	for i, r := range roots {
		paths[i] = strconv.Quote(r.Path)
	}
	slices.Sort(paths)
	return strings.Join(paths, " ")
}

// A candidate is a snapshot that is being decided about.
type candidate struct {
	*Decision
	local    time.Time // its start
	future   bool
	accepted bool
	whole    bool // complete or accepted
	against  []Reason
}

// decide decides about one group, the oldest first.
func (p Policy) decide(group []Decision, at time.Time) {
	rules := p.rules()
	if len(rules) == 0 && !p.MayEmpty {
		rules = []rule{{RuleNewest, unitEach, 1, Period{}}}
	}
	future := at.Add(24 * time.Hour) // a day, since clocks may be set to another time zone
	all := make([]candidate, len(group))
	parts := false // some are not whole
	for i := range group {
		s := group[i].Snapshot
		c := candidate{Decision: &group[i], local: s.Start.Time().In(at.Location()), against: make([]Reason, 0, len(rules))}
		c.future = c.local.After(future)
		c.accepted = slices.Contains(s.Tags, TagAccepted)
		c.whole = c.accepted || s.Complete && s.Stats.Missing == 0
		parts = parts || !c.whole
		all[i] = c
	}
	doubts(all)
	newLine(all, wholeOnly).apply(rules, at)
	if parts {
		newLine(all, anyone).apply(rules, at)
	}
	for i := range all {
		c := &all[i]
		p.keepMarked(c)
		if c.Keep = len(c.Reasons) > 0; !c.Keep {
			c.Reasons = c.against
		}
	}
}

// doubts finds the doubt about each snapshot, the oldest first.
func doubts(all []candidate) {
	var before *candidate // the last good one, or the last that was merely incomplete while there was none
	for i := range all {
		c := &all[i]
		switch {
		case before == nil && !c.accepted && c.Snapshot.Stats.Bytes == 0 && c.Snapshot.Stats.Others == 0:
			c.Doubt = Empty
		case before != nil:
			c.Doubt = c.doubtAfter(before)
		case c.future:
			c.Doubt = Future
		}
		if c.Doubt == Good && !c.whole {
			c.Doubt = Incomplete
		}
		if c.Doubt == Good || c.Doubt == Incomplete && (before == nil || !before.whole) {
			before = c
		}
	}
}

// doubtAfter returns why c is doubtful after b, completeness left aside.
func (c *candidate) doubtAfter(b *candidate) Doubt {
	now, before := c.Snapshot.Stats, b.Snapshot.Stats
	switch {
	case c.future && !b.future:
		return Future
	case c.accepted:
		return Good
	case now.Bytes == 0 && before.Bytes > 0:
		return Empty
	case now.MuchSmaller(before):
		return Smaller
	}
	return Good
}

// A membership says which snapshots a line has.
type membership bool

const (
	anyone    membership = false // decides about those that are not whole
	wholeOnly membership = true  // decides about the whole ones
)

// A line says which newer snapshots count against an older one: its successor,
// the successor of that, and so on.
type line struct {
	all     []candidate // the oldest first
	members membership
	next    []int // the place of each one's successor; -1: none
}

// newLine finds the successors. What a snapshot was compared with when it was
// new is not looked at, as it may have been forgotten since: only what came
// after a snapshot decides about it. So the last good one stays, whatever is
// forgotten before it.
func newLine(all []candidate, members membership) line {
	l := line{all, members, make([]int, len(all))}
	for i := range all {
		l.next[i] = -1
		for j := i + 1; j < len(all) && l.has(i); j++ {
			if l.has(j) && all[j].doubtAfter(&all[i]) == Good {
				l.next[i] = j
				break
			}
		}
	}
	return l
}

func (l line) has(i int) bool { return l.all[i].whole || l.members == anyone }

// A standing is where a snapshot is as a rule counts.
type standing struct {
	key    bucketKey
	bucket string
	number int
	first  int // the newest of the bucket
	newest int // of all that are counted
}

// apply applies rules to those that l decides about.
func (l line) apply(rules []rule, at time.Time) {
	standings := make([]standing, len(l.all))
	for _, r := range rules {
		for i := len(l.all) - 1; i >= 0; i-- {
			if !l.has(i) {
				continue
			}
			standings[i] = r.stand(l, standings, i)
			if l.all[i].whole == bool(l.members) {
				r.decide(l, standings[i], i, at)
			}
		}
	}
}

// stand returns the standing of l.all[i], from that of its successor.
func (r rule) stand(l line, standings []standing, i int) standing {
	p := standing{number: 1, first: i, newest: i}
	if r.unit != unitEach {
		p.key = r.unit.key(l.all[i].local)
	}
	if next := l.next[i]; next >= 0 {
		after := standings[next]
		if r.unit != unitEach && after.key == p.key {
			return after
		}
		p.number, p.newest = after.number+1, after.newest
	}
	if r.unit != unitEach {
		p.bucket = r.unit.format(l.all[i].local)
	}
	return p
}

// decide decides whether r keeps l.all[i], whose standing is p.
func (r rule) decide(l line, p standing, i int, at time.Time) {
	c := &l.all[i]
	reason := Reason{Rule: r.name, Limit: r.limit, Within: r.within, Bucket: p.bucket, Number: p.number}
	kept := false
	switch {
	case p.first != i:
		reason.Newer = l.all[p.first].Snapshot.ID
	case r.within.IsZero():
		kept = r.limit == Unlimited || p.number <= r.limit
	default:
		from := l.all[p.newest].local
		if at.Before(from) {
			from = at
		}
		kept = !c.local.Before(r.within.Before(from))
	}
	if kept {
		c.Reasons = append(c.Reasons, reason)
	} else {
		c.against = append(c.against, reason)
	}
}

// keepMarked keeps what somebody marked, by a tag or a pin.
func (p Policy) keepMarked(c *candidate) {
	for _, tags := range p.Tags {
		missing := func(tag string) bool { return !slices.Contains(c.Snapshot.Tags, tag) }
		if !slices.ContainsFunc(tags, missing) {
			c.Reasons = append(c.Reasons, Reason{Rule: RuleTag, Tags: tags})
		}
	}
	if c.Snapshot.Pinned {
		c.Reasons = append(c.Reasons, Reason{Rule: RulePinned})
	}
}

// A unit is how long the buckets of a rule are.
type unit uint8

const (
	unitEach unit = iota // each snapshot is by itself
	unitHour
	unitDay
	unitWeek
	unitMonth
	unitYear
)

// A bucketKey tells the buckets of one unit apart.
type bucketKey struct{ year, part, hour, offset int }

func (u unit) key(t time.Time) bucketKey {
	switch u {
	case unitHour:
		_, offset := t.Zone() // the hour that comes twice when summer ends is two
		return bucketKey{t.Year(), t.YearDay(), t.Hour(), offset}
	case unitDay:
		return bucketKey{year: t.Year(), part: t.YearDay()}
	case unitWeek:
		year, week := t.ISOWeek()
		return bucketKey{year: year, part: week}
	case unitMonth:
		return bucketKey{year: t.Year(), part: int(t.Month())}
	default:
		return bucketKey{year: t.Year()}
	}
}

func (u unit) format(t time.Time) string {
	switch u {
	case unitHour:
		return t.Format("2006-01-02 15h")
	case unitDay:
		return t.Format("2006-01-02")
	case unitWeek:
		year, week := t.ISOWeek()
		return fmt.Sprintf("%04d-W%02d", year, week)
	case unitMonth:
		return t.Format("2006-01")
	default:
		return t.Format("2006")
	}
}

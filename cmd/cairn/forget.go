package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // for --timezone where the system has no such database

	"github.com/spf13/cobra"

	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/manifest"
)

type forgetFlags struct {
	selection snapshotsFlags
	names     []string
	policy    manifest.Policy
	keepTags  []string
	groupBy   string
	timeZone  string
	dryRun    bool
}

func (a *app) forgetCommand() *cobra.Command {
	var f forgetFlags
	cmd := &cobra.Command{
		Use:   "forget --keep-...",
		Short: "Delete the snapshots that a policy does not keep; frees no space",
		Long: `Delete the snapshots that a policy does not keep, and say of each why.

A snapshot stays if one of the rules keeps it, or if it is pinned. N is a number or
"unlimited"; TIME such as 7d, 2w, 36h or 1y5m, where m is months, counted back from
the newest snapshot. The rules are applied to the snapshots of each host, name and
paths by themselves. Hours, days, weeks (from Monday), months and years are those of
the local time zone, or of --timezone.

What went wrong pushes out nothing: a snapshot that lacks what could not be read,
has no content, is much smaller than the one before or is dated in the future does
not count against better ones. If a smaller one is as it should be, say so with
cairn tag SNAPSHOT --add ` + manifest.TagAccepted + `.

This frees no space: gc does, a day later at the earliest, and until then undelete
brings the snapshots back.`,
		Example: `  cairn forget --keep-daily 7 --keep-weekly 5 --keep-monthly 12 --dry-run
  cairn forget --keep-last 3 --keep-within 30d --keep-tag release --host web1`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return withHint(usagef("cairn forget applies a policy and does not take %q", printableText(args[0])), "cairn delete deletes the snapshots that it names")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return a.forget(cmd.Context(), &f) },
	}
	f.register(cmd)
	return cmd
}

func (f *forgetFlags) register(cmd *cobra.Command) {
	fs := cmd.Flags()
	p := &f.policy
	fs.Var((*keepCount)(&p.Last), "keep-last", "keep the newest `N`")
	for _, r := range []struct {
		unit   string
		count  *int
		within *manifest.Period
	}{
		{"hour", &p.Hourly, &p.WithinHourly},
		{"day", &p.Daily, &p.WithinDaily},
		{"week", &p.Weekly, &p.WithinWeekly},
		{"month", &p.Monthly, &p.WithinMonthly},
		{"year", &p.Yearly, &p.WithinYearly},
	} {
		name := strings.Replace(r.unit+"ly", "dayly", "daily", 1)
		fs.Var((*keepCount)(r.count), "keep-"+name, "keep the newest of each of the newest `N` "+r.unit+"s that have one")
		fs.Var((*keepPeriod)(r.within), "keep-within-"+name, "keep the newest of each "+r.unit+" within this `TIME`")
	}
	fs.Var((*keepPeriod)(&p.Within), "keep-within", "keep all within this `TIME`")
	fs.StringArrayVar(&f.keepTags, "keep-tag", nil, "keep those with this `tag`, or with all of TAG,TAG (repeated: with any of them)")
	fs.BoolVar(&p.MayEmpty, "empty-groups", false, "let --keep-tag alone forget the last snapshot of a group")
	fs.StringVar(&f.groupBy, "group-by", "host,name,roots", "apply the rules to the snapshots with the same `what` by themselves: host, name, roots or none")
	fs.StringVar(&f.timeZone, "timezone", "local", "`zone` in which days begin: local, UTC or such as Europe/Berlin")
	fs.StringArrayVar(&f.selection.tags, "tag", nil, "only snapshots with this `tag` (repeated: with all of them)")
	fs.StringArrayVar(&f.selection.hosts, "host", nil, "only those of this `host` (repeated: of any of them)")
	fs.StringArrayVar(&f.selection.kinds, "kind", nil, "only those of this `kind`: files, database, assets or stream (repeated: of any of them)")
	fs.StringArrayVar(&f.names, "name", nil, "only those of the data set of this `name` (repeated: of any of them)")
	fs.BoolVar(&f.dryRun, "dry-run", false, "show what would be forgotten")
}

// A keepCount is a number of snapshots, or "unlimited".
type keepCount int

// Set reads what was given.
func (c *keepCount) Set(s string) error {
	if s == "unlimited" {
		*c = manifest.Unlimited
		return nil
	}
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil {
		return errors.New(`give a number or "unlimited"`)
	}
	*c = keepCount(n)
	return nil
}

// String returns the number; "" is none.
func (c *keepCount) String() string {
	if *c == 0 {
		return ""
	}
	return strconv.Itoa(int(*c))
}

// Type is the word for it in the help.
func (*keepCount) Type() string { return "N" }

// A keepPeriod is how long snapshots are kept.
type keepPeriod manifest.Period

// Set reads what was given.
func (p *keepPeriod) Set(s string) error {
	v, err := manifest.ParsePeriod(s)
	if err != nil {
		return errors.New("give a time such as 7d, 2w, 36h or 1y5m, where m is months")
	}
	*p = keepPeriod(v)
	return nil
}

// String returns the time; "" is none.
func (p *keepPeriod) String() string { return manifest.Period(*p).String() }

// Type is the word for it in the help.
func (*keepPeriod) Type() string { return "TIME" }

// plan returns what is asked for.
func (f *forgetFlags) plan() (manifest.Policy, engine.ForgetOptions, error) {
	p, opts := f.policy, engine.ForgetOptions{}
	for _, tags := range f.keepTags {
		p.Tags = append(p.Tags, strings.Split(tags, ","))
	}
	var err error
	if p.GroupBy, err = manifest.ParseGroupBy(f.groupBy); err != nil {
		return p, opts, usagef("--group-by is host, name and roots, some of them, or none, not %q", printableText(f.groupBy))
	}
	switch err := p.Validate(); {
	case errors.Is(err, engine.ErrEmptyPolicy):
		return p, opts, withHint(usagef("cairn forget needs a rule: without one it would forget every snapshot"),
			"such as --keep-daily 7; cairn forget --help")
	case err != nil:
		return p, opts, usagef("--keep-tag is a tag, or several with commas between them, not %q", printableText(strings.Join(f.keepTags, " ")))
	}
	if opts.Filter, err = f.selection.filter(); err != nil {
		return p, opts, err
	}
	opts.Filter.Names = f.names
	zone := time.Local
	if f.timeZone != "local" {
		if zone, err = time.LoadLocation(f.timeZone); err != nil || f.timeZone == "" {
			return p, opts, usagef("--timezone is local, UTC or a name such as Europe/Berlin, not %q", printableText(f.timeZone))
		}
	}
	opts.At = time.Now().In(zone)
	return p, opts, nil
}

func (a *app) forget(ctx context.Context, f *forgetFlags) (err error) {
	policy, opts, err := f.plan()
	if err != nil {
		return err
	}
	access := writes
	if f.dryRun {
		access = reads
	}
	repo, _, err := a.open(ctx, access)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, repo.Close()) }()
	before := repo.Traffic()
	plan, err := repo.PlanForget(ctx, policy, opts)
	if err != nil {
		return err
	}
	if err := a.printForget(plan); err != nil {
		return err
	}
	var report engine.ForgetReport
	if !f.dryRun {
		if report, err = plan.Run(ctx); err != nil {
			return err
		}
	}
	if a.out.json {
		return a.out.document(forgetJSON{
			Schema: schema, DryRun: f.dryRun, Plan: plan,
			Forgotten: idList(report.Forgotten), Gone: idList(report.Gone), Traffic: trafficOf(repo.Traffic().Sub(before)),
		})
	}
	a.forgetNotes(plan)
	if n := len(plan.Forget()); n > 0 && f.dryRun {
		a.out.say("dry run: %s of %s would be forgotten; nothing was changed", count(n), plural(plan.Total(), "snapshot", "snapshots"))
		return nil
	}
	a.forgetEnd(plan, report)
	return nil
}

type forgetJSON struct {
	Schema    int                `json:"schema"`
	DryRun    bool               `json:"dry_run"`
	Plan      *engine.ForgetPlan `json:"plan"`
	Forgotten []manifest.ID      `json:"forgotten"`
	Gone      []manifest.ID      `json:"gone"` // of the plan, but forgotten by others before
	Traffic   trafficJSON        `json:"traffic"`
}

// idList returns ids, which is a list in JSON also when it is empty.
func idList(ids []manifest.ID) []manifest.ID { return append([]manifest.ID{}, ids...) }

// printForget prints a table for each group.
func (a *app) printForget(plan *engine.ForgetPlan) error {
	if a.out.quiet || a.out.json || len(plan.Groups) == 0 {
		return nil
	}
	a.out.say("policy: %s; by %s, in time zone %s", printableText(plan.Policy.String()), plan.Policy.GroupBy, zoneText(plan.At))
	for _, g := range plan.Groups {
		a.out.say("")
		a.out.say("%s", groupText(g))
		var t table
		t.row("", "ID", "TIME", "FILES", "SIZE", "WHY")
		for _, d := range g.Decisions {
			verb := "forget"
			if d.Keep {
				verb = "keep"
			}
			s := d.Snapshot
			t.row(verb, s.ID.Short(), s.Start.Time().In(plan.At.Location()).Format("2006-01-02 15:04:05"),
				count(s.Stats.Files), size(s.Stats.Bytes), printableText(d.Why()))
		}
		if err := t.print(a.out); err != nil {
			return err
		}
	}
	a.out.say("")
	return nil
}

// zoneText names the time zone of t.
func zoneText(t time.Time) string {
	if t.Location() == time.Local {
		return t.Format("MST") + " (local)"
	}
	return t.Location().String()
}

// groupText says what the snapshots of a group have in common.
func groupText(g engine.ForgetGroup) string {
	var parts []string
	byItself := len(g.Roots) == 1 && strings.HasSuffix(g.Roots[0].Path, "/"+g.Name) // what a data set without a name is called
	if g.Name != "" && !byItself {
		parts = append(parts, printable(g.Name))
	}
	for i, r := range g.Roots {
		if i == 3 {
			parts = append(parts, "...")
			break
		}
		parts = append(parts, printable(r.Path))
	}
	text := strings.Join(parts, ", ")
	if g.Host != "" {
		text = strings.TrimSpace(text + " on " + printable(g.Host))
	}
	if text == "" {
		text = "snapshots"
	}
	return fmt.Sprintf("%s: %s", text, plural(len(g.Decisions), "snapshot", "snapshots"))
}

// forgetNotes warns of groups whose newest snapshot does not count.
func (a *app) forgetNotes(plan *engine.ForgetPlan) {
	for _, g := range plan.Groups {
		d := g.Decisions[len(g.Decisions)-1]
		if d.Doubt == manifest.Empty || d.Doubt == manifest.Smaller {
			id := d.Snapshot.ID.Short()
			a.out.note("warning: the newest snapshot, %s, is %s and does not count against better ones; if it is as it should be: cairn tag %s --add %s",
				id, d.Doubt, id, manifest.TagAccepted)
		}
	}
}

// forgetEnd says what was done.
func (a *app) forgetEnd(plan *engine.ForgetPlan, report engine.ForgetReport) {
	total, planned := plan.Total(), len(plan.Forget())
	switch {
	case total == 0:
		a.out.note("no snapshots")
	case planned == 0:
		a.out.say("nothing to forget: %s kept", plural(total, "snapshot is", "snapshots are"))
	default:
		a.out.say("forgot %s of %s", count(len(report.Forgotten)), plural(total, "snapshot", "snapshots"))
		if n := len(report.Gone); n > 0 {
			a.out.say("%s forgotten by somebody else meanwhile", plural(n, "snapshot was", "snapshots were"))
		}
		a.out.say("This frees no space: cairn gc does, a day later at the earliest. Until then cairn undelete brings them back.")
	}
}

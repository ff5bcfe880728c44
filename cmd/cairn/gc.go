package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cairn-backup/cairn/engine"
)

// gcFlags are the flags of gc.
type gcFlags struct {
	dryRun, sweep, walk  bool
	keepDeleted, spare   string
	maxRepack, deadShare string
}

func (a *app) gcCommand() *cobra.Command {
	var f gcFlags
	cmd := &cobra.Command{
		Use:   "gc",
		Short: "Free the space of what no snapshot needs",
		Long: `Free the space of what no snapshot needs: after snapshots were deleted or
forgotten, and after backups were interrupted. Others may go on with backups,
restores and collections meanwhile, on any machine.

A deleted snapshot can be brought back with undelete for a day; only then its
data is collected. What is younger than a day and in no snapshot is spared, too,
since a backup may be about to use it. A pack of which a quarter is dead is
rewritten. An interrupted collection does no harm, and the next one goes on.`,
		Example: `  cairn gc --dry-run
  cairn gc
  cairn gc --keep-deleted 7d --max-repack 10G`,
		Args:        atMost(0),
		Annotations: map[string]string{longCommand: "gc"},
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts, err := f.options(cmd.Flags().Changed)
			if err != nil {
				return err
			}
			if f.dryRun {
				return a.gcDry(cmd.Context(), opts)
			}
			return a.gc(cmd.Context(), opts)
		},
	}
	fs := cmd.Flags()
	a.compressionFlag(fs)
	fs.BoolVarP(&f.dryRun, "dry-run", "n", false, "say what would be done, and change nothing")
	fs.StringVar(&f.keepDeleted, "keep-deleted", "1d", "keep what snapshots need that were deleted within this `time`; 0 keeps nothing")
	fs.StringVar(&f.spare, "spare", "1d", "spare what was stored within this `time` and is in no snapshot; 0 spares nothing, and running backups may have to begin anew")
	fs.StringVar(&f.maxRepack, "max-repack", "", "copy at most so many `bytes`, such as 500M or 10G; the next run goes on")
	fs.StringVar(&f.deadShare, "dead-share", "25%", "rewrite packs of which this `share` is dead")
	fs.BoolVar(&f.walk, "walk", false, "read the trees of the snapshots, also if nothing was deleted since the last run")
	fs.BoolVar(&f.sweep, "sweep", false, "list the store for what interrupted backups left, also if there is nothing else to do")
	return cmd
}

// options returns what the flags say.
func (f *gcFlags) options(changed func(string) bool) (opts engine.GCOptions, err error) {
	var errs []error
	age := func(name, text string) time.Duration {
		if text == "0" {
			return -1
		}
		d, err := parseAge("--"+name, text)
		if err != nil {
			errs = append(errs, err)
		}
		return d
	}
	opts.DeleteDelay, opts.SpareAge = age("keep-deleted", f.keepDeleted), age("spare", f.spare)
	if opts.SessionAge = -1; opts.SpareAge > 0 {
		opts.SessionAge = max(7*24*time.Hour, opts.SpareAge)
	}
	if changed("max-repack") {
		if opts.MaxRepack, err = parseSize(f.maxRepack); err != nil {
			errs = append(errs, err)
		}
		if opts.MaxRepack == 0 {
			opts.MaxRepack = -1
		}
	}
	if changed("dead-share") {
		if opts.Share, err = parseShare(f.deadShare); err != nil {
			errs = append(errs, usagef("--dead-share is a share such as 25%%, not %q", printableText(f.deadShare)))
		}
	}
	if f.walk {
		opts.Walk = engine.Always
	}
	if f.sweep {
		opts.Sweep = engine.Always
	}
	return opts, errors.Join(errs...)
}

// parseSize reads a number of bytes, with K, M, G or T for powers of 1,024.
func parseSize(text string) (int64, error) {
	number, shift := strings.ToUpper(text), 0
	number = strings.TrimSuffix(strings.TrimSuffix(number, "B"), "I")
	for i, unit := range []string{"K", "M", "G", "T"} {
		if rest, ok := strings.CutSuffix(number, unit); ok {
			number, shift = rest, 10*(i+1)
			break
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 0 || n > 1<<62>>shift {
		return 0, usagef("--max-repack is a number of bytes such as 500M or 10G, not %q", printableText(text))
	}
	return n << shift, nil
}

// gcDry says what a collection would do.
func (a *app) gcDry(ctx context.Context, opts engine.GCOptions) error {
	repo, _, err := a.open(ctx, reads)
	if err != nil {
		return err
	}
	defer repo.Close() // only read
	opts.Progress = a.watch()
	plan, err := repo.PlanGC(ctx, opts)
	if err != nil {
		return err
	}
	return a.gcPlan(plan)
}

func (a *app) gc(ctx context.Context, opts engine.GCOptions) (err error) {
	repo, _, err := a.open(ctx, writes)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, repo.Close()) }()
	opts.Progress = a.watch()
	plan, err := repo.PlanGC(ctx, opts)
	if err != nil {
		return err
	}
	report, err := plan.Run(ctx)
	if errors.Is(err, engine.ErrPlanStale) { // others did it, or need it now
		err = nil
	}
	if err != nil {
		return err
	}
	if a.out.json {
		return a.out.document(gcResult(report))
	}
	a.gcReport(report)
	return nil
}

// gcReport says what a collection did.
func (a *app) gcReport(report engine.GCReport) {
	a.gcFigures(report.GCFigures, "")
	for _, key := range report.Damaged {
		a.out.complain("damaged, and left as it is: %s", printableText(key))
	}
	if n := report.Stale.Objects; n > 0 {
		a.out.note("note: %s had to stay, since others need them or were faster", plural(n, "pack", "packs"))
	}
	if n := report.Left.Objects; n > 0 {
		a.out.note("note: %s (%s) are left for the next run", plural(n, "pack", "packs"), size(report.Left.Bytes))
	}
	if report.Deletes() == 0 && report.Sessions == 0 {
		a.out.say("nothing to collect  %s  in %s", plural(report.Requests.Total(), "request", "requests"), span(report.Elapsed))
		return
	}
	a.out.say("freed %s  %s deleted, %s  in %s", signedSize(report.Freed()), plural(report.Deletes(), "object", "objects"),
		plural(report.Requests.Total(), "request", "requests"), span(report.Elapsed))
}

// gcPlan shows what a collection would do.
func (a *app) gcPlan(plan *engine.GCPlan) error {
	if a.out.json {
		return a.out.document(struct {
			Event  string `json:"event"`
			Schema int    `json:"schema"`
			*engine.GCPlan
			Freed int64 `json:"freed"`
		}{"result", schema, plan, plan.Freed()})
	}
	a.gcFigures(plan.GCFigures, "would: ")
	if n := plan.Spared.Objects; n > 0 {
		a.out.note("note: %s (%s) would go, but are too young or of a running backup", plural(n, "pack", "packs"), size(plan.Spared.Bytes))
	}
	if n := plan.Waiting; n > 0 {
		a.out.note("note: %s can be brought back still, and what nothing else needs stays: --keep-deleted says for how long", plural(n, "deleted snapshot", "deleted snapshots"))
	}
	if n := plan.Unread; n > 0 {
		a.out.complain("%s could not be read: nothing that they need is collected; cairn check shows the damage", plural(n, "snapshot", "snapshots"))
	}
	if plan.Empty() {
		a.out.say("nothing to collect")
		return nil
	}
	a.out.say("would free %s  %s deleted, about %s", signedSize(plan.Freed()), plural(plan.Deletes(), "object", "objects"),
		plural(plan.Requests.Total(), "request", "requests"))
	return nil
}

// gcFigures shows figures by their reasons.
func (a *app) gcFigures(f engine.GCFigures, before string) {
	for _, line := range []struct {
		count     engine.GCCount
		one, many string
	}{
		{f.Unneeded, "pack deleted that no snapshot needs", "packs deleted that no snapshot needs"},
		{f.Dead, "pack deleted of which no snapshot uses anything", "packs deleted of which no snapshot uses anything"},
		{f.Repacked, "pack rewritten", "packs rewritten"},
		{f.Copied, "pack written with what lives of them", "packs written with what lives of them"},
		{f.Unnamed, "object deleted that no record names", "objects deleted that no record names"},
		{f.Folded, "index segment replaced", "index segments replaced"},
		{f.Index, "index segment written", "index segments written"},
		{f.Earlier, "object deleted that an earlier collection left", "objects deleted that an earlier collection left"},
		{f.Hints, "old checkpoint or probe of the store deleted", "old checkpoints and probes of the store deleted"},
		{engine.GCCount{Objects: f.Sessions}, "unfinished backup given up", "unfinished backups given up"},
	} {
		if n := line.count.Objects; n > 0 {
			text := plural(n, line.one, line.many)
			if line.count.Bytes > 0 {
				text += fmt.Sprintf("  (%s)", size(line.count.Bytes))
			}
			a.out.say("%s%s", before, text)
		}
	}
}

func signedSize(n int64) string {
	if n < 0 {
		return "-" + size(-n)
	}
	return size(n)
}

type gcJSON struct {
	Event  string `json:"event"`
	Schema int    `json:"schema"`
	engine.GCFigures
	Stale    engine.GCCount    `json:"stale"`
	Left     engine.GCCount    `json:"left"`
	Damaged  []string          `json:"damaged"`
	Lost     int               `json:"lost"`
	Requests engine.GCRequests `json:"requests"`
	Traffic  trafficJSON       `json:"traffic"`
	Freed    int64             `json:"freed"`
	Seconds  float64           `json:"seconds"`
}

func gcResult(r engine.GCReport) gcJSON {
	doc := gcJSON{
		Event: "result", Schema: schema, GCFigures: r.GCFigures, Stale: r.Stale, Left: r.Left, Damaged: r.Damaged,
		Lost: r.Lost, Requests: r.Requests, Traffic: trafficOf(r.Traffic), Freed: r.Freed(), Seconds: r.Elapsed.Seconds(),
	}
	if doc.Damaged == nil {
		doc.Damaged = []string{}
	}
	return doc
}

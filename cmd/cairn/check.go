package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/manifest"
)

type checkFlags struct {
	readData bool
	sample   string
	maxAge   string
	noRecord bool
}

func (a *app) checkCommand() *cobra.Command {
	var f checkFlags
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Look for damage in the repository",
		Long: `Look for damage in the repository: in its log, in every pack's list of
contents, and in the trees of all snapshots. With --read-data every byte is read
and verified.

To spread that over many runs, --sample 10% reads a tenth of the packs, chosen at
random, and --max-age 30d only those that this machine did not read for 30 days;
together, at most a tenth and of those. Both imply --read-data. What was read when
is noted in the cache directory.

What is damaged is listed with the snapshots and paths that it hurts, and the exit
code is 13. It is also recorded in the repository, so that the next backup of the
same data stores it again, which mends older snapshots too; --no-record changes
nothing. What an unfinished backup left behind is no damage. Of keys only the
header is checked: try one by opening the repository with it.`,
		Example: `  cairn check
  cairn check --read-data
  cairn check --sample 5% --max-age 30d`,
		Args:        atMost(0),
		Annotations: map[string]string{longCommand: "check"},
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts, err := f.options(cmd.Flags().Changed)
			if err != nil {
				return err
			}
			opts.Progress = a.watch()
			return a.check(cmd.Context(), opts)
		},
	}
	fs := cmd.Flags()
	fs.BoolVar(&f.readData, "read-data", false, "read and verify every byte")
	fs.StringVar(&f.sample, "sample", "", "read only this `share` of the packs, at random, such as 10%")
	fs.StringVar(&f.maxAge, "max-age", "", "read only packs not read for this `time`, such as 30d")
	fs.BoolVar(&f.noRecord, "no-record", false, "do not record damage for the next backup to mend")
	return cmd
}

// options returns what the flags say.
func (f checkFlags) options(changed func(name string) bool) (opts engine.CheckOptions, err error) {
	opts = engine.CheckOptions{Depth: engine.DepthPacks, Record: !f.noRecord}
	if changed("sample") {
		if opts.Sample, err = parseShare(f.sample); err != nil {
			return opts, err
		}
	}
	if changed("max-age") {
		if opts.MaxAge, err = parseAge("--max-age", f.maxAge); err != nil {
			return opts, err
		}
	}
	if f.readData || opts.Sample > 0 || opts.MaxAge > 0 {
		opts.Depth = engine.DepthData
	}
	return opts, nil
}

// parseShare reads a share such as 10% or 0.1.
func parseShare(text string) (float64, error) {
	number, percent := strings.CutSuffix(text, "%")
	share, err := strconv.ParseFloat(number, 64)
	if percent {
		share /= 100
	}
	if err != nil || !(share > 0 && share <= 1) { // not a number, too
		return 0, usagef("--sample is a share such as 10%% or 0.1, not %q", printableText(text))
	}
	return share, nil
}

func (a *app) check(ctx context.Context, opts engine.CheckOptions) error {
	l, err := a.locate()
	if err != nil {
		return err
	}
	repo, err := a.openAt(ctx, l, writes) // a damaged log is a finding here, and no warning
	if err != nil {
		return err
	}
	defer repo.Close() // what it wrote is one record, and durable
	report, err := repo.Check(ctx, opts)
	if err != nil {
		return err
	}
	if a.out.json {
		if err := a.out.document(checkResult(report)); err != nil {
			return err
		}
	} else {
		a.checkReport(report, opts)
	}
	if len(report.Findings) > 0 {
		return &silent{errDamage}
	}
	return nil
}

type checkJSON struct {
	Event     string        `json:"event"`
	Schema    int           `json:"schema"`
	Damaged   bool          `json:"damaged"`
	Findings  []findingJSON `json:"findings"`
	More      uint64        `json:"more"`     // findings that are not listed
	Recorded  uint64        `json:"recorded"` // by this check, for the next backup to mend
	Notes     []string      `json:"notes"`
	Records   uint64        `json:"records"`
	Snapshots uint64        `json:"snapshots"`
	Packs     uint64        `json:"packs"`
	Segments  uint64        `json:"segments"`
	Chunks    uint64        `json:"chunks"`
	Verified  uint64        `json:"verified"` // packs of which every byte was read
	BytesRead uint64        `json:"bytes_read"`
	Seconds   float64       `json:"seconds"`
	Traffic   trafficJSON   `json:"traffic"`
}

type findingJSON struct {
	Object    string         `json:"object"` // "" if it has none
	Offset    int64          `json:"offset"` // of the damaged block, bytes; -1: the object as a whole
	Length    int64          `json:"length"` // of the block, bytes
	Detail    string         `json:"detail"`
	Recorded  bool           `json:"recorded"`
	Snapshots []manifest.ID  `json:"snapshots"` // hurt by it
	Items     []hurtItemJSON `json:"items"`     // the first of what they lack
	ItemCount uint64         `json:"item_count"`
}

type hurtItemJSON struct {
	Snapshot manifest.ID `json:"snapshot"`
	pathJSON
}

func checkResult(r engine.CheckReport) checkJSON {
	doc := checkJSON{
		Event: "result", Schema: schema, Damaged: len(r.Findings) > 0, Findings: make([]findingJSON, len(r.Findings)),
		More: r.More, Recorded: r.Recorded, Notes: r.Notes,
		Records: r.Records, Snapshots: r.Snapshots, Packs: r.Packs, Segments: r.Segments, Chunks: r.Chunks,
		Verified: r.Verified, BytesRead: r.BytesRead, Seconds: r.Elapsed.Seconds(), Traffic: trafficOf(r.Traffic),
	}
	for i, f := range r.Findings {
		doc.Findings[i] = findingJSON{
			Object: f.Object, Offset: f.Offset, Length: f.Length, Detail: f.Detail, Recorded: f.Recorded,
			Snapshots: append([]manifest.ID{}, f.Snapshots...), Items: make([]hurtItemJSON, len(f.Items)), ItemCount: f.ItemCount,
		}
		for j, item := range f.Items {
			doc.Findings[i].Items[j] = hurtItemJSON{item.Snapshot, pathOf(item.Path)}
		}
	}
	if doc.Notes == nil {
		doc.Notes = []string{}
	}
	return doc
}

// maxDamageLines bounds the findings that are printed; --json has more of them.
const maxDamageLines = 100

func (a *app) checkReport(r engine.CheckReport, opts engine.CheckOptions) {
	listed := min(len(r.Findings), maxDamageLines)
	total := uint64(len(r.Findings)) + r.More
	for _, f := range r.Findings[:listed] {
		a.out.complain("damage: %s", findingLine(f))
	}
	if left := total - uint64(listed); left > 0 { //nolint:gosec // a length
		a.out.complain("damage: and %s more; --json lists them", count(left))
	}
	for _, n := range r.Notes {
		a.out.note("note: %s", printableText(n))
	}
	what := fmt.Sprintf("%s, %s, %s, %s", plural(r.Snapshots, "snapshot", "snapshots"), plural(r.Packs, "pack", "packs"),
		plural(r.Chunks, "chunk", "chunks"), plural(r.Records, "record", "records"))
	if total > 0 {
		if mendable(r) {
			a.out.note("hint: the damage is recorded: the next backup of the same data stores it again, and mends older snapshots")
		}
		a.out.say("checked %s  %s found  in %s", what, plural(total, "damage", "damages"), span(r.Elapsed))
		return
	}
	verified := "no damage; cairn check --read-data verifies every byte"
	switch {
	case opts.Depth == engine.DepthData && r.Verified < r.Packs:
		verified = fmt.Sprintf("no damage, every byte of %s verified", plural(r.Verified, "pack", "packs"))
	case opts.Depth == engine.DepthData:
		verified = "no damage, every byte verified"
	}
	a.out.say("checked %s  %s  in %s", what, verified, span(r.Elapsed))
}

func mendable(r engine.CheckReport) bool {
	for _, f := range r.Findings {
		if f.Recorded {
			return true
		}
	}
	return false
}

func findingLine(f engine.Finding) string {
	parts := make([]string, 0, 4)
	if f.Object != "" {
		object := printable(f.Object)
		if f.Offset >= 0 {
			object += fmt.Sprintf(" at %d, %d bytes", f.Offset, f.Length)
		}
		parts = append(parts, object+":")
	}
	parts = append(parts, printableText(f.Detail))
	if len(f.Snapshots) > 0 {
		parts = append(parts, hurtText(f))
	}
	return strings.Join(parts, " ")
}

// hurtText says what lacks something by f.
func hurtText(f engine.Finding) string {
	const most = 10
	ids := make([]string, 0, most+1)
	for _, id := range f.Snapshots[:min(len(f.Snapshots), most)] {
		ids = append(ids, id.Short())
	}
	if n := len(f.Snapshots) - most; n > 0 {
		ids = append(ids, fmt.Sprintf("and %s more", count(n)))
	}
	hurt := "hurts " + strings.Join(ids, " ")
	paths := make([]string, 0, 3)
	for _, item := range f.Items {
		if item.Snapshot == f.Items[0].Snapshot && item.Path != "" && len(paths) < cap(paths) {
			paths = append(paths, printable(item.Path))
		}
	}
	if len(paths) == 0 {
		return "(" + hurt + ")"
	}
	hurt += " at " + strings.Join(paths, ", ")
	if n := f.ItemCount - uint64(len(paths)); n > 0 {
		hurt += fmt.Sprintf(" and %s more", count(n))
	}
	return "(" + hurt + ")"
}

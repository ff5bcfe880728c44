package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/manifest"
)

func (a *app) checkCommand() *cobra.Command {
	var readData bool
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Look for damage in the repository",
		Long: `Look for damage in the repository: in its log, in every pack's list of
contents, and in the trees of all snapshots. With --read-data every byte is read
and verified.

What is damaged is listed with the snapshots that it hurts, and the exit code is
13. What an unfinished backup left behind is no damage. Check changes nothing.`,
		Example: `  cairn check
  cairn check --read-data`,
		Args:        atMost(0),
		Annotations: map[string]string{longCommand: "check"},
		RunE: func(cmd *cobra.Command, _ []string) error {
			depth := engine.DepthPacks
			if readData {
				depth = engine.DepthData
			}
			return a.check(cmd.Context(), depth)
		},
	}
	cmd.Flags().BoolVar(&readData, "read-data", false, "read and verify every byte")
	return cmd
}

func (a *app) check(ctx context.Context, depth engine.Depth) error {
	l, err := a.locate()
	if err != nil {
		return err
	}
	repo, err := a.openAt(ctx, l, writes) // a damaged log is a finding here, and no warning
	if err != nil {
		return err
	}
	defer repo.Close() // only read
	report, err := repo.Check(ctx, engine.CheckOptions{Depth: depth, Progress: a.watch()})
	if err != nil {
		return err
	}
	if a.out.json {
		if err := a.out.document(checkResult(report)); err != nil {
			return err
		}
	} else {
		a.checkReport(report, depth)
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
	Notes     []string      `json:"notes"`
	Records   uint64        `json:"records"`
	Snapshots uint64        `json:"snapshots"`
	Packs     uint64        `json:"packs"`
	Segments  uint64        `json:"segments"`
	Chunks    uint64        `json:"chunks"`
	BytesRead uint64        `json:"bytes_read"`
	Seconds   float64       `json:"seconds"`
}

type findingJSON struct {
	Object    string        `json:"object"` // "" if it has none
	Detail    string        `json:"detail"`
	Snapshots []manifest.ID `json:"snapshots"` // hurt by it, as far as known
	pathJSON                // in the first of them, or ""
}

func checkResult(r engine.CheckReport) checkJSON {
	doc := checkJSON{
		Event: "result", Schema: schema, Damaged: len(r.Findings) > 0, Findings: make([]findingJSON, len(r.Findings)), Notes: r.Notes,
		Records: r.Records, Snapshots: r.Snapshots, Packs: r.Packs, Segments: r.Segments, Chunks: r.Chunks,
		BytesRead: r.BytesRead, Seconds: r.Elapsed.Seconds(),
	}
	for i, f := range r.Findings {
		doc.Findings[i] = findingJSON{Object: f.Object, Detail: f.Detail, Snapshots: f.Snapshots, pathJSON: pathOf(f.Path)}
		if f.Snapshots == nil {
			doc.Findings[i].Snapshots = []manifest.ID{}
		}
	}
	if doc.Notes == nil {
		doc.Notes = []string{}
	}
	return doc
}

func (a *app) checkReport(r engine.CheckReport, depth engine.Depth) {
	for _, f := range r.Findings {
		a.out.complain("damage: %s", findingLine(f))
	}
	for _, n := range r.Notes {
		a.out.note("note: %s", printableText(n))
	}
	what := fmt.Sprintf("%s, %s, %s, %s", plural(r.Snapshots, "snapshot", "snapshots"), plural(r.Packs, "pack", "packs"),
		plural(r.Chunks, "chunk", "chunks"), plural(r.Records, "record", "records"))
	if n := len(r.Findings); n > 0 {
		a.out.say("checked %s  %s found  in %s", what, plural(n, "damage", "damages"), span(r.Elapsed))
		return
	}
	verified := "no damage; cairn check --read-data verifies every byte"
	if depth == engine.DepthData {
		verified = "no damage, every byte verified"
	}
	a.out.say("checked %s  %s  in %s", what, verified, span(r.Elapsed))
}

func findingLine(f engine.Finding) string {
	parts := make([]string, 0, 4)
	if f.Object != "" {
		parts = append(parts, printable(f.Object)+":")
	}
	parts = append(parts, printableText(f.Detail))
	if len(f.Snapshots) > 0 {
		ids := make([]string, len(f.Snapshots))
		for i, id := range f.Snapshots {
			ids[i] = id.Short()
		}
		if len(ids) > 10 {
			ids = append(ids[:10], fmt.Sprintf("and %s more", count(len(f.Snapshots)-10)))
		}
		hurt := "hurts " + strings.Join(ids, " ")
		if f.Path != "" {
			hurt += " at " + printable(f.Path)
		}
		parts = append(parts, "("+hurt+")")
	}
	return strings.Join(parts, " ")
}

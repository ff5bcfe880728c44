package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/manifest"
)

type snapshotsFlags struct {
	tags, hosts, kinds []string
	latest             int
	missing, deleted   bool
}

func (a *app) snapshotsCommand() *cobra.Command {
	var f snapshotsFlags
	cmd := &cobra.Command{
		Use:   "snapshots [SNAPSHOT...]",
		Short: "List the snapshots, oldest first",
		Example: `  cairn snapshots
  cairn snapshots --tag daily --host web1 --latest 5
  cairn snapshots 4f2c91ab --missing   # what could not be read
  cairn snapshots --deleted            # what undelete can bring back`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.snapshots(cmd.Context(), f, args)
		},
	}
	fs := cmd.Flags()
	fs.StringArrayVar(&f.tags, "tag", nil, "only those with this `tag` (repeated: with all of them)")
	fs.StringArrayVar(&f.hosts, "host", nil, "only those of this `host` (repeated: of any of them)")
	fs.StringArrayVar(&f.kinds, "kind", nil, "only those of this `kind`: files, database, assets or stream (repeated: of any of them)")
	fs.IntVar(&f.latest, "latest", 0, "only the last `n`")
	fs.BoolVar(&f.missing, "missing", false, "list what could not be read")
	fs.BoolVar(&f.deleted, "deleted", false, "list deleted snapshots that can be undeleted still")
	return cmd
}

func (f snapshotsFlags) filter() (manifest.Filter, error) {
	filter := manifest.Filter{Hosts: f.hosts, Tags: f.tags, Latest: f.latest}
	if f.latest < 0 {
		return filter, usagef("--latest is a number of snapshots, not %d", f.latest)
	}
	for _, kind := range f.kinds {
		k := manifest.Kind(kind)
		switch k {
		case manifest.KindFiles, manifest.KindDatabase, manifest.KindAssets, manifest.KindStream:
			filter.Kinds = append(filter.Kinds, k)
		default:
			return filter, usagef("--kind is files, database, assets or stream, not %q", printableText(kind))
		}
	}
	return filter, nil
}

func (a *app) snapshots(ctx context.Context, f snapshotsFlags, refs []string) error {
	filter, err := f.filter()
	if err != nil {
		return err
	}
	if err := nonEmpty(refs); err != nil {
		return err
	}
	repo, _, err := a.open(ctx, reads)
	if err != nil {
		return err
	}
	defer repo.Close() // only read
	choose := a.selectSnapshots
	if f.deleted {
		choose = selectDeleted
	}
	list, err := choose(ctx, repo, filter, refs)
	if err != nil {
		return err
	}
	switch {
	case a.out.json:
		return a.out.document(snapshotsDocument(list, f))
	case f.missing:
		a.printMissing(list)
		return nil
	}
	return a.printSnapshots(list)
}

// selectSnapshots returns those that refs name and filter selects.
func (a *app) selectSnapshots(ctx context.Context, repo *engine.Repository, filter manifest.Filter, refs []string) ([]manifest.Snapshot, error) {
	for _, ref := range refs {
		s, err := a.snapshot(ctx, repo, ref, toStdout)
		if err != nil {
			return nil, err
		}
		filter.IDs = append(filter.IDs, s.ID)
	}
	return collect(ctx, repo, filter)
}

func collect(ctx context.Context, repo *engine.Repository, filter manifest.Filter) ([]manifest.Snapshot, error) {
	var list []manifest.Snapshot
	for s, err := range repo.Snapshots(ctx, filter) {
		if err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	return list, nil
}

type snapshotsJSON struct {
	Schema    int            `json:"schema"`
	Snapshots []snapshotJSON `json:"snapshots"`
}

func snapshotsDocument(list []manifest.Snapshot, f snapshotsFlags) snapshotsJSON {
	doc := snapshotsJSON{Schema: schema, Snapshots: make([]snapshotJSON, len(list))}
	for i, s := range list {
		doc.Snapshots[i] = snapshotOf(s)
		if f.missing {
			doc.Snapshots[i].Missing = missingOf(s.Missing)
		}
	}
	return doc
}

func (a *app) printSnapshots(list []manifest.Snapshot) error {
	if len(list) == 0 {
		a.out.note("no snapshots")
		return nil
	}
	var t table
	t.row("ID", "TIME", "HOST", "FILES", "SIZE", "NEW", "PATHS", "NOTES")
	for _, s := range list {
		paths := make([]string, len(s.Roots))
		for i, r := range s.Roots {
			paths[i] = printable(r.Path)
		}
		t.row(s.ID.Short(), localTime(s.Start), printable(s.Host),
			count(s.Stats.Files), size(s.Stats.Bytes), size(s.Stats.New), strings.Join(paths, " "), notesOf(s))
	}
	return t.print(a.out)
}

// notesOf says what is special about a snapshot: its tags and, in brackets,
// facts.
func notesOf(s manifest.Snapshot) string {
	notes := make([]string, 0, len(s.Tags)+3)
	for _, tag := range s.Tags {
		notes = append(notes, printable(tag))
	}
	if s.Kind != manifest.KindFiles {
		notes = append(notes, "["+string(s.Kind)+"]")
	}
	if s.Pinned {
		notes = append(notes, "[pinned]")
	}
	if !s.Complete {
		notes = append(notes, fmt.Sprintf("[%s missing]", count(s.Stats.Missing)))
	}
	return strings.Join(notes, " ")
}

func (a *app) printMissing(list []manifest.Snapshot) {
	for _, s := range list {
		for _, m := range s.Missing {
			path := original(s.Roots, m.Path)
			a.out.result("%s  %s: %s", s.ID.Short(), printable(path), printableText(withoutPath(m.Reason, path)))
		}
		if n := s.Stats.Missing; n > uint64(len(s.Missing)) {
			a.out.result("%s  and %s more", s.ID.Short(), count(n-uint64(len(s.Missing))))
		}
	}
}

// withoutPath returns reason without the operation and path it begins with, as
// in "open /etc/shadow: permission denied": the path is shown already, and here
// without bytes that are not UTF-8.
func withoutPath(reason, path string) string {
	before, after, ok := strings.Cut(reason, strings.ToValidUTF8(path, "\uFFFD")+": ")
	if !ok || strings.Contains(before, ": ") {
		return reason
	}
	return after
}

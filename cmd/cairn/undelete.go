package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/manifest"
)

func (a *app) undeleteCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "undelete SNAPSHOT...",
		Short: "Bring deleted snapshots back",
		Long: `Bring deleted snapshots back, all that are named or none. It is possible until
something that they need was collected; snapshots --deleted lists those for which
it is.`,
		Example: `  cairn snapshots --deleted
  cairn undelete 4f2c91ab`,
		Args: atLeast("a SNAPSHOT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.undelete(cmd.Context(), args)
		},
	}
}

func (a *app) undelete(ctx context.Context, refs []string) (err error) {
	repo, _, err := a.open(ctx, writes)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, repo.Close()) }()
	deleted, err := deletedSnapshots(ctx, repo)
	if err != nil {
		return err
	}
	var ids []manifest.ID
	var names []string
	seen := make(map[manifest.ID]bool)
	for _, ref := range refs {
		s, err := deletedSnapshot(ctx, repo, deleted, ref)
		if err != nil {
			return err
		}
		if !seen[s.ID] {
			seen[s.ID] = true
			ids, names = append(ids, s.ID), append(names, s.ID.Short())
		}
	}
	if err := repo.Undelete(ctx, ids...); err != nil {
		return err
	}
	if a.out.json {
		return a.out.document(undeleteJSON{Schema: schema, Undeleted: ids})
	}
	a.out.say("undeleted %s: %s", plural(len(ids), "snapshot", "snapshots"), strings.Join(names, " "))
	return nil
}

type undeleteJSON struct {
	Schema    int           `json:"schema"`
	Undeleted []manifest.ID `json:"undeleted"`
}

// deletedSnapshots returns what can be undeleted, oldest first.
func deletedSnapshots(ctx context.Context, repo *engine.Repository) ([]manifest.Snapshot, error) {
	var list []manifest.Snapshot
	for s, err := range repo.Deleted(ctx) {
		if err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	return list, nil
}

// deletedSnapshot finds the one of deleted that ref names.
func deletedSnapshot(ctx context.Context, repo *engine.Repository, deleted []manifest.Snapshot, ref string) (manifest.Snapshot, error) {
	if !isPrefix(ref) {
		return manifest.Snapshot{}, usagef("%q is no deleted snapshot: give an id, or its first 4 or more digits", printableText(ref))
	}
	var found []manifest.Snapshot
	for _, s := range deleted {
		if strings.HasPrefix(s.ID.String(), ref) {
			found = append(found, s)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return manifest.Snapshot{}, fmt.Errorf("deleted snapshot %q: %w", ref, engine.ErrAmbiguous)
	}
	if _, err := repo.Snapshot(ctx, ref); err == nil || errors.Is(err, engine.ErrAmbiguous) {
		return manifest.Snapshot{}, fmt.Errorf("snapshot %s is not deleted", ref)
	}
	return manifest.Snapshot{}, withHint(fmt.Errorf("deleted snapshot %q: %w", ref, engine.ErrNotFound),
		"cairn snapshots --deleted lists what can be undeleted; the rest was collected, or never was")
}

// selectDeleted returns those of deleted that refs name and filter selects.
func selectDeleted(ctx context.Context, repo *engine.Repository, filter manifest.Filter, refs []string) ([]manifest.Snapshot, error) {
	deleted, err := deletedSnapshots(ctx, repo)
	if err != nil {
		return nil, err
	}
	for _, ref := range refs {
		s, err := deletedSnapshot(ctx, repo, deleted, ref)
		if err != nil {
			return nil, err
		}
		filter.IDs = append(filter.IDs, s.ID)
	}
	byID := make(map[manifest.ID]manifest.Snapshot, len(deleted))
	summaries := make([]manifest.Summary, len(deleted))
	for i, s := range deleted {
		byID[s.ID], summaries[i] = s, s.Summary
	}
	var list []manifest.Snapshot
	for _, s := range filter.Select(summaries) {
		list = append(list, byID[s.ID])
	}
	return list, nil
}

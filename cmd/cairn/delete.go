package main

import (
	"context"
	"errors"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cairn-backup/cairn/manifest"
)

func (a *app) deleteCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "delete SNAPSHOT...",
		Short: "Delete snapshots; frees no space",
		Long: `Delete snapshots, all that are named or none.

Their data stays where it is: this frees no space. gc does, a day later.
Until then undelete brings them back.`,
		Example: `  cairn delete 4f2c91ab 9e01d7c2`,
		Args:    atLeast("a SNAPSHOT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.delete(cmd.Context(), args)
		},
	}
}

func (a *app) delete(ctx context.Context, refs []string) (err error) {
	repo, _, err := a.open(ctx, writes)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, repo.Close()) }()
	before := repo.Traffic()
	var ids []manifest.ID
	var names []string
	seen := make(map[manifest.ID]bool)
	for _, ref := range refs {
		s, err := a.snapshot(ctx, repo, ref, toStdout)
		if err != nil {
			return err
		}
		if !seen[s.ID] {
			seen[s.ID] = true
			ids, names = append(ids, s.ID), append(names, s.ID.Short())
		}
	}
	if err := repo.Delete(ctx, ids...); err != nil {
		return err
	}
	if a.out.json {
		return a.out.document(deleteJSON{Schema: schema, Deleted: ids, Traffic: trafficOf(repo.Traffic().Sub(before))})
	}
	a.out.say("deleted %s: %s", plural(len(ids), "snapshot", "snapshots"), strings.Join(names, " "))
	a.out.say("This frees no space: cairn gc does, once they were deleted for a day.")
	return nil
}

type deleteJSON struct {
	Schema  int           `json:"schema"`
	Deleted []manifest.ID `json:"deleted"`
	Traffic trafficJSON   `json:"traffic"`
}

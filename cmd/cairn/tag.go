package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/cairn-backup/cairn/manifest"
)

func (a *app) tagCommand() *cobra.Command {
	var add, remove []string
	var pin bool
	cmd := &cobra.Command{
		Use:   "tag SNAPSHOT",
		Short: "Change the tags of a snapshot, or pin it",
		Example: `  cairn tag 4f2c91ab --add before-upgrade --remove daily
  cairn tag latest --pin
  cairn tag latest --pin=false`,
		Args: exactly("a SNAPSHOT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			an := manifest.Annotation{Add: add, Remove: remove}
			if cmd.Flags().Changed("pin") {
				an.Pin = &pin
			}
			if len(add)+len(remove) == 0 && an.Pin == nil {
				return usagef("cairn tag needs --add, --remove or --pin")
			}
			for _, tag := range append(append([]string{}, add...), remove...) {
				if tag == "" || len(tag) > 255 {
					return usagef("a tag has 1 to 255 bytes")
				}
			}
			return a.tag(cmd.Context(), args[0], an)
		},
	}
	fs := cmd.Flags()
	fs.StringArrayVar(&add, "add", nil, "`tag` to add (may be repeated)")
	fs.StringArrayVar(&remove, "remove", nil, "`tag` to take away (may be repeated)")
	fs.BoolVar(&pin, "pin", false, "keep the snapshot whatever a policy says; --pin=false ends that")
	return cmd
}

func (a *app) tag(ctx context.Context, ref string, an manifest.Annotation) (err error) {
	repo, _, err := a.open(ctx, writes)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, repo.Close()) }()
	s, err := a.snapshot(ctx, repo, ref, toStdout)
	if err != nil {
		return err
	}
	if err := repo.Annotate(ctx, s.ID, an); err != nil {
		return err
	}
	if s, err = repo.Snapshot(ctx, s.ID.String()); err != nil {
		return err
	}
	if a.out.json {
		return a.out.document(snapshotsJSON{Schema: schema, Snapshots: []snapshotJSON{snapshotOf(s)}})
	}
	a.out.say("snapshot %s  %s", s.ID.Short(), notesOf(s))
	return nil
}

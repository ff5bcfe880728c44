package main

import (
	"context"
	"errors"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cairn-backup/cairn/engine"
)

func (a *app) repairCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "repair",
		Short:   "Mend a damaged repository",
		Example: "  cairn repair log --dry-run",
		Args:    cobra.ArbitraryArgs,
		RunE:    group,
	}
	var mode repairMode
	log := &cobra.Command{
		Use:   "log",
		Short: "Mend a log that has a hole, a damaged record or was put back to an older state",
		Long: `Mend a log that has a hole, a damaged record or was put back to an older state.
It shows first what it finds and what it will do; no stored object is deleted.`,
		Example: `  cairn repair log --dry-run   # show what would be done
  cairn repair log`,
		Args: atMost(0),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.repairLog(cmd.Context(), mode) },
	}
	log.Flags().BoolVar(&mode.dryRun, "dry-run", false, "show what would be done")
	cmd.AddCommand(log)
	return cmd
}

type repairMode struct{ dryRun bool }

type repairJSON struct {
	Schema int    `json:"schema"`
	Plan   string `json:"plan"`
	Needed bool   `json:"needed"`
	Done   bool   `json:"done"`
}

func (a *app) repairLog(ctx context.Context, mode repairMode) (err error) {
	repo, _, err := a.open(ctx, writes)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, repo.Close()) }()
	plan, err := repo.PlanRepair(ctx, engine.RepairOptions{})
	if err != nil {
		return err
	}
	text := strings.TrimSpace(plan.String())
	if !a.out.json {
		for line := range strings.Lines(text) {
			a.out.say("%s", printableText(strings.TrimRight(line, "\n")))
		}
	}
	run := plan.Needed() && !mode.dryRun
	if run {
		if err := plan.Run(ctx); err != nil {
			return err
		}
	}
	if a.out.json {
		return a.out.document(repairJSON{Schema: schema, Plan: text, Needed: plan.Needed(), Done: run})
	}
	switch {
	case run:
		a.out.say("done")
	case plan.Needed():
		a.out.say("dry run: nothing was changed")
	}
	return nil
}

package main

import (
	"github.com/spf13/cobra"
)

func (a *app) swapCommand() *cobra.Command {
	var mode swapMode
	cmd := &cobra.Command{
		Use:   "swap --discard PATH | --recover PATH",
		Short: "Tidy up after a restore in place",
		Long: `Tidy up after a restore in place.

"cairn restore --in-place" exchanges a directory or file as a whole, and keeps
what was there beside it, as .NAME.cairn-old. --discard removes that. --recover
finishes or undoes an exchange that was interrupted; the next restore would do so
as well. No repository is needed.`,
		Example: `  cairn swap --discard /var/lib/app
  cairn swap --recover /var/lib/app`,
		Args: atMost(0),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.swap(cmd.Context(), mode) },
	}
	cmd.Flags().StringVar(&mode.discard, "discard", "", "remove what was at `path` before its last exchange")
	cmd.Flags().StringVar(&mode.recover, "recover", "", "finish or undo an interrupted exchange of `path`")
	return cmd
}

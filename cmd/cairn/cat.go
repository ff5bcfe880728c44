package main

import (
	"context"
	"fmt"
	"io"
	"io/fs"

	"github.com/spf13/cobra"

	"github.com/cairn-backup/cairn/manifest"
)

func (a *app) catCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "cat SNAPSHOT PATH",
		Short: "Write a file of a snapshot to standard output",
		Example: `  cairn cat latest notes/todo.txt
  cairn cat 4f2c91ab shop.sql | psql shop`,
		Args: exactly("a SNAPSHOT", "a PATH"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.cat(cmd.Context(), args[0], args[1])
		},
	}
}

func (a *app) cat(ctx context.Context, ref, arg string) error {
	if a.out.json {
		return usagef("cairn cat writes a file as it is, and no JSON")
	}
	return a.item(ctx, ref, arg, toStderr, func(v *view, name string, info fs.FileInfo) error {
		if n := nodeOf(info); n.Kind != manifest.File {
			return withHint(fmt.Errorf("%s is no file but a %s", printable(arg), n.Kind), "cairn ls shows what is in it, cairn restore brings all of it back")
		}
		f, err := v.Open(name)
		if err != nil {
			return err
		}
		defer f.Close() // only read
		_, err = io.CopyBuffer(a.out, f, make([]byte, 4<<20))
		return err
	})
}

package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cairn-backup/cairn/manifest"
)

func (a *app) diffCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "diff A B",
		Short: "Show what differs between two snapshots",
		Long: `Show what differs between two snapshots, from A to B, one path a line:

  + path   is only in B
  - path   is only in A
  M path   differs in content, link target or kind
  m path   differs in mode, owner, time or attributes alone

Paths are as ls shows them; "." is the directory itself that was backed up. Of
snapshots with other roots than one directory of the same name, paths begin with
the name of a root. It takes as long as there are differences.`,
		Example: `  cairn diff 4f2c91ab latest
  cairn diff 4f2c91ab 9e01d7c2 --json`,
		Args: exactly("a SNAPSHOT A", "a SNAPSHOT B"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.diff(cmd.Context(), args[0], args[1])
		},
	}
}

// changeMark is what the line of a change begins with.
func changeMark(k manifest.ChangeKind) string {
	switch k {
	case manifest.Added:
		return "+"
	case manifest.Removed:
		return "-"
	case manifest.MetadataOnly:
		return "m"
	case manifest.Modified:
	}
	return "M"
}

func (a *app) diff(ctx context.Context, refA, refB string) error {
	repo, _, err := a.open(ctx, reads)
	if err != nil {
		return err
	}
	defer repo.Close() // only read
	var views [2]*view
	for i, ref := range []string{refA, refB} {
		s, err := a.snapshot(ctx, repo, ref, toStdout)
		if err != nil {
			return err
		}
		if views[i], err = openView(ctx, repo, s); err != nil {
			return err
		}
	}
	from, to := views[0], views[1]
	top := "."
	if from.top == to.top {
		top = from.top
	}
	doc := diffJSON{Schema: schema, From: from.snap.ID, To: to.snap.ID, Changes: []differenceJSON{}}
	none := true
	for c, err := range repo.Diff(ctx, from.snap.ID, to.snap.ID) {
		if err != nil {
			return err
		}
		none = false
		path := below(top, c.Path)
		if a.out.json {
			doc.Changes = append(doc.Changes, differenceOf(strings.Clone(path), c))
			continue
		}
		a.out.result("%s %s", changeMark(c.Kind), printable(path))
		if err := a.out.failed(); err != nil {
			return err
		}
	}
	switch {
	case a.out.json:
		return a.out.document(doc)
	case none:
		a.out.note("no differences")
	}
	return nil
}

// below returns name, a path in the FS, relative to top.
func below(top, name string) string {
	if name == top {
		return "."
	}
	return strings.TrimPrefix(name, top+"/")
}

type diffJSON struct {
	Schema  int              `json:"schema"`
	From    manifest.ID      `json:"from"`
	To      manifest.ID      `json:"to"`
	Changes []differenceJSON `json:"changes"`
}

type differenceJSON struct {
	pathJSON
	Kind string     `json:"kind"` // added, removed, modified or metadata
	Old  *stateJSON `json:"old"`  // null if it was added
	New  *stateJSON `json:"new"`  // null if it was removed
}

// A stateJSON is an entry on one side of a diff.
type stateJSON struct {
	Kind string        `json:"kind"`
	Mode string        `json:"mode"` // octal
	Size uint64        `json:"size"`
	Time manifest.Time `json:"time"`
}

func differenceOf(path string, c manifest.Change) differenceJSON {
	return differenceJSON{pathJSON: pathOf(path), Kind: c.Kind.String(), Old: stateOf(c.Old), New: stateOf(c.New)}
}

func stateOf(n *manifest.Node) *stateJSON {
	if n == nil {
		return nil
	}
	return &stateJSON{Kind: n.Kind.String(), Mode: fmt.Sprintf("%04o", n.Mode), Size: n.Size, Time: n.MTime}
}

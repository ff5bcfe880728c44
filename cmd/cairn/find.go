package main

import (
	"context"
	"path"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
	"github.com/spf13/cobra"

	"github.com/cairn-backup/cairn/chunk"
	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/manifest"
)

func (a *app) findCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "find PATTERN",
		Short: "Find files and directories in all snapshots",
		Long: `Find files and directories in all snapshots, oldest first.

A PATTERN without a slash is matched with names, one with a slash with the
absolute path that was backed up. "*", "?" and "[a-z]" match within a name, "**"
any number of names.`,
		Example: `  cairn find '*.pdf'
  cairn find '/home/*/notes/**/todo.txt'`,
		Args: exactly("a PATTERN"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.find(cmd.Context(), args[0])
		},
	}
}

func (a *app) find(ctx context.Context, pattern string) error {
	if !doublestar.ValidatePattern(pattern) {
		return usagef("%q is no pattern", printableText(pattern))
	}
	if strings.Contains(pattern, "/") && !strings.HasPrefix(pattern, "/") {
		pattern = "**/" + pattern
	}
	repo, _, err := a.open(ctx, reads)
	if err != nil {
		return err
	}
	defer repo.Close() // only read
	doc := findJSON{Schema: schema, Matches: []matchJSON{}}
	// Unchanged backups share their tree: it is walked once.
	walked := make(map[chunk.ID][]match)
	for s, err := range repo.Snapshots(ctx, manifest.Filter{}) {
		if err != nil {
			return err
		}
		matches, ok := walked[s.Tree]
		if !ok {
			if matches, err = matchesIn(ctx, repo, s, pattern); err != nil {
				return err
			}
			walked[s.Tree] = matches
		}
		for _, m := range matches {
			if a.out.json {
				doc.Matches = append(doc.Matches, matchJSON{Snapshot: s.ID, pathJSON: pathOf(m.path), Kind: m.kind.String(), Size: m.size, Time: m.time})
				continue
			}
			a.out.result("%s  %s  %s", s.ID.Short(), localTime(m.time), printable(m.path))
		}
	}
	if a.out.json {
		return a.out.document(doc)
	}
	return nil
}

// A match is an item that a pattern fits. It keeps nothing of the node, which
// would hold a page in memory.
type match struct {
	path string
	kind manifest.NodeKind
	size uint64
	time manifest.Time
}

func matchesIn(ctx context.Context, repo *engine.Repository, s manifest.Snapshot, pattern string) ([]match, error) {
	v, err := openView(ctx, repo, s)
	if err != nil {
		return nil, err
	}
	var found []match
	var walk func(name string) error
	walk = func(name string) error {
		for info, err := range v.children(name) {
			if err != nil {
				return err
			}
			n := nodeOf(info)
			below := path.Join(name, n.Name)
			original := v.original(below)
			subject := original
			if !strings.Contains(pattern, "/") {
				subject = path.Base(original)
			}
			if doublestar.MatchUnvalidated(pattern, subject) {
				found = append(found, match{path: strings.Clone(original), kind: n.Kind, size: n.Size, time: n.MTime})
			}
			if n.Kind != manifest.Dir {
				continue
			}
			if err := walk(below); err != nil {
				return err
			}
		}
		return nil
	}
	return found, walk(".")
}

type findJSON struct {
	Schema  int         `json:"schema"`
	Matches []matchJSON `json:"matches"`
}

type matchJSON struct {
	Snapshot manifest.ID `json:"snapshot"`
	pathJSON
	Kind string        `json:"kind"`
	Size uint64        `json:"size"`
	Time manifest.Time `json:"time"`
}

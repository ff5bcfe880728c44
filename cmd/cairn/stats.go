package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cairn-backup/cairn/manifest"
)

func (a *app) statsCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "stats",
		Short:   "Say how large the repository is",
		Example: "  cairn stats",
		Args:    atMost(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.stats(cmd.Context())
		},
	}
}

// objectKinds are the parts of a repository, as the first elements of keys.
var objectKinds = [...]string{"packs", "index", "log", "checkpoints", "keys", "config"}

type statsJSON struct {
	Schema    int                    `json:"schema"`
	Snapshots int                    `json:"snapshots"`
	Files     uint64                 `json:"files"` // of all snapshots together
	Bytes     uint64                 `json:"bytes"` // that restoring all of them would write
	Stored    int64                  `json:"stored"`
	Objects   map[string]objectsJSON `json:"objects"`
}

type objectsJSON struct {
	Count int64 `json:"count"`
	Bytes int64 `json:"bytes"`
}

func (a *app) stats(ctx context.Context) error {
	repo, l, err := a.open(ctx, reads)
	if err != nil {
		return err
	}
	defer repo.Close() // only read
	doc := statsJSON{Schema: schema, Objects: make(map[string]objectsJSON)}
	for s, err := range repo.Snapshots(ctx, manifest.Filter{}) {
		if err != nil {
			return err
		}
		doc.Snapshots++
		doc.Files += s.Stats.Files
		doc.Bytes += s.Stats.Bytes
	}
	for info, err := range l.store().List(ctx, "") {
		if err != nil {
			return err
		}
		kind, _, _ := strings.Cut(string(info.Key), "/")
		o := doc.Objects[kind]
		doc.Objects[kind] = objectsJSON{Count: o.Count + 1, Bytes: o.Bytes + info.Size}
		doc.Stored += info.Size
	}
	if a.out.json {
		return a.out.document(doc)
	}
	a.out.result("%s, %s, %s to restore", plural(doc.Snapshots, "snapshot", "snapshots"), plural(doc.Files, "file", "files"), size(doc.Bytes))
	a.out.result("%s stored", size(doc.Stored))
	for _, kind := range objectKinds {
		if o, ok := doc.Objects[kind]; ok {
			a.out.result("  %-12s %s in %s", kind, size(o.Bytes), plural(o.Count, "object", "objects"))
		}
	}
	return nil
}

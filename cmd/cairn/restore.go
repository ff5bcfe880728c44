package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/engine/target"
	"github.com/cairn-backup/cairn/manifest"
)

func (a *app) restoreCommand() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "restore SNAPSHOT [PATTERN...] --target DIR",
		Short: "Restore a snapshot, or a part of it, to a new directory",
		Long: `Restore a snapshot, or a part of it, to a new directory.

A snapshot of one directory gives that directory's entries, one of several roots
a directory or file for each. DIR may be absent or empty. Every byte is verified
before it is written. What cannot be restored is listed, and the exit code is 3.

A PATTERN names what is restored, with all below it: a path as ls shows it, in
which "*", "?" and "[a-z]" match within a name, or the absolute path that was
backed up.`,
		Example: `  cairn restore latest --target /tmp/copy
  cairn restore 4f2c91ab 'photos/2026/*.jpg' --target /tmp/photos`,
		Args:        atLeast("a SNAPSHOT"),
		Annotations: map[string]string{longCommand: "restore"},
		RunE: func(cmd *cobra.Command, args []string) error {
			if dir == "" {
				return usagef("cairn restore needs --target DIR")
			}
			return a.restore(cmd.Context(), args[0], args[1:], dir)
		},
	}
	cmd.Flags().StringVar(&dir, "target", "", "`directory` to restore to, absent or empty")
	return cmd
}

func (a *app) restore(ctx context.Context, ref string, patterns []string, dir string) error {
	repo, _, err := a.open(ctx, reads)
	if err != nil {
		return err
	}
	defer repo.Close() // only read
	s, err := a.snapshot(ctx, repo, ref, toStdout)
	if err != nil {
		return err
	}
	paths, err := a.restorePaths(ctx, repo, s, patterns)
	if err != nil {
		return err
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	report, err := repo.Restore(ctx, s.ID, target.Dir(abs), engine.RestoreOptions{
		Paths: paths, OnError: engine.Skip, Progress: a.watch(),
	})
	if err != nil && !errors.Is(err, engine.ErrIncomplete) {
		return err
	}
	if reportErr := a.restoreReport(report, dir); reportErr != nil {
		return reportErr
	}
	if err != nil {
		return &silent{err}
	}
	return nil
}

// restorePaths turns what the user named into paths of the snapshot, and
// refuses what is not in it before anything is written.
func (a *app) restorePaths(ctx context.Context, repo *engine.Repository, s manifest.Snapshot, patterns []string) ([]string, error) {
	if len(patterns) == 0 {
		return nil, nil
	}
	v, err := openView(ctx, repo, s)
	if err != nil {
		return nil, err
	}
	paths := make([]string, len(patterns))
	for i, pattern := range patterns {
		rel := v.relative(pattern)
		if rel == "" {
			return nil, nil // the top: all of it
		}
		found, err := v.has(strings.Split(rel, "/"))
		if err != nil {
			return nil, err
		}
		if !found {
			return nil, withHint(fmt.Errorf("nothing in snapshot %s matches %s", s.ID.Short(), printable(pattern)),
				"cairn ls %s shows what is in it", s.ID.Short())
		}
		paths[i] = rel
	}
	return paths, nil
}

type restoreJSON struct {
	Event        string        `json:"event"`
	Schema       int           `json:"schema"`
	Snapshot     snapshotJSON  `json:"snapshot"`
	Target       string        `json:"target"`
	TargetB64    string        `json:"target_b64,omitempty"`
	Files        uint64        `json:"files"`
	Dirs         uint64        `json:"dirs"`
	Others       uint64        `json:"others"`
	Bytes        uint64        `json:"bytes"`
	Verified     bool          `json:"verified"`
	Problems     []problemJSON `json:"problems"`
	Owners       uint64        `json:"owners_not_restored"`
	Devices      uint64        `json:"devices_not_restored"`
	Xattrs       uint64        `json:"xattrs_not_restored"`
	BytesRead    int64         `json:"bytes_read"`
	Requests     int64         `json:"requests"`
	Seconds      float64       `json:"seconds"`
	MissingThere uint64        `json:"missing_in_snapshot"`
}

// restoreReport prints what a restore did. Its last line says what was written.
func (a *app) restoreReport(r engine.RestoreReport, dir string) error {
	if a.out.json {
		doc := restoreJSON{
			Event: "result", Schema: schema, Snapshot: snapshotOf(r.Snapshot), Target: dir, TargetB64: b64(dir),
			Files: r.Files, Dirs: r.Dirs, Others: r.Others, Bytes: r.Bytes, Verified: true,
			Problems: make([]problemJSON, len(r.Problems)), Owners: r.Owners, Devices: r.Devices, Xattrs: r.Xattrs,
			BytesRead: r.BytesRead, Requests: r.Requests, Seconds: r.Elapsed.Seconds(), MissingThere: r.Snapshot.Stats.Missing,
		}
		for i, p := range r.Problems {
			doc.Problems[i] = problemEvent(p)
			doc.Problems[i].Event = ""
		}
		return a.out.document(doc)
	}
	if line := privileges(r); line != "" {
		a.out.note("not restored for want of privilege: %s", line)
	}
	if n := r.Snapshot.Stats.Missing; n > 0 {
		a.out.note("the snapshot lacks %s that could not be read when it was made: cairn snapshots %s --missing", plural(n, "item", "items"), r.Snapshot.ID.Short())
	}
	failed := ""
	if n := len(r.Problems); n > 0 {
		failed = fmt.Sprintf("  (%s not restored, listed above)", plural(n, "item", "items"))
	}
	a.out.say("restored %s, %s to %s  every byte verified  in %s%s",
		plural(r.Files, "file", "files"), size(r.Bytes), printable(dir), span(r.Elapsed), failed)
	return nil
}

// privileges says what only root could have restored.
func privileges(r engine.RestoreReport) string {
	var parts []string
	for _, p := range []struct {
		n         uint64
		one, many string
	}{
		{r.Owners, "owner", "owners"},
		{r.Devices, "device", "devices"},
		{r.Xattrs, "extended attribute", "extended attributes"},
	} {
		if p.n > 0 {
			parts = append(parts, plural(p.n, p.one, p.many))
		}
	}
	return strings.Join(parts, ", ")
}

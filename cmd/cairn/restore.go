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

func (a *app) restoreCommand() *cobra.Command {
	var mode restoreMode
	cmd := &cobra.Command{
		Use:   "restore SNAPSHOT [PATTERN...] --target DIR | --in-place | --tar FILE",
		Short: "Restore a snapshot, or a part of it",
		Long: `Restore a snapshot, or a part of it.

A snapshot of one directory gives that directory's entries, one of several roots
a directory or file for each. Every byte is verified before it is written. What
cannot be restored is listed, and the exit code is 3.

--target DIR, which may be absent or empty. With --overwrite it may hold
something: "changed" makes every entry as it is in the snapshot, and writes only
what differs, also within large files; "never" makes what is missing. --delete
removes what the snapshot does not hold, but never the repository, its key, and
what cairn keeps for itself; --dry-run shows what would be done.

--in-place puts every directory and file of a snapshot back where it was: it is
restored beside it and exchanged as a whole, so that a failure at any moment
leaves the old one. That is kept until the next time, or until cairn swap
--discard. An item that cannot be restored ends it, and nothing is exchanged.
Several are exchanged one after the other, once all of them are restored: should
one of the exchanges fail, the error names those that were made before it. A directory
that holds the repository is not exchanged. With --overwrite what is there is
mended instead.

--tar FILE makes an archive; "-" is standard output.

A PATTERN names what is restored, with all below it: a path as ls shows it, in
which "*", "?" and "[a-z]" match within a name, or the absolute path that was
backed up.`,
		Example: `  cairn restore latest --target /tmp/copy
  cairn restore 4f2c91ab 'photos/2026/*.jpg' --target /tmp/photos
  cairn restore latest --target /data --overwrite=changed --delete --dry-run
  cairn restore latest --in-place
  cairn restore latest --tar - | tar -tv`,
		Args:        atLeast("a SNAPSHOT"),
		Annotations: map[string]string{longCommand: "restore"},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := mode.check(len(args) - 1); err != nil {
				if mode.dir == "" && mode.tar == "" && !mode.inPlace && len(args) == 2 {
					return withHint(err, "is it --target %s?", printable(args[1]))
				}
				return err
			}
			return a.restore(cmd.Context(), args[0], args[1:], mode)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&mode.dir, "target", "", "`directory` to restore to, absent or empty")
	flags.BoolVar(&mode.inPlace, "in-place", false, "restore to where it was, all or nothing")
	flags.StringVar(&mode.tar, "tar", "", "make a new tar `file`, - for standard output")
	flags.StringVar(&mode.overwrite, "overwrite", "", "what is there already: changed or never (default: refuse)")
	flags.BoolVar(&mode.remove, "delete", false, "remove what the snapshot does not hold")
	flags.BoolVar(&mode.dryRun, "dry-run", false, "show what would be done")
	flags.BoolVar(&mode.noOwner, "no-owner", false, "leave everything to the user who restores")
	flags.BoolVar(&mode.force, "force", false, "exchange also what other processes have open, and for a snapshot that lacks items")
	return cmd
}

func (a *app) restore(ctx context.Context, ref string, patterns []string, mode restoreMode) (err error) {
	repo, l, err := a.open(ctx, reads)
	if err != nil {
		return err
	}
	defer repo.Close() // only read
	where := toStdout
	if mode.tar == "-" {
		where = toStderr
	}
	s, err := a.snapshot(ctx, repo, ref, where)
	if err != nil {
		return err
	}
	paths, err := a.restorePaths(ctx, repo, s, patterns)
	if err != nil {
		return err
	}
	if mode.inPlace {
		if mode.files, err = fileRoots(ctx, repo, s); err != nil {
			return err
		}
	}
	if err := a.leaveAlone(ctx, &mode, repo, l, s); err != nil {
		return err
	}
	to, err := a.place(mode, s)
	if err != nil {
		return err
	}
	if mode.exchanges() {
		mode.old = present(s.Roots)
	}
	accept := mode.force || len(mode.old) == 0 // where nothing is, nothing goes
	opts := engine.RestoreOptions{Paths: paths, OnError: engine.Skip, AcceptIncomplete: accept, Progress: a.watch()}
	report, err := repo.Restore(ctx, s.ID, to.target, opts)
	if closeErr := to.close(); closeErr != nil && err == nil {
		err = closeErr
	}
	if err != nil && !errors.Is(err, engine.ErrIncomplete) {
		return errors.Join(mode.hint(s, err), to.undo())
	}
	if mode.tar == "-" { // standard output is the archive
		if err != nil {
			return &silent{err}
		}
		return nil
	}
	if reportErr := a.restoreReport(report, to.name, mode); reportErr != nil {
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
	Traffic      trafficJSON   `json:"traffic"`
	Seconds      float64       `json:"seconds"`
	MissingThere uint64        `json:"missing_in_snapshot"`
	DryRun       bool          `json:"dry_run,omitempty"`
	Changes      *changesJSON  `json:"changes,omitempty"` // over what was there
}

// restoreReport prints what a restore did. Its last line says what was written.
func (a *app) restoreReport(r engine.RestoreReport, dir string, mode restoreMode) error {
	if a.out.json {
		doc := restoreJSON{
			Event: "result", Schema: schema, Snapshot: snapshotOf(r.Snapshot), Target: dir, TargetB64: b64(dir),
			Files: r.Files, Dirs: r.Dirs, Others: r.Others, Bytes: r.Bytes, Verified: !mode.dryRun,
			Problems: make([]problemJSON, len(r.Problems)), Owners: r.Owners, Devices: r.Devices, Xattrs: r.Xattrs,
			BytesRead: r.BytesRead, Requests: r.Requests, Traffic: trafficOf(r.Traffic), Seconds: r.Elapsed.Seconds(), MissingThere: r.Snapshot.Stats.Missing,
			DryRun: mode.dryRun, Changes: changesOf(r),
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
	a.sayChanges(r.Changes)
	if mode.dryRun {
		a.out.say("nothing was written: this was a dry run")
		return nil
	}
	for _, path := range mode.old {
		a.out.note("what was there before is kept beside it: cairn swap --discard %s removes it", printable(path))
	}
	a.out.say("restored %s, %s to %s  every byte verified  in %s%s",
		plural(r.Files, "file", "files"), size(r.Bytes), printable(dir), span(r.Elapsed), exceptions(r))
	return nil
}

// exceptions says what a restore has not made as the snapshot has it.
func exceptions(r engine.RestoreReport) string {
	var parts []string
	if n := len(r.Problems); n > 0 {
		parts = append(parts, plural(n, "item", "items")+" not restored, listed above")
	}
	if n := r.Changes.Kept; n > 0 {
		parts = append(parts, plural(n, "item", "items")+" kept as found")
	}
	if len(parts) == 0 {
		return ""
	}
	return "  (" + strings.Join(parts, "; ") + ")"
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

package main

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/engine/source"
	"github.com/cairn-backup/cairn/manifest"
)

type backupFlags struct {
	tags                   []string
	host, time             string
	exclude                []string
	excludeFile, filesFrom []string
	ignoreFile             []string
	excludeCaches          bool
	oneFileSystem          bool
	pages                  []string
	reread                 bool
	dryRun                 bool
	skipIfUnchanged        bool
	onUnreadable           string
	stdin                  string
	sqlite                 string
	allowEmpty             bool
}

func (a *app) backupCommand() *cobra.Command {
	var f backupFlags
	cmd := &cobra.Command{
		Use:   "backup PATH... | --stdin NAME [-- COMMAND...] | --sqlite PATH",
		Short: "Back up files and directories, a stream, or a database",
		Long: `Back up files and directories, one stream, or one database, as one snapshot.

Each PATH is a root: restoring a snapshot of one directory gives that directory's
entries. What cannot be read is listed, the snapshot is marked incomplete, and
the exit code is 3; with --on-unreadable=fail nothing is published instead.

With --stdin the snapshot is one file called NAME, which is what COMMAND prints,
or else what stands on standard input. If COMMAND fails nothing is published.

With --sqlite the snapshot is a consistent copy of the SQLite database at PATH,
checked for integrity, while others go on using it. The copy is made in the
directory for temporary files, and needs as much space there as the database.

Exclude patterns are those of .gitignore, relative to each PATH. With
--ignore-file files of that name in the tree are read as git reads .gitignore:
for their directory and all below. --exclude decides before they do. A PATH that
is a symbolic link stands for what it leads to.

Databases of SQLite and bbolt are stored by the pages that change. With --pages so
are files that match a pattern, such as images of disks: of a running machine's
image less is stored each day, and nothing is shared with files or images that hold
the same at other places. --pages '!PATTERN' cuts even a database by content.

Without --repo and ` + envRepo + ` the default repository is used, and made the first
time, with a generated key.`,
		Example: `  cairn backup ~/documents ~/pictures --exclude '*.tmp' --tag daily
  cairn backup /etc --host web1 --one-file-system --skip-if-unchanged
  cairn backup ~/src --ignore-file .gitignore --exclude-caches
  cairn backup /var/lib/libvirt/images --pages '*.img' --pages '*.qcow2'
  cairn backup --stdin shop.sql -- pg_dump shop
  cairn backup --sqlite /var/lib/app/app.db`,
		Annotations: map[string]string{longCommand: "backup"},
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, name := range []string{"stdin", "sqlite"} {
				if fl := cmd.Flags().Lookup(name); fl.Changed && fl.Value.String() == "" {
					return usagef("--%s is empty", name)
				}
			}
			return a.backup(cmd.Context(), f, args, cmd.ArgsLenAtDash())
		},
	}
	fs := cmd.Flags()
	fs.StringArrayVar(&f.tags, "tag", nil, "`tag` of the snapshot (may be repeated)")
	fs.StringVar(&f.host, "host", "", "`name` of the host (default: this machine's)")
	fs.StringVar(&f.time, "time", "", "`time` of the snapshot, such as 2026-01-02T15:04:05Z or \"2026-01-02 15:04:05\" (default: now)")
	fs.StringArrayVar(&f.exclude, "exclude", nil, "`pattern` of what to leave out (may be repeated)")
	fs.StringArrayVar(&f.excludeFile, "exclude-file", nil, "`file` with such patterns, one a line (may be repeated)")
	fs.StringArrayVar(&f.ignoreFile, "ignore-file", nil, "`name` of files in the tree with such patterns, such as .gitignore (may be repeated)")
	fs.BoolVar(&f.excludeCaches, "exclude-caches", false, "leave out what is in directories with a CACHEDIR.TAG")
	fs.StringArrayVar(&f.filesFrom, "files-from", nil, "`file` with further PATHs, one a line; - is standard input (may be repeated)")
	fs.BoolVar(&f.oneFileSystem, "one-file-system", false, "leave out what is mounted below a PATH")
	fs.StringArrayVar(&f.pages, "pages", nil, "`pattern` of files to store by pages of 4 KiB, such as images of disks (may be repeated)")
	a.compressionFlag(fs)
	fs.BoolVar(&f.reread, "reread", false, "read every file, whatever its times say")
	fs.BoolVar(&f.dryRun, "dry-run", false, "store nothing; say what would be new")
	fs.BoolVar(&f.skipIfUnchanged, "skip-if-unchanged", false, "publish no snapshot if nothing changed")
	fs.StringVar(&f.onUnreadable, "on-unreadable", "skip", "what to do about items that cannot be read: `skip or fail`")
	fs.StringVar(&f.stdin, "stdin", "", "back up one stream as a file of this `name`")
	fs.StringVar(&f.sqlite, "sqlite", "", "back up the live SQLite database at this `path`")
	fs.BoolVar(&f.allowEmpty, "allow-empty", false, "with --stdin: an empty stream is no error")
	return cmd
}

func (a *app) backup(ctx context.Context, f backupFlags, args []string, dash int) error {
	opts, err := f.options()
	if err != nil {
		return err
	}
	if _, err := a.compression(); err != nil {
		return err // before a repository is made
	}
	in, err := a.backupInput(f, args, dash)
	if err != nil {
		return err
	}
	l, err := a.locate()
	if err != nil {
		return err
	}
	made := false
	if !f.dryRun {
		if made, err = a.makeDefault(ctx, l, in.paths); err != nil {
			return err
		}
	}
	repo, err := a.openAt(ctx, l, writes)
	if err != nil {
		return err
	}
	src := in.source(a.ownDirs(l))
	opts.Progress = a.watch()
	report, err := repo.Backup(ctx, src, opts)
	if err == nil && !report.Unchanged {
		a.warnSmaller(ctx, repo, report.Snapshot)
	}
	// Once for each data set; who just heard it need not hear it again.
	if err == nil && report.Snapshot.Parent.IsZero() && !made && !l.remote() && sameDisk(l.dir, in.paths) {
		a.out.note("warning: the repository is on the same disk as what is backed up: if the disk dies, both are lost")
	}
	if closeErr := repo.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return withHint(err, "%s", backupHint(err, f))
	}
	return a.backupReport(report, f)
}

// options checks what can be checked before anything is opened.
func (f backupFlags) options() (engine.BackupOptions, error) {
	opts := engine.BackupOptions{
		Host: f.host, Tags: f.tags, Reread: f.reread, DryRun: f.dryRun, SkipIfUnchanged: f.skipIfUnchanged,
	}
	switch f.onUnreadable {
	case "skip":
		opts.OnUnreadable = engine.Skip
	case "fail":
		opts.OnUnreadable = engine.Fail
	default:
		return opts, usagef("--on-unreadable is skip or fail, not %q", printableText(f.onUnreadable))
	}
	for _, tag := range f.tags {
		if tag == "" || len(tag) > 255 {
			return opts, usagef("a tag has 1 to 255 bytes")
		}
	}
	if f.time != "" {
		t, err := parseTime(f.time)
		if err != nil {
			return opts, err
		}
		opts.Time = t
	}
	return opts, nil
}

// parseTime reads a time of the command line. What has no zone is local.
func parseTime(s string) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t, nil
	}
	for _, layout := range []string{"2006-01-02 15:04:05", "2006-01-02T15:04:05", "2006-01-02 15:04", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, usagef("%q is no time such as 2026-01-02T15:04:05Z or \"2026-01-02 15:04:05\"", printableText(s))
}

// warnSmaller warns if a snapshot is much smaller than the one before it: a disk
// that is not mounted, or a command that ended early, looks like that.
func (a *app) warnSmaller(ctx context.Context, repo *engine.Repository, s manifest.Snapshot) {
	if s.Parent.IsZero() || a.out.quiet {
		return
	}
	parent, err := repo.Snapshot(ctx, s.Parent.String())
	if err != nil || !s.Stats.MuchSmaller(parent.Stats) { // without the parent there is nothing to say
		return
	}
	a.out.note("warning: much smaller than the snapshot before it, %s: %s, %s, not %s, %s", parent.ID.Short(),
		plural(s.Stats.Files, "file", "files"), size(s.Stats.Bytes),
		plural(parent.Stats.Files, "file", "files"), size(parent.Stats.Bytes))
}

// backupReport prints what a backup did. Its last line names the snapshot.
func (a *app) backupReport(r engine.BackupReport, f backupFlags) error {
	s := r.Snapshot
	if a.out.json {
		if err := a.out.document(backupResult(r, f)); err != nil {
			return err
		}
	} else {
		a.backupNotes(r)
		a.out.say("%s", backupLine(r, f))
	}
	if s.Stats.Missing == 0 || f.skipped(r) {
		return nil
	}
	return &silent{errPartial}
}

// skipped reports whether no snapshot was made since nothing had changed.
func (f backupFlags) skipped(r engine.BackupReport) bool { return f.skipIfUnchanged && r.Unchanged }

// backupNotes tells what changes nothing about the result.
func (a *app) backupNotes(r engine.BackupReport) {
	for _, l := range r.Followed {
		a.out.note("%s is a symbolic link: backed up what it leads to, %s", printable(l.Path), printable(l.Target))
	}
	for _, path := range r.Skipped {
		a.out.note("left out, as the repository or what cairn keeps for itself: %s", printable(path))
	}
	if r.Resumed {
		a.out.note("went on from a backup that was interrupted")
	}
	for _, path := range r.Changed {
		a.out.note("changed while it was read: %s", printable(path))
	}
	if r.Sockets > 0 {
		a.out.note("%s left out", plural(r.Sockets, "socket", "sockets"))
	}
}

func backupLine(r engine.BackupReport, f backupFlags) string {
	s := r.Snapshot
	what := fmt.Sprintf("%s, %s", plural(s.Stats.Files, "file", "files"), size(s.Stats.Bytes))
	missing := ""
	if n := s.Stats.Missing; n > 0 {
		missing = fmt.Sprintf("  (%s unreadable", plural(n, "item", "items"))
		if !f.dryRun {
			missing += fmt.Sprintf(": cairn snapshots %s --missing", s.ID.Short())
		}
		missing += ")"
	}
	switch {
	case f.dryRun:
		return fmt.Sprintf("dry run: nothing stored  %s  new %s  in %s%s", what, size(s.Stats.New), span(r.Elapsed), missing)
	case f.skipped(r):
		return fmt.Sprintf("unchanged since snapshot %s  %s  in %s: no snapshot made", s.ID.Short(), what, span(r.Elapsed))
	}
	return fmt.Sprintf("snapshot %s  %s  new %s, stored %s  in %s%s",
		s.ID.Short(), what, size(s.Stats.New), size(s.Stats.Stored), span(r.Elapsed), missing)
}

type backupJSON struct {
	Event     string        `json:"event"`
	Schema    int           `json:"schema"`
	Snapshot  *snapshotJSON `json:"snapshot"` // null after a dry run
	Published bool          `json:"published"`
	Unchanged bool          `json:"unchanged"`
	Resumed   bool          `json:"resumed"`
	DryRun    bool          `json:"dry_run"`
	Files     uint64        `json:"files"`
	Bytes     uint64        `json:"bytes"`
	Read      uint64        `json:"read"`
	New       uint64        `json:"new"`
	Stored    uint64        `json:"stored"`
	Missing   []missingJSON `json:"missing"`
	Changed   []pathJSON    `json:"changed"`
	Skipped   []pathJSON    `json:"skipped"`
	Followed  []linkJSON    `json:"followed"`
	Sockets   uint64        `json:"sockets"`
	Seconds   float64       `json:"seconds"`
	Traffic   trafficJSON   `json:"traffic"`
}

func backupResult(r engine.BackupReport, f backupFlags) backupJSON {
	st := r.Snapshot.Stats
	j := backupJSON{
		Event: "result", Schema: schema, Published: !f.dryRun && !f.skipped(r),
		Unchanged: r.Unchanged, Resumed: r.Resumed, DryRun: f.dryRun,
		Files: st.Files, Bytes: st.Bytes, Read: st.Read, New: st.New, Stored: st.Stored,
		Missing: missingOf(r.Snapshot.Missing), Changed: pathsOf(r.Changed), Skipped: pathsOf(r.Skipped),
		Followed: linksOf(r.Followed), Sockets: r.Sockets, Seconds: r.Elapsed.Seconds(), Traffic: trafficOf(r.Traffic),
	}
	if !f.dryRun && r.Snapshot.ID != (manifest.ID{}) {
		s := snapshotOf(r.Snapshot)
		j.Snapshot = &s
	}
	return j
}

// A linkJSON is a PATH that is a symbolic link.
type linkJSON struct {
	pathJSON
	Target pathJSON `json:"target"`
}

func linksOf(links []source.Link) []linkJSON {
	out := make([]linkJSON, len(links))
	for i, l := range links {
		out[i] = linkJSON{pathOf(l.Path), pathOf(l.Target)}
	}
	return out
}

// absolutes returns the absolute form of paths, each once.
func absolutes(paths []string) ([]string, error) {
	seen := make(map[string]bool, len(paths))
	var out []string
	for _, p := range paths {
		abs, err := filepath.Abs(p)
		if err != nil {
			return nil, err
		}
		if !seen[abs] {
			seen[abs] = true
			out = append(out, abs)
		}
	}
	return out, nil
}

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/engine/target"
	"github.com/cairn-backup/cairn/manifest"
)

// A restoreMode says where a restore goes, and what becomes of what is there.
type restoreMode struct {
	dir       string
	tar       string // a file; "-" is standard output
	inPlace   bool
	overwrite string
	remove    bool
	dryRun    bool
	noOwner   bool
	force     bool
}

// check refuses what makes no sense together.
func (m restoreMode) check(patterns int) error {
	places := 0
	for _, given := range []bool{m.dir != "", m.tar != "", m.inPlace} {
		if given {
			places++
		}
	}
	over := m.overwrite != "" || m.remove || m.dryRun
	switch {
	case places == 0:
		return usagef("cairn restore needs --target DIR, --in-place or --tar FILE")
	case places > 1:
		return usagef("--target, --in-place and --tar exclude each other")
	case m.overwrite != "" && m.overwrite != "changed" && m.overwrite != "never":
		return usagef("--overwrite is changed or never, not %q", printableText(m.overwrite))
	case m.tar != "" && (over || m.noOwner):
		return usagef("--tar makes a new file: --overwrite, --delete, --dry-run and --no-owner have no meaning there")
	case m.remove && m.overwrite == "":
		return usagef("--delete needs --overwrite=changed or --overwrite=never")
	case m.inPlace && m.overwrite == "" && patterns > 0:
		return usagef("--in-place exchanges everything: with a PATTERN it needs --overwrite")
	case m.force && (!m.inPlace || m.overwrite != ""):
		return usagef("--force is for --in-place without --overwrite")
	}
	return nil
}

// A place is a target and its name for people. Close comes after the restore,
// and after that undo, if it failed.
type place struct {
	target target.Target
	name   string
	close  func() error
	undo   func() error
}

// place returns where to restore s.
func (a *app) place(m restoreMode, s manifest.Snapshot) (place, error) {
	none := func() error { return nil }
	switch {
	case m.tar == "-":
		if a.out.json {
			return place{}, usagef("--tar - and --json both want standard output")
		}
		return place{target.Tar(a.out), "standard output", none, none}, nil
	case m.tar != "":
		return tarFile(m.tar)
	case !m.inPlace:
		abs, err := filepath.Abs(m.dir)
		return place{a.dirTarget(m, abs), m.dir, none, none}, err
	}
	if len(s.Roots) != 1 || !filepath.IsAbs(s.Roots[0].Path) {
		return place{}, withHint(usagef("--in-place takes a snapshot of one directory or file that had a path"), "give --target DIR")
	}
	path := s.Roots[0].Path
	if m.overwrite != "" || m.dryRun {
		fi, err := os.Stat(path)
		if err == nil && !fi.IsDir() {
			if m.remove {
				return place{}, usagef("--delete is for directories, and %s is a file", printable(path))
			}
			return place{a.dirTarget(m, filepath.Dir(path)), path, none, none}, nil
		}
		return place{a.dirTarget(m, path), path, none, none}, nil
	}
	t := target.Swap(path)
	t.NoOwner, t.Force = m.noOwner, m.force
	return place{t, path, none, none}, nil
}

// tarFile makes a new archive.
func tarFile(path string) (place, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return place{}, fmt.Errorf("restore: %w", err)
	}
	return place{target.Tar(f), path, func() error {
		if err := f.Sync(); err != nil {
			_ = f.Close() // the first error tells more
			return fmt.Errorf("restore: %w", err)
		}
		return f.Close()
	}, func() error { return os.Remove(path) }}, nil
}

func (a *app) dirTarget(m restoreMode, path string) *target.DirTarget {
	t := target.Dir(path)
	t.NoOwner, t.Delete, t.DryRun = m.noOwner, m.remove, m.dryRun
	switch m.overwrite {
	case "changed":
		t.Overwrite = target.Changed
	case "never":
		t.Overwrite = target.Never
	default:
		if m.inPlace { // a dry run of an exchange
			t.Overwrite, t.Delete = target.Changed, true
		}
	}
	if m.dryRun || a.out.verbose {
		t.Report = a.change
	}
	return t
}

type changeJSON struct {
	Event string `json:"event"`
	What  string `json:"what"`
	Kind  string `json:"kind"`
	pathJSON
}

// change tells what becomes of one entry.
func (a *app) change(c target.Change) {
	switch {
	case c.What == target.Unchanged && !a.out.verbose:
	case a.out.json && !a.out.quiet:
		_ = a.out.document(changeJSON{"change", c.What.String(), c.Kind.String(), pathOf(c.Path)}) // a.out keeps the error
	default:
		path := c.Path
		if path == "" {
			path = "."
		}
		a.out.say("%-9s  %s", c.What, printable(path))
	}
}

// A changesJSON counts entries.
type changesJSON struct {
	Unchanged uint64 `json:"unchanged"`
	Created   uint64 `json:"created"`
	Replaced  uint64 `json:"replaced"`
	Mended    uint64 `json:"mended"`
	Adjusted  uint64 `json:"adjusted"`
	Kept      uint64 `json:"kept"`
	Deleted   uint64 `json:"deleted"`
}

// changesOf returns the counts; nil if nothing was there before.
func changesOf(r engine.RestoreReport) *changesJSON {
	if r.Changes == (target.Changes{}) {
		return nil
	}
	c := changesJSON(r.Changes)
	return &c
}

// sayChanges sums up what became of what was there.
func (a *app) sayChanges(c target.Changes) {
	if c != (target.Changes{}) {
		a.out.say("created %d, replaced %d, mended %d, adjusted %d, deleted %d, kept %d, unchanged %d",
			c.Created, c.Replaced, c.Mended, c.Adjusted, c.Deleted, c.Kept, c.Unchanged)
	}
}

// swapMode is what cairn swap is asked for.
type swapMode struct{ discard, recover string }

// swap recovers or discards.
func (a *app) swap(ctx context.Context, m swapMode) error {
	switch {
	case m.discard != "" && m.recover != "", m.discard == "" && m.recover == "":
		return usagef("cairn swap needs --discard PATH or --recover PATH")
	case m.recover != "":
		if err := target.Recover(ctx, m.recover); err != nil {
			return err
		}
		a.out.say("%s is whole", printable(m.recover))
		return nil
	}
	if err := target.Discard(ctx, m.discard); err != nil {
		return err
	}
	a.out.say("what %s was before its last exchange is removed", printable(m.discard))
	return nil
}

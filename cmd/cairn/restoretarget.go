package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/engine/source/sqlite"
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

	several bool            // roots: changes are told by their whole paths
	files   map[string]bool // roots that are no directories, by name
	old     []string        // paths at which something is that is kept when it is exchanged
	own     []string        // what --delete leaves alone
	vital   []string        // what must not go with a directory that is exchanged
}

// exchanges reports whether what is there is exchanged as a whole.
func (m restoreMode) exchanges() bool { return m.inPlace && m.overwrite == "" && !m.dryRun }

// hint adds to the error of a restore what can be done.
func (m restoreMode) hint(s manifest.Snapshot, err error) error {
	switch {
	case !s.Complete && !m.force && errors.Is(err, target.ErrNotSwappable) && !errors.Is(err, target.ErrInUse):
		return withHint(err, "--in-place --overwrite=changed writes what it has and removes nothing; --force exchanges all the same")
	case len(m.vital) > 0 && errors.Is(err, target.ErrNotSwappable) && !errors.Is(err, target.ErrInUse):
		return withHint(err, "--in-place --overwrite=changed writes what differs and exchanges nothing")
	case m.exchanges() && errors.Is(err, engine.ErrCorrupt):
		return withHint(err, "nothing was exchanged: --target DIR restores what is not damaged")
	case errors.Is(err, target.ErrTarget) && errors.Is(err, fs.ErrNotExist):
		return withHint(err, "the directory above must exist: mkdir -p makes it")
	}
	return err
}

// present returns the paths of the roots at which something is.
func present(roots []manifest.Root) (paths []string) {
	for _, root := range roots {
		if _, err := os.Lstat(root.Path); err == nil {
			paths = append(paths, root.Path)
		}
	}
	return paths
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
	m.several = len(s.Roots) > 1
	t, name, err := a.inPlace(m, s)
	return place{t, name, none, none}, err
}

// inPlace returns where the roots of s were.
func (a *app) inPlace(m restoreMode, s manifest.Snapshot) (target.Target, string, error) {
	// Assets have a root of their own, "/", which is not where they were.
	if s.Kind != manifest.KindFiles && s.Kind != manifest.KindDatabase {
		return nil, "", withHint(usagef("--in-place takes a snapshot of directories or files, and this is one of kind %s", printableText(string(s.Kind))), "give --target DIR")
	}
	if err := separate(s.Roots); err != nil {
		return nil, "", withHint(err, "give --target DIR")
	}
	var parts []target.Part
	var names []string
	for _, root := range s.Roots {
		p, err := a.partInPlace(m, root)
		if err != nil {
			return nil, "", err
		}
		if t, ok := p.Target.(*target.SwapTarget); ok && checkedDatabase(s) {
			t.Verify = sqlite.Verify // it passed when it was backed up
		}
		parts = append(parts, p)
		names = append(names, root.Path)
	}
	if len(parts) == 1 {
		return parts[0].Target, names[0], nil
	}
	return target.Parts(parts...), strings.Join(names, ", "), nil
}

// checkedDatabase reports whether s is an SQLite database that SQLite found
// whole.
func checkedDatabase(s manifest.Snapshot) bool {
	return s.Kind == manifest.KindDatabase && strings.HasSuffix(s.Labels["sqlite.integrity"], "ok")
}

// fileRoots returns which roots of s are no directories.
func fileRoots(ctx context.Context, repo *engine.Repository, s manifest.Snapshot) (map[string]bool, error) {
	view, err := repo.FS(ctx, s.ID)
	if err != nil {
		return nil, err
	}
	files := make(map[string]bool)
	for _, root := range s.Roots {
		fi, err := view.Lstat(root.Name)
		if err != nil {
			return nil, err
		}
		if !fi.IsDir() {
			files[root.Name] = true
		}
	}
	return files, nil
}

// separate refuses roots that cannot go back to where they were.
func separate(roots []manifest.Root) error {
	if len(roots) == 0 {
		return usagef("--in-place takes a snapshot of directories or files that had a path")
	}
	for i, root := range roots {
		if !filepath.IsAbs(root.Path) {
			return usagef("--in-place takes a snapshot of directories or files that had a path, and %s had none", printable(root.Name))
		}
		for _, other := range roots[:i] {
			if within(root.Path, other.Path) || within(other.Path, root.Path) {
				return usagef("--in-place cannot put back %s and %s, of which one lies in the other", printable(other.Path), printable(root.Path))
			}
		}
	}
	return nil
}

// within reports whether path is dir or lies in it.
func within(path, dir string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
}

// partInPlace returns where one root was.
func (a *app) partInPlace(m restoreMode, root manifest.Root) (target.Part, error) {
	part := target.Part{Root: root.Name, Name: filepath.Base(root.Path)}
	if m.exchanges() {
		t := target.Swap(root.Path)
		t.NoOwner, t.Force, t.Skip = m.noOwner, m.force, m.vital
		part.Target = t
		return part, nil
	}
	dir := root.Path
	if m.files[root.Name] {
		if m.remove {
			return part, usagef("--delete is for directories, and %s is a file", printable(root.Path))
		}
		dir = filepath.Dir(root.Path)
	}
	t := a.dirTarget(m, dir)
	if t.Report != nil && m.several {
		t.Report = func(c target.Change) {
			c.Path = filepath.Join(dir, filepath.FromSlash(c.Path))
			a.change(c)
		}
	}
	part.Target = t
	return part, nil
}

// tarFile makes a new archive.
func tarFile(path string) (place, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		err = withHint(err, "give a file that does not exist")
	}
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
	t.NoOwner, t.Delete, t.DryRun, t.Skip = m.noOwner, m.remove, m.dryRun, m.own
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
	a.out.say("nothing is left of what %s was before its last exchange", printable(m.discard))
	return nil
}

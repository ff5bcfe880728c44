package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"os/user"
	"runtime"
	"strings"
	"time"

	"github.com/cairn-backup/cairn/chunk"
	"github.com/cairn-backup/cairn/chunk/seal"
	"github.com/cairn-backup/cairn/chunk/wire"
	"github.com/cairn-backup/cairn/engine/internal/log"
	"github.com/cairn-backup/cairn/engine/internal/store"
	"github.com/cairn-backup/cairn/engine/progress"
	"github.com/cairn-backup/cairn/engine/source"
	"github.com/cairn-backup/cairn/manifest"
)

const (
	// maxAttempts bounds how often a backup begins anew because what it relied
	// on was collected meanwhile.
	maxAttempts = 4
	// maxListed bounds the lists of paths in a report.
	maxListed = 1000
	// maxMissingSize bounds the paths and reasons of what a snapshot names as
	// missing, in bytes; the count is always whole.
	maxMissingSize = 2 << 20
)

// Backup reads src and publishes one snapshot of it. After an error nothing is
// visible (ErrUnknownOutcome excepted), and what was stored already is not sent
// again by the next run. A nil error means that the snapshot is whole, or, with
// Skip, that its Missing says what it lacks.
//
// Memory: see Options.Workers. Cancelling ctx ends it within a second.
func (r *Repository) Backup(ctx context.Context, src source.Source, opts BackupOptions) (report BackupReport, err error) {
	begin := time.Now()
	m := r.newMeter(opts.Progress)
	defer func() { m.Finish(err) }()
	if err := r.writable(); err != nil && !opts.DryRun {
		return report, fmt.Errorf("backup: %w", err)
	}
	if err := r.readable(); err != nil {
		return report, fmt.Errorf("backup: %w", err)
	}
	if err := opts.fill(); err != nil {
		return report, fmt.Errorf("backup: %w", err)
	}
	before := r.Traffic()
	for attempt := 1; ; attempt++ {
		report, err = r.attempt(ctx, src, opts, m)
		if !errors.Is(err, ErrConflict) || attempt == maxAttempts || report.Snapshot.Kind == manifest.KindStream {
			break
		}
		// Something it relied on was collected: what is still stored is found
		// by the index as it is now, the rest is read again.
		opts.Reread = true
	}
	report.Elapsed, report.Traffic = time.Since(begin), r.Traffic().Sub(before)
	if err != nil {
		return report, fmt.Errorf("backup: %w", err)
	}
	return report, nil
}

// attempt opens the source and backs it up once: a view is one look, walked and
// finished at most once.
func (r *Repository) attempt(ctx context.Context, src source.Source, opts BackupOptions, m *progress.Meter) (report BackupReport, err error) {
	began := time.Now() // before a view is taken that may be frozen, however long that takes
	view, err := src.Open(ctx)
	if err != nil {
		return report, err
	}
	defer func() {
		closeErr := view.Close()
		if err != nil {
			err = errors.Join(err, closeErr)
		} else if closeErr != nil { // what was published stays published
			r.opts.Logger.WarnContext(ctx, "the source was not closed properly after a backup", slog.Any("error", closeErr))
		}
	}()
	if labels := source.Labels(view); len(labels) > 0 {
		maps.Copy(labels, opts.Labels) // the caller's win
		opts.Labels = labels
	}
	b := &backup{repo: r, view: view, info: view.Info(), opts: opts, meter: m, began: began}
	report, err = b.run(ctx)
	report.Snapshot.Kind = b.info.Kind
	return report, err
}

// fill sets what the caller left to the default.
func (o *BackupOptions) fill() error {
	if o.Host == "" {
		host, err := os.Hostname()
		if err != nil {
			return err
		}
		o.Host = strings.ToValidUTF8(host, "\uFFFD")
	}
	if o.User == "" {
		if u, err := user.Current(); err == nil { // only for people
			o.User = strings.ToValidUTF8(u.Username, "\uFFFD")
		}
	}
	return nil
}

// A backup is one run of Backup.
type backup struct {
	repo  *Repository
	view  source.View
	info  source.Info
	opts  BackupOptions
	meter *progress.Meter
	began time.Time
}

// run backs up the view.
func (b *backup) run(ctx context.Context) (BackupReport, error) {
	var report BackupReport
	r := b.repo
	b.meter.SetPhase(progress.Open)
	if b.opts.Name == "" {
		b.opts.Name = b.info.Name
	}
	group := b.group()
	s := &saver{}
	session, err := r.store.Begin(ctx, store.SessionOptions{Group: group, Host: b.opts.Host, Dry: b.opts.DryRun, Partial: s.partial})
	if err != nil {
		return report, err
	}
	defer session.Abort(ctx)
	parents, err := b.parents(ctx, group)
	if err != nil {
		return report, err
	}
	if p := parents.snapshot; p != nil {
		b.meter.AddFilesTotal(int64(p.Stats.Files + p.Stats.Dirs + p.Stats.Others)) //nolint:gosec // a count
		b.meter.AddBytesTotal(int64(p.Stats.Bytes))                                 //nolint:gosec // a size
	}
	b.meter.SetPhase(progress.Read)
	s.start(b, session, parents)
	tree, err := s.save(ctx)
	if err != nil {
		return report, err
	}
	if err := b.view.Finish(ctx); err != nil {
		return report, err
	}
	snap := b.snapshot(group, parents, s, tree)
	report.Snapshot = snap
	report.Sockets, report.Changed = s.sockets.Load(), s.changed
	_, report.Resumed = s.inherited()
	report.Skipped, report.Followed = source.LeftOut(b.view), source.Followed(b.view)
	if p := parents.snapshot; p != nil && p.Tree == tree && len(snap.Missing) == 0 && p.Complete {
		report.Unchanged, err = b.unchanged(ctx, session, parents)
		if err != nil {
			return report, err
		}
		if report.Unchanged && b.opts.SkipIfUnchanged {
			report.Snapshot = *p
			return report, nil
		}
	}
	if b.opts.DryRun {
		w := session.Written()
		report.Snapshot.Stats.New = w.New
		return report, nil
	}
	b.meter.SetPhase(progress.Commit)
	report.Snapshot.Summary, err = b.commit(ctx, session, snap, parents.sessions)
	if prints, dirErr := r.prints(); err == nil && dirErr == nil {
		prints.Sweep()
	}
	return report, err
}

// unchanged reports whether the parent, whose tree is that of the new snapshot,
// is as good as that: nothing that it relies on is known to be damaged, nothing
// had to be stored again, and, where no snapshot would be published, it is not
// deleted meanwhile.
func (b *backup) unchanged(ctx context.Context, session *store.Session, parents parents) (bool, error) {
	if parents.hurt || session.HasNew() {
		return false, nil
	}
	if !b.opts.SkipIfUnchanged {
		return true, nil
	}
	if err := b.repo.log.Refresh(ctx); err != nil {
		return false, err
	}
	return b.repo.visible(parents.snapshot.ID), nil
}

// snapshot puts together what the run found. Sizes that are only known at the
// end are missing from it.
func (b *backup) snapshot(group [16]byte, parents parents, s *saver, tree chunk.ID) manifest.Snapshot {
	start, began := manifest.TimeOf(b.began), manifest.Time{}
	if !b.opts.Time.IsZero() {
		start, began = manifest.TimeOf(b.opts.Time), start
	}
	snap := manifest.Snapshot{
		Summary: manifest.Summary{
			ID: manifest.NewID(), Start: start, Began: began,
			Kind: b.info.Kind, Name: b.opts.Name, Host: b.opts.Host, User: b.opts.User,
			Platform: runtime.GOOS + "/" + runtime.GOARCH,
			Program:  b.repo.opts.Program, Version: b.repo.opts.Version,
			Tags: b.opts.Tags, Labels: b.opts.Labels,
			Complete: s.stats.missing.Load() == 0, Group: group, Stats: s.figures(),
		},
		Roots: b.info.Roots, Missing: s.missing, Tree: tree,
	}
	if p := parents.snapshot; p != nil {
		snap.Parent = p.ID
		if inherited, _ := s.inherited(); inherited {
			snap.Depth = p.Depth + 1
		}
	}
	return snap
}

// commit stores the rest and publishes the snapshot.
func (b *backup) commit(ctx context.Context, session *store.Session, snap manifest.Snapshot, over [][16]byte) (manifest.Summary, error) {
	body, err := manifest.EncodeBody(snap)
	if err != nil {
		return snap.Summary, err
	}
	if session.HasNew() {
		// A copy in the packs: if the log were lost, the snapshot could be
		// found from packs alone.
		record, err := manifestChunk(snap.Summary, body)
		if err != nil {
			return snap.Summary, err
		}
		if _, err := session.PutChunk(ctx, record); err != nil {
			return snap.Summary, err
		}
	}
	if err := session.Drain(ctx); err != nil {
		return snap.Summary, err
	}
	r := b.repo
	_, sealed, err := seal.Object(r.keys.Data(0), seal.Template{Kind: seal.KindManifest}, seal.Binding{Repository: r.id}, body)
	if err != nil {
		return snap.Summary, err
	}
	_, err = session.Commit(ctx, over, func(_ log.Ranges, w store.Written) (log.Snapshot, error) {
		snap.End = manifest.TimeOf(time.Now())
		snap.Stats.New, snap.Stats.Stored = w.New, w.Stored
		return log.Snapshot{Summary: snap.Summary, Body: sealed}, nil
	})
	return snap.Summary, err
}

// manifestChunk is the last chunk of a session's metadata packs:
//
//	uvarint 4 | length and bytes of the summary | length and bytes of the body
//
// Tree pages begin with 1, 2 or 3. The sizes that are known only once everything is
// stored, and the end, are missing from this copy.
func manifestChunk(summary manifest.Summary, body []byte) ([]byte, error) {
	s, err := manifest.EncodeSummary(summary)
	if err != nil {
		return nil, err
	}
	return wire.AppendBytes(wire.AppendBytes(wire.AppendUvarint(nil, 4), s), body), nil
}

// group returns the keyed hash of host, name and roots: what follows each other.
func (b *backup) group() [16]byte {
	p := wire.AppendBytes(nil, []byte("cairn v1 group"))
	p = wire.AppendBytes(p, []byte(b.opts.Host))
	p = wire.AppendBytes(p, []byte(b.opts.Name))
	for _, root := range b.info.Roots {
		p = wire.AppendBytes(p, []byte(root.Path))
	}
	id := chunk.NewHasher(b.repo.keys.Chunk).Sum(p)
	return [16]byte(id[:16])
}

// parents are what a backup compares with.
type parents struct {
	snapshot *manifest.Snapshot // nil: none
	hurt     bool               // it relies on a pack that is known to be damaged
	trees    []parentTree       // newest first
	sessions [][16]byte         // interrupted ones of the group, which the new snapshot ends
}

// A parentTree is a tree whose unchanged nodes may be taken over.
type parentTree struct {
	tree    chunk.ID
	began   manifest.Time // when its backup began to read
	needs   log.Ranges
	partial bool // of an interrupted session
}

// trusts reports whether a node of t that looks as now has the content of now: its
// last change had settled before t's backup began to read, and before this one did,
// at began. A view that is frozen may be older than the parent, which then has what
// came in the same moment as that change and the view does not show.
func (t *parentTree) trusts(look manifest.Look, began manifest.Time) bool {
	settles := manifest.Time{Sec: look.CTime.Sec + settled, Nsec: look.CTime.Nsec}
	return settles.Compare(t.began) <= 0 && settles.Compare(began) <= 0
}

// parents finds the newest snapshot of the group, or the one that was asked
// for, and the partial tree of an interrupted run behind it.
func (b *backup) parents(ctx context.Context, group [16]byte) (parents, error) {
	r := b.repo
	var found parents
	var parent *log.SnapshotInfo
	var partial *log.SessionInfo
	err := r.log.View(func(st *log.State) error {
		for s := range st.Snapshots() {
			if b.opts.Parent.IsZero() && s.Summary.Group == group || !b.opts.Parent.IsZero() && s.Summary.ID == b.opts.Parent {
				parent = s
			}
		}
		for s := range st.Sessions() {
			if s.Group == group {
				found.sessions = append(found.sessions, s.ID)
			}
			if s.Group == group && len(s.Partial) > 0 && (partial == nil || s.N > partial.N) && (parent == nil || s.N > parent.N) {
				partial = s
			}
		}
		// Nothing is taken over from packs with known damage: what is read
		// again is stored again, and mends older snapshots by its name.
		if partial != nil && hurt(st, partial.Needs) {
			partial = nil
		}
		found.hurt = parent != nil && hurt(st, parent.Needs)
		return nil
	})
	if err != nil {
		return found, err
	}
	if !b.opts.Parent.IsZero() && parent == nil {
		return found, fmt.Errorf("parent %s: %w", b.opts.Parent.Short(), ErrNotFound)
	}
	if partial != nil {
		if t, err := r.openPartial(partial); err == nil { // a hint: without it files are read again
			found.trees = append(found.trees, t)
		}
	}
	if parent == nil {
		return found, nil
	}
	snap, err := r.openSnapshot(parent)
	if err != nil {
		return found, err
	}
	found.snapshot = &snap
	began := snap.Began
	if began.IsZero() {
		began = snap.Start
	}
	if !found.hurt {
		found.trees = append(found.trees, parentTree{tree: snap.Tree, began: began, needs: parent.Needs})
	}
	return found, ctx.Err()
}

// hurt reports whether a block in one of the packs is known to be damaged.
func hurt(st *log.State, packs log.Ranges) bool {
	for d := range st.Damage() {
		if packs.Contains(d.Pack) {
			return true
		}
	}
	return false
}

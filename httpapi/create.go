package httpapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/httpapi/internal/job"
	"github.com/cairn-backup/cairn/httpapi/internal/steady"
	"github.com/cairn-backup/cairn/manifest"
)

// maxRounds is how often data that change are read before a backup gives up.
const maxRounds = 3

// changingTag marks backups of data that changed while they were read.
const changingTag = "changing"

// settleLooks is how often it is looked for a commit of unknown outcome before it
// counts as not made.
const settleLooks = 6

var errChanging = errors.New("stop what writes to it, or start the server with --allow-changing")

// startCreation starts a job that creates a backup.
func (s *Server) startCreation(ctx context.Context, repo Repository) (*job.Job, error) {
	id, err := s.newID(ctx, repo)
	if err != nil {
		return nil, err
	}
	return s.jobs.Start(ctx, job.Status{
		Kind: job.Creation, ID: id, Subject: job.Subject{Device: s.host, Platform: platform()},
	}, func(ctx context.Context, j *job.Job) error {
		bytes, err := s.create(ctx, repo, j)
		if errors.Is(err, engine.ErrUnknownOutcome) {
			bytes, err = s.settleCommit(ctx, repo, id, err)
		}
		if err == nil {
			j.SetBytes(bytes)
		}
		return err
	})
}

// create backs up the data. What changed meanwhile is read again: files that did
// not are known by their times, as far as an earlier backup holds them, and
// chunks that were stored are not stored again. It returns what a restore writes.
func (s *Server) create(ctx context.Context, repo Repository, j *job.Job) (bytes int64, err error) {
	opts := engine.BackupOptions{
		Name: s.data.Name, Host: s.host, Labels: map[string]string{idLabel: j.Status().ID}, Progress: j.Progress,
	}
	src := &steady.Source{Of: s.data.Source, Name: s.data.Name, Totals: j.SetTotals}
	for round := 1; ; round++ {
		if round == maxRounds && s.opts.AllowChanging {
			src.Loose, opts.Tags = true, []string{changingTag}
		}
		report, err := repo.Backup(ctx, src, opts)
		if !errors.Is(err, steady.ErrChanging) {
			return int64(report.Snapshot.Stats.Bytes), err //nolint:gosec // a size
		}
		if round == maxRounds {
			return 0, fmt.Errorf("%w, %d times; %w", err, round, errChanging)
		}
		s.opts.Logger.InfoContext(ctx, "the data are read again", slog.String("id", j.Status().ID), slog.Any("reason", err))
	}
}

// settleCommit finds out whether a backup was stored whose commit got no answer.
// It returns err if not, and when ctx ends before that is known.
func (s *Server) settleCommit(ctx context.Context, repo Repository, id string, err error) (int64, error) {
	fenced := false // nothing can come to lie where the commit would have
	for try, absent := 0, 0; absent < settleLooks; try++ {
		b, findErr := s.find(ctx, repo, id)
		switch {
		case findErr == nil:
			return b.subject.Bytes, nil
		case errors.Is(findErr, errUnknown) && fenced:
			return 0, err
		case errors.Is(findErr, errUnknown):
			absent++
			if fenced = s.fence(ctx, repo); fenced {
				continue // look once more
			}
		}
		if waitErr := pause(ctx, min(time.Second<<min(try, 5), 30*time.Second)); waitErr != nil {
			return 0, errors.Join(err, waitErr)
		}
	}
	return 0, err
}

// fence appends a record that changes nothing, and reports whether it could: a
// commit that is still on its way then finds its place taken.
func (s *Server) fence(ctx context.Context, repo Repository) bool {
	for sum, err := range repo.Summaries(ctx, manifest.Filter{}) {
		return err == nil && repo.Annotate(ctx, sum.ID, manifest.Annotation{}) == nil
	}
	return false
}

// pause waits for d.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// startRestoration starts a job that replaces the data by a backup.
func (s *Server) startRestoration(ctx context.Context, repo Repository, b backup) (*job.Job, error) {
	return s.jobs.Start(ctx, job.Status{
		Kind: job.Restoration, ID: b.id, Subject: b.subject,
	}, func(ctx context.Context, j *job.Job) error {
		t := *s.data.Target
		t.Record = recordOf(j.Status())
		_, err := repo.Restore(ctx, b.snapshot, &t, engine.RestoreOptions{Progress: j.Progress})
		if err == nil {
			return nil
		}
		// What failed may have come after the exchange, which then stays.
		if last, lastErr := t.Recorded(context.WithoutCancel(ctx)); lastErr == nil && last == t.Record {
			s.opts.Logger.WarnContext(ctx, "a backup was restored, and then something failed", slog.String("id", b.id), slog.Any("error", err))
			return nil
		}
		return err
	})
}

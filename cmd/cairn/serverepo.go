package main

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"iter"
	"log/slog"
	"os"
	"sync"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/engine/source"
	"github.com/cairn-backup/cairn/engine/target"
	"github.com/cairn-backup/cairn/httpapi"
	"github.com/cairn-backup/cairn/manifest"
)

// repositories opens the repository, whenever it can be had.
type repositories struct {
	app    *app
	at     location
	secret engine.Secret
	opts   engine.Options

	mu      sync.Mutex // guards what follows
	current *servedRepository
}

// newRepositories finds out where the repository is and what opens it: mistakes
// in that end the program, all else may be mended while it runs.
func (a *app) newRepositories(ctx context.Context, data *servedData, logger *slog.Logger) (*repositories, error) {
	compression, err := a.compression()
	if err != nil {
		return nil, err
	}
	l, err := a.locate()
	if err != nil {
		return nil, err
	}
	if _, err := a.makeDefault(ctx, l, []string{data.path}); err != nil {
		return nil, err
	}
	secret, err := a.secretFor(ctx, l)
	if err != nil {
		return nil, err
	}
	opts := engine.Options{CacheDir: a.makeCacheDir(), Program: programName, Version: version, Compression: compression, Logger: logger}
	if l.remote() {
		opts.MetadataCache = metadataCache
	}
	return &repositories{app: a, at: l, secret: secret, opts: opts}, nil
}

// open is an httpapi.Opener. What it opened before is gone, and closed as soon as
// nobody is using it.
func (r *repositories) open(ctx context.Context) (httpapi.Repository, error) {
	if err := r.close(); err != nil {
		return nil, err
	}
	place, err := spotOf(r.at.dir)
	if err != nil {
		return nil, err
	}
	s := &servedRepository{store: r.at.store(), place: place}
	if s.repo, err = engine.Open(ctx, s.store, r.secret, r.opts); err != nil {
		return nil, errors.Join(r.app.explainOpen(ctx, r.at, err), s.closeStore())
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.current = s
	return s, nil
}

// use calls f with the open repository, which stays open meanwhile.
func (r *repositories) use(f func(repo *engine.Repository) error) error {
	r.mu.Lock()
	s := r.current
	r.mu.Unlock()
	if s == nil {
		return engine.ErrClosed
	}
	return s.use(func() error { return f(s.repo) })
}

// close closes the open repository, if there is one, once nobody uses it.
func (r *repositories) close() error {
	r.mu.Lock()
	s := r.current
	r.current = nil
	r.mu.Unlock()
	if s == nil {
		return nil
	}
	return s.retire()
}

// A spot is a directory, wherever its path leads by now.
type spot struct {
	path string
	dir  fs.FileInfo // nil: it was not there
}

// spotOf returns the directory at path; the zero spot for no path.
func spotOf(path string) (spot, error) {
	if path == "" {
		return spot{}, nil
	}
	fi, err := os.Stat(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return spot{}, err
	}
	return spot{path, fi}, nil
}

// gone reports whether the path leads elsewhere, or nowhere.
func (p spot) gone() bool {
	if p.dir == nil {
		return false
	}
	fi, err := os.Stat(p.path)
	return err != nil || !os.SameFile(fi, p.dir)
}

// A servedRepository is an open repository that knows whether it is still where
// it was opened: the engine would go on with a directory that was moved away, or
// with the disk that is no longer mounted.
type servedRepository struct {
	repo  *engine.Repository
	store backend.Backend
	place spot

	mu      sync.Mutex // guards what follows
	users   int        // operations that run
	retired bool       // it is closed when there are none
}

var _ httpapi.Removable = (*servedRepository)(nil)

// Gone implements httpapi.Removable.
func (s *servedRepository) Gone() bool { return s.place.gone() }

// use calls f, and keeps the repository open meanwhile.
func (s *servedRepository) use(f func() error) error {
	s.mu.Lock()
	closed := s.retired && s.users == 0
	if !closed {
		s.users++
	}
	s.mu.Unlock()
	if closed {
		return engine.ErrClosed
	}
	defer func() { _ = s.leave() }() // what could not be saved the next opening finds out
	return f()
}

// leave ends a use.
func (s *servedRepository) leave() error {
	s.mu.Lock()
	s.users--
	last := s.retired && s.users == 0
	s.mu.Unlock()
	if last {
		return s.close()
	}
	return nil
}

// retire closes the repository, once nobody uses it.
func (s *servedRepository) retire() error {
	s.mu.Lock()
	idle := s.users == 0 && !s.retired
	s.retired = true
	s.mu.Unlock()
	if idle {
		return s.close()
	}
	return nil
}

func (s *servedRepository) close() error { return errors.Join(s.repo.Close(), s.closeStore()) }

// closeStore lets go of the directory: else its disk could not be unmounted.
func (s *servedRepository) closeStore() error {
	if c, ok := s.store.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

// Backup implements httpapi.Repository, as the following methods do.
func (s *servedRepository) Backup(ctx context.Context, src source.Source, opts engine.BackupOptions) (report engine.BackupReport, err error) {
	err = s.use(func() error {
		report, err = s.repo.Backup(ctx, src, opts)
		return err
	})
	return report, err
}

// Restore restores a snapshot.
func (s *servedRepository) Restore(ctx context.Context, id manifest.ID, dst target.Target, opts engine.RestoreOptions) (report engine.RestoreReport, err error) {
	err = s.use(func() error {
		report, err = s.repo.Restore(ctx, id, dst, opts)
		return err
	})
	return report, err
}

// Summaries lists snapshots.
func (s *servedRepository) Summaries(ctx context.Context, f manifest.Filter) iter.Seq2[manifest.Summary, error] {
	return func(yield func(manifest.Summary, error) bool) {
		err := s.use(func() error {
			s.repo.Summaries(ctx, f)(yield)
			return nil
		})
		if err != nil {
			yield(manifest.Summary{}, err)
		}
	}
}

// Delete deletes snapshots.
func (s *servedRepository) Delete(ctx context.Context, ids ...manifest.ID) error {
	return s.use(func() error { return s.repo.Delete(ctx, ids...) })
}

// Annotate changes what is noted beside a snapshot.
func (s *servedRepository) Annotate(ctx context.Context, id manifest.ID, a manifest.Annotation) error {
	return s.use(func() error { return s.repo.Annotate(ctx, id, a) })
}

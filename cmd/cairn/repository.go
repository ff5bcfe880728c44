package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/engine"
)

// An access says whether a command writes to the repository.
type access uint8

const (
	reads access = iota
	writes
	looks // reads, and tells of a problem of the log itself
)

// open opens the repository that the command line names.
func (a *app) open(ctx context.Context, how access) (*engine.Repository, location, error) {
	l, err := a.locate()
	if err != nil {
		return nil, l, err
	}
	r, err := a.openAt(ctx, l, how)
	return r, l, err
}

// secretFor returns what opens the repository at l: what was given, or the key file of
// the default repository.
func (a *app) secretFor(ctx context.Context, l location) (engine.Secret, error) {
	s, err := a.secretSource()
	if err != nil {
		return nil, err
	}
	if s.given() == 0 && !l.chosen {
		if s.keyFile, err = a.defaultKeyFile(); err != nil {
			return nil, err
		}
	}
	return a.secret(ctx, s, asking{what: "passphrase"})
}

// openAt opens the repository at l.
func (a *app) openAt(ctx context.Context, l location, how access) (*engine.Repository, error) {
	compression, err := a.compression()
	if err != nil {
		return nil, err
	}
	// Before anyone is asked for a passphrase.
	if err := missing(l); err != nil {
		return nil, err
	}
	secret, err := a.secretFor(ctx, l)
	if err != nil {
		return nil, err
	}
	opts := engine.Options{CacheDir: a.makeCacheDir(), Program: programName, Version: version, Compression: compression}
	if l.remote() {
		opts.MetadataCache = metadataCache
	}
	if a.out.verbose {
		opts.Logger = slog.New(slog.NewTextHandler(logWriter{a.out}, nil))
	}
	repo, err := engine.Open(ctx, l.store(), secret, opts)
	if err != nil {
		return nil, a.explainOpen(ctx, l, err)
	}
	if repo.SingleWriter() && how == writes && a.out.verbose {
		a.out.complain("cairn: the repository is for a single writer: see that no other machine writes to it now")
	}
	if problem := repo.Problem(); problem != nil && how == reads {
		a.out.complain("cairn: the repository is shown as it was before its log was damaged: %s", oneLine(problem))
		if hint := hintOf(problem); hint != "" {
			a.out.complain("hint: %s", hint)
		}
	}
	return repo, nil
}

// metadataCache bounds what is kept of the trees of a repository that is far
// away, in bytes.
const metadataCache = 512 << 20

// A logWriter writes log lines to stderr, apart from the progress.
type logWriter struct{ out *output }

func (w logWriter) Write(p []byte) (int, error) {
	w.out.complain("%s", printableText(strings.TrimSuffix(string(p), "\n")))
	return len(p), nil
}

// makeCacheDir makes the cache directory and returns it. Where that fails the
// cache is kept in memory: it is a hint, and backups must not depend on it.
func (a *app) makeCacheDir() string {
	dir := a.cacheDir()
	if dir == "" {
		return ""
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		a.out.note("cairn: the cache is kept in memory: %s", oneLine(err))
		return ""
	}
	return dir
}

// missing returns an error if there is nothing at l that could be a repository.
func missing(l location) error {
	if l.remote() {
		return nil // opening finds out at the same price
	}
	entries, err := os.ReadDir(l.dir)
	switch {
	case errors.Is(err, fs.ErrNotExist), err == nil && len(entries) == 0:
		return noRepository(l)
	case err != nil && !errors.Is(err, fs.ErrPermission):
		if info, statErr := os.Stat(l.dir); statErr == nil && !info.IsDir() {
			return inWords(engine.ErrNoRepository, "%s is a file, not a repository", printable(l.text))
		}
		return fmt.Errorf("repository: %w", err)
	}
	return nil
}

// noRepository says that there is none at l, and how one is made.
func noRepository(l location) error {
	err := inWords(engine.ErrNoRepository, "there is no repository at %s", printable(l.text))
	if !l.chosen {
		return withHint(err, "cairn backup DIR makes the default repository; --repo or %s names another", envRepo)
	}
	if l.remote() {
		return withHint(err, "if the name is right, this makes one: cairn -r %s init", shellQuote(l.text))
	}
	return withHint(err, "if its disk is mounted and the path is right, this makes one: cairn -r %s init", shellQuote(l.text))
}

// explainOpen says more about why the repository at l did not open.
func (a *app) explainOpen(ctx context.Context, l location, err error) error {
	switch {
	case ctx.Err() != nil, errors.Is(err, engine.ErrNewerFormat):
		return err
	case errors.Is(err, engine.ErrWrongKey):
		return withHint(inWords(err, "the passphrase or key does not open the repository at %s", printable(l.text)),
			"each key of the repository opens it: use another one, or check for a typing error")
	case errors.Is(err, fs.ErrPermission), errors.Is(err, engine.ErrUnauthorized):
		return err
	}
	if t, ok := errors.AsType[*backend.TroubleError](err); ok && errors.Is(err, engine.ErrNoRepository) {
		return withHint(inWords(err, "%s: %s", printable(l.text), oneLine(t)), "%s", t.Advice)
	}
	if kind := foreign(l.dir); kind != "" {
		return withHint(inWords(engine.ErrNoRepository, "%s is a %s repository, which cairn does not read", printable(l.text), kind),
			"give cairn a directory of its own")
	}
	switch {
	case errors.Is(err, engine.ErrNoRepository):
		return noRepository(l)
	case errors.Is(err, engine.ErrCorrupt):
		return withHint(err, "what opens the repository is damaged: put it back from a copy of the repository, if there is one")
	}
	return err
}

// foreign returns whose repository dir is, or "" if it is none that is known.
func foreign(dir string) string {
	if dir == "" {
		return "" // in an object store the config object tells
	}
	has := func(name string) bool {
		_, err := os.Lstat(filepath.Join(dir, name))
		return err == nil
	}
	begins := func(name, prefix string) bool {
		p, err := readLimited(filepath.Join(dir, name))
		return err == nil && strings.HasPrefix(strings.TrimSpace(string(p)), prefix)
	}
	switch {
	case has("kopia.repository.f"), has("kopia.repository"):
		return "kopia"
	case begins("config", "[repository]"), has("README") && begins("README", "This is a Borg"):
		return "borg"
	case has("config") && has("keys") && has("snapshots") && !has("log"):
		return "restic"
	}
	return ""
}

// shellQuote quotes s for a POSIX shell if it must be.
func shellQuote(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-+:@%=,", r)
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

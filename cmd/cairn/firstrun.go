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
)

// makeDefault makes the default repository, with a generated key file, if
// there is none. It reports whether it did.
func (a *app) makeDefault(ctx context.Context, l location, sources []string) (bool, error) {
	if l.chosen || !errors.Is(missing(l), engine.ErrNoRepository) {
		return false, nil
	}
	s, err := a.secretSource()
	if err != nil {
		return false, err
	}
	if s.given() == 0 {
		if s.keyFile, err = a.defaultKeyFile(); err != nil {
			return false, err
		}
	}
	madeKey, err := a.initAt(ctx, l, s, "")
	if err != nil {
		return false, err
	}
	if a.out.json && !a.out.quiet {
		event := initJSON{Event: "created", Schema: schema, Repository: l.dir, RepositoryB64: b64(l.dir), KeyFile: s.keyFile, MadeKey: madeKey}
		if err := a.out.document(event); err != nil {
			return false, err
		}
	}
	a.out.say("made a repository at %s", printable(l.dir))
	if s.keyFile != "" {
		a.out.say("its key is in        %s", printable(s.keyFile))
		a.out.say("Copy the key off this machine now: without it nobody can read the backups.")
	} else {
		a.out.say("Keep the passphrase: without it nobody can read the backups.")
	}
	if sameDisk(l.dir, sources) {
		a.out.say("The repository is on the same disk as what is backed up: if the disk dies, both are lost.")
		a.out.say("A repository on another disk: cairn -r PATH init")
	}
	return true, nil
}

// initAt makes a repository at l that opens by s. A key file that does not
// exist is made; initAt reports whether it was.
func (a *app) initAt(ctx context.Context, l location, s secretSource, label string) (madeKey bool, err error) {
	if err := vacant(l); err != nil {
		return false, err
	}
	if s.keyFile != "" {
		if madeKey, err = makeKeyFile(l, s.keyFile); err != nil {
			return false, err
		}
	}
	secret, err := a.secret(ctx, s, asking{what: "passphrase", twice: true})
	if err != nil {
		return madeKey, err
	}
	if !l.chosen {
		// The engine makes the last directory only, so that an unmounted disk
		// does not become a repository. Nobody mounts the default one.
		if err := os.MkdirAll(filepath.Dir(l.dir), 0o700); err != nil {
			return madeKey, fmt.Errorf("repository: %w", err)
		}
	}
	if err := a.prove(ctx, l); err != nil {
		return madeKey, err
	}
	err = engine.Init(ctx, l.store(), secret, engine.InitOptions{Label: label, SingleWriter: l.single})
	switch {
	case err == nil || ctx.Err() != nil:
		return madeKey, err
	case errors.Is(err, engine.ErrExists):
		return madeKey, withHint(inWords(err, "there is a repository at %s already", printable(l.text)), "cairn -r %s snapshots shows what is in it", shellQuote(l.text))
	}
	if _, statErr := os.Stat(filepath.Dir(l.dir)); !l.remote() && errors.Is(statErr, fs.ErrNotExist) {
		// Not "no repository there": that code is for commands that need one.
		return madeKey, withHint(fmt.Errorf("%s: its parent directory does not exist", printable(l.text)), "mount the disk or make the directory first")
	}
	return madeKey, a.explainOpen(ctx, l, err)
}

// vacant returns an error if the directory of l holds what is not of a
// repository: nobody wants one among their own files.
func vacant(l location) error {
	if kind := foreign(l.dir); kind != "" {
		return withHint(inWords(engine.ErrNoRepository, "%s is a %s repository", printable(l.text), kind), "give cairn a directory of its own")
	}
	if l.remote() {
		return nil // the engine sees whether there is a repository
	}
	entries, err := os.ReadDir(l.dir)
	if err != nil {
		return nil //nolint:nilerr // absent, or for the engine to complain about
	}
	for _, e := range entries {
		switch name := e.Name(); {
		case strings.HasPrefix(name, "."), name == "lost+found": // a system's own
		case name == "config", name == "keys", name == "packs", name == "index", name == "log", name == "checkpoints":
			// of a repository, or of an init that was cut off
		default:
			return withHint(fmt.Errorf("%s is not empty: it holds %s", printable(l.text), printable(name)),
				"give a directory that is empty or does not exist")
		}
	}
	return nil
}

// makeKeyFile makes a new key at path unless something is there, and reports
// whether it did.
func makeKeyFile(l location, path string) (bool, error) {
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return false, nil // readKeyFile says what is wrong with it, if anything
	}
	if !l.chosen {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return false, fmt.Errorf("key file: %w", err)
		}
	}
	err := engine.NewKeyFile(path)
	if errors.Is(err, fs.ErrExist) {
		return false, nil // two first runs at once: both use the one
	}
	return err == nil, err
}

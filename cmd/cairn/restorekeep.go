package main

import (
	"bytes"
	"context"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/manifest"
)

// leaveAlone fills in what a restore must not take away, since without it there
// is nothing more to restore. What a backup leaves out lacks in every snapshot.
func (a *app) leaveAlone(ctx context.Context, m *restoreMode, repo *engine.Repository, l location, s manifest.Snapshot) error {
	files, err := a.secretFiles(l)
	if err != nil {
		return err
	}
	m.own = append(a.ownDirs(l), files...)
	if !m.exchanges() {
		return nil
	}
	if l.dir != "" {
		m.vital = append(m.vital, l.dir)
	}
	view, err := repo.FS(ctx, s.ID)
	if err != nil {
		return err
	}
	for _, file := range files {
		if !holdsFile(view, s.Roots, file) { // else the exchange puts it back
			m.vital = append(m.vital, file)
		}
	}
	return nil
}

// holdsFile reports whether a snapshot holds the file at that path, as it is now.
func holdsFile(view fs.FS, roots []manifest.Root, path string) bool {
	abs, err := filepath.Abs(path)
	if err != nil {
		return false
	}
	now, err := os.ReadFile(abs)
	if err != nil {
		return false
	}
	for _, root := range roots {
		rel, err := filepath.Rel(root.Path, abs)
		if err != nil || !within(abs, root.Path) {
			continue
		}
		name := root.Name
		if rel != "." {
			name += "/" + filepath.ToSlash(rel)
		}
		if then, err := fs.ReadFile(view, name); err == nil && bytes.Equal(now, then) {
			return true
		}
	}
	return false
}

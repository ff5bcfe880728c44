package main

import (
	"context"
	"strings"

	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/manifest"
)

// snapshot finds the snapshot that ref names. It says which one "latest" is,
// where streams tells.
func (a *app) snapshot(ctx context.Context, repo *engine.Repository, ref string, where stream) (manifest.Snapshot, error) {
	// Its own words for what can be no id, so that a mistyped path is not
	// looked for in the repository.
	if ref != latest && !isPrefix(ref) {
		return manifest.Snapshot{}, usagef("%q is no snapshot: give an id, its first 4 or more digits, or %s", printableText(ref), latest)
	}
	s, err := repo.Snapshot(ctx, ref)
	if err != nil {
		return s, err
	}
	if ref == latest {
		line := "latest is snapshot " + s.ID.Short() + " of " + localTime(s.Start) + ", " + describe(s)
		if where == toStderr || a.out.json {
			a.out.note("%s", line)
		} else {
			a.out.say("%s", line)
		}
	}
	return s, nil
}

const latest = "latest"

// A stream is one of the two output streams.
type stream uint8

const (
	toStdout stream = iota
	toStderr
)

// isPrefix reports whether ref can be an id or the start of one.
func isPrefix(ref string) bool {
	return len(ref) >= 4 && len(ref) <= 32 && strings.Trim(ref, "0123456789abcdef") == ""
}

// describe says in a few words what s is of.
func describe(s manifest.Snapshot) string {
	paths := make([]string, len(s.Roots))
	for i, r := range s.Roots {
		paths[i] = printable(r.Path)
	}
	if len(paths) > 3 {
		paths = append(paths[:3], "...")
	}
	return strings.Join(paths, ", ") + " on " + printable(s.Host)
}

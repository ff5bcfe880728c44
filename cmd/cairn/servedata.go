package main

import (
	"context"
	"os"
	"path/filepath"

	"github.com/cairn-backup/cairn/engine/source"
	"github.com/cairn-backup/cairn/engine/source/sqlite"
	"github.com/cairn-backup/cairn/engine/target"
	"github.com/cairn-backup/cairn/httpapi"
)

// A servedData is what cairn serve backs up and restores.
type servedData struct {
	path, name string
	source     *dataSource
}

// openData checks the path of the data. Nothing may be there yet: a restore
// makes it, into a directory that is there.
func openData(f serveFlags) (*servedData, error) {
	if _, err := statData(f.data); err != nil {
		return nil, usagef("--data: %v", err)
	}
	if parent, err := statData(filepath.Dir(f.data)); err != nil || parent == nil {
		return nil, usagef("--data: there is no directory %s", printable(filepath.Dir(f.data)))
	}
	return &servedData{path: f.data, name: f.name, source: &dataSource{path: f.data}}, nil
}

// set returns the data as the API knows them.
func (d *servedData) set() httpapi.Data {
	t := target.Swap(d.path)
	t.Verify = func(ctx context.Context, staged string) error {
		if fi, err := os.Stat(staged); err != nil || fi.IsDir() {
			return err
		}
		return sqlite.Verify(ctx, staged)
	}
	return httpapi.Data{Name: d.name, Source: d.source, Target: t}
}

// A dataSource is a directory or an SQLite database, whichever is there when it
// is opened: a restore may have made it.
type dataSource struct {
	path string
	skip []string // never backed up
}

// Open opens what is there.
func (d *dataSource) Open(ctx context.Context) (source.View, error) {
	fi, err := statData(d.path)
	if err != nil {
		return nil, &source.Error{Op: "open", Path: d.path, Err: err}
	}
	if fi != nil && !fi.IsDir() {
		return sqlite.File(d.path).Open(ctx)
	}
	dir := source.Dir(d.path)
	// What an exchange keeps in a directory that is a mount point.
	dir.Skip, dir.Exclude = d.skip, []string{
		"/.cairn-new/", "/.cairn-was/", "/.cairn-old/", "/.cairn-swap", "/.cairn-swap.tmp", "/.cairn-lock", "/.cairn-last",
	}
	return dir.Open(ctx)
}

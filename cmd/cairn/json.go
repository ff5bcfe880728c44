package main

import (
	"github.com/cairn-backup/cairn/manifest"
)

// schema is the version of every JSON document. Fields may be added to it.
const schema = 1

// A snapshotJSON is how every command writes a snapshot.
type snapshotJSON struct {
	ID       manifest.ID       `json:"id"`
	Time     manifest.Time     `json:"time"` // when the backup began to read
	Host     string            `json:"host"`
	User     string            `json:"user"`
	Platform string            `json:"platform"`
	Kind     manifest.Kind     `json:"kind"`
	Name     string            `json:"name"`
	Roots    []rootJSON        `json:"roots"`
	Tags     []string          `json:"tags"`
	Labels   map[string]string `json:"labels"`
	Files    uint64            `json:"files"`
	Bytes    uint64            `json:"bytes"`
	New      uint64            `json:"new"`
	Stored   uint64            `json:"stored"`
	Complete bool              `json:"complete"`
	Pinned   bool              `json:"pinned"`
	Parent   string            `json:"parent"` // "" if there is none
	Program  string            `json:"program"`
	Missing  []missingJSON     `json:"missing,omitempty"` // with --missing
}

type rootJSON struct {
	pathJSON
	Name    string `json:"name"`
	NameB64 string `json:"name_b64,omitempty"`
}

// A pathJSON is a path, and its bytes if they are not UTF-8.
type pathJSON struct {
	Path    string `json:"path"`
	PathB64 string `json:"path_b64,omitempty"`
}

func pathOf(path string) pathJSON { return pathJSON{Path: path, PathB64: b64(path)} }

func pathsOf(paths []string) []pathJSON {
	list := make([]pathJSON, len(paths))
	for i, p := range paths {
		list[i] = pathOf(p)
	}
	return list
}

type missingJSON struct {
	pathJSON
	Reason string `json:"reason"`
}

func missingOf(list []manifest.Missing) []missingJSON {
	out := make([]missingJSON, len(list))
	for i, m := range list {
		out[i] = missingJSON{pathOf(m.Path), m.Reason}
	}
	return out
}

func snapshotOf(s manifest.Snapshot) snapshotJSON {
	j := snapshotJSON{
		ID: s.ID, Time: s.Start, Host: s.Host, User: s.User, Platform: s.Platform, Kind: s.Kind, Name: s.Name,
		Roots: []rootJSON{}, Tags: s.Tags, Labels: s.Labels,
		Files: s.Stats.Files, Bytes: s.Stats.Bytes, New: s.Stats.New, Stored: s.Stats.Stored,
		Complete: s.Complete, Pinned: s.Pinned, Program: programOf(s.Summary),
	}
	if j.Tags == nil {
		j.Tags = []string{}
	}
	if j.Labels == nil {
		j.Labels = map[string]string{}
	}
	if !s.Parent.IsZero() {
		j.Parent = s.Parent.String()
	}
	for _, r := range s.Roots {
		j.Roots = append(j.Roots, rootJSON{pathOf(r.Path), r.Name, b64(r.Name)})
	}
	return j
}

func programOf(s manifest.Summary) string {
	if s.Version == "" {
		return s.Program
	}
	return s.Program + " " + s.Version
}

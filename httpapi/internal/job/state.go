package job

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// maxState bounds what is read of one state file, in bytes.
const maxState = 64 << 10

// load reads the states of earlier processes.
func (t *Table) load() error {
	if t.opts.Dir == "" {
		return nil
	}
	if err := os.MkdirAll(t.opts.Dir, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(t.opts.Dir)
	if err != nil {
		return err
	}
	var all []Status
	for _, e := range entries {
		path := filepath.Join(t.opts.Dir, e.Name())
		if strings.HasSuffix(e.Name(), tempSuffix) { // a crash left it
			if err := os.Remove(path); err != nil {
				return err
			}
			continue
		}
		s, err := read(path)
		if err == nil && e.Name() != fileName(key{s.Kind, s.ID}) {
			err = errors.New("it is of another job")
		}
		if err != nil {
			// One that is damaged must not keep the server from starting.
			t.opts.Logger.Warn("the state of a job cannot be read", slog.String("file", path), slog.Any("error", err))
			continue
		}
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b Status) int { return a.Started.Compare(b.Started) })
	var forgotten []key
	for _, s := range all {
		k := key{s.Kind, s.ID}
		t.lastMS = max(t.lastMS, msOf(s.ID))
		j := &Job{table: t, cancel: func() {}, done: make(chan struct{}), status: s, changed: make(chan struct{})}
		close(j.done)
		if !s.State.Final() {
			j.status.State, j.cutOff = CutOff, true
		}
		t.jobs[k] = j
		forgotten = append(forgotten, t.remember(j, k)...)
	}
	t.remove(forgotten...)
	return nil
}

func read(path string) (Status, error) {
	var s Status
	fi, err := os.Lstat(path)
	if err != nil {
		return s, err
	}
	if !fi.Mode().IsRegular() || fi.Size() > maxState {
		return s, errors.New("it is no state file")
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(data, &s); err != nil {
		return s, err
	}
	if s.Kind != Creation && s.Kind != Restoration || s.ID == "" {
		return s, fmt.Errorf("%q is no kind of job", s.Kind)
	}
	return s, nil
}

const tempSuffix = ".tmp"

// fileName returns the name of a job's state file. Identifiers hold nothing that
// a name may not.
func fileName(k key) string { return string(k.kind) + "-" + k.id + ".json" }

// msOf returns the milliseconds in an identifier, 0 if there are none.
func msOf(id string) int64 {
	ms, err := strconv.ParseInt(id[strings.LastIndexByte(id, '_')+1:], 10, 64)
	if err != nil {
		return 0
	}
	return ms
}

// write makes the state of a job durable. Where that fails the job goes on: what
// became of it is known from the log, or from the data, also without.
func (t *Table) write(s Status) {
	if t.opts.Dir == "" {
		return
	}
	if err := writeFile(filepath.Join(t.opts.Dir, fileName(key{s.Kind, s.ID})), s); err != nil {
		t.opts.Logger.Warn("the state of a job cannot be written", slog.String("id", s.ID), slog.Any("error", err))
	}
}

func writeFile(path string, s Status) error {
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), "*"+tempSuffix) // with mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(append(data, '\n'))
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return syncDir(filepath.Dir(path))
}

// remove removes the states of jobs that are forgotten.
func (t *Table) remove(keys ...key) {
	if t.opts.Dir == "" {
		return
	}
	for _, k := range keys {
		if err := os.Remove(filepath.Join(t.opts.Dir, fileName(k))); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.opts.Logger.Warn("the state of a job cannot be removed", slog.String("id", k.id), slog.Any("error", err))
		}
	}
}

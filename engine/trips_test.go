package engine_test

import (
	"context"
	"fmt"
	"io"
	"iter"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/backend/mem"
	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/engine/internal/layout"
	"github.com/cairn-backup/cairn/engine/source"
)

// trips is a store each of whose requests takes a second of the clock of a
// bubble, in which nothing else takes time.
type trips struct {
	backend.Backend
	tell func(op string, key backend.Key)
}

func (s *trips) Concurrency() int { return 16 }

func (s *trips) wait(op string, key backend.Key) {
	if s.tell != nil {
		s.tell(op, key)
	}
	time.Sleep(time.Second)
}

func (s *trips) Put(ctx context.Context, key backend.Key, data []byte) error {
	s.wait("put", key)
	return s.Backend.Put(ctx, key, data)
}

func (s *trips) Get(ctx context.Context, key backend.Key, off, n int64) (io.ReadCloser, error) {
	s.wait("get", key)
	return s.Backend.Get(ctx, key, off, n)
}

func (s *trips) List(ctx context.Context, prefix backend.Key) iter.Seq2[backend.Info, error] {
	s.wait("list", prefix)
	return s.Backend.List(ctx, prefix)
}

// TestRoundTrips: how many requests a machine that has never seen a repository
// makes one behind the other, where each takes as long as a second and nothing else
// takes any time: the config and the list of key slots; a slot and the list of the
// checkpoints; the newest one, its record and the list of the log; the records
// behind it. A restore goes on with the index, the list of the file, and the data.
func TestRoundTrips(t *testing.T) {
	for name, checkpoint := range map[string]bool{"a short log": false, "a checkpoint": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				inside := mem.New()
				s := &trips{Backend: inside}
				opts := engine.Tuned(engine.Options{Workers: 2}, small)
				r := open(t, inside, opts)
				id := backUp(t, r, renamed(write(t, map[string][]byte{"large": random(5, 300_000)})), engine.BackupOptions{}).Snapshot.ID
				for i := 0; checkpoint && !holds(t, inside, layout.Checkpoints); i++ {
					name := fmt.Sprint(i)
					backUp(t, r, source.FS(name, fstest.MapFS{name: {}}), engine.BackupOptions{})
				}
				_ = r.Close()
				begin := time.Now()
				s.tell = func(op string, key backend.Key) { t.Logf("%2v %s %s", time.Since(begin), op, key) }
				r, err := engine.Open(t.Context(), s, secret, opts)
				if took := time.Since(begin); err != nil || took > 4*time.Second {
					t.Errorf("Open = %v, after %v", err, took)
				}
				begin = time.Now()
				restore(t, r, id)
				if took := time.Since(begin); took > 3*time.Second {
					t.Errorf("the restore took %v", took)
				}
				_ = r.Close()
			})
		})
	}
}

// holds reports whether something lies under prefix.
func holds(t *testing.T, b backend.Backend, prefix backend.Key) bool {
	t.Helper()
	for _, err := range b.List(t.Context(), prefix) {
		if err != nil {
			t.Fatal(err)
		}
		return true
	}
	return false
}

package log

import (
	"cmp"
	"context"
	"os"
	"path/filepath"
	"slices"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/engine/internal/layout"
)

// A Look is what an Open without local state asks the store for first: the names
// of the checkpoints, and then, at one time, the newest of them, its record, and
// what lies in the log behind it. None of that needs a key, so that it can be under
// way while the key is derived; and what is in it is believed no more than if it
// had been read later.
type Look struct {
	cancel     context.CancelFunc
	names      *promise[[]layout.CheckpointName]
	checkpoint *promise[[]byte]
	record     *promise[[]byte]
	listing    *promise[listing]
}

// LookAt begins to look. The caller calls Stop.
func LookAt(ctx context.Context, b backend.Backend) *Look {
	ctx, cancel := context.WithCancel(ctx)
	l := &Look{cancel: cancel, names: begin(func() ([]layout.CheckpointName, error) { return checkpointNames(ctx, b) })}
	l.checkpoint = begin(func() ([]byte, error) {
		newest, ok := l.newest()
		if !ok {
			return nil, nil
		}
		return backend.ReadAll(ctx, b, newest.Key(), maxCheckpoint)
	})
	l.record = begin(func() ([]byte, error) {
		newest, _ := l.newest()
		if newest.N == 0 {
			return nil, nil
		}
		return backend.ReadAll(ctx, b, layout.Record(newest.N), maxRecord)
	})
	l.listing = begin(func() (listing, error) {
		newest, _ := l.newest()
		if _, err := l.names.wait(); err != nil {
			return listing{}, err
		}
		return list(ctx, b, newest.N+1)
	})
	return l
}

// newest returns the name of the newest checkpoint, if there is one.
func (l *Look) newest() (layout.CheckpointName, bool) {
	names, err := l.names.wait()
	if err != nil || len(names) == 0 {
		return layout.CheckpointName{}, false
	}
	return names[0], true
}

// is reports whether name is the checkpoint that was looked at.
func (l *Look) is(name layout.CheckpointName) bool {
	newest, ok := l.newest()
	return ok && newest == name
}

// Stop ends what is under way, and waits for it.
func (l *Look) Stop() {
	l.cancel()
	_, _ = l.names.wait() // whoever wanted to know has asked
	_, _ = l.checkpoint.wait()
	_, _ = l.record.wait()
	_, _ = l.listing.wait()
}

// HasLocal reports whether a directory holds a local state, by which an Open needs
// no Look.
func HasLocal(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, localName))
	return err == nil
}

// A promise is what a function returns that runs by itself.
type promise[T any] struct {
	done  chan struct{}
	value T
	err   error
}

func begin[T any](f func() (T, error)) *promise[T] {
	p := &promise[T]{done: make(chan struct{})}
	go func() {
		defer close(p.done)
		p.value, p.err = f()
	}()
	return p
}

func (p *promise[T]) wait() (T, error) {
	<-p.done
	return p.value, p.err
}

// checkpointNames lists the checkpoints, newest first. At one record a
// repaired one comes first.
func checkpointNames(ctx context.Context, b backend.Backend) ([]layout.CheckpointName, error) {
	var names []layout.CheckpointName
	for info, err := range b.List(ctx, layout.Checkpoints) {
		if err != nil {
			return nil, err
		}
		if name, err := layout.ParseCheckpoint(info.Key); err == nil {
			names = append(names, name)
		}
	}
	slices.SortStableFunc(names, func(a, b layout.CheckpointName) int {
		if c := cmp.Compare(b.N, a.N); c != 0 || a.Repaired == b.Repaired {
			return c
		}
		if a.Repaired {
			return -1
		}
		return 1
	})
	return names, nil
}

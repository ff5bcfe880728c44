package httpapi_test

import (
	"context"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/engine/source"
	"github.com/cairn-backup/cairn/manifest"
)

// A gate holds up the reading of the data, so that a creation runs for as long as
// a test wants.
type gate struct {
	of      source.Source
	once    sync.Once
	opened  chan struct{}
	reached chan struct{} // a token for each file that came to it
}

// newGate puts a closed gate before the data of w.
func newGate(w *world) *gate {
	g := &gate{of: w.set.Source, opened: make(chan struct{}), reached: make(chan struct{}, 1000)}
	w.set.Source = g
	w.t.Cleanup(g.open)
	return g
}

func (g *gate) open() { g.once.Do(func() { close(g.opened) }) }

// wait waits until something came to the gate.
func (g *gate) wait(t *testing.T) {
	t.Helper()
	select {
	case <-g.reached:
	case <-time.After(10 * time.Second):
		t.Fatal("nothing came to the gate")
	}
}

func (g *gate) Open(ctx context.Context) (source.View, error) {
	v, err := g.of.Open(ctx)
	if err != nil {
		return nil, err
	}
	return gateView{v, g}, nil
}

type gateView struct {
	source.View
	gate *gate
}

func (v gateView) OpenFile(ctx context.Context, path string) (io.ReadCloser, error) {
	v.gate.reached <- struct{}{}
	select {
	case <-v.gate.opened:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return v.View.OpenFile(ctx, path)
}

func (v gateView) Complete(ctx context.Context, path string, n *manifest.Node) error {
	return source.Complete(ctx, v.View, path, n)
}

// asDatabase says that a source is a database.
type asDatabase struct{ source.Source }

func (d asDatabase) Open(ctx context.Context) (source.View, error) {
	v, err := d.Source.Open(ctx)
	return databaseView{v}, err
}

type databaseView struct{ source.View }

func (v databaseView) Info() source.Info {
	info := v.View.Info()
	info.Kind = manifest.KindDatabase
	return info
}

// snapshot makes a snapshot of the data behind the server's back, as a database.
func (w *world) snapshot(opts engine.BackupOptions) manifest.Snapshot {
	w.t.Helper()
	return w.snapshotOf(asDatabase{w.set.Source}, opts)
}

func (w *world) snapshotOf(src source.Source, opts engine.BackupOptions) manifest.Snapshot {
	w.t.Helper()
	report, err := w.repo.Backup(w.t.Context(), src, opts)
	if err != nil {
		w.t.Fatal(err)
	}
	return report.Snapshot
}

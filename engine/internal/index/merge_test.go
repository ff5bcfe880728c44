package index

import (
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"
)

// TestCloseWaitsForTheMerge: Badger that is closed while it merges reads what is
// unmapped, in goroutines of its own, and takes the process with it. So a merge
// that takes too long is left to end, the directory stays locked until then, and
// nothing is lost.
func TestCloseWaitsForTheMerge(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	x := mustOpen(t, Options{Dir: dir})
	mustInsert(t, x, entries(0, 1000))
	d := diskOf(t, x)
	d.inserted.Store(bulk)
	d.patience = 20*time.Millisecond - flattenTimeout // what a merge may take is added
	release := make(chan struct{})
	var early atomic.Bool
	d.merge = func(db *badger.DB) error {
		<-release
		early.Store(db.IsClosed())
		return db.Flatten(1)
	}
	if err := x.Close(); !errors.Is(err, errNoAnswer) || !errors.Is(err, ErrDamaged) {
		t.Errorf("Close while tables are merged = %v, want %v", err, errNoAnswer)
	}
	if _, err := Open(Options{Dir: dir}); !errors.Is(err, ErrLocked) {
		t.Errorf("Open while tables are merged = %v, want ErrLocked", err)
	}
	close(release)
	for {
		y, err := Open(Options{Dir: dir, limits: new(frontLimits)})
		if errors.Is(err, ErrLocked) {
			select {
			case <-time.After(10 * time.Millisecond):
				continue
			case <-t.Context().Done():
				t.Fatal("the directory stays locked")
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		defer mustClose(t, y)
		if early.Load() || y.Rebuilt() {
			t.Errorf("closed before the merge: %v; rebuilt: %v", early.Load(), y.Rebuilt())
		}
		checkAll(t, y, 0, 1000)
		return
	}
}

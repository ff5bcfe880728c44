package engine

import (
	"context"
	"errors"
	"math"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/engine/internal/layout"
)

// ages tells how old stored objects are: by the clock of this process, and by
// when the store says that they were put. It serves policy alone.
type ages struct {
	store backend.Backend
	now   time.Time
	known map[uint64]time.Duration // of records
	aged  uint64                   // of tests
}

func newAges(b backend.Backend, now time.Time) *ages {
	return &ages{store: b, now: now, known: make(map[uint64]time.Duration)}
}

// of returns the age that an object has. One of which the store does not say is
// as young as can be.
func (a *ages) of(info backend.Info) time.Duration {
	if info.Modified.IsZero() {
		return 0
	}
	return a.now.Sub(info.Modified)
}

// record returns the age of a record.
func (a *ages) record(ctx context.Context, n uint64) (time.Duration, error) {
	if n <= a.aged {
		return 48 * time.Hour, nil
	}
	if age, ok := a.known[n]; ok {
		return age, nil
	}
	info, err := a.store.Stat(ctx, layout.Record(n))
	switch {
	case errors.Is(err, backend.ErrNotExist): // lost before a repair of the log, which was long ago
		a.known[n] = math.MaxInt64
	case err != nil:
		return 0, err
	default:
		a.known[n] = a.of(info)
	}
	return a.known[n], nil
}

// oldest returns how many of the records, which rise, are at least that old:
// records are written in their order, so that a few looks do.
func (a *ages) oldest(ctx context.Context, records []uint64, age time.Duration) (int, error) {
	if age < 0 {
		return len(records), nil
	}
	low, high := 0, len(records)
	for low < high {
		mid := int(uint(low+high) / 2) //nolint:gosec // indices
		got, err := a.record(ctx, records[mid])
		if err != nil {
			return 0, err
		}
		if got >= age {
			low = mid + 1
		} else {
			high = mid
		}
	}
	return low, nil
}

// statsAtOnce is how many objects are looked at at a time.
const statsAtOnce = 16

// young returns which of the objects are younger than age.
func (a *ages) young(ctx context.Context, keys []backend.Key, age time.Duration) (map[backend.Key]bool, error) {
	out := make(map[backend.Key]bool)
	if age < 0 {
		return out, nil
	}
	is := make([]bool, len(keys))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(statsAtOnce)
	for i, key := range keys {
		g.Go(func() error {
			info, err := a.store.Stat(ctx, key)
			if errors.Is(err, backend.ErrNotExist) {
				return nil // check reports it; there is nothing to spare
			}
			is[i] = err == nil && a.of(info) < age
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	for i, key := range keys {
		if is[i] {
			out[key] = true
		}
	}
	return out, nil
}

package engine

import (
	"context"
	"time"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/chunk"
	"github.com/cairn-backup/cairn/chunk/pack"
	"github.com/cairn-backup/cairn/engine/internal/keys"
	"github.com/cairn-backup/cairn/engine/internal/layout"
	"github.com/cairn-backup/cairn/engine/internal/log"
	"github.com/cairn-backup/cairn/engine/internal/store"
)

// Limits are small limits of a session, so that a few hundred kilobytes make
// many packs, records and partial trees.
type Limits = store.Limits

// Tuned returns o with limits.
func Tuned(o Options, limits Limits) Options {
	o.tuning.limits = limits
	return o
}

// Polynomial returns o with the polynomial of the repository's key, which else
// every Open derives.
func Polynomial(o Options, key chunk.Key) (Options, error) {
	var err error
	o.tuning.pol, err = chunk.DerivePolynomial(key)
	return o, err
}

// NoPolynomial returns o with a polynomial that nobody can cut by.
func NoPolynomial(o Options) Options {
	o.tuning.pol = 1
	return o
}

// Settle returns o with another time for which an outcome is sought.
func Settle(o Options, d time.Duration) Options {
	o.tuning.settle = d
	return o
}

// Log returns the log of r, with every right.
func (r *Repository) Log() *log.Log { return r.log }

// ReadChunk returns one chunk, verified.
func (r *Repository) ReadChunk(ctx context.Context, id chunk.ID) ([]byte, error) {
	return r.store.Chunk(ctx, id)
}

// Key returns the repository key.
func (r *Repository) Key() keys.Root { return r.keys.Root() }

// OwnSecret returns what s holds.
func OwnSecret(ctx context.Context, s Secret) (keys.Secret, error) { return s.secret(ctx) }

// RepositoryID returns the id that is bound into every object.
func (r *Repository) RepositoryID() keys.RepositoryID { return r.id }

// PackTable returns what the footer of a live pack says.
func (r *Repository) PackTable(ctx context.Context, key backend.Key) (number uint64, t pack.Table, err error) {
	id, err := layout.ParsePack(key)
	if err != nil {
		return 0, t, err
	}
	_ = r.log.View(func(st *log.State) error { // the function returns nil
		number, _ = st.PackNumber(id)
		return nil
	})
	t, err = r.store.Table(ctx, number)
	return number, t, err
}

// SettledAge is how old a change must be for a file to count as unchanged.
const SettledAge = settled * time.Second

// Clock returns o with another clock of the collector.
func Clock(o Options, now func() time.Time) Options {
	o.tuning.now = now
	return o
}

// Trusting returns o, and a collection does not try the store.
func Trusting(o Options) Options {
	o.tuning.valid = true
	return o
}

// SetAge makes all records up to n look two days old to the collections of r.
func SetAge(r *Repository, n uint64) { r.opts.tuning.agedTo = n }

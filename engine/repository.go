package engine

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/chunk"
	"github.com/cairn-backup/cairn/engine/internal/blockcache"
	"github.com/cairn-backup/cairn/engine/internal/index"
	"github.com/cairn-backup/cairn/engine/internal/keys"
	"github.com/cairn-backup/cairn/engine/internal/layout"
	"github.com/cairn-backup/cairn/engine/internal/log"
	"github.com/cairn-backup/cairn/engine/internal/store"
)

// A Repository is an open repository. It is safe for concurrent use: any number
// of operations may run at once. Nothing about a running operation is kept in it.
type Repository struct {
	opts   Options
	id     keys.RepositoryID
	config keys.Config
	keys   *keys.Set
	pol    func() (chunk.Pol, error) // derived by the first who cuts a file: it takes a millisecond
	meter  *line                     // what every request goes through
	log    *log.Log
	index  *index.Index
	store  *store.Store
	closed atomic.Bool

	validated atomic.Bool // the store was found to keep the contract
}

// Open opens the repository on b. What is wrong is told apart by errors:
// ErrNoRepository, ErrWrongKey, ErrNewerFormat, ErrCorrupt, and those of the
// backend. A repository whose log is damaged, holed or rolled back opens all
// the same, readable at its last good state: see Problem.
func Open(ctx context.Context, b backend.Backend, s Secret, opts Options) (*Repository, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	r := &Repository{opts: opts, meter: newLine(b, opts.Retry)}
	if err := r.unlock(ctx, s); err != nil {
		return nil, fmt.Errorf("open repository: %w", err)
	}
	if err := r.start(ctx); err != nil {
		return nil, fmt.Errorf("open repository: %w", errors.Join(err, r.Close()))
	}
	return r, nil
}

// unlock reads the config and opens it by the first slot that s fits.
func (r *Repository) unlock(ctx context.Context, s Secret) error {
	if s == nil {
		return keys.ErrNoSecret
	}
	if done, err := r.unlockKnown(ctx, s); done || err != nil {
		return err
	}
	// Beside the config, not behind it: a store may be far away.
	slots, stop := listAhead(ctx, r.meter, layout.Slots, maxSlots+1)
	defer stop()
	object, err := readConfig(ctx, r.meter)
	if err != nil {
		return err
	}
	if r.id, err = keys.ConfigID(object); err != nil {
		return explainForeign(object, err)
	}
	secret, err := s.secret(ctx)
	if err != nil {
		return err
	}
	if err := secret.CanOpen(); err != nil {
		return err
	}
	var look *log.Look
	if r.opts.CacheDir == "" || !log.HasLocal(filepath.Join(r.opts.CacheDir, hex.EncodeToString(r.id[:]))) {
		look = log.LookAt(ctx, r.meter) // while the key is derived
		defer look.Stop()
	}
	root, slot, err := openSlots(ctx, r.meter, slots, r.id, secret)
	if err != nil {
		return err
	}
	if err := r.unlockWith(root, object); err != nil {
		return err
	}
	if err := r.openLog(ctx, object, look); err != nil {
		return err
	}
	r.saveKnown(object, slot)
	return nil
}

// unlockKnown opens what is known of the repository by s. It reports whether it
// did; if not, the store has to be asked.
func (r *Repository) unlockKnown(ctx context.Context, s Secret) (bool, error) {
	if r.loadKnown() == nil {
		return false, nil
	}
	secret, err := s.secret(ctx)
	if err != nil {
		return false, err
	}
	if err := secret.CanOpen(); err != nil {
		return false, err
	}
	return r.openKnown(ctx, secret)
}

// unlockWith takes the repository's key and what the config says.
func (r *Repository) unlockWith(root keys.Root, object []byte) (err error) {
	r.keys = keys.Derive(root)
	if r.config, err = keys.OpenConfig(r.keys.Meta, object); err != nil {
		return corruptObject(layout.Config, err)
	}
	if r.config.Admin != r.keys.Admin().Public() {
		return corruptObject(layout.Config, errors.New("the signing key in it is not derived from the repository's key"))
	}
	r.pol = sync.OnceValues(func() (chunk.Pol, error) {
		if pol := r.opts.tuning.pol; pol != 0 {
			return pol, nil
		}
		return chunk.DerivePolynomial(r.keys.Chunk)
	})
	return nil
}

func (r *Repository) openLog(ctx context.Context, config []byte, look *log.Look) error {
	var signer *log.Signer
	if !r.opts.ReadOnly {
		signer = log.NewSigner(r.keys.Admin(), log.Admin|log.Keeper|log.Writer)
	}
	dir, err := r.cacheDir()
	if err != nil {
		return err
	}
	host, _ := os.Hostname() // only for people who read the log
	r.log, err = log.Open(ctx, log.Options{
		Backend: r.meter, Repository: r.id, Meta: r.keys.Meta, Genesis: log.HashOf(config),
		Keys:   log.Keys{Admin: r.config.Admin, Keeper: r.config.Keeper, Writer: r.config.Writer},
		Signer: signer, Writer: r.opts.Program + " on " + host, Dir: dir, ReadOnly: r.opts.ReadOnly,
		Settle: r.opts.tuning.settle, Look: look,
	})
	return err
}

// cacheDir makes the directory of this repository's caches and returns it; ""
// means none.
func (r *Repository) cacheDir() (string, error) {
	if r.opts.CacheDir == "" {
		return "", nil
	}
	dir := filepath.Join(r.opts.CacheDir, hex.EncodeToString(r.id[:]))
	if r.opts.ReadOnly {
		return dir, nil
	}
	for _, d := range []string{r.opts.CacheDir, dir} {
		if err := os.Mkdir(d, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
			return "", fmt.Errorf("cache directory: %w", err)
		}
	}
	return dir, nil
}

// start opens the index and the store. An index that another process holds is
// replaced by one in memory.
func (r *Repository) start(ctx context.Context) error {
	dir, err := r.cacheDir()
	if err != nil {
		return err
	}
	o := index.Options{Repository: r.id, ReadOnly: r.opts.ReadOnly}
	if dir != "" {
		o.Dir = filepath.Join(dir, "index")
	}
	r.index, err = index.Open(o)
	if errors.Is(err, index.ErrLocked) || errors.Is(err, index.ErrNoSpace) {
		r.opts.Logger.InfoContext(ctx, "the index on disk cannot be used; this process keeps its own in memory", slog.Any("reason", err))
		o.Dir = ""
		r.index, err = index.Open(o)
	}
	if err != nil {
		return fmt.Errorf("index: %w", err)
	}
	blocks := blockcache.Options{Limit: r.opts.MetadataCache, ReadOnly: r.opts.ReadOnly}
	if dir != "" {
		blocks.Dir = filepath.Join(dir, "blocks")
	}
	r.store = store.New(store.Options{
		Backend: r.meter, Repository: r.id, Keys: r.keys, Log: r.log, Index: r.index,
		Workers: r.opts.Workers, Logger: r.opts.Logger, Limits: r.opts.tuning.limits,
		Compression: r.opts.Compression.inStore(),
		Blocks:      blockcache.New(blocks),
	})
	return r.store.CheckIndex(ctx)
}

// Close releases what the repository holds. Operations that run must have ended.
// Caches that could not be saved are no error, since all that was done stays done:
// the next Open takes longer.
func (r *Repository) Close() error {
	if r.closed.Swap(true) {
		return nil
	}
	var errs []error
	if r.store != nil && !r.opts.ReadOnly {
		_ = r.store.SaveTag() // a hint: without it the next Open asks the store
	}
	if r.log != nil {
		errs = append(errs, r.log.Close())
	}
	if r.index != nil {
		errs = append(errs, r.index.Close())
	}
	if err := errors.Join(errs...); err != nil {
		r.opts.Logger.Warn("a cache was not saved", slog.Any("error", err))
	}
	return nil
}

// Format prints the repository's id and nothing of its keys, whatever the verb.
func (r *Repository) Format(f fmt.State, _ rune) {
	_, _ = fmt.Fprintf(f, "engine.Repository(%s)", r.ID()) // fmt has no way to report it
}

// ID returns the repository's id, 32 hexadecimal digits.
func (r *Repository) ID() string { return r.id.String() }

// Created returns when the repository was made, by the clock of who made it.
func (r *Repository) Created() time.Time { return time.Unix(r.config.Created, 0).UTC() }

// Problem says why the log cannot be written: ErrRolledBack, ErrLogHole or
// ErrLogDamaged, or nil if all is well. See PlanRepair.
func (r *Repository) Problem() error { return r.log.Problem() }

// Requests returns how many requests were made to the store so far.
func (r *Repository) Requests() int64 { return r.meter.Counts().Requests() }

// SingleWriter reports whether the store cannot create an object only if it is
// absent, so that one process at a time may write to the repository.
func (r *Repository) SingleWriter() bool { return r.config.SingleWriter }

// writable refuses what would write.
func (r *Repository) writable() error {
	switch {
	case r.closed.Load():
		return ErrClosed
	case r.opts.ReadOnly:
		return fmt.Errorf("the repository was opened for reading: %w", ErrReadOnly)
	}
	return r.log.Problem()
}

func (r *Repository) readable() error {
	if r.closed.Load() {
		return ErrClosed
	}
	return nil
}

func corruptObject(key backend.Key, err error) error {
	if errors.Is(err, ErrNewerFormat) {
		return err
	}
	return &store.CorruptError{Object: string(key), Offset: -1, Err: err}
}

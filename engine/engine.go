package engine

import (
	"errors"
	"log/slog"
	"runtime"
	"time"

	"github.com/cairn-backup/cairn/backend/retry"
	"github.com/cairn-backup/cairn/chunk"
	"github.com/cairn-backup/cairn/engine/internal/store"
)

// Options says how a repository is opened. The zero value works.
type Options struct {
	// CacheDir is a directory for the chunk index and for the position in the
	// log. What lies there is a hint: deleting it costs time and nothing else.
	// It is created with mode 0700 if its parent exists. Default: index and
	// position are kept in memory and built anew by each Open, which is fine
	// for repositories of up to about a million chunks (40 GiB of data).
	//
	// Of a store that has a name (backend.Namer) the config and the key slots that
	// opened the repository are kept as well, for a day, so that Open does not ask
	// for them: a slot that was removed on another machine opens here until then.
	CacheDir string

	// MetadataCache is how many bytes of metadata packs, as they are stored, are
	// kept in CacheDir, so that trees need not be fetched again: for stores that
	// are far away, 512 MiB (512 << 20) hold the trees of tens of millions of
	// files. What was not used for longest goes first; processes that share the
	// directory may go beyond by a sixteenth each. Default: none, since
	// reading a local store costs as much as reading a cache.
	MetadataCache int64

	// ReadOnly opens the repository for reading: nothing is written, neither to
	// the store nor to CacheDir, and every operation that would is refused with
	// ErrReadOnly.
	ReadOnly bool

	// Workers is how many goroutines split, compress and verify, 1 to 256.
	// Peak resident memory of a backup is about 105 MiB + Workers * 20 MiB, of a
	// restore 65 MiB + Workers * 10 MiB, of a check of every byte 55 MiB +
	// Workers * 26 MiB, however much data there is, in a process that does nothing
	// else and collects garbage as the command does: a fixed 24 MiB of it lie. A
	// restore from a store in a network takes 1.5 MiB more for each request that
	// it has under way, which are as many as backend.Concurrency says: 48 MiB with
	// S3 and Azure. One of many small files takes up to 100 MiB more for its plan.
	// See docs/performance.md for the measurements.
	// Default: GOMAXPROCS.
	Workers int

	// Compression says how hard what is stored is compressed, by backups and by
	// collections. Default: CompressionFastest.
	Compression Compression

	// Retry says how requests that fail for a while are tried again, unless the
	// backend that is given is a retry.Backend already. Default: see
	// retry.Policy; up to 5 minutes.
	Retry retry.Policy

	// Logger receives what an operator may want to know and no caller acts on,
	// such as a cache that had to be rebuilt. Never a secret. Default: silent.
	Logger *slog.Logger

	// Program names the program and its version in snapshots and log records.
	// Default: "cairn".
	Program, Version string

	tuning tuning
}

// tuning is what only tests change; the zero value is the default.
type tuning struct {
	limits store.Limits
	settle time.Duration    // for how long the outcome of a record is sought
	now    func() time.Time // the collector's clock
	valid  bool             // the store is taken to keep the contract
	agedTo uint64           // records up to this one are two days old to a collection
	pol    chunk.Pol        // of the splitter, which takes a millisecond to derive
}

func (o Options) withDefaults() (Options, error) {
	var errs []error
	if o.Workers == 0 {
		o.Workers = min(runtime.GOMAXPROCS(0), maxWorkers)
	}
	if o.Workers < 0 || o.Workers > maxWorkers {
		errs = append(errs, errors.New("options: Workers must lie between 1 and 256"))
	}
	if o.Compression > CompressionAuto {
		errs = append(errs, errors.New("options: there is no such Compression"))
	}
	if o.MetadataCache < 0 {
		errs = append(errs, errors.New("options: MetadataCache must not be negative"))
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Program == "" {
		o.Program = "cairn"
	}
	return o, errors.Join(errs...)
}

const maxWorkers = 256

package engine

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/cairn-backup/cairn/chunk/pack"
	"github.com/cairn-backup/cairn/chunk/seal"
	"github.com/cairn-backup/cairn/chunk/wire"
	"github.com/cairn-backup/cairn/engine/internal/log"
)

// The ledger of which packs were read and verified when is a file of the cache,
// sealed: a framed object of seal.KindLocal under the meta key, bound to the
// repository and to number 1. Its parts joined are
//
//	uvarint 1 | entries, rising by pack number, to the end
//	entry: uvarint pack number minus the one before | 4 bytes, little-endian, of the pack's ID | uvarint seconds since 1970
//
// It is a hint in every respect: a lost one costs reading packs again.
const (
	ledgerName    = "check-ledger"
	ledgerNumber  = 1
	ledgerVersion = 1
	// maxLedger bounds the packs in a ledger, those verified last, and with 15
	// bytes for each its size: 64 TiB of packs.
	maxLedger     = 4 << 20
	maxLedgerSize = 15*maxLedger + 1<<20 // bytes
	ledgerCut     = 8 << 20
	// ledgerEvery is how much of a check's work an interrupted one may lose.
	ledgerEvery = 30 * time.Second
)

// A ledgerEntry says when a pack was verified as a whole.
type ledgerEntry struct {
	check uint32 // from the pack's ID: in another history the number names another pack
	at    int64  // seconds since 1970, by this machine's clock
}

// A ledger says which packs were verified when. It is safe for concurrent use.
type ledger struct {
	repo *Repository
	path string // "": it is kept in memory only

	mu      sync.Mutex // guards what follows
	packs   map[uint64]ledgerEntry
	changed bool
	saved   time.Time
}

// openLedger reads the ledger, or begins a new one.
func (r *Repository) openLedger() *ledger {
	l := &ledger{repo: r, saved: time.Now()}
	if dir, err := r.cacheDir(); err == nil && dir != "" { // without one there is no ledger
		l.path = filepath.Join(dir, ledgerName)
	}
	l.packs = l.load()
	return l
}

// due reports whether a pack was not verified within maxAge. A time that is yet
// to come is none.
func (l *ledger) due(number uint64, id pack.ID, maxAge time.Duration) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	e, ok := l.packs[number]
	age := time.Since(time.Unix(e.at, 0))
	return !ok || e.check != id.Check() || age < 0 || age > maxAge
}

func (l *ledger) verified(number uint64, id pack.ID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.packs[number] = ledgerEntry{check: id.Check(), at: time.Now().Unix()}
	l.changed = true
}

// saveNowAndThen saves the ledger if it was not saved lately.
func (l *ledger) saveNowAndThen(ctx context.Context) error {
	l.mu.Lock()
	due := l.changed && time.Since(l.saved) >= ledgerEvery
	if due {
		l.saved = time.Now()
	}
	l.mu.Unlock()
	if !due {
		return nil
	}
	return l.save(ctx)
}

// save writes the ledger, with what other checks have written to it meanwhile. A
// disk that does not take it is no reason for a check to fail.
func (l *ledger) save(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.path == "" || l.repo.opts.ReadOnly || !l.changed {
		return nil
	}
	for number, e := range l.load() {
		if mine, ok := l.packs[number]; !ok || mine.check == e.check && mine.at < e.at {
			l.packs[number] = e
		}
	}
	live := make(map[uint64]uint32)
	_ = l.repo.log.View(func(st *log.State) error { // the function returns nil
		for number, info := range st.Packs() {
			live[number] = info.ID.Check()
		}
		return nil
	})
	maps.DeleteFunc(l.packs, func(number uint64, e ledgerEntry) bool {
		check, ok := live[number]
		return !ok || check != e.check
	})
	object, err := l.seal()
	if err != nil {
		return err
	}
	if err := replaceCacheFile(l.path, object); err != nil {
		l.repo.opts.Logger.WarnContext(ctx, "the ledger of the check was not saved; a later check reads these packs again", slog.Any("error", err))
		return nil
	}
	l.changed = false
	return nil
}

func (l *ledger) seal() ([]byte, error) {
	parts := slices.Collect(slices.Chunk(encodeLedger(l.packs), ledgerCut))
	bind := seal.Binding{Repository: l.repo.id, Number: ledgerNumber}
	_, object, err := seal.Object(l.repo.keys.Meta, seal.Template{Kind: seal.KindLocal}, bind, parts...)
	return object, err
}

// load reads the file; what cannot be read is empty.
func (l *ledger) load() map[uint64]ledgerEntry {
	none := make(map[uint64]ledgerEntry)
	if l.path == "" {
		return none
	}
	if info, err := os.Stat(l.path); err != nil || !info.Mode().IsRegular() || info.Size() > maxLedgerSize {
		return none
	}
	object, err := os.ReadFile(l.path)
	if err != nil {
		return none
	}
	bind := seal.Binding{Repository: l.repo.id, Number: ledgerNumber}
	_, parts, err := seal.OpenObject(l.repo.keys.Meta, seal.KindLocal, bind, object)
	if err != nil {
		return none
	}
	packs, err := decodeLedger(bytes.Join(parts, nil))
	if err != nil {
		return none
	}
	return packs
}

// encodeLedger returns the bytes of the entries, of the newest if there are more
// than a ledger may have.
func encodeLedger(packs map[uint64]ledgerEntry) []byte {
	numbers := slices.Sorted(maps.Keys(packs))
	if len(numbers) > maxLedger {
		slices.SortFunc(numbers, func(a, b uint64) int { return int(packs[b].at - packs[a].at) })
		numbers = numbers[:maxLedger]
		slices.Sort(numbers)
	}
	p := wire.AppendUvarint(nil, ledgerVersion)
	last := uint64(0)
	for _, n := range numbers {
		p = wire.AppendUvarint(p, n-last)
		p = binary.LittleEndian.AppendUint32(p, packs[n].check)
		p = wire.AppendUvarint(p, uint64(max(packs[n].at, 0))) //nolint:gosec // not negative
		last = n
	}
	return p
}

var errLedger = errors.New("no ledger")

func decodeLedger(p []byte) (map[uint64]ledgerEntry, error) {
	r := wire.NewReader(p)
	if r.Uvarint(math.MaxUint64) != ledgerVersion {
		return nil, errLedger
	}
	packs := make(map[uint64]ledgerEntry)
	last := uint64(0)
	for r.Err() == nil && r.Len() > 0 {
		step := r.Uvarint(math.MaxInt64)
		check := r.Fixed(4)
		at := r.Uvarint(math.MaxInt64)
		if r.Err() != nil || step == 0 || last > math.MaxUint64-step || len(packs) == maxLedger {
			return nil, errLedger
		}
		last += step
		packs[last] = ledgerEntry{check: binary.LittleEndian.Uint32(check), at: int64(at)} //nolint:gosec // bounded
	}
	return packs, r.Err()
}

// replaceCacheFile puts data in the place of a file of the cache, whole or not at
// all. It does not sync: what a crash leaves fails to open, and is a hint.
func replaceCacheFile(name string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(name), filepath.Base(name)+"-*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

package store

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/cairn-backup/cairn/chunk/codec"
)

// A Compression says how hard blocks are compressed.
type Compression struct {
	Level codec.Level
	Adapt bool // Level is where it begins: see adapter
}

// ladder returns what an adapter chooses from: each level takes about one and a
// half times the CPU time of the one before, the first half.
func ladder() []codec.Level {
	return []codec.Level{codec.S2, codec.Fastest, codec.Default, codec.Better}
}

const (
	// slowStore is from what share of the time on, that finished packs wait for
	// an uploader, the store is the limit.
	slowStore = 0.25
	// fastStore is up to what share it is not.
	fastStore = 0.02
	// busySealers is up to what share of their time the sealers may wait for
	// blocks, and compression still be what holds everything up.
	busySealers = 0.5
	// calm is how many packs in a row must ask for a cheaper level: a step that a
	// short burst of a slow store made is not taken back at once.
	calm = 3
)

// An adapter chooses the level of a session's blocks, by who waits for whom.
// Where packs wait for the store a stronger level costs nothing and sends less;
// where the store waits and the sealers are busy a cheaper one is sooner done;
// where they wait for the source nothing would be gained by either.
//
// It looks once for each finished pack.
type adapter struct {
	sealers int
	step    atomic.Int32 // in ladder

	mu    sync.Mutex // guards what follows
	since time.Time  // of the last look
	idle  time.Duration
	calm  int // packs in a row that asked for a cheaper level
}

func newAdapter(c Compression, sealers int) *adapter {
	if !c.Adapt {
		return nil
	}
	a := &adapter{sealers: sealers, since: time.Now()}
	for i, l := range ladder() {
		if l == c.Level {
			a.step.Store(int32(i)) //nolint:gosec // four
		}
	}
	return a
}

func (a *adapter) level() codec.Level { return ladder()[a.step.Load()] }

// waited notes that a sealer waited for a block.
func (a *adapter) waited(d time.Duration) {
	if a == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.idle += d
}

// handed notes that a pack was handed to an uploader, which took so long.
func (a *adapter) handed(now time.Time, blocked time.Duration) {
	if a == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	all := now.Sub(a.since)
	a.since = now
	idle := a.idle
	a.idle = 0
	if all <= 0 {
		return
	}
	step := a.step.Load()
	switch share := blocked.Seconds() / all.Seconds(); {
	case share >= slowStore:
		a.calm = 0
		step++
	case share <= fastStore && idle.Seconds() <= busySealers*all.Seconds()*float64(a.sealers):
		if a.calm++; a.calm < calm {
			return
		}
		a.calm = 0
		step--
	default:
		a.calm = 0
	}
	a.step.Store(min(max(step, 0), int32(len(ladder())-1))) //nolint:gosec // four
}

// A compressor encodes the blocks of one sealer.
type compressor struct {
	adapter *adapter // nil: the level stays
	level   codec.Level
	enc     *codec.Encoder
}

// encode appends the encoding of src to dst, at the level of the moment.
func (c *compressor) encode(dst, src []byte) ([]byte, error) {
	level := c.level
	if c.adapter != nil {
		level = c.adapter.level()
	}
	if c.enc == nil || level != c.level {
		enc, err := codec.NewEncoder(level)
		if err != nil {
			return dst, err
		}
		c.enc, c.level = enc, level
	}
	return c.enc.Encode(dst, src), nil
}

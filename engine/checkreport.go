package engine

import (
	"errors"
	"fmt"
	"time"

	"github.com/cairn-backup/cairn/engine/progress"
	"github.com/cairn-backup/cairn/manifest"
)

// Depth says how deep a check looks; each depth includes the ones before.
type Depth uint8

const (
	// DepthLog reads the log, the checkpoints, the clear headers of the key
	// slots, the index segments and every tree, and checks that each chunk of
	// each snapshot has a place in a pack that is there with the right size.
	DepthLog Depth = iota
	// DepthPacks also opens header and footer of every pack.
	DepthPacks
	// DepthData also reads every byte of every pack and hashes every chunk.
	DepthData
)

// CheckOptions says what a check looks at. The zero value is DepthLog.
type CheckOptions struct {
	Depth Depth

	// Sample opens only this share of the packs, above 0 and at most 1, chosen
	// at random, so that regular checks come by all of them in the end. Log,
	// index and trees are always looked at as a whole. Default: all packs.
	Sample float64

	// MaxAge opens only packs that were not read and verified as a whole within
	// that time, by this machine's clock and by the ledger that it keeps in
	// Options.CacheDir; without a ledger that is every pack. Together with
	// Sample it is that share of all packs, chosen among those. Default: all.
	MaxAge time.Duration

	// Record tells the log which blocks are damaged. The next backup of the same
	// data then stores them again, and by the names of the chunks mends every
	// older snapshot. If it cannot be recorded a note says why. Default: the
	// check writes nothing to the store.
	Record bool

	// Progress receives events; see progress.Func. Default: none.
	Progress progress.Func
}

func (o CheckOptions) validate() error {
	var errs []error
	if o.Depth > DepthData {
		errs = append(errs, errors.New("options: there is no such Depth"))
	}
	if !(o.Sample >= 0 && o.Sample <= 1) { // not a number, too
		errs = append(errs, fmt.Errorf("options: Sample is a share of the packs, from 0 to 1, not %v", o.Sample))
	}
	if o.MaxAge < 0 {
		errs = append(errs, errors.New("options: MaxAge is negative"))
	}
	if o.Depth == DepthLog && (o.Sample > 0 || o.MaxAge > 0) {
		errs = append(errs, errors.New("options: Sample and MaxAge choose packs, of which DepthLog opens none"))
	}
	return errors.Join(errs...)
}

// A Finding is one damage that a check found.
type Finding struct {
	Object string `json:"object"` // key of the object, "" if none is known
	Offset int64  `json:"offset"` // of the damaged block in the object, bytes; -1: the object as a whole
	Length int64  `json:"length"` // of that block, bytes; 0: the object as a whole
	Detail string `json:"detail"` // one sentence

	// Snapshots are those that lack something by it, the first 1,000 found, and
	// Items what they lack, the first 100; ItemCount is how many there are. Where
	// a directory cannot be read, what is below it is not counted. None: what is
	// damaged has another copy, or no snapshot needs it.
	Snapshots []manifest.ID `json:"snapshots,omitempty"`
	Items     []HurtItem    `json:"items,omitempty"`
	ItemCount uint64        `json:"item_count"`

	Recorded bool  `json:"recorded"` // the log knows, so that the next backup stores it again
	Err      error `json:"-"`
}

// A HurtItem is a file or directory that cannot be restored as it was.
type HurtItem struct {
	Snapshot manifest.ID `json:"snapshot"`
	Path     string      `json:"path"` // "": all of it
}

// Bounds of a report.
const (
	maxFindings     = 10_000 // each about 300 bytes, and what it hurts
	maxHurtItems    = 100
	maxHurtSnapshot = 1000
)

// A CheckReport says what a check looked at and found. Notes are no damage.
type CheckReport struct {
	Records, Snapshots, Packs, Segments uint64
	Chunks                              uint64 // resolved
	Opened                              uint64 // packs whose header and footer were opened
	Verified                            uint64 // packs of which every byte was verified
	BytesRead                           uint64 // of packs

	// Findings are sorted by object and place. Beyond 10,000 of them the others
	// are counted in More, and the last one stands for all.
	Findings []Finding
	More     uint64
	Recorded uint64   // blocks, or packs as a whole, that this check recorded as damaged
	Notes    []string // what unfinished sessions left, what is known and mended, caches that were rebuilt
	Elapsed  time.Duration
	Traffic  Traffic
}

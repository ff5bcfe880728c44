package engine

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/cairn-backup/cairn/engine/progress"
)

// When says whether a part of a collection that costs more is done.
type When uint8

const (
	// Auto does it when there is a reason to; see the field.
	Auto When = iota
	// Always does it.
	Always
	// Never leaves it out.
	Never
)

// GCOptions says what a collection may do. The zero value works. The times are
// policy: by the collector's clock and what the store says of its objects. No
// clock takes part in what keeps snapshots whole.
type GCOptions struct {
	// DeleteDelay is for how long after a Delete or Forget nothing is collected
	// that the snapshot needs, so that Undelete brings it back.
	// Default: 24 hours. Negative: not at all.
	DeleteDelay time.Duration

	// SpareAge spares what is younger: packs that were stored since, packs that a
	// running backup has recorded since, and objects that no record names.
	// Default: 24 hours. Negative: nothing is spared, and a running backup may
	// have to begin anew; what it publishes is whole all the same.
	SpareAge time.Duration

	// SessionAge is how long after its last record an unfinished backup is given
	// up, so that nobody can go on from it. Default: 7 days. Negative: at once.
	SessionAge time.Duration

	// Share is the part of a pack, from 0 to 1 and by bytes, that must be
	// dead before what lives in it is copied and the pack dropped. Default: 0.25.
	// Negative: any.
	Share float64

	// MaxRepack bounds the bytes that are copied in one run; the next one goes
	// on. Default: no bound. Negative: nothing is copied.
	MaxRepack int64

	// Walk says whether the trees of the snapshots are read to find chunks that
	// none of them uses any more. Auto: if snapshots were forgotten, or unfinished
	// backups given up, since that was last done, or it was interrupted, and while
	// packs that snapshots need are known to be damaged. With Never nothing but
	// what is doomed goes then: the only good copies may be in packs that no
	// snapshot names.
	Walk When

	// Sweep says whether the store is listed for objects that no record names,
	// as interrupted backups leave them. Auto: if anything else is collected.
	Sweep When

	// Progress receives events; see progress.Func. Default: none.
	Progress progress.Func
}

// Defaults of GCOptions.
const (
	defaultDeleteDelay = 24 * time.Hour
	defaultSpareAge    = 24 * time.Hour
	defaultSessionAge  = 7 * 24 * time.Hour
	// defaultShare: a repository then holds a third more than what lives, at
	// most, and each byte is copied for three that are freed at worst.
	defaultShare = 0.25
)

func (o GCOptions) withDefaults() (GCOptions, error) {
	fill := func(d *time.Duration, def time.Duration) {
		if *d == 0 {
			*d = def
		}
	}
	fill(&o.DeleteDelay, defaultDeleteDelay)
	fill(&o.SpareAge, defaultSpareAge)
	fill(&o.SessionAge, defaultSessionAge)
	switch {
	case o.Share == 0:
		o.Share = defaultShare
	case o.Share < 0:
		o.Share = 0
	}
	var errs []error
	if !(o.Share <= 1) {
		errs = append(errs, errors.New("gc options: Share must be at most 1"))
	}
	if o.Walk > Never || o.Sweep > Never {
		errs = append(errs, errors.New("gc options: Walk and Sweep are Auto, Always or Never"))
	}
	return o, errors.Join(errs...)
}

// A GCCount is a number of objects and their size.
type GCCount struct {
	Objects uint64 `json:"objects"`
	Bytes   uint64 `json:"bytes"` // 0 where it is not known
}

// count counts one more object.
func count(c *GCCount, bytes uint64) {
	c.Objects++
	c.Bytes += bytes
}

func (c GCCount) plus(o GCCount) GCCount { return GCCount{c.Objects + o.Objects, c.Bytes + o.Bytes} }

// GCRequests are requests to the store.
type GCRequests struct {
	Put    int64 `json:"put"`
	Get    int64 `json:"get"`
	Stat   int64 `json:"stat"`
	List   int64 `json:"list"`
	Delete int64 `json:"delete"`
}

// Total returns how many they are.
func (r GCRequests) Total() int64 { return r.Put + r.Get + r.Stat + r.List + r.Delete }

// GCFigures say what a collection does, by the reasons for it.
type GCFigures struct {
	Unneeded GCCount `json:"unneeded"` // packs that no snapshot names
	Dead     GCCount `json:"dead"`     // packs that snapshots name and of which none uses a chunk
	Repacked GCCount `json:"repacked"` // packs with dead chunks, of which what lives is copied
	Copied   GCCount `json:"copied"`   // the packs that hold it then
	Unnamed  GCCount `json:"unnamed"`  // objects that no record names
	Folded   GCCount `json:"folded"`   // index segments that fewer take the place of
	Index    GCCount `json:"index"`    // the index segments that are written
	Earlier  GCCount `json:"earlier"`  // objects that earlier collections doomed and did not delete
	Hints    GCCount `json:"hints"`    // old checkpoints of the log, and what killed tries of the store left
	Sessions uint64  `json:"sessions"` // unfinished backups that are given up
}

// Freed returns the bytes that are freed on balance; negative where more is written.
func (f GCFigures) Freed() int64 {
	freed := f.Unneeded.Bytes + f.Dead.Bytes + f.Repacked.Bytes + f.Unnamed.Bytes + f.Folded.Bytes + f.Earlier.Bytes + f.Hints.Bytes
	return int64(freed) - int64(f.Copied.Bytes) - int64(f.Index.Bytes) //nolint:gosec // sizes of stored objects
}

// Deletes returns how many objects are deleted.
func (f GCFigures) Deletes() uint64 {
	return f.Unneeded.Objects + f.Dead.Objects + f.Repacked.Objects + f.Unnamed.Objects + f.Folded.Objects + f.Earlier.Objects + f.Hints.Objects
}

func (f GCFigures) none() bool { return f.Deletes() == 0 && f.Sessions == 0 }

// lines says what the figures are, a line for each that is not zero.
func (f GCFigures) lines() []string {
	var out []string
	add := func(c GCCount, format string) {
		if c.Objects > 0 {
			out = append(out, fmt.Sprintf("%d "+format+", %d bytes", c.Objects, c.Bytes))
		}
	}
	add(f.Unneeded, "packs that no snapshot needs")
	add(f.Dead, "packs of which no snapshot uses a chunk any more")
	add(f.Repacked, "packs with dead chunks, rewritten")
	add(f.Copied, "packs of what lives in them, written")
	add(f.Unnamed, "objects that no record names")
	add(f.Folded, "index segments, folded or dropped")
	add(f.Index, "index segments, written")
	add(f.Earlier, "objects that earlier collections left")
	add(f.Hints, "old checkpoints and left probes of the store")
	if f.Sessions > 0 {
		out = append(out, fmt.Sprintf("%d unfinished backups, given up", f.Sessions))
	}
	return out
}

// A GCPlan says what a collection would do, and why. Making it only reads. Its
// fields are for reading; Run goes by what it finds, and does what still holds.
type GCPlan struct {
	Record uint64 `json:"record"` // the last one that was read

	GCFigures

	Spared    GCCount    `json:"spared"`     // packs that could go, but are too young or of a running backup
	Walked    bool       `json:"walked"`     // the trees of the snapshots were read
	Partial   GCCount    `json:"partial"`    // packs with dead chunks that stay; Bytes of those chunks
	Left      GCCount    `json:"left"`       // packs that are rewritten by the next run, for want of MaxRepack
	Waiting   uint64     `json:"waiting"`    // forgotten snapshots that can be brought back still, see DeleteDelay
	Unread    uint64     `json:"unread"`     // snapshots whose trees could not be read; nothing they need goes
	Requests  GCRequests `json:"requests"`   // what Run takes, roughly
	BytesRead uint64     `json:"bytes_read"` // by Run, roughly

	run *gcPlan
}

// Empty reports whether there is nothing to do.
func (p *GCPlan) Empty() bool { return p.none() && !p.run.closing() }

// String says what is to be done, a line each.
func (p *GCPlan) String() string {
	lines := p.lines()
	if p.none() {
		lines = append(lines, "nothing to collect")
	} else {
		lines = append(lines, fmt.Sprintf("frees %d bytes by %d requests, %d bytes read", p.Freed(), p.Requests.Total(), p.BytesRead))
	}
	if p.Spared.Objects > 0 {
		lines = append(lines, fmt.Sprintf("%d packs, %d bytes, are too young or of a running backup", p.Spared.Objects, p.Spared.Bytes))
	}
	if p.Waiting > 0 {
		lines = append(lines, fmt.Sprintf("%d forgotten snapshots can be brought back still; what nothing else needs stays until then", p.Waiting))
	}
	if p.Unread > 0 {
		lines = append(lines, fmt.Sprintf("%d snapshots could not be read; nothing they need is collected", p.Unread))
	}
	return strings.Join(lines, "\n")
}

// A GCReport says what a collection did. What it deleted is counted under the
// reason for it.
type GCReport struct {
	GCFigures

	Stale    GCCount       // packs of the plan that had to stay, since others need them or were faster
	Left     GCCount       // packs that the next run will rewrite
	Damaged  []string      // keys of packs that hold damaged blocks in use, of which there is no other copy; they stay
	Lost     int           // races for a record that were lost to others
	Requests GCRequests    // made by the plan and by Run
	Traffic  Traffic       // of the plan and of Run, with bytes
	Elapsed  time.Duration // of Run
}

package engine

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/cairn-backup/cairn/chunk"
	"github.com/cairn-backup/cairn/engine/internal/index"
	"github.com/cairn-backup/cairn/engine/internal/layout"
	"github.com/cairn-backup/cairn/engine/internal/log"
	"github.com/cairn-backup/cairn/engine/internal/store"
	"github.com/cairn-backup/cairn/manifest"
)

// A badPack is a pack on which no snapshot can rely, or not on all of it.
type badPack struct {
	whole  *finding            // nil: not the whole pack
	blocks map[uint32]*finding // by offset in the pack
	broken log.Ranges          // the same blocks by number

	known      log.Ranges // blocks by number: recorded by an earlier check, not read by this one
	knownFound *finding   // what they hurt; nil: nothing so far
}

// wholeBlocks stands for all blocks of a pack whose own list of them may be
// lost, too.
func wholeBlocks() log.Ranges { return log.Ranges{{First: 0, Last: math.MaxUint32}} }

// badOf returns what is known of a pack. The caller holds mu.
func (c *checker) badOf(number uint64) *badPack {
	b := c.bad[number]
	if b == nil {
		b = &badPack{blocks: make(map[uint32]*finding)}
		c.bad[number] = b
	}
	return b
}

// wholePack notes that a pack is missing, or cannot be read as a whole.
func (c *checker) wholePack(number uint64, info log.PackInfo, err error) {
	key := string(layout.Pack(info.ID))
	if !errors.Is(err, ErrCorrupt) {
		err = &store.CorruptError{Object: key, Offset: -1, Err: err}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.badOf(number)
	if b.whole == nil {
		b.known = nil
		b.whole = c.findLocked(finding{
			Finding: Finding{Object: key, Offset: -1, Detail: why(err), Err: err},
			pack:    number, blocks: wholeBlocks(),
		})
	}
}

// badBlock notes that a block of a pack cannot be read.
func (c *checker) badBlock(info log.PackInfo, at index.Place, err error) *finding {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.badOf(at.Pack)
	switch {
	case b.whole != nil:
		return b.whole
	case b.blocks[at.Offset] == nil:
		number := log.RangesOf([]uint64{uint64(at.Block)})
		b.broken = b.broken.Union(number)
		b.blocks[at.Offset] = c.findLocked(finding{
			Finding: Finding{Object: string(layout.Pack(info.ID)), Offset: int64(at.Offset), Length: int64(at.Stored), Detail: why(err), Err: err},
			pack:    at.Pack, blocks: number,
		})
	}
	return b.blocks[at.Offset]
}

// takeKnown notes what earlier checks have recorded.
func (c *checker) takeKnown() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for number, blocks := range c.known {
		if _, live := c.packs[number]; live {
			if b := c.badOf(number); b.whole == nil {
				b.known = blocks
			}
		}
	}
}

// readAll notes that every block of the pack was looked at: what was recorded of
// it counts no more.
func (c *checker) readAll(number uint64) (good bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.bad[number]
	if b == nil {
		return true
	}
	b.known = nil
	if good = b.whole == nil && len(b.blocks) == 0; good {
		delete(c.bad, number)
	}
	return good
}

func (c *checker) wholeBad(number uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.bad[number]
	return b != nil && b.whole != nil
}

func (c *checker) isBad(at index.Place) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.bad[at.Pack]
	return b != nil && (b.whole != nil || b.blocks[at.Offset] != nil || b.known.Contains(uint64(at.Block)))
}

// damageAt returns the finding about what is stored at that place, or nil.
func (c *checker) damageAt(at index.Place) *finding {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.bad[at.Pack]
	switch {
	case b == nil:
		return nil
	case b.whole != nil:
		return b.whole
	case b.blocks[at.Offset] != nil:
		return b.blocks[at.Offset]
	case !b.known.Contains(uint64(at.Block)):
		return nil
	case b.knownFound == nil:
		key := string(layout.Pack(c.packs[at.Pack].ID))
		err := &store.CorruptError{Object: key, Offset: -1, Err: errors.New("an earlier check recorded blocks of it as damaged; one of every byte says whether they still are")}
		b.knownFound = c.findLocked(finding{
			Finding: Finding{Object: key, Offset: -1, Detail: why(err), Err: err},
			pack:    at.Pack, blocks: b.known,
		})
	}
	return b.knownFound
}

// lostChunk returns the finding about a chunk that no pack holds.
func (c *checker) lostChunk(id chunk.ID) *finding {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.lost[id]
	if f == nil {
		err := &store.CorruptError{ID: id, Offset: -1, Err: errors.New("no readable pack holds the chunk")}
		f = c.findLocked(finding{Finding: Finding{Offset: -1, Detail: err.Error(), Err: err}})
		if f != c.more { // bounded as the findings are
			c.lost[id] = f
		}
	}
	return f
}

// hurts notes what a snapshot lacks by f. Snapshots come one after the other.
func (c *checker) hurts(f *finding, id manifest.ID, path string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f.ItemCount++
	if len(f.Items) < maxHurtItems {
		f.Items = append(f.Items, HurtItem{Snapshot: id, Path: path})
	}
	if n := len(f.Snapshots); n == 0 || f.Snapshots[n-1] != id && n < maxHurtSnapshot {
		f.Snapshots = append(f.Snapshots, id)
	}
}

// settleKnown makes a note of damage that the log knows and that hurts nothing
// any more: there is another copy, or nobody needs it.
func (c *checker) settleKnown() {
	c.mu.Lock()
	packs := make(map[uint64]struct{})
	left := c.found[:0]
	for _, f := range c.found {
		f.Recorded = len(f.blocks) > 0 && len(f.blocks.Subtract(c.known[f.pack])) == 0
		if f.Recorded && f.ItemCount == 0 {
			packs[f.pack] = struct{}{}
			continue
		}
		left = append(left, f)
	}
	c.found = left
	for number, b := range c.bad {
		if len(b.known) > 0 && b.knownFound == nil {
			packs[number] = struct{}{}
		}
	}
	c.mu.Unlock()
	if len(packs) > 0 {
		c.note("%d packs have damage that is recorded and hurts no snapshot: there are other copies, or nobody needs it", len(packs))
	}
}

// recordBatch bounds the packs whose damage one record tells of.
const recordBatch = 4096

// record tells the log what is damaged. That it cannot is no reason to keep what
// was found from the caller.
func (c *checker) record(ctx context.Context) {
	damage := c.damage()
	for len(damage) > 0 {
		batch := damage[:min(recordBatch, len(damage))]
		damage = damage[len(batch):]
		var recorded uint64
		err := c.repo.writable()
		if err == nil {
			_, err = c.repo.log.Append(ctx, func(st *log.State) ([]log.Effect, error) {
				var effects []log.Effect
				recorded = 0
				for _, d := range batch {
					info, live := st.Pack(d.Pack)
					fresh := d.Blocks.Subtract(st.DamagedBlocks(d.Pack))
					if !live || info.ID != c.packs[d.Pack].ID || len(fresh) == 0 {
						continue
					}
					effects = append(effects, log.Damage{Pack: d.Pack, Blocks: fresh})
					if fresh.Equal(wholeBlocks()) {
						recorded++
					} else {
						recorded += fresh.Count()
					}
				}
				return effects, nil
			})
		}
		if err != nil {
			c.note("what is damaged could not be recorded, so that the next backup does not store it again: %v", err)
			return
		}
		c.mu.Lock()
		c.report.Recorded += recorded
		c.markRecorded(batch)
		c.mu.Unlock()
	}
}

// damage returns what was found to be damaged of packs.
func (c *checker) damage() []log.Damage {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []log.Damage
	for number, b := range c.bad {
		d := log.Damage{Pack: number, Blocks: b.broken}
		if b.whole != nil {
			d.Blocks = wholeBlocks()
		}
		if len(d.Blocks) > 0 {
			all = append(all, d)
		}
	}
	return all
}

// markRecorded marks the findings of these packs. The caller holds mu.
func (c *checker) markRecorded(batch []log.Damage) {
	for _, d := range batch {
		b := c.bad[d.Pack]
		if b.whole != nil {
			b.whole.Recorded = true
		}
		for _, f := range b.blocks {
			f.Recorded = true
		}
	}
}

// treeDamage is the finding about a list that cannot be read though its chunk can.
func (c *checker) treeDamage(err error) *finding {
	return c.find(Finding{Offset: -1, Detail: err.Error(), Err: fmt.Errorf("%w: %w", ErrCorrupt, err)})
}

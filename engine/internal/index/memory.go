package index

import (
	"maps"
	"sync"
	"sync/atomic"

	"github.com/cairn-backup/cairn/chunk"
)

// A memory is a store in memory. It keeps values as the disk does, check and
// all: packed they are smaller than a Place, and a Place is made from them in
// one way only.
type memory struct {
	sums    *summer
	damaged *atomic.Bool

	mu       sync.RWMutex // guards what follows
	values   map[chunk.ID][valueSize]byte
	segments map[SegmentID]bool
	last     Tag
	tagged   bool
}

var _ store = (*memory)(nil)

func newMemory(sums *summer, damaged *atomic.Bool) *memory {
	return &memory{
		sums:     sums,
		damaged:  damaged,
		values:   make(map[chunk.ID][valueSize]byte),
		segments: make(map[SegmentID]bool),
	}
}

func (m *memory) lookup(ids []chunk.ID, places []Place, found []bool) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	for i, id := range ids {
		var value [valueSize]byte
		places[i] = Place{}
		if value, found[i] = m.values[id]; !found[i] {
			continue
		}
		if places[i], found[i] = m.sums.place(id, value[:]); !found[i] {
			m.damaged.Store(true) // memory fails too
		}
	}
	return nil
}

func (m *memory) insert(entries []Entry) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range entries {
		var value [valueSize]byte
		m.sums.appendChunk(value[:0], entries[i].ID, entries[i].Place)
		m.values[entries[i].ID] = value
	}
	return nil
}

func (m *memory) loaded() (map[SegmentID]bool, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return maps.Clone(m.segments), nil
}

func (m *memory) markLoaded(id SegmentID) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.segments[id] = true
	return nil
}

func (m *memory) tag() (Tag, bool, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.last, m.tagged, nil
}

func (m *memory) setTag(t Tag) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.last, m.tagged = t, true
	return nil
}

func (m *memory) count() (int64, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return int64(len(m.values)), nil
}

func (m *memory) reset() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.segments)
	m.values = make(map[chunk.ID][valueSize]byte) // clear would keep the memory
	m.last, m.tagged = Tag{}, false
	return nil
}

func (m *memory) close() error {
	return m.reset()
}

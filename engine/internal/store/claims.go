package store

import (
	"sync"

	"github.com/cairn-backup/cairn/chunk"
)

// claims are the chunks that a session has in hand: claimed by one goroutine,
// stored or not, but not yet in the index. They are bounded by what a session
// may store before it records it.
type claims struct {
	shards [64]claimShard
}

type claimShard struct {
	mu  sync.Mutex // guards ids
	ids map[chunk.ID]struct{}
}

func (c *claims) init() {
	for i := range c.shards {
		c.shards[i].ids = make(map[chunk.ID]struct{})
	}
}

// claim reports whether the caller is the first to claim id.
func (c *claims) claim(id chunk.ID) bool {
	s := &c.shards[id[0]%64]
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, taken := s.ids[id]; taken {
		return false
	}
	s.ids[id] = struct{}{}
	return true
}

// drop ends a claim: the chunk is in the index, or was not stored.
func (c *claims) drop(id chunk.ID) {
	s := &c.shards[id[0]%64]
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.ids, id)
}

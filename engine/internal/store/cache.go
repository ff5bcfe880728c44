package store

import "container/list"

// A blockCache keeps the blocks used last, up to a number of bytes. It is not
// safe for concurrent use.
type blockCache struct {
	limit, size int
	order       *list.List // of *cachedBlock, newest first
	byPlace     map[blockPlace]*list.Element
}

// blockPlace names a block by where it lies.
type blockPlace struct {
	pack   uint64
	check  uint32 // of the pack's ID: after a repair of the log a number may name another pack
	offset uint32
}

type cachedBlock struct {
	place blockPlace
	data  []byte
}

func newBlockCache(limit int) *blockCache {
	return &blockCache{limit: limit, order: list.New(), byPlace: make(map[blockPlace]*list.Element)}
}

// get returns the block, which nobody may change.
func (c *blockCache) get(p blockPlace) ([]byte, bool) {
	e, ok := c.byPlace[p]
	if !ok {
		return nil, false
	}
	c.order.MoveToFront(e)
	return e.Value.(*cachedBlock).data, true //nolint:errcheck // the list holds nothing else
}

// put takes ownership of data.
func (c *blockCache) put(p blockPlace, data []byte) {
	if _, ok := c.byPlace[p]; ok || len(data) > c.limit {
		return
	}
	c.byPlace[p] = c.order.PushFront(&cachedBlock{place: p, data: data})
	c.size += len(data)
	for c.size > c.limit {
		oldest := c.order.Remove(c.order.Back()).(*cachedBlock) //nolint:errcheck // as above
		delete(c.byPlace, oldest.place)
		c.size -= len(oldest.data)
	}
}

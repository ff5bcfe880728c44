package manifest

import (
	"bytes"
	"slices"
)

// Clone returns a writer with the nodes added so far. Each goes its own way:
// with Finish the clone makes a list of what there is, while w goes on.
func (w *DirWriter) Clone() *DirWriter {
	c := &DirWriter{put: w.put, last: w.last, err: w.err}
	c.list = &listWriter{put: w.list.put, kind: w.list.kind, mask: w.list.mask, levels: slices.Clone(w.list.levels)}
	for i := range c.list.levels {
		p := &c.list.levels[i]
		p.items = bytes.Clone(p.items)
	}
	return c
}

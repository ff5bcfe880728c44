package engine

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/cairn-backup/cairn/chunk"
	"github.com/cairn-backup/cairn/chunk/seal"
	"github.com/cairn-backup/cairn/manifest"
)

// partial stores a tree of what is saved so far, and returns the sealed text
// that names it: what an interrupted backup goes on from. The session calls it
// before it makes everything durable that was put until now, so that every
// chunk of the tree is in the packs that its record names.
func (s *saver) partial(ctx context.Context) ([]byte, error) {
	top := s.top.Load()
	if top == nil {
		return nil, nil
	}
	tree, err := s.partialDir(ctx, top)
	if err != nil {
		return nil, fmt.Errorf("partial tree: %w", err)
	}
	r := s.repo
	_, object, err := seal.Object(r.keys.Data(0), seal.Template{Kind: seal.KindManifest}, seal.Binding{Repository: r.id}, encodePartial(manifest.TimeOf(s.began), tree))
	return object, err
}

// partialDir lists what is finished of a directory that is being walked.
func (s *saver) partialDir(ctx context.Context, d *openDir) (chunk.ID, error) {
	list, queue, err := d.soFar(ctx)
	if err != nil {
		return chunk.ID{}, err
	}
	if list == nil {
		return d.tree, nil
	}
	for _, p := range queue {
		var node manifest.Node
		switch below := p.dir.Load(); {
		case p.finished.Load():
			if p.skip {
				continue
			}
			node = p.node
		case below != nil:
			tree, err := s.partialDir(ctx, below)
			if err != nil {
				return chunk.ID{}, err
			}
			node = below.node
			node.Tree = tree
			// Never taken over as a whole: only what is in it.
			node.Look = manifest.Look{}
		default:
			continue
		}
		if err := list.Add(ctx, node); err != nil {
			return chunk.ID{}, err
		}
	}
	return list.Finish(ctx)
}

// A partial tree is named in a session record by
//
//	began: 8 bytes seconds, 4 bytes nanoseconds, little-endian | ID of the top list
const partialSize = 8 + 4 + len(chunk.ID{})

func encodePartial(began manifest.Time, tree chunk.ID) []byte {
	p := binary.LittleEndian.AppendUint64(nil, uint64(began.Sec)) //nolint:gosec // read back the same way
	p = binary.LittleEndian.AppendUint32(p, began.Nsec)
	return append(p, tree[:]...)
}

func decodePartial(body []byte) (began manifest.Time, tree chunk.ID, err error) {
	if len(body) != partialSize {
		return began, tree, fmt.Errorf("partial tree: %d bytes, want %d", len(body), partialSize)
	}
	began.Sec = int64(binary.LittleEndian.Uint64(body)) //nolint:gosec // stored so
	began.Nsec = binary.LittleEndian.Uint32(body[8:])
	return began, chunk.ID(body[12:]), nil
}

package store

import (
	"errors"
	"fmt"

	"github.com/cairn-backup/cairn/chunk/pack"
	"github.com/cairn-backup/cairn/chunk/seal"
	"github.com/cairn-backup/cairn/chunk/wire"
	"github.com/cairn-backup/cairn/engine/internal/keys"
)

// A PackTable is what an index segment holds of one pack.
type PackTable struct {
	Pack  pack.ID
	Size  uint64 // of the pack object, bytes
	Table pack.Table
}

// sealSegment returns an index segment object: one sealed part a pack, which is
//
//	pack ID (16) | uvarint size of the pack object | the table of its footer
func sealSegment(set *keys.Set, repo keys.RepositoryID, tables []PackTable) (id [16]byte, object []byte, err error) {
	parts := make([][]byte, 0, len(tables))
	for _, t := range tables {
		part := append([]byte(nil), t.Pack[:]...)
		part = wire.AppendUvarint(part, t.Size)
		parts = append(parts, t.Table.Append(part))
	}
	h, object, err := seal.Object(set.Meta, seal.Template{Kind: seal.KindSegment}, seal.Binding{Repository: repo}, parts...)
	if err != nil {
		return id, nil, fmt.Errorf("index segment: %w", err)
	}
	return h.Name(), object, nil
}

func parseSegment(parts [][]byte) ([]PackTable, error) {
	tables := make([]PackTable, 0, len(parts))
	for _, part := range parts {
		r := wire.NewReader(part)
		var t PackTable
		id := r.Fixed(len(t.Pack))
		t.Size = r.Uvarint(1 << 32)
		if err := r.Err(); err != nil {
			return nil, errors.Join(err, ErrCorrupt)
		}
		copy(t.Pack[:], id)
		var err error
		if t.Table, err = pack.ParseTable(part[len(part)-r.Len():], int64(t.Size)); err != nil { //nolint:gosec // bounded above
			return nil, err
		}
		tables = append(tables, t)
	}
	return tables, nil
}

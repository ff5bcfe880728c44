package store

import (
	"context"
	"errors"
	"log/slog"

	"github.com/cairn-backup/cairn/engine/internal/log"
)

// Fold stores one index segment that lists what these segments list of live
// packs, and returns it with the numbers of the packs that are in it. It is zero
// if there are none. Where a segment is damaged the footers of its packs are
// read; a pack that can not be read either is missing from the result, and the
// caller must keep the segment that names it (V14).
func (s *Store) Fold(ctx context.Context, segments []log.SegmentInfo) (log.SegmentInfo, error) {
	var tables []PackTable
	var packs []uint64
	seen := make(map[uint64]bool)
	for _, seg := range segments {
		listed, err := s.ReadSegment(ctx, seg)
		if errors.Is(err, ErrCorrupt) {
			s.opts.Logger.WarnContext(ctx, "an index segment is damaged; the footers of its packs are read instead", slog.Any("error", err))
			listed, err = s.footers(ctx, seg)
		}
		if err != nil {
			return log.SegmentInfo{}, err
		}
		_ = s.opts.Log.View(func(st *log.State) error { // the function returns nil
			for _, t := range listed {
				if number, live := st.PackNumber(t.Pack); live && !seen[number] {
					seen[number] = true
					tables, packs = append(tables, t), append(packs, number)
				}
			}
			return nil
		})
	}
	if len(tables) == 0 {
		return log.SegmentInfo{}, nil
	}
	seg, err := s.PutSegment(ctx, tables)
	seg.Packs = log.RangesOf(packs)
	return seg, err
}

package engine

import (
	"context"
	"fmt"
	"iter"

	"github.com/cairn-backup/cairn/manifest"
)

// Summaries yields what is known of the snapshots that match f, oldest first,
// without opening what only a reader of the data may know: no roots, no tree,
// nothing of what is missing. Where that is enough it is several times as fast
// as [Repository.Snapshots]. It yields at most one error, last. What it yields
// must not be modified.
func (r *Repository) Summaries(ctx context.Context, f manifest.Filter) iter.Seq2[manifest.Summary, error] {
	return func(yield func(manifest.Summary, error) bool) {
		infos, err := r.snapshotInfos(ctx)
		if err != nil {
			yield(manifest.Summary{}, fmt.Errorf("summaries: %w", err))
			return
		}
		if f.Latest > 0 {
			infos = selectInfos(infos, f)
		}
		for _, info := range infos {
			if f.Match(info.Summary) && !yield(info.Summary, nil) {
				return
			}
		}
	}
}

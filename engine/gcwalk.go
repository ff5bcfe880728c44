package engine

import (
	"context"
	"errors"

	"github.com/cairn-backup/cairn/chunk"
	"github.com/cairn-backup/cairn/engine/internal/log"
	"github.com/cairn-backup/cairn/engine/internal/rule"
	"github.com/cairn-backup/cairn/manifest"
)

// What the sets of a walk may take.
const (
	markBits  = 24        // for each stored chunk, see filter
	markLimit = 256 << 20 // bytes: beyond 90 million chunks a filter gets less exact
	seenBits  = 16
	seenLimit = 192 << 20 // bytes
	// maxTwice is how many chunks that are stored twice are told apart in one run.
	maxTwice = 1 << 20
)

// A gcWalk knows which chunks the trees use that it has read. It names chunks by
// their IDs and not by places, so that neither the index nor the order in which
// things happen can make a used chunk look dead.
type gcWalk struct {
	repo  *Repository
	marks *filter
	// copies are those of the manifests, which a snapshot does not need.
	copies map[chunk.ID]struct{}
	// pages are the pages that were read, with all that is below them. Shared
	// subtrees are read once.
	pages map[pageID]struct{}

	snapshots map[manifest.ID]bool // false: its tree can not be read
	sessions  map[[16]byte]uint64  // the record whose partial tree was read
	count     uint64               // of trees
}

// A pageID is half of a chunk ID, which is enough to tell any two apart.
type pageID [16]byte

func newWalk(r *Repository, st *log.State) *gcWalk {
	var chunks uint64
	for _, info := range st.Packs() {
		chunks += uint64(info.Chunks)
	}
	return &gcWalk{
		repo: r, marks: newFilter(chunks, markBits, markLimit), pages: make(map[pageID]struct{}),
		snapshots: make(map[manifest.ID]bool), sessions: make(map[[16]byte]uint64), copies: make(map[chunk.ID]struct{}),
	}
}

// snapshot marks what a snapshot uses, unless that was done before.
func (w *gcWalk) snapshot(ctx context.Context, info *log.SnapshotInfo) error {
	if _, done := w.snapshots[info.Summary.ID]; done {
		return nil
	}
	snap, err := w.repo.openSnapshot(info)
	if err == nil && !rule.Off(rule.Walk) {
		w.copyOf(info)
		err = w.tree(ctx, snap.Tree)
	}
	if err != nil && !unreadable(ctx, err) {
		return err
	}
	w.snapshots[info.Summary.ID] = err == nil
	return nil
}

// session marks what the partial tree of an unfinished backup uses.
func (w *gcWalk) session(ctx context.Context, s *log.SessionInfo) error {
	if n, done := w.sessions[s.ID]; done && n == s.N {
		return nil
	}
	if len(s.Partial) > 0 {
		t, err := w.repo.openPartial(s)
		if err == nil {
			err = w.tree(ctx, t.tree)
		}
		if err != nil {
			if unreadable(ctx, err) {
				return nil // it is not among those that were read
			}
			return err
		}
	}
	w.sessions[s.ID] = s.N
	return nil
}

// unreadable reports whether err says that stored data is damaged, so that only
// the snapshot at hand can not be read.
func unreadable(ctx context.Context, err error) bool {
	return ctx.Err() == nil && (errors.Is(err, ErrCorrupt) || errors.Is(err, manifest.ErrMalformed))
}

// tree marks what a tree uses.
func (w *gcWalk) tree(ctx context.Context, tree chunk.ID) error {
	var fresh []pageID
	err := manifest.References(ctx, w.repo.store, tree, func(ref manifest.Reference) (bool, error) {
		if err := ctx.Err(); err != nil {
			return false, context.Cause(ctx)
		}
		if ref.Role == manifest.RolePage {
			page := pageID(ref.ID[:])
			if _, read := w.pages[page]; read {
				return false, nil
			}
			w.pages[page] = struct{}{}
			fresh = append(fresh, page)
		}
		w.marks.add(ref.ID)
		return true, nil
	})
	if err != nil {
		// What is below some of them was not read. Another tree may have them, too.
		for _, page := range fresh {
			delete(w.pages, page)
		}
		return err
	}
	w.count++
	return nil
}

// copyOf marks the copy of the manifest that lies in the metadata packs, from
// which the snapshot could be found without the log. Where tags were changed
// since, it can not be told which it is.
func (w *gcWalk) copyOf(info *log.SnapshotInfo) {
	body, err := w.repo.openSealed(info.Body)
	if err != nil {
		return
	}
	summary := info.Summary
	summary.End, summary.Stats.New, summary.Stats.Stored = manifest.Time{}, 0, 0
	summary.Pinned, summary.Note = false, ""
	if data, err := manifestChunk(summary, body); err == nil {
		w.copies[chunk.NewHasher(w.repo.keys.Chunk).Sum(data)] = struct{}{}
	}
}

// lives reports whether a chunk must stay that lies in a block which is sound or
// damaged. What is lost of the copy of a manifest is not missed.
func (w *gcWalk) lives(id chunk.ID, damaged log.Ranges, block uint32) bool {
	if w.marks.has(id) {
		return true
	}
	_, copied := w.copies[id]
	return copied && !damaged.Contains(uint64(block))
}

// catchUp reads the trees of all that counts in st and was not read yet.
func (g *gcPlan) catchUp(ctx context.Context, st *log.State) error {
	for info := range st.Snapshots() {
		if err := g.marks.snapshot(ctx, info); err != nil {
			return err
		}
	}
	for info := range st.Forgotten() {
		if info.Forgotten > g.purged {
			if err := g.marks.snapshot(ctx, info); err != nil {
				return err
			}
		}
	}
	for s := range st.Sessions() {
		if n, ok := g.idle[s.ID]; ok && n == s.N {
			if err := g.marks.session(ctx, s); err != nil {
				return err
			}
		}
	}
	return nil
}

// unread returns the packs that are named by what counts in st and was not
// read, or could not be, or by backups that run: nothing of them may go. Behind
// says that there are snapshots among them which catchUp would read. If one of
// them names a damaged pack nothing at all may go: where the good copies lie of
// what it needs is not known.
func (g *gcPlan) unread(st *log.State) (packs log.Ranges, behind bool) {
	var sets, owned, named []log.Ranges
	spare := func(needs log.Ranges) {
		if sets = append(sets, needs); hurt(st, needs) {
			sets = append(sets, st.Live())
		}
	}
	look := func(info *log.SnapshotInfo) {
		named = append(named, info.Needs)
		read, known := g.marks.snapshots[info.Summary.ID]
		if !read {
			spare(info.Needs)
			behind = behind || !known
		}
	}
	for info := range st.Snapshots() {
		look(info)
	}
	for info := range st.Forgotten() {
		if info.Forgotten > g.purged {
			look(info)
		}
	}
	for s := range st.Sessions() {
		if g.planning && g.gone(s) {
			continue // it will be given up before anything else
		}
		owned = append(owned, s.Needs)
		if n, read := g.marks.sessions[s.ID]; !read || n != s.N {
			spare(s.Needs)
		}
	}
	// What only unfinished backups name they have stored themselves, and not all
	// of it is in their partial trees yet.
	if len(owned) > 0 {
		sets = append(sets, unionOf(owned).Subtract(unionOf(named)))
	}
	return unionOf(sets), behind
}

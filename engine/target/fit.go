package target

import (
	"context"
	"errors"
	"io/fs"
	"iter"

	"github.com/cairn-backup/cairn/manifest"
)

// An Entry is one item that is to be restored.
type Entry struct {
	Path string // in the target
	Node manifest.Node
	Data uint64 // bytes of content, holes left out; 0 for further names
}

// Entries yields what is to be restored, and at most one error, last.
type Entries = iter.Seq2[Entry, error]

// A Fitter is an [Updater] that finds out before anything is written whether
// there is room for it.
type Fitter interface {
	Updater

	// Fit returns ErrNoSpace if what is there in the end, before anything is
	// deleted, takes more room than there is: the content of what is new, and
	// of what differs in size or time less the room of what it replaces. It
	// never counts less room than there is, save where the file system
	// compresses or shares content. A restore that it lets pass may still find
	// the disk full, since a file that is not mended in place is written
	// beside the old one.
	//
	// Where there is room for all of need, entries are not looked at.
	Fit(ctx context.Context, need Need, entries Entries) error
}

var _ Fitter = (*overWriter)(nil)

// Fit returns ErrNoSpace if entries have no room.
func (w *overWriter) Fit(ctx context.Context, need Need, entries Entries) error {
	if w.over.dry || checkSpace(w.path, need) == nil {
		return nil
	}
	var g growth
	if err := w.addGrowth(ctx, &g, entries); err != nil {
		return err
	}
	return w.fits(g)
}

// A growth is how much more room than before is taken in the end.
type growth struct {
	bytes   int64 // negative: less
	entries uint64
}

// fits returns ErrNoSpace if there is no room for g.
func (w *overWriter) fits(g growth) error {
	if err := checkSpace(w.path, Need{Bytes: uint64(max(g.bytes, 0)), Entries: g.entries}); err != nil {
		return w.fail("begin", "", err)
	}
	return nil
}

// addGrowth adds to g what entries take.
func (w *overWriter) addGrowth(ctx context.Context, g *growth, entries Entries) error {
	top, err := w.folder("")
	if err != nil {
		return w.fail("begin", "", err)
	}
	defer w.folders.release(top)
	for e, err := range entries {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		fi, err := top.root.Lstat(localPath(e.Path))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			g.bytes += int64(e.Data) //nolint:gosec // a file's size
			g.entries++
		case err == nil && w.over.overwrite != Never:
			g.bytes += growthOver(fi, e)
		default: // it stays, or whoever writes it will tell
		}
	}
	return nil
}

// localPath is what os.Root calls the path of an entry.
func localPath(path string) string {
	if path == "" {
		return "."
	}
	return path
}

// growthOver returns by how much more room e takes than fi, in whose place it
// comes.
func growthOver(fi fs.FileInfo, e Entry) int64 {
	data := int64(e.Data) //nolint:gosec // a file's size
	if e.Node.Kind != manifest.File || !fi.Mode().IsRegular() {
		return data
	}
	if fi.Size() == int64(e.Node.Size) && manifest.TimeOf(fi.ModTime()) == e.Node.MTime { //nolint:gosec // a file's size
		return 0 // right already, as far as is known before it is compared
	}
	if _, names := inodeOf(fi); names > 1 {
		return data // what it replaces stays under its other names
	}
	return data - allocated(fi)
}

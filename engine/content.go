package engine

import (
	"bytes"
	"context"
	"errors"
	"io"

	"github.com/cairn-backup/cairn/chunk"
	"github.com/cairn-backup/cairn/engine/internal/store"
	"github.com/cairn-backup/cairn/engine/progress"
	"github.com/cairn-backup/cairn/engine/source"
	"github.com/cairn-backup/cairn/manifest"
)

// A fileReader reads files for one goroutine.
type fileReader struct {
	*saver
	profile chunk.Profile
	split   *chunk.Splitter // nil before the first use
	out     *store.Writer
	small   []byte
	pager   pager
}

// readFiles reads files until there are no more, and hands over what they left.
func (s *saver) readFiles(ctx context.Context) error {
	profile, err := s.repo.config.Profile(chunk.General().Name)
	if err != nil {
		return corruptObject("config", err)
	}
	f := &fileReader{saver: s, profile: profile, out: s.session.Writer(), small: make([]byte, manifest.MaxInline+1)}
	for p := range s.reading {
		f.read(ctx, p)
		p.finished.Store(p.err == nil)
		close(p.done)
	}
	return f.out.Flush(ctx)
}

// read stores the content of one file and completes its node.
func (f *fileReader) read(ctx context.Context, p *pending) {
	err := f.readFile(ctx, p)
	if err == nil {
		return
	}
	p.skip = true
	p.err = err
	if ctx.Err() == nil {
		p.err = f.unreadable(p.path, err)
	}
}

func (f *fileReader) readFile(ctx context.Context, p *pending) (err error) {
	file, err := f.view.OpenFile(ctx, p.path)
	if err != nil {
		return err
	}
	defer func() {
		// An error of the source must not hide one of the store.
		if closeErr := file.Close(); err == nil {
			err = closeErr
		}
	}()
	if err := source.Complete(ctx, f.view, p.path, &p.node); err != nil {
		return err
	}
	n := &p.node
	size := n.Size
	var read uint64
	n.Content, read, err = f.content(ctx, p, file, size)
	if err != nil {
		return err
	}
	n.Size = read
	f.stats.read.Add(read)
	return f.lookAgain(p, file, size)
}

// lookAgain finds out whether the file changed while it was read. If so it is
// stored as it was read, marked, and read again by the next backup.
func (f *fileReader) lookAgain(p *pending, file io.ReadCloser, size uint64) error {
	changed := p.node.Size != size
	if a, ok := file.(source.Again); ok {
		now, err := a.Again()
		if err != nil {
			return err
		}
		changed = changed || now.Size != size || now.MTime != p.node.MTime || now.Look != p.node.Look
	}
	if !changed || f.info.Kind == manifest.KindStream {
		return nil
	}
	p.node.Flags |= manifest.Changed
	p.node.Look = manifest.Look{}
	f.stats.changed.Add(1)
	f.meter.Problem(p.path, progress.Changed, source.ErrChanged)
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.changed) < maxListed {
		f.changed = append(f.changed, p.path)
	}
	return nil
}

// content stores the content of an open file, and returns where it is and how
// long it is.
func (f *fileReader) content(ctx context.Context, p *pending, file io.Reader, size uint64) (manifest.Content, uint64, error) {
	if size <= manifest.MaxInline {
		n, err := io.ReadFull(file, f.small)
		switch {
		case err == io.EOF || err == io.ErrUnexpectedEOF: // ReadFull's own; one that is wrapped is the source's
			f.meter.AddBytes(int64(n))
			return manifest.Content{Inline: append([]byte(nil), f.small[:n]...)}, uint64(n), nil //nolint:gosec // a length
		case err != nil:
			return manifest.Content{}, 0, err
		}
		file = io.MultiReader(bytes.NewReader(f.small), file) // it grew
	} else if grain, err := source.Grain(f.info, file); err != nil || grain > 0 {
		if err != nil {
			return manifest.Content{}, 0, err
		}
		return f.paged(ctx, p, file, grain)
	} else if sparse, ok := file.(source.Sparse); ok {
		return f.sparse(ctx, sparse, size)
	}
	w := manifest.NewContentWriter(f.session)
	n, err := f.chunks(ctx, w, file)
	if err != nil {
		return manifest.Content{}, 0, err
	}
	c, err := w.Finish(ctx)
	return c, n, err
}

// sparse stores the data ranges of a file, and its holes as such.
func (f *fileReader) sparse(ctx context.Context, file source.Sparse, size uint64) (manifest.Content, uint64, error) {
	w := manifest.NewContentWriter(f.session)
	var at uint64
	for {
		start, end, err := file.NextData(int64(at)) //nolint:gosec // an offset of a file
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return manifest.Content{}, 0, err
		}
		if s := uint64(start); s > at { //nolint:gosec // an offset of a file
			if err := w.Add(ctx, manifest.Extent{Kind: manifest.Hole, Length: s - at}); err != nil {
				return manifest.Content{}, 0, err
			}
			f.meter.AddBytes(int64(s - at)) //nolint:gosec // an offset of a file
			at = s
		}
		n, err := f.chunks(ctx, w, io.NewSectionReader(file, start, end-start))
		if err != nil {
			return manifest.Content{}, 0, err
		}
		at += n
		if n < uint64(end-start) { //nolint:gosec // a range
			break // it shrank
		}
	}
	if at < size {
		// The file ends in a hole, or it shrank, which the next look tells.
		if err := w.Add(ctx, manifest.Extent{Kind: manifest.Hole, Length: size - at}); err != nil {
			return manifest.Content{}, 0, err
		}
		at = size
	}
	c, err := w.Finish(ctx)
	return c, at, err
}

// cut makes the splitter ready for a stream. It is made by the first file that
// needs one, since most backups find none.
func (f *fileReader) cut(r io.Reader) error {
	if f.split == nil {
		pol, err := f.repo.pol()
		if err != nil {
			return err
		}
		if f.split, err = chunk.NewSplitter(pol, f.profile); err != nil {
			return err
		}
	}
	f.split.Reset(r)
	return nil
}

// chunks cuts a stream and stores what is new. A chunk of zeros becomes a hole.
func (f *fileReader) chunks(ctx context.Context, w *manifest.ContentWriter, r io.Reader) (total uint64, err error) {
	if err := f.cut(r); err != nil {
		return 0, err
	}
	for {
		if ctx.Err() != nil {
			return total, context.Cause(ctx)
		}
		data, err := f.split.Next()
		if errors.Is(err, io.EOF) {
			return total, nil
		}
		if err != nil {
			return total, err
		}
		n := uint64(len(data))
		total += n
		e := manifest.Extent{Kind: manifest.Hole, Length: n}
		if !zeros(data) {
			id, _, err := f.out.Put(ctx, data)
			if err != nil {
				return total, err
			}
			e = manifest.Extent{Kind: manifest.Data, Length: n, ID: id}
		}
		if err := w.Add(ctx, e); err != nil {
			return total, err
		}
		f.meter.AddBytes(int64(n)) //nolint:gosec // a length
	}
}

// minHole is the least length at which a chunk of zeros becomes a hole, bytes:
// a block of a file system.
const minHole = 4096

// zeros reports whether data is all zeros, and long enough for a hole.
func zeros(data []byte) bool {
	if len(data) < minHole || data[0] != 0 || data[len(data)/2] != 0 {
		return false
	}
	return bytes.Equal(data[1:], data[:len(data)-1]) // each byte equals the one before
}

package engine_test

import (
	"bytes"
	"errors"
	"flag"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/cairn-backup/cairn/backend/mem"
	"github.com/cairn-backup/cairn/chunk"
	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/engine/internal/log"
	"github.com/cairn-backup/cairn/manifest"
)

var pageFigures = flag.Bool("engine.figures", false, "print the figures of docs/adr/0007-page-profile.md")

// TestPageFigures prints what a repository takes of a database of 32 MiB after one
// and after sixty changes of 31 pages, by how it is cut.
func TestPageFigures(t *testing.T) {
	if !*pageFigures {
		t.Skip("only with -engine.figures")
	}
	const size, pages, days = 32 << 20, 31, 60
	for _, c := range []struct {
		name string
		save func(t *testing.T, r *engine.Repository, src *pageSource)
	}{
		{"groups of 64 KiB with patches", func(t *testing.T, r *engine.Repository, src *pageSource) {
			backUp(t, r, src, engine.BackupOptions{})
		}},
		{"groups of 64 KiB", fixed(64 << 10)},
		{"pages of 4 KiB", fixed(4 << 10)},
		{"general, 24K-14-96K", splitBy(chunk.General())},
		{"by content, 2K-12-16K", splitBy(chunk.Profile{Name: "small", Min: 2 << 10, Max: 16 << 10, Bits: 12})},
	} {
		r := open(t, mem.New(), engine.Options{Workers: 2, CacheDir: t.TempDir()})
		src := newPageSource(size)
		rng := rand.New(rand.NewPCG(60, 1))
		c.save(t, r, src)
		base, put := r.Traffic().Put.Bytes, r.Traffic().Put.Bytes
		for day := range days {
			src.update(rng, pages)
			c.save(t, r, src)
			if day == 0 || day == days-1 {
				now, chunks := r.Traffic().Put.Bytes, chunksOf(r)
				t.Logf("%-30s day %2d: %6d KiB put that day, %7d KiB since the first backup of %d KiB, %6d chunks in the index",
					c.name, day+1, (now-put)>>10, (now-base)>>10, base>>10, chunks)
			}
			put = r.Traffic().Put.Bytes
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// chunksOf returns how many chunks the packs hold.
func chunksOf(r *engine.Repository) (n uint64) {
	_ = r.Log().View(func(st *log.State) error { // the function returns nil
		for _, info := range st.Packs() {
			n += uint64(info.Chunks)
		}
		return nil
	})
	return n
}

// fixed cuts at every n bytes.
func fixed(n int) func(*testing.T, *engine.Repository, *pageSource) {
	return saveCut(func(r io.Reader, each func([]byte) error) error {
		buf := make([]byte, n)
		for {
			n, err := io.ReadFull(r, buf)
			if n > 0 {
				if err := each(buf[:n]); err != nil {
					return err
				}
			}
			if err != nil {
				return ignoreEnd(err)
			}
		}
	})
}

// splitBy cuts by content.
func splitBy(p chunk.Profile) func(*testing.T, *engine.Repository, *pageSource) {
	return saveCut(func(r io.Reader, each func([]byte) error) error {
		pol, err := chunk.DerivePolynomial(chunk.Key{1})
		if err != nil {
			return err
		}
		s, err := chunk.NewSplitter(pol, p)
		if err != nil {
			return err
		}
		for s.Reset(r); ; {
			data, err := s.Next()
			if err != nil {
				return ignoreEnd(err)
			}
			if err := each(bytes.Clone(data)); err != nil {
				return err
			}
		}
	})
}

func ignoreEnd(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return err
}

func saveCut(cut func(io.Reader, func([]byte) error) error) func(*testing.T, *engine.Repository, *pageSource) {
	return func(t *testing.T, r *engine.Repository, src *pageSource) {
		_, err := r.SaveFile(t.Context(), "app.db", func(put func([]byte) (chunk.ID, error)) (extents []manifest.Extent, err error) {
			err = cut(&pageReader{source: src}, func(data []byte) error {
				id, err := put(data)
				extents = append(extents, manifest.Extent{Kind: manifest.Data, Length: uint64(len(data)), ID: id})
				return err
			})
			return extents, err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

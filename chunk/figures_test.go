package chunk

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var (
	figures     = flag.Bool("chunk.figures", false, "measure the sizes of docs/adr/0001-chunk-sizes.md (minutes)")
	figuresPair = flag.String("chunk.pair", "", "with -chunk.figures: two files, before,after, to measure too")
)

const (
	figurePage    = 4096
	figurePages   = 1 << 30 / figurePage
	figureUpdates = 1000
)

// TestChunkSizeFigures prints the tables of docs/adr/0001-chunk-sizes.md:
//
//	go test -run TestChunkSizeFigures -v -timeout 30m ./chunk -chunk.figures
//
// and only a column of it with -run TestChunkSizeFigures//cpu.
func TestChunkSizeFigures(t *testing.T) {
	if !*figures {
		t.Skip("takes minutes and proves nothing that can fail; -chunk.figures runs it")
	}
	for _, p := range []Profile{
		{Name: "512K-20-8M", Min: 512 << 10, Bits: 20, Max: 8 << 20},
		{Name: "64K-17-1M", Min: 64 << 10, Bits: 17, Max: 1 << 20},
		{Name: "16K-16-256K", Min: 16 << 10, Bits: 16, Max: 256 << 10},
		{Name: "48K-14-128K", Min: 48 << 10, Bits: 14, Max: 128 << 10},
		{Name: "32K-14-96K", Min: 32 << 10, Bits: 14, Max: 96 << 10},
		{Name: "24K-14-96K", Min: 24 << 10, Bits: 14, Max: 96 << 10},
		{Name: "24K-13-64K", Min: 24 << 10, Bits: 13, Max: 64 << 10},
		{Name: "16K-14-64K", Min: 16 << 10, Bits: 14, Max: 64 << 10},
		{Name: "8K-13-32K", Min: 8 << 10, Bits: 13, Max: 32 << 10},
	} {
		t.Run(p.Name, func(t *testing.T) {
			if err := p.Validate(); err != nil {
				t.Fatal(err)
			}
			again := func(name string, before, after io.Reader) {
				t.Run(name, func(t *testing.T) { t.Log(figureRow(p, before, after)) })
			}
			again("pages", newPages(randomPage, nil), newPages(randomPage, scattered(1)))
			again("inserts", newPages(randomPage, nil), newPages(growingPage, scattered(2)))
			again("database", newPages(databasePage, nil), newPages(databasePage, scattered(3)))
			if before, after, ok := strings.Cut(*figuresPair, ","); ok {
				again("pair", openFigure(t, before), openFigure(t, after))
			}
			t.Run("tree", func(t *testing.T) { t.Log(figureTree(t, p)) })
			t.Run("cpu", func(t *testing.T) {
				t.Logf("split and hash, s a GiB: random %.2f, database %.2f", figureCPU(p, randomPage), figureCPU(p, databasePage))
			})
		})
	}
}

// A figureStore counts what chunks cost.
type figureStore struct {
	s      *Splitter
	h      *Hasher
	known  map[ID]bool
	read   int64 // bytes
	stored int64 // bytes
	chunks int
}

func newFigureStore(p Profile) *figureStore {
	s, err := NewSplitter(testPol, p)
	if err != nil {
		panic(err) // the caller has validated p
	}
	return &figureStore{s: s, h: NewHasher(Key{}), known: map[ID]bool{}}
}

func (f *figureStore) add(r io.Reader) error {
	f.s.Reset(r)
	for {
		c, err := f.s.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		f.chunks++
		f.read += int64(len(c))
		if id := f.h.Sum(c); !f.known[id] {
			f.known[id] = true
			f.stored += int64(len(c))
		}
	}
}

const mib = 1.0 / (1 << 20)

func figureRow(p Profile, before, after io.Reader) string {
	f := newFigureStore(p)
	if err := f.add(before); err != nil {
		return err.Error()
	}
	first, entries, read := f.stored, len(f.known), f.read
	if err := f.add(after); err != nil {
		return err.Error()
	}
	return fmt.Sprintf("stored again %6.1f MiB, entries a GiB %6.0f, mean %6.1f KiB, first stored %.3f of %.0f MiB",
		float64(f.stored-first)*mib, float64(entries)*(1<<30)/float64(read),
		float64(first)/float64(entries)/1024, float64(first)/float64(read), float64(read)*mib)
}

// figureTree stores the Go toolchain's sources, each file as a stream.
func figureTree(t *testing.T, p Profile) string {
	t.Helper()
	f := newFigureStore(p)
	files := 0
	root, err := exec.CommandContext(t.Context(), "go", "env", "GOROOT").Output()
	if err != nil {
		t.Skip("no go command here")
	}
	err = filepath.WalkDir(filepath.Join(strings.TrimSpace(string(root)), "src"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files++
		return f.add(bytes.NewReader(data))
	})
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%d files, %.1f MiB, %d chunks, %d entries, stored %.3f",
		files, float64(f.read)*mib, f.chunks, len(f.known), float64(f.stored)/float64(f.read))
}

// figureCPU returns the seconds that one core takes for a GiB of pages in
// memory: the best of some runs, since the machine may be shared.
func figureCPU(p Profile, fill pageFunc) float64 {
	data := make([]byte, 128<<20)
	for i := range len(data) / figurePage {
		fill(data[i*figurePage:(i+1)*figurePage], uint64(i), 0)
	}
	best := time.Hour
	f := newFigureStore(p)
	for range 7 {
		begin := time.Now()
		f.s.Reset(bytes.NewReader(data))
		for {
			c, err := f.s.Next()
			if err != nil {
				break
			}
			f.h.Sum(c)
		}
		best = min(best, time.Since(begin))
	}
	return best.Seconds() * (1 << 30) / float64(len(data))
}

func openFigure(t *testing.T, path string) io.Reader {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() }) // only read
	return f
}

// scattered returns version 1 for figureUpdates different page numbers.
func scattered(seed uint64) map[uint64]byte {
	r := rand.New(rand.NewPCG(seed, 4))
	pages := map[uint64]byte{}
	for len(pages) < figureUpdates {
		pages[r.Uint64N(figurePages)] = 1
	}
	return pages
}

// A pageFunc fills page with what page number n holds in version 0 or, after its
// update, 1, and returns it.
type pageFunc func(page []byte, n uint64, version byte) []byte

func fillRandom(p []byte, n uint64, version byte) {
	key := [32]byte{0: byte(n), 1: byte(n >> 8), 2: byte(n >> 16), 3: byte(n >> 24), 8: version}
	_, _ = rand.NewChaCha8(key).Read(p) // documented never to fail
}

func randomPage(page []byte, n uint64, version byte) []byte {
	fillRandom(page, n, version)
	return page
}

// growingPage updates a page by one byte in front of it.
func growingPage(page []byte, n uint64, version byte) []byte {
	fillRandom(page, n, 0)
	if version == 0 {
		return page
	}
	return append([]byte{byte(n)}, page...)
}

// databasePage is a leaf of a B-tree of rows of up to 400 bytes, filled in order
// as SQLite does: header and cell pointers, then zeros where no further row
// fitted, then the rows.
func databasePage(page []byte, n uint64, version byte) []byte {
	fillRandom(page, n, version)
	gap := int(page[0]) * 400 / 255
	clear(page[60 : 60+gap])
	return page
}

// newPages returns a stream of figurePages pages in the versions that updates
// says, or 0.
func newPages(fill pageFunc, updates map[uint64]byte) io.Reader {
	return bufio.NewReaderSize(&pageReader{fill: fill, updates: updates}, 1<<20)
}

type pageReader struct {
	fill    pageFunc
	updates map[uint64]byte
	next    uint64
	page    [figurePage]byte
	rest    []byte
}

func (r *pageReader) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		if r.next == figurePages {
			return 0, io.EOF
		}
		r.rest = r.fill(r.page[:], r.next, r.updates[r.next])
		r.next++
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

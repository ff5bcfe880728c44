package engine

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"

	"github.com/cairn-backup/cairn/engine/progress"
)

// A sheet is a file in memory.
type sheet []byte

func (s sheet) WriteAt(p []byte, off int64) (int, error)    { return copy(s[off:], p), nil }
func (s sheet) ReadAt(p []byte, off int64) (n int, e error) { return bytes.NewReader(s).ReadAt(p, off) }
func (s sheet) Close() error                                { return nil }

// TestPatchworkInAnyOrder: whatever comes first, a chunk or its patches, and whichever
// of the patches are given up, the file has the patches, zeros in place of those
// given up, and the chunk everywhere else; and each byte counts once.
func TestPatchworkInAnyOrder(t *testing.T) {
	const page, pages = 16, 8
	rapid.Check(t, func(t *rapid.T) {
		got := make(sheet, page*pages)
		f := &outFile{file: got}
		chunk := bytes.Repeat([]byte{'c'}, page*pages)
		want := bytes.Clone(chunk)
		base := ref{file: f, times: 1, size: page * pages, parts: []part{}, patchwork: new(patchwork)}
		refs := []*ref{&base}
		count := int64(page * pages)
		lost := make(map[*ref]bool)
		for i := range uint64(pages) {
			if !rapid.Bool().Draw(t, "patched") {
				base.parts = append(base.parts, part{i * page, (i + 1) * page})
				continue
			}
			r := &ref{file: f, off: i * page, times: 1, size: page, patchwork: base.patchwork}
			refs = append(refs, r)
			if lost[r] = rapid.Bool().Draw(t, "lost"); lost[r] {
				count -= page
			}
			for j := range uint64(page) {
				if want[i*page+j] = 'p'; lost[r] {
					want[i*page+j] = 0
				}
			}
		}
		x := &restorer{meter: progress.NewMeter(nil)}
		for _, r := range rapid.Permutation(refs).Draw(t, "order") {
			switch {
			case lost[r]:
				r.blank()
			case r == &base:
				if err := x.writePatchwork(r, got, chunk); err != nil {
					t.Fatal(err)
				}
			default:
				if err := x.writePatchwork(r, got, bytes.Repeat([]byte{'p'}, page)); err != nil {
					t.Fatal(err)
				}
			}
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("%q, want %q", got, want)
		}
		if n := x.meter.Tick().Bytes.Done; n != count {
			t.Fatalf("%d bytes counted, want %d", n, count)
		}
	})
}

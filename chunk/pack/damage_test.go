package pack_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"

	"github.com/cairn-backup/cairn/chunk/codec"
	"github.com/cairn-backup/cairn/chunk/pack"
	"github.com/cairn-backup/cairn/chunk/seal"
)

// TestEveryBit flips every bit of a small pack, and cuts it at every length,
// and reads all of it: a typed error or the right data.
func TestEveryBit(t *testing.T) {
	a := newWriter(t)
	add(t, a, 1, 30, 8)
	foreign := finish(t, a)
	b := foreign.Table.Blocks[0]
	w := newWriter(t)
	want := [][]byte{add(t, w, 2, 40), nil}
	if err := w.AddSealed(b, foreign.Header, foreign.Object[b.Offset:b.Offset+b.Stored]); err != nil {
		t.Fatal(err)
	}
	p := finish(t, w)
	_, contents, err := openAll(p.Object)
	if err != nil {
		t.Fatal(err)
	}
	want[1] = contents[1]

	right := 0
	try := func(what string, bad []byte) {
		t.Helper()
		_, got, err := openAll(bad)
		switch {
		case err == nil && len(got) == 2 && bytes.Equal(got[0], want[0]) && bytes.Equal(got[1], want[1]):
			right++
		case !errors.Is(err, pack.ErrCorrupt) && !errors.Is(err, seal.ErrNotCairn) && !errors.Is(err, seal.ErrNewerFormat):
			t.Errorf("%s: %q, %v", what, got, err)
		}
	}
	for i := range len(p.Object) * 8 {
		bad := bytes.Clone(p.Object)
		bad[i/8] ^= 1 << (i % 8)
		try(fmt.Sprintf("bit %d of byte %d", i%8, i/8), bad)
	}
	_, off, _, err := pack.ReadPlace(p.Object)
	if err != nil {
		t.Fatal(err)
	}
	last := p.Table.Blocks[1]
	if padding := int(off - last.Offset - last.Stored); right != padding*8 || padding == 0 {
		t.Errorf("%d flipped bits did not show, %d are padding", right, padding*8)
	}
	right = 0
	for n := range p.Object {
		try(fmt.Sprintf("cut to %d bytes", n), p.Object[:n:n])
		zeroed := bytes.Clone(p.Object)
		clear(zeroed[n:])
		if bytes.Equal(zeroed, p.Object) {
			continue // a tag may end in zeros
		}
		try(fmt.Sprintf("zeros from %d", n), zeroed)
	}
	try("a byte more", append(bytes.Clone(p.Object), 0))
	if right != 0 {
		t.Errorf("%d packs that were cut off could be read", right)
	}
}

func TestPackIsBound(t *testing.T) {
	w := newWriter(t)
	add(t, w, 1, 100)
	p := finish(t, w)
	h, off, n, err := pack.ReadPlace(p.Object)
	if err != nil {
		t.Fatal(err)
	}
	footer, size := p.Object[off:off+n], int64(len(p.Object))
	other := newWriter(t)
	add(t, other, 1, 100)
	record := h
	record.Kind = seal.KindRecord
	meta := h
	meta.Kind = seal.KindMetaPack
	newer := h
	newer.Suite = 9
	for name, open := range map[string]func() (pack.Table, error){
		"key":        func() (pack.Table, error) { return pack.OpenTable(seal.Key{}, testRepo, h, footer, size) },
		"repository": func() (pack.Table, error) { return pack.OpenTable(testKey, [16]byte{}, h, footer, size) },
		"header": func() (pack.Table, error) {
			return pack.OpenTable(testKey, testRepo, finish(t, other).Header, footer, size)
		},
		"kind":        func() (pack.Table, error) { return pack.OpenTable(testKey, testRepo, record, footer, size) },
		"meta":        func() (pack.Table, error) { return pack.OpenTable(testKey, testRepo, meta, footer, size) },
		"smaller":     func() (pack.Table, error) { return pack.OpenTable(testKey, testRepo, h, footer, int64(n)-1) },
		"only footer": func() (pack.Table, error) { return pack.OpenTable(testKey, testRepo, h, footer, int64(n)) },
		"huge":        func() (pack.Table, error) { return pack.OpenTable(testKey, testRepo, h, footer, 1<<40) },
		"no footer":   func() (pack.Table, error) { return pack.OpenTable(testKey, testRepo, h, nil, size) },
	} {
		if _, err := open(); !errors.Is(err, pack.ErrCorrupt) {
			t.Errorf("another %s: %v, want ErrCorrupt", name, err)
		}
	}
	if _, err := pack.OpenTable(testKey, testRepo, newer, footer, size); !errors.Is(err, seal.ErrNewerFormat) || errors.Is(err, pack.ErrCorrupt) {
		t.Errorf("newer suite: %v", err)
	}
}

// TestForgedFooters seals footers that no Writer makes, with the right key.
func TestForgedFooters(t *testing.T) {
	w := newWriter(t)
	add(t, w, 1, 100)
	p := finish(t, w)
	good := p.Table.Append(nil)
	pad := func(p []byte) []byte { return append(p, make([]byte, -len(p)&255)...) }
	plain := func(table []byte) []byte {
		e := codec.AppendRaw(nil, table)
		return pad(append(binary.LittleEndian.AppendUint32(nil, uint32(len(e))), e...))
	}
	beyond, before := p.Table, p.Table
	beyond.Blocks = []pack.Block{p.Table.Blocks[0]}
	beyond.Blocks[0].Offset = 4096 - 290
	before.Blocks = []pack.Block{p.Table.Blocks[0]}
	before.Blocks[0].Offset = 10
	own, mixed := p.Table, p.Table
	own.Births, mixed.Births = []seal.Header{p.Header}, []seal.Header{p.Header}
	mixed.Births[0].Kind, mixed.Births[0].Salt = seal.KindMetaPack, [32]byte{}
	own.Blocks = []pack.Block{p.Table.Blocks[0]}
	own.Blocks[0].Birth = 1
	mixed.Blocks = own.Blocks
	nonZero := plain(good)
	nonZero[len(nonZero)-1] = 1
	for name, tt := range map[string]struct {
		plain []byte
		ok    bool
	}{
		"good":                 {plain(good), true},
		"a step more of zeros": {append(plain(good), make([]byte, 256)...), true},
		"empty":                {nil, false},
		"not a step":           {plain(good)[:255], false},
		"not zeros":            {nonZero, false},
		"length too large":     {pad([]byte{0, 1, 0, 0}), false},
		"no codec":             {pad([]byte{0, 0, 0, 0}), false},
		"unknown codec":        {pad([]byte{2, 0, 0, 0, 9, 0}), false},
		"not a table":          {plain([]byte{9, 9}), false},
		"block in the footer":  {plain(beyond.Append(nil)), false},
		"block in the header":  {plain(before.Append(nil)), false},
		"own header as birth":  {plain(own.Append(nil)), false},
		"birth of other kind":  {plain(mixed.Append(nil)), false},
	} {
		s, err := seal.NewWriter(testKey, seal.Template{Kind: seal.KindDataPack}, seal.Binding{Repository: testRepo})
		if err != nil {
			t.Fatal(err)
		}
		if name == "own header as birth" {
			own.Births[0] = s.Header()
			tt.plain = plain(own.Append(nil))
		}
		sealed, n, err := s.Finish(make([]byte, 4), tt.plain)
		if err != nil {
			t.Fatal(err)
		}
		binary.LittleEndian.PutUint32(sealed, uint32(n))
		_, err = pack.OpenTable(testKey, testRepo, s.Header(), sealed, 4096)
		if tt.ok && err != nil || !tt.ok && !errors.Is(err, pack.ErrCorrupt) {
			t.Errorf("%s: OpenTable = %v", name, err)
		}
	}
}

package pack_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cairn-backup/cairn/chunk"
	"github.com/cairn-backup/cairn/chunk/codec"
	"github.com/cairn-backup/cairn/chunk/pack"
	"github.com/cairn-backup/cairn/chunk/seal"
)

var (
	testKey  = seal.Key{1}
	testRepo = [16]byte{2}
	testHash = chunk.Key{3}
)

func config(kind seal.Kind) pack.Config {
	return pack.Config{Key: testKey, Kind: kind, Generation: 1, Repository: testRepo, Hash: testHash}
}

func newWriter(t testing.TB) *pack.Writer {
	t.Helper()
	w, err := pack.NewWriter(config(seal.KindDataPack))
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func newVerifier(t testing.TB) *pack.Verifier {
	t.Helper()
	v, err := pack.NewVerifier(testHash)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// block makes chunks of the given lengths and their encoding. Every second
// chunk is random.
func block(t testing.TB, seed uint64, lengths ...int) (chunks []pack.Chunk, encoded, raw []byte) {
	t.Helper()
	r, h := rand.New(rand.NewPCG(seed, 9)), chunk.NewHasher(testHash)
	for i, n := range lengths {
		p := bytes.Repeat([]byte(fmt.Sprint("chunk ", seed, i)), n/7+1)[:n]
		for j := range p {
			if i%2 == 1 {
				p[j] = byte(r.Uint32())
			}
		}
		chunks = append(chunks, pack.Chunk{ID: h.Sum(p), Length: uint32(n)})
		raw = append(raw, p...)
	}
	e, err := codec.NewEncoder(codec.Fastest)
	if err != nil {
		t.Fatal(err)
	}
	return chunks, e.Encode(nil, raw), raw
}

func add(t testing.TB, w *pack.Writer, seed uint64, lengths ...int) []byte {
	t.Helper()
	chunks, encoded, raw := block(t, seed, lengths...)
	if err := w.Add(chunks, encoded, nil); err != nil {
		t.Fatal(err)
	}
	return raw
}

func finish(t testing.TB, w *pack.Writer) pack.Pack {
	t.Helper()
	p, err := w.Finish()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// openAll reads a whole pack as a restore does and returns its blocks' content.
func openAll(object []byte) (pack.Table, [][]byte, error) {
	h, off, n, err := pack.ReadPlace(object[:min(len(object), pack.HeadSize)])
	if err != nil {
		return pack.Table{}, nil, err
	}
	if int64(off)+int64(n) != int64(len(object)) {
		return pack.Table{}, nil, fmt.Errorf("%w: footer does not end the object", pack.ErrCorrupt)
	}
	t, err := pack.OpenTable(testKey, testRepo, h, object[off:], int64(len(object)))
	if err != nil {
		return pack.Table{}, nil, err
	}
	births := append([]seal.Header{h}, t.Births...)
	d, err := codec.NewDecoder()
	if err != nil {
		return pack.Table{}, nil, err
	}
	hash := chunk.NewHasher(testHash)
	var contents [][]byte
	for _, b := range t.Blocks {
		o, err := pack.BlockOpener(testKey, testRepo, births[b.Birth])
		if err != nil {
			return pack.Table{}, nil, err
		}
		raw, err := pack.OpenBlock(o, d, nil, object[b.Offset:b.Offset+b.Stored], b.Number, int(b.Raw))
		if err != nil {
			return pack.Table{}, nil, err
		}
		rest := raw
		for _, c := range b.Chunks {
			if hash.Sum(rest[:c.Length]) != c.ID {
				return pack.Table{}, nil, errors.New("a chunk is wrong")
			}
			rest = rest[c.Length:]
		}
		contents = append(contents, raw)
	}
	return t, contents, nil
}

func TestPack(t *testing.T) {
	for _, kind := range []seal.Kind{seal.KindDataPack, seal.KindMetaPack} {
		c := config(kind)
		c.Envelope, c.Generation = []byte("wrapped key"), 77
		w, err := pack.NewWriter(c)
		if err != nil {
			t.Fatal(err)
		}
		if !w.Empty() {
			t.Error("a new pack is not empty")
		}
		want := [][]byte{add(t, w, 1, 1), add(t, w, 2, 5000, 6000, 7), add(t, w, 3, 1<<20, 1<<19)}
		size := w.Size()
		p := finish(t, w)
		if w := w.ID(); w != p.ID || p.ID != p.Header.Name() || p.Header.Generation != 77 || p.Header.Kind != kind {
			t.Errorf("ID = %v, of the pack %v, header %+v", w, p.ID, p.Header)
		}
		if len(p.Object) > pack.Class(size) || pack.Class(len(p.Object)) != len(p.Object) {
			t.Errorf("%d bytes, Size was %d", len(p.Object), size)
		}
		table, contents, err := openAll(p.Object)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(table.Append(nil), p.Table.Append(nil)) || len(contents) != len(want) {
			t.Errorf("table = %v, want %v", table, p.Table)
		}
		for i := range want {
			if !bytes.Equal(contents[i], want[i]) {
				t.Errorf("block %d is wrong", i)
			}
		}
		if _, err := w.Finish(); !errors.Is(err, seal.ErrFinished) {
			t.Errorf("second Finish = %v", err)
		}
		chunks, encoded, _ := block(t, 9, 9)
		if err := w.Add(chunks, encoded, nil); !errors.Is(err, seal.ErrFinished) {
			t.Errorf("Add after Finish = %v", err)
		}
	}
}

func TestNewWriterRefuses(t *testing.T) {
	if _, err := pack.NewWriter(config(seal.KindRecord)); !errors.Is(err, pack.ErrInvalid) {
		t.Errorf("a record as a pack: %v", err)
	}
	c := config(seal.KindDataPack)
	c.Envelope = make([]byte, seal.MaxEnvelope+1)
	if _, err := pack.NewWriter(c); !errors.Is(err, seal.ErrTooLarge) {
		t.Errorf("large envelope: %v", err)
	}
}

func TestEmptyPack(t *testing.T) {
	w := newWriter(t)
	for range 2 {
		if _, err := w.Finish(); !errors.Is(err, pack.ErrEmpty) {
			t.Errorf("Finish = %v, want ErrEmpty", err)
		}
	}
}

// TestAddVerifies is V8: what does not read back as the chunks is not added,
// and what was there before is still there.
func TestAddVerifies(t *testing.T) {
	chunks, encoded, raw := block(t, 1, 3000, 400, 5)
	other, _, _ := block(t, 2, 3000, 400, 5)
	long, _, _ := block(t, 1, 3000, 400, 5, 6)
	flipped := bytes.Clone(encoded)
	flipped[len(flipped)/2] ^= 4
	wrongSum := slices.Clone(chunks)
	wrongSum[0].Length--
	moved := slices.Clone(chunks)
	moved[0].Length, moved[1].Length = 2999, 401
	stated := codec.AppendRaw(nil, raw)
	stated = append(stated, 1)
	tests := []struct {
		name    string
		chunks  []pack.Chunk
		encoded []byte
		want    error
	}{
		{"another chunk", []pack.Chunk{chunks[0], other[1], chunks[2]}, encoded, pack.ErrVerify},
		{"another order", []pack.Chunk{chunks[1], chunks[0], chunks[2]}, encoded, pack.ErrVerify},
		{"moved border", moved, encoded, pack.ErrVerify},
		{"flipped bit", chunks, flipped, pack.ErrVerify},
		{"cut off", chunks, encoded[:len(encoded)-1], pack.ErrVerify},
		{"nothing", chunks, nil, pack.ErrVerify},
		{"a byte more", chunks, stated, pack.ErrVerify},
		{"no chunks", nil, encoded, pack.ErrInvalid},
		{"a chunk more", long, encoded, pack.ErrInvalid},
		{"a chunk less", chunks[:2], encoded, pack.ErrInvalid},
		{"sum is less", wrongSum, encoded, pack.ErrInvalid},
		{"empty chunk", append(slices.Clone(chunks), pack.Chunk{}), encoded, pack.ErrInvalid},
		{"too large", []pack.Chunk{{Length: 17 << 20}}, codec.AppendRaw(nil, make([]byte, 17<<20)), pack.ErrInvalid},
		{"too many chunks", make([]pack.Chunk, pack.MaxChunks+1), encoded, pack.ErrInvalid},
	}
	w, v := newWriter(t), newVerifier(t)
	if err := w.Add(chunks, encoded, v); err != nil {
		t.Fatal(err)
	}
	size, burnt := w.Size(), 0
	for _, tt := range tests {
		if err := w.Add(tt.chunks, tt.encoded, v); !errors.Is(err, tt.want) {
			t.Errorf("%s: Add = %v, want %v", tt.name, err, tt.want)
		}
		if w.Size() != size {
			t.Fatalf("%s: size %d after the error, %d before", tt.name, w.Size(), size)
		}
		if errors.Is(tt.want, pack.ErrVerify) && len(tt.encoded) > 0 {
			burnt++
		}
	}
	wrongKey, err := pack.NewVerifier(chunk.Key{99})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Add(chunks, encoded, wrongKey); !errors.Is(err, pack.ErrVerify) {
		t.Errorf("another hash key: %v", err)
	}
	burnt++
	if err := w.Add(chunks, encoded, v); err != nil {
		t.Fatal(err)
	}
	p := finish(t, w)
	if got := p.Table.Blocks[1].Number; got != uint32(1+burnt) {
		t.Errorf("number of the second block = %d, want %d: numbers are burnt", got, 1+burnt)
	}
	if _, contents, err := openAll(p.Object); err != nil || !bytes.Equal(contents[1], raw) || !bytes.Equal(contents[0], raw) {
		t.Errorf("openAll: %d blocks, %v", len(contents), err)
	}
}

// TestAddSealed moves blocks from pack to pack to pack by someone without the
// key, and reads them in the end.
func TestAddSealed(t *testing.T) {
	a, b := newWriter(t), newWriter(t)
	want := [][]byte{add(t, a, 1, 700, 800), add(t, a, 2, 900), add(t, b, 3, 100, 200, 300)}
	pa, pb := finish(t, a), finish(t, b)

	blind := config(seal.KindDataPack)
	blind.Generation = 2
	move := func(w *pack.Writer, p pack.Pack, i int) {
		t.Helper()
		blk, birth := p.Table.Blocks[i], p.Header
		if blk.Birth > 0 {
			birth = p.Table.Births[blk.Birth-1]
		}
		if err := w.AddSealed(blk, birth, p.Object[blk.Offset:blk.Offset+blk.Stored]); err != nil {
			t.Fatal(err)
		}
	}
	c, err := pack.NewWriter(blind)
	if err != nil {
		t.Fatal(err)
	}
	move(c, pa, 1)
	move(c, pb, 0)
	own := add(t, c, 4, 50)
	pc := finish(t, c)
	d := newWriter(t)
	move(d, pc, 1)
	move(d, pc, 0)
	move(d, pc, 2)
	move(d, pa, 0)
	pd := finish(t, d)
	if len(pd.Table.Births) != 3 || pd.Table.Blocks[3].Birth != 2 {
		t.Errorf("births %+v, blocks %+v", pd.Table.Births, pd.Table.Blocks)
	}
	for name, tt := range map[string]struct {
		p    pack.Pack
		want [][]byte
	}{"once": {pc, [][]byte{want[1], want[2], own}}, "twice": {pd, [][]byte{want[2], want[1], own, want[0]}}} {
		_, contents, err := openAll(tt.p.Object)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for i := range tt.want {
			if !bytes.Equal(contents[i], tt.want[i]) {
				t.Errorf("%s: block %d is wrong", name, i)
			}
		}
	}
}

func TestAddSealedRefuses(t *testing.T) {
	a := newWriter(t)
	add(t, a, 1, 700, 800)
	p := finish(t, a)
	b := p.Table.Blocks[0]
	sealed := p.Object[b.Offset : b.Offset+b.Stored]
	w := newWriter(t)
	if err := w.AddSealed(b, p.Header, sealed); err != nil {
		t.Fatal(err)
	}
	size := w.Size()
	meta, otherGeneration, record := p.Header, p.Header, p.Header
	meta.Kind, record.Kind = seal.KindMetaPack, seal.KindRecord
	otherGeneration.Generation++
	noChunks, wrongSum := b, b
	noChunks.Chunks, wrongSum.Raw = nil, b.Raw+1
	for name, err := range map[string]error{
		"metadata in a data pack": w.AddSealed(b, meta, sealed),
		"a record":                w.AddSealed(b, record, sealed),
		"two headers of one salt": w.AddSealed(b, otherGeneration, sealed),
		"no chunks":               w.AddSealed(noChunks, p.Header, sealed),
		"wrong sum":               w.AddSealed(wrongSum, p.Header, sealed),
		"too short":               w.AddSealed(b, p.Header, sealed[:seal.Overhead]),
		"too long":                w.AddSealed(b, p.Header, make([]byte, 17<<20)),
	} {
		if !errors.Is(err, pack.ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", name, err)
		}
	}
	if w.Size() != size {
		t.Errorf("size %d, was %d", w.Size(), size)
	}
}

// TestTableFull adds blocks of the most chunks until the table is full.
func TestTableFull(t *testing.T) {
	w := newWriter(t)
	h := seal.Header{Kind: seal.KindDataPack, Suite: seal.SuiteAESGCM}
	b := pack.Block{Raw: pack.MaxChunks, Chunks: make([]pack.Chunk, pack.MaxChunks)}
	for i := range b.Chunks {
		b.Chunks[i].Length = 1
	}
	n := 0
	for ; ; n++ {
		if err := w.AddSealed(b, h, make([]byte, 1000)); errors.Is(err, pack.ErrFull) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if n != 7 {
		t.Errorf("%d blocks of 65536 chunks fit", n)
	}
	if p := finish(t, w); len(p.Table.Blocks) != n || len(p.Table.Append(nil)) > pack.MaxTable {
		t.Errorf("%d blocks in the table", len(p.Table.Blocks))
	}
}

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

func TestClass(t *testing.T) {
	before := 0
	check := func(n int) {
		t.Helper()
		c := pack.Class(n)
		limit := 0.125
		if n >= 1<<20 {
			limit = 0.032
		}
		over := float64(c-n) / float64(n)
		if c < n || c < before || pack.Class(c) != c || n >= 512 && over >= limit || c%64 != 0 {
			t.Fatalf("Class(%d) = %d, %.1f %% more; before %d", n, c, 100*over, before)
		}
		before = c
	}
	for n := range 3 << 20 {
		check(n)
	}
	for n := 3 << 20; n <= pack.MaxSize; n += 4093 {
		check(n)
	}
	for n, want := range map[int]int{0: 512, 512: 512, 513: 576, 1024: 1024, 1025: 1152, 1<<20 - 1: 1 << 20, 1<<20 + 1: 1<<20 + 1<<15, 9_000_000: 9_175_040, pack.MaxSize: pack.MaxSize} {
		if got := pack.Class(n); got != want {
			t.Errorf("Class(%d) = %d, want %d", n, got, want)
		}
	}
}

func TestParseID(t *testing.T) {
	id := pack.ID{0xab, 15: 1}
	if got, err := pack.ParseID(id.String()); err != nil || got != id || id.String() != "ab000000000000000000000000000001" {
		t.Errorf("ParseID(%v) = %v, %v", id, got, err)
	}
	for _, bad := range []string{"", "ab", "AB000000000000000000000000000001", "zb000000000000000000000000000001", id.String() + "0"} {
		if _, err := pack.ParseID(bad); err == nil {
			t.Errorf("ParseID(%q) is accepted", bad)
		}
	}
}

// TestMemory fills a pack to its target and looks at what it took.
func TestMemory(t *testing.T) {
	const target = 4 << 20
	c := config(seal.KindDataPack)
	c.Target = target
	w, err := pack.NewWriter(c)
	if err != nil {
		t.Fatal(err)
	}
	chunks, encoded, _ := block(t, 1, 20000, 60000, 40000, 70000)
	v := newVerifier(t)
	if err := w.Add(chunks, encoded, v); err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(5, func() {
		if err := w.Add(chunks, encoded, v); err != nil {
			t.Fatal(err)
		}
	}); n > 4 { // the chunks of the block, the nonce, and now and then the buffer or the list of blocks
		t.Errorf("%v allocations a block", n)
	}
	for w.Size() < target {
		if err := w.Add(chunks, encoded, v); err != nil {
			t.Fatal(err)
		}
	}
	p := finish(t, w)
	if over := float64(cap(p.Object)) / float64(len(p.Object)); over > 1.08 {
		t.Errorf("a pack of %d bytes keeps %d", len(p.Object), cap(p.Object))
	}
}

func BenchmarkAdd(b *testing.B) {
	lengths := make([]int, 32)
	for i := range lengths {
		lengths[i] = 32 << 10
	}
	chunks, encoded, raw := block(b, 1, lengths...)
	v := newVerifier(b)
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	w := newWriter(b)
	for b.Loop() {
		if w.Size() > 16<<20 {
			finish(b, w)
			w = newWriter(b)
		}
		if err := w.Add(chunks, encoded, v); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOpenBlock(b *testing.B) {
	lengths := make([]int, 32)
	for i := range lengths {
		lengths[i] = 32 << 10
	}
	w := newWriter(b)
	add(b, w, 1, lengths...)
	p := finish(b, w)
	blk := p.Table.Blocks[0]
	o, err := pack.BlockOpener(testKey, testRepo, p.Header)
	if err != nil {
		b.Fatal(err)
	}
	d, err := codec.NewDecoder()
	if err != nil {
		b.Fatal(err)
	}
	var dst []byte
	b.SetBytes(int64(blk.Raw))
	b.ReportAllocs()
	for b.Loop() {
		if dst, err = pack.OpenBlock(o, d, dst[:0], p.Object[blk.Offset:blk.Offset+blk.Stored], blk.Number, int(blk.Raw)); err != nil {
			b.Fatal(err)
		}
	}
}

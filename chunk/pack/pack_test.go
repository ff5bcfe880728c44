package pack_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
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

func newWriter(tb testing.TB) *pack.Writer {
	tb.Helper()
	w, err := pack.NewWriter(config(seal.KindDataPack))
	if err != nil {
		tb.Fatal(err)
	}
	return w
}

func newVerifier(tb testing.TB) *pack.Verifier {
	tb.Helper()
	v, err := pack.NewVerifier(testHash)
	if err != nil {
		tb.Fatal(err)
	}
	return v
}

// block makes chunks of the given lengths and their encoding. Every second
// chunk is random.
func block(tb testing.TB, seed uint64, lengths ...int) (chunks []pack.Chunk, encoded, raw []byte) {
	tb.Helper()
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
		tb.Fatal(err)
	}
	return chunks, e.Encode(nil, raw), raw
}

func add(tb testing.TB, w *pack.Writer, seed uint64, lengths ...int) []byte {
	tb.Helper()
	chunks, encoded, raw := block(tb, seed, lengths...)
	if err := w.Add(chunks, encoded, nil); err != nil {
		tb.Fatal(err)
	}
	return raw
}

func finish(tb testing.TB, w *pack.Writer) pack.Pack {
	tb.Helper()
	p, err := w.Finish()
	if err != nil {
		tb.Fatal(err)
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

func zeros(t *testing.T, n int) []byte {
	t.Helper()
	e, err := codec.NewEncoder(codec.Fastest)
	if err != nil {
		t.Fatal(err)
	}
	return e.Encode(nil, make([]byte, n))
}

func TestOpenBlockRefuses(t *testing.T) {
	s, err := seal.NewWriter(testKey, seal.Template{Kind: seal.KindDataPack}, seal.Binding{Repository: testRepo})
	if err != nil {
		t.Fatal(err)
	}
	o, err := pack.BlockOpener(testKey, testRepo, s.Header())
	if err != nil {
		t.Fatal(err)
	}
	d, err := codec.NewDecoder()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name  string
		plain []byte
		limit int
		ok    bool
	}{
		{"right", zeros(t, 1000), 1000, true},
		{"above the limit", zeros(t, 1000), 999, false},
		{"above every limit", zeros(t, pack.MaxRaw+1), 1 << 30, false},
		{"empty part", nil, 1000, false},
	} {
		sealed, n, err := s.Part(nil, tt.plain)
		if err != nil {
			t.Fatal(err)
		}
		got, err := pack.OpenBlock(o, d, []byte("dst"), sealed, uint32(n), tt.limit)
		if tt.ok != (err == nil) || err != nil && (!errors.Is(err, pack.ErrCorrupt) || string(got) != "dst") {
			t.Errorf("%s: OpenBlock = %d bytes, %v", tt.name, len(got), err)
		}
		if view, _, viewErr := pack.ViewBlock(o, d, []byte("dst"), sealed, uint32(n), tt.limit); fmt.Sprint(viewErr) != fmt.Sprint(err) || err == nil && string(view) != string(got[3:]) {
			t.Errorf("%s: ViewBlock = %d bytes, %v, OpenBlock %v", tt.name, len(view), viewErr, err)
		}
		if got, err := pack.OpenBlock(o, d, []byte("dst"), sealed, uint32(n)+1, tt.limit); !errors.Is(err, pack.ErrCorrupt) || string(got) != "dst" {
			t.Errorf("%s, under another number: %d bytes, %v", tt.name, len(got), err)
		}
	}
	// A codec that this version does not know is no damage, which a check would
	// record for ever: someone who has the key sealed it.
	sealed, n, err := s.Part(nil, []byte{9, 1, 0})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pack.OpenBlock(o, d, nil, sealed, uint32(n), 1000); !errors.Is(err, seal.ErrNewerFormat) || errors.Is(err, pack.ErrCorrupt) {
		t.Errorf("unknown codec: OpenBlock = %v, want ErrNewerFormat alone", err)
	}
}

func TestVerifier(t *testing.T) {
	chunks, encoded, _ := block(t, 1, 300, 200)
	v := newVerifier(t)
	if err := v.Verify(chunks, encoded); err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string][]pack.Chunk{
		"no chunks": nil, "one less": chunks[:1], "one more": append(slices.Clone(chunks), chunks[0]),
		"longer": {chunks[0], {ID: chunks[1].ID, Length: 201}},
	} {
		if err := v.Verify(bad, encoded); !errors.Is(err, pack.ErrVerify) {
			t.Errorf("%s: %v, want ErrVerify", name, err)
		}
	}
}

// TestWriterCopies changes what was handed to a Writer.
func TestWriterCopies(t *testing.T) {
	a := newWriter(t)
	add(t, a, 1, 700)
	pa := finish(t, a)
	b := pa.Table.Blocks[0]
	sealed := bytes.Clone(pa.Object[b.Offset : b.Offset+b.Stored])
	c := config(seal.KindDataPack)
	c.Envelope = []byte("envelope")
	w, err := pack.NewWriter(c)
	if err != nil {
		t.Fatal(err)
	}
	chunks, encoded, _ := block(t, 2, 300, 200)
	if err := w.Add(chunks, encoded, nil); err != nil {
		t.Fatal(err)
	}
	birth := pa.Header
	birth.Envelope = []byte("of the birth")
	b.Chunks = slices.Clone(b.Chunks)
	if err := w.AddSealed(b, birth, sealed); err != nil {
		t.Fatal(err)
	}
	clear(chunks)
	clear(encoded)
	clear(b.Chunks)
	clear(sealed)
	clear(c.Envelope)
	clear(birth.Envelope)
	p := finish(t, w)
	if got := string(p.Table.Births[0].Envelope) + ", " + string(p.Header.Envelope); got != "of the birth, envelope" {
		t.Errorf("envelopes: %q", got)
	}
	if p.Table.Blocks[0].Chunks[1].Length != 200 || p.Table.Blocks[1].Chunks[0].Length != 700 {
		t.Errorf("blocks: %+v", p.Table.Blocks)
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
		{"too large, compressed", []pack.Chunk{{Length: 17 << 20}}, zeros(t, 17<<20), pack.ErrInvalid},
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
	meta.Salt, record.Salt = [32]byte{1}, [32]byte{1}
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

func TestClass(t *testing.T) {
	before := 0
	check := func(n int) {
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
	for n := range 5 << 18 {
		check(n)
	}
	for n := 5 << 18; n <= pack.MaxSize; n += 4093 {
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

// TestBufferGrowsOnce fills a pack of the size that most have: what is copied on
// the way is little beside it.
func TestBufferGrowsOnce(t *testing.T) {
	const target = 21 << 20
	c := config(seal.KindDataPack)
	c.Target = target
	w, err := pack.NewWriter(c)
	if err != nil {
		t.Fatal(err)
	}
	chunks, encoded, _ := block(t, 1, 20000, 60000, 40000, 70000)
	v := newVerifier(t)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for w.Size() < target {
		if err := w.Add(chunks, encoded, v); err != nil {
			t.Fatal(err)
		}
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > target+target/2 {
		t.Errorf("a pack of %d bytes took %d", target, n)
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

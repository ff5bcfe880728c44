package pack_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"math"
	"os"
	"reflect"
	"runtime"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/cairn-backup/cairn/chunk"
	"github.com/cairn-backup/cairn/chunk/pack"
	"github.com/cairn-backup/cairn/chunk/seal"
	"github.com/cairn-backup/cairn/chunk/wire"
)

const tableObject = 100_000 // bytes of the object of sampleTable

func sampleTable() pack.Table {
	birth := func(b byte) seal.Header {
		return seal.Header{Kind: seal.KindDataPack, Suite: seal.SuiteAESGCM, Generation: 1, Salt: [32]byte{b}, Envelope: []byte{b}}
	}
	chunks := func(lengths ...uint32) (cs []pack.Chunk, sum uint32) {
		for i, n := range lengths {
			cs = append(cs, pack.Chunk{ID: chunk.ID{byte(i), byte(n)}, Length: n})
			sum += n
		}
		return cs, sum
	}
	t := pack.Table{Births: []seal.Header{birth(1), birth(2)}}
	for i, b := range []pack.Block{
		{Number: 0, Offset: 58, Stored: 1000},
		{Number: 9, Birth: 1, Offset: 1058, Stored: 500},
		{Number: 3, Offset: 1558, Stored: 7000},
		{Number: 7, Birth: 2, Offset: 90_000, Stored: 10_000},
		// Numbers of foreign births come in any order.
	} {
		b.Chunks, b.Raw = chunks(uint32(i)+1, 200, 70_000)
		t.Blocks = append(t.Blocks, b)
	}
	return t
}

func TestTableRoundTrip(t *testing.T) {
	in := sampleTable()
	p := in.Append([]byte("dst"))[3:]
	out, err := pack.ParseTable(p, tableObject)
	if err != nil || !reflect.DeepEqual(in, out) {
		t.Fatalf("ParseTable = %+v, %v, want %+v", out, err, in)
	}
	clear(p) // nothing of p is kept
	if !reflect.DeepEqual(in, out) {
		t.Error("the table aliases the bytes")
	}
}

func TestParseTableRefuses(t *testing.T) {
	good := sampleTable().Append(nil)
	changed := func(change func(*pack.Table)) []byte {
		t := sampleTable()
		change(&t)
		return t.Append(nil)
	}
	block := func(i int, change func(*pack.Block)) []byte {
		return changed(func(t *pack.Table) { change(&t.Blocks[i]) })
	}
	oneChunk := func(n int) []pack.Chunk { return make([]pack.Chunk, n) }
	header := sampleTable().Births[0].Append(nil)
	for _, tt := range []struct {
		name string
		p    []byte
	}{
		{"nothing", nil},
		{"version 0", append([]byte{0}, good[1:]...)},
		{"version 2", append([]byte{2}, good[1:]...)},
		{"version in two bytes", append([]byte{0x81, 0}, good[1:]...)},
		{"cut off", good[:len(good)-1]},
		{"a byte more", append(bytes.Clone(good), 0)},
		{"too long", append(bytes.Clone(good), make([]byte, pack.MaxTable)...)},
		{"no blocks", changed(func(t *pack.Table) { *t = pack.Table{} })},
		{"2^40 births", wire.AppendUvarint([]byte{1}, 1<<40)},
		{"many births", append(wire.AppendUvarint([]byte{1}, 1<<20), make([]byte, 100)...)},
		{"many blocks", append(wire.AppendUvarint([]byte{1, 0}, 1<<20), make([]byte, 100)...)},
		{"many chunks", append([]byte{1, 0, 1, 0, 0, 58, 19, 1}, wire.AppendUvarint(nil, 60_000)...)},
		{"a birth is no header", append(append([]byte{1, 1, 51}, make([]byte, 51)...), good...)},
		{"a birth with a byte more", append(append([]byte{1, 1, 52}, append(header, 0)...), good...)},
		{"a birth is a record", changed(func(t *pack.Table) { t.Births[0].Kind = seal.KindRecord })},
		{"a birth of another suite", changed(func(t *pack.Table) { t.Births[0].Suite = 2 })},
		{"two births of one salt", changed(func(t *pack.Table) { t.Births[1].Salt = t.Births[0].Salt })},
		{"a birth no block names", changed(func(t *pack.Table) { t.Blocks = t.Blocks[:3] })},
		{"births in another order", changed(func(t *pack.Table) { t.Blocks[1].Birth, t.Blocks[3].Birth = 2, 1 })},
		{"birth out of range", block(3, func(b *pack.Block) { b.Birth = 3 })},
		{"birth of 2^32-1", block(3, func(b *pack.Block) { b.Birth = math.MaxUint32 })},
		{"number twice", block(2, func(b *pack.Block) { b.Number = 0 })},
		{"overlap by one", block(2, func(b *pack.Block) { b.Offset-- })},
		{"one inside another", block(1, func(b *pack.Block) { b.Offset, b.Stored = 100, 50 })},
		{"order", block(1, func(b *pack.Block) { b.Offset = 95_000 })},
		{"beyond the object", block(3, func(b *pack.Block) { b.Stored++ })},
		{"offset of 2^32-1", block(3, func(b *pack.Block) { b.Offset = math.MaxUint32 })},
		{"in the magic", block(0, func(b *pack.Block) { b.Offset = 7 })},
		{"stored is too little", block(0, func(b *pack.Block) { b.Stored = 18 })},
		{"stored is too much", block(0, func(b *pack.Block) { b.Stored = 17 << 20 })},
		{"sum is less", block(0, func(b *pack.Block) { b.Raw-- })},
		{"sum is more", block(0, func(b *pack.Block) { b.Raw++ })},
		{"sum wraps round", block(0, func(b *pack.Block) {
			b.Chunks = oneChunk(257)
			for i := range b.Chunks {
				b.Chunks[i].Length = 16 << 20 // 2^32 + 2^24 together
			}
			b.Raw = 1 << 24
		})},
		{"raw is too much", block(0, func(b *pack.Block) { b.Raw, b.Chunks = 1<<24+1, []pack.Chunk{{Length: 1<<24 + 1}} })},
		{"empty chunk", block(0, func(b *pack.Block) { b.Chunks = append(b.Chunks, pack.Chunk{}) })},
		{"no chunks", block(0, func(b *pack.Block) { b.Chunks, b.Raw = nil, 0 })},
		{"too many chunks", block(0, func(b *pack.Block) {
			b.Chunks, b.Raw = oneChunk(1<<16+1), 1<<16+1
			for i := range b.Chunks {
				b.Chunks[i].Length = 1
			}
		})},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := pack.ParseTable(tt.p, tableObject)
			if !errors.Is(err, pack.ErrCorrupt) || got.Blocks != nil {
				t.Errorf("ParseTable = %v, %v, want ErrCorrupt", got, err)
			}
		})
	}
	for _, size := range []int64{-1, 0, tableObject - 1, pack.MaxSize + 1, math.MaxInt64, math.MinInt64} {
		if _, err := pack.ParseTable(good, size); !errors.Is(err, pack.ErrCorrupt) {
			t.Errorf("object of %d bytes: %v", size, err)
		}
	}
}

func TestTableProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := drawTable(t)
		p := in.Append(nil)
		out, err := pack.ParseTable(p, pack.MaxSize)
		if err != nil {
			t.Fatalf("%+v: %v", in, err)
		}
		if !bytes.Equal(out.Append(nil), p) || len(out.Blocks) != len(in.Blocks) {
			t.Fatalf("%+v reads as %+v", in, out)
		}
	})
}

func drawTable(t *rapid.T) pack.Table {
	var table pack.Table
	offset, number := uint32(58), uint32(0)
	for range rapid.IntRange(1, 8).Draw(t, "blocks") {
		b := pack.Block{Offset: offset + uint32(rapid.IntRange(0, 1000).Draw(t, "gap")), Stored: uint32(rapid.IntRange(19, 20<<10).Draw(t, "stored"))}
		offset = b.Offset + b.Stored
		b.Birth = uint32(rapid.IntRange(0, len(table.Births)+1).Draw(t, "birth"))
		if int(b.Birth) > len(table.Births) {
			h := seal.Header{Kind: seal.KindMetaPack, Suite: seal.SuiteAESGCM, Salt: [32]byte{byte(b.Birth)}}
			h.Envelope = rapid.SliceOfN(rapid.Byte(), 0, 200).Draw(t, "envelope")
			table.Births = append(table.Births, h)
		}
		b.Number = rapid.Uint32().Draw(t, "number")
		if b.Birth == 0 {
			number += uint32(rapid.IntRange(1, 1000).Draw(t, "burnt"))
			b.Number = number
		}
		for _, n := range rapid.SliceOfN(rapid.Uint32Range(1, 300<<10), 1, 50).Draw(t, "lengths") {
			b.Chunks = append(b.Chunks, pack.Chunk{ID: chunk.ID{byte(n)}, Length: n})
			b.Raw += n
		}
		table.Blocks = append(table.Blocks, b)
	}
	return table
}

// TestParseTableMemory gives ParseTable counts that promise more than is there.
func TestParseTableMemory(t *testing.T) {
	filler := make([]byte, 1<<20)
	for name, p := range map[string][]byte{
		"births": append([]byte{1, 0xff, 0x7f}, filler...),
		"blocks": append([]byte{1, 0, 0x80, 0x80, 1}, filler...),
		"chunks": append([]byte{1, 0, 1, 0, 0, 58, 19, 1, 0x80, 0x80, 4}, filler...)[:1000],
		"both":   append([]byte{1, 0, 0x90, 0x80, 1, 0, 0, 58, 19, 1, 0x80, 0x80, 1}, filler...),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if _, err := pack.ParseTable(p, 1<<20); !errors.Is(err, pack.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > uint64(len(p))*4+16<<10 {
			t.Errorf("%s: %d bytes took %d", name, len(p), n)
		}
	}
}

func FuzzParseTable(f *testing.F) {
	f.Add(sampleTable().Append(nil), int64(tableObject))
	f.Add(pack.Table{Blocks: sampleTable().Blocks[:1]}.Append(nil), int64(2000))
	f.Add([]byte{1, 0, 0xff, 0xff, 0xff, 0x7f}, int64(1<<20))
	f.Fuzz(func(t *testing.T, p []byte, size int64) {
		table, err := pack.ParseTable(p, size)
		if err != nil {
			if !errors.Is(err, pack.ErrCorrupt) {
				t.Errorf("ParseTable: %v", err)
			}
			return
		}
		if !bytes.Equal(table.Append(nil), p) {
			t.Errorf("%x is read as %+v", p, table)
		}
	})
}

func TestReadPlaceRefuses(t *testing.T) {
	w := newWriter(t)
	add(t, w, 1, 500)
	good := finish(t, w).Object
	place := func(off, n uint32) []byte {
		p := binary.LittleEndian.AppendUint32(bytes.Clone(good[:50]), off)
		return binary.LittleEndian.AppendUint32(p, n)
	}
	kind := bytes.Clone(good)
	kind[9] = byte(seal.KindSegment)
	newer := bytes.Clone(good)
	newer[8] = 2
	for _, tt := range []struct {
		name string
		p    []byte
		want error
	}{
		{"nothing", nil, pack.ErrCorrupt},
		{"something else", []byte("%PDF-1.7 and so on"), seal.ErrNotCairn},
		{"newer", newer, seal.ErrNewerFormat},
		{"segment", kind, pack.ErrCorrupt},
		{"no place", good[:50], pack.ErrCorrupt},
		{"half a place", good[:57], pack.ErrCorrupt},
		{"footer in the header", place(57, 300), pack.ErrCorrupt},
		{"footer too short", place(500, 275), pack.ErrCorrupt},
		{"footer too long", place(500, 17<<20), pack.ErrCorrupt},
		{"footer beyond a pack", place(pack.MaxSize-275, 276), pack.ErrCorrupt},
		{"footer beyond 2^32", place(math.MaxUint32, 276), pack.ErrCorrupt},
	} {
		if _, _, _, err := pack.ReadPlace(tt.p); !errors.Is(err, tt.want) {
			t.Errorf("%s: ReadPlace = %v, want %v", tt.name, err, tt.want)
		}
	}
	if _, off, n, err := pack.ReadPlace(place(58, 276)); err != nil || off != 58 || n != 276 {
		t.Errorf("ReadPlace = %d, %d, %v", off, n, err)
	}
}

func FuzzReadPlace(f *testing.F) {
	w := newWriter(f)
	add(f, w, 1, 50)
	f.Add(finish(f, w).Object[:58])
	f.Fuzz(func(t *testing.T, p []byte) {
		h, off, n, err := pack.ReadPlace(p)
		if err != nil {
			if !errors.Is(err, pack.ErrCorrupt) && !errors.Is(err, seal.ErrNotCairn) && !errors.Is(err, seal.ErrNewerFormat) {
				t.Errorf("ReadPlace(%x): %v", p, err)
			}
			return
		}
		if int(off) < h.Len()+8 || int64(off)+int64(n) > pack.MaxSize {
			t.Errorf("ReadPlace(%x) = %d, %d", p, off, n)
		}
	})
}

// Frozen: cases are added by
//
//	go test ./chunk/pack -run TestVectors -add
//
// and never written again.
const vectorFile = "../../testdata/vectors/pack.json"

var addVectors = flag.Bool("add", false, "add missing cases to the vector file")

type vectors struct {
	Tables []tableVector `json:"tables"`
	Packs  []packVector  `json:"packs"`
}

type tableVector struct {
	Name       string       `json:"name"`
	ObjectSize int64        `json:"object_size"`
	Births     []string     `json:"births"` // hex of headers
	Blocks     []pack.Block `json:"blocks"`
	Bytes      string       `json:"bytes"` // hex
}

type packVector struct {
	Name       string   `json:"name"`
	Key        string   `json:"key"`
	Repository string   `json:"repository"`
	Hash       string   `json:"hash_key"`
	Contents   []string `json:"contents"` // hex, one a block
	Object     string   `json:"object"`
}

func tableVectorOf(name string, t pack.Table, size int64) tableVector {
	v := tableVector{Name: name, ObjectSize: size, Births: []string{}, Blocks: t.Blocks, Bytes: hex.EncodeToString(t.Append(nil))}
	for _, h := range t.Births {
		v.Births = append(v.Births, hex.EncodeToString(h.Append(nil)))
	}
	return v
}

func packVectorOf(name string, object []byte, contents ...[]byte) packVector {
	v := packVector{
		Name: name, Key: hex.EncodeToString(testKey[:]), Repository: hex.EncodeToString(testRepo[:]),
		Hash: hex.EncodeToString(testHash[:]), Object: hex.EncodeToString(object),
	}
	for _, c := range contents {
		v.Contents = append(v.Contents, hex.EncodeToString(c))
	}
	return v
}

func (v *vectors) add(t *testing.T) {
	t.Helper()
	small := pack.Table{Blocks: sampleTable().Blocks[:1]}
	for _, in := range []tableVector{tableVectorOf("one block", small, 2000), tableVectorOf("foreign births", sampleTable(), tableObject)} {
		if !slices.ContainsFunc(v.Tables, func(o tableVector) bool { return o.Name == in.Name }) {
			v.Tables = append(v.Tables, in)
		}
	}
	if len(v.Packs) > 0 {
		return
	}
	a := newWriter(t)
	first := add(t, a, 1, 300, 40, 500)
	second := add(t, a, 2, 64)
	pa := finish(t, a)
	c := config(seal.KindDataPack)
	c.Generation, c.Envelope = 2, []byte("an envelope")
	b, err := pack.NewWriter(c)
	if err != nil {
		t.Fatal(err)
	}
	third := add(t, b, 3, 100)
	blk := pa.Table.Blocks[1]
	if err := b.AddSealed(blk, pa.Header, pa.Object[blk.Offset:blk.Offset+blk.Stored]); err != nil {
		t.Fatal(err)
	}
	v.Packs = append(v.Packs, packVectorOf("two blocks", pa.Object, first, second),
		packVectorOf("a block of its own and one of the first pack", finish(t, b).Object, third, second))
}

func TestVectors(t *testing.T) {
	var v vectors
	p, err := os.ReadFile(vectorFile)
	if err == nil {
		err = json.Unmarshal(p, &v)
	}
	if err != nil && !*addVectors {
		t.Fatal(err)
	}
	if *addVectors {
		v.add(t)
		p, err := json.MarshalIndent(v, "", "\t")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(vectorFile, append(p, '\n'), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	if len(v.Tables) < 2 || len(v.Packs) < 2 {
		t.Fatalf("%d tables, %d packs in the file", len(v.Tables), len(v.Packs))
	}
	for _, tv := range v.Tables {
		p, err := hex.DecodeString(tv.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		table, err := pack.ParseTable(p, tv.ObjectSize)
		if err != nil || !reflect.DeepEqual(tableVectorOf(tv.Name, table, tv.ObjectSize), tv) {
			t.Errorf("table %q = %+v, %v", tv.Name, table, err)
		}
	}
	for _, pv := range v.Packs {
		object, err := hex.DecodeString(pv.Object)
		if err != nil {
			t.Fatal(err)
		}
		_, contents, err := openAll(object)
		if err != nil || !reflect.DeepEqual(packVectorOf(pv.Name, object, contents...), pv) {
			t.Errorf("pack %q: %d blocks, %v", pv.Name, len(contents), err)
		}
	}
}

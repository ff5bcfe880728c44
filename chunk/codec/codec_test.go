package codec_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"pgregory.net/rapid"

	"github.com/cairn-backup/cairn/chunk/codec"
	"github.com/cairn-backup/cairn/chunk/wire"
)

func newEncoder(tb testing.TB, l codec.Level) *codec.Encoder {
	tb.Helper()
	e, err := codec.NewEncoder(l)
	if err != nil {
		tb.Fatal(err)
	}
	return e
}

func newDecoder(tb testing.TB) *codec.Decoder {
	tb.Helper()
	d, err := codec.NewDecoder()
	if err != nil {
		tb.Fatal(err)
	}
	return d
}

func random(n int) []byte {
	p := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(p)
	return p
}

// text returns n bytes that compress about as source code does.
func text(n int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	words := strings.Fields("func return if err != nil { } := range for string int byte len append the of a block chunk pack " +
		"seal open table header offset number birth salt key nonce ( ) [ ] , . // \n\n \n\t \n\t\t")
	var b bytes.Buffer
	for b.Len() < n {
		if b.WriteString(words[r.IntN(len(words))]); r.IntN(8) == 0 {
			fmt.Fprintf(&b, "%x", r.Uint32())
		}
		b.WriteByte(' ')
	}
	return b.Bytes()[:n]
}

func TestRoundTrip(t *testing.T) {
	inputs := map[string][]byte{
		"empty": {}, "one byte": {7}, "short text": text(100), "text": text(1 << 20), "random": random(1 << 20),
		"zeros": make([]byte, 1<<20), "largest": text(16 << 20), "largest random": random(16 << 20),
		"largest zeros": make([]byte, 16<<20), "mixed": append(random(200<<10), text(300<<10)...),
	}
	for _, l := range []codec.Level{codec.Fastest, codec.Default, codec.Better, codec.Best, codec.S2} {
		e, d := newEncoder(t, l), newDecoder(t)
		for name, in := range inputs {
			if len(in) > 1<<20 && (l > codec.Fastest || raceEnabled) || len(in) > 1<<19 && raceEnabled && l > codec.Default {
				continue // nothing new, and slow
			}
			encoded := e.Encode([]byte("dst"), in)
			if !bytes.HasPrefix(encoded, []byte("dst")) || len(encoded) > 3+len(in)+codec.MaxOverhead {
				t.Fatalf("%s, level %d: %d bytes of %d", name, l, len(encoded), len(in))
			}
			encoded = encoded[3:]
			if n, err := codec.RawLen(encoded); err != nil || n != len(in) {
				t.Errorf("%s, level %d: RawLen = %d, %v", name, l, n, err)
			}
			out, err := d.Decode([]byte("dst"), encoded, len(in))
			if err != nil || !bytes.Equal(out, append([]byte("dst"), in...)) {
				t.Errorf("%s, level %d: Decode: %d bytes, %v", name, l, len(out), err)
			}
			if _, err := d.Decode(nil, encoded, len(in)-1); !errors.Is(err, codec.ErrCorrupt) {
				t.Errorf("%s, level %d: Decode with a lower limit: %v", name, l, err)
			}
		}
	}
}

func TestRawWhereCompressionDoesNotPay(t *testing.T) {
	e := newEncoder(t, codec.Fastest)
	if p := e.Encode(nil, random(100_000)); p[0] != 0 || len(p) != 100_004 {
		t.Errorf("random data: codec %d, %d bytes", p[0], len(p))
	}
	if p := e.Encode(nil, text(100_000)); p[0] != 1 || len(p) > 50_000 {
		t.Errorf("text: codec %d, %d bytes", p[0], len(p))
	}
	// The border: whatever is stored compressed saves 2 %, head included or not.
	for zeros := 0; zeros < 6000; zeros += 100 {
		in := append(random(100_000), make([]byte, zeros)...)
		p := e.Encode(nil, in)
		if small := len(p)-4 <= len(in)-len(in)/50; (p[0] == 1) != small {
			t.Errorf("%d of %d bytes are zeros: codec %d, %d bytes", zeros, len(in), p[0], len(p))
		}
	}
}

func TestNewEncoderRefuses(t *testing.T) {
	if _, err := codec.NewEncoder(codec.S2 + 1); err == nil {
		t.Error("level 5 was accepted")
	}
}

func TestEncodeIsAppendRaw(t *testing.T) {
	in := random(5000)
	if got, want := newEncoder(t, codec.Fastest).Encode(nil, in), codec.AppendRaw(nil, in); !bytes.Equal(got, want) {
		t.Error("Encode of random data is not AppendRaw")
	}
}

// frame returns an encoding of stated bytes with one zstd frame of content.
func frame(tb testing.TB, stated uint64, content []byte, opts ...zstd.EOption) []byte {
	tb.Helper()
	e, err := zstd.NewWriter(nil, append([]zstd.EOption{zstd.WithEncoderCRC(false)}, opts...)...)
	if err != nil {
		tb.Fatal(err)
	}
	return e.EncodeAll(content, wire.AppendUvarint([]byte{1}, stated))
}

// stream returns an encoding whose frame does not say how long its content is.
func stream(tb testing.TB, stated uint64, content []byte) []byte {
	tb.Helper()
	b := bytes.NewBuffer(wire.AppendUvarint([]byte{1}, stated))
	e, err := zstd.NewWriter(b, zstd.WithEncoderCRC(false), zstd.WithWindowSize(1<<20))
	if err != nil {
		tb.Fatal(err)
	}
	for len(content) > 0 {
		n := min(len(content), 100_000)
		if _, err := e.Write(content[:n]); err != nil {
			tb.Fatal(err)
		}
		if err := e.Flush(); err != nil { // or a short frame is written whole, with its length
			tb.Fatal(err)
		}
		content = content[n:]
	}
	if err := e.Close(); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

func TestDecodeRefuses(t *testing.T) {
	content, zeros := text(300_000), make([]byte, 12<<20)
	short := newEncoder(t, codec.S2).Encode(nil, content[:1000])
	good := frame(t, 300_000, content)
	skippable := append(wire.AppendUvarint([]byte{1}, 5), 0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 0)
	tests := []struct {
		name string
		p    []byte
	}{
		{"nothing", nil},
		{"no length", []byte{0}},
		{"length cut off", []byte{1, 0x80}},
		{"length not minimal", []byte{0, 0x81, 0x00, 7}},
		{"length of 2^40", append(wire.AppendUvarint([]byte{1}, 1<<40), good[4:]...)},
		{"no S2 block", []byte{2, 0}},
		{"no S2 block but length", []byte{2, 4}},
		{"not an S2 block", []byte{2, 4, 4, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}},
		{"S2 block cut off", short[:len(short)-1]},
		{"something follows the S2 block", append(bytes.Clone(short), 0)},
		{"S2 block of one byte less than stated", append(wire.AppendUvarint([]byte{2}, 1001), short[3:]...)},
		{"S2 block of one byte more than stated", append(wire.AppendUvarint([]byte{2}, 999), short[3:]...)},
		{"S2 bomb", append(wire.AppendUvarint([]byte{2}, 1000), s2.Encode(nil, zeros)...)},
		{"raw too short", []byte{0, 2, 7}},
		{"raw too long", []byte{0, 1, 7, 7}},
		{"no frame", []byte{1, 0}},
		{"no frame but length", []byte{1, 4}},
		{"not a frame", []byte{1, 4, 1, 2, 3, 4, 5, 6, 7, 8, 9}},
		{"frame cut off", good[:len(good)-1]},
		{"frame header cut off", good[:8]},
		{"something follows", append(bytes.Clone(good), 1, 2, 3)},
		{"two frames", append(bytes.Clone(good), good[4:]...)},
		{"two frames without a length", append(stream(t, 600, text(300)), stream(t, 600, text(300))[3:]...)},
		{"an empty frame follows", append(bytes.Clone(good), 0x28, 0xb5, 0x2f, 0xfd, 0, 0x58, 1, 0, 0)},
		{"a skippable frame follows", append(bytes.Clone(good), skippable[2:]...)},
		{"one byte less stated", frame(t, 299_999, content)},
		{"one byte more stated", frame(t, 300_001, content)},
		{"checksum", frame(t, 300_000, content, zstd.WithEncoderCRC(true))},
		{"dictionary", frame(t, 300_000, content, zstd.WithEncoderDictRaw(7, content[:5000]))},
		{"skippable frame", skippable},
		{"bomb", frame(t, 1000, zeros)},
		{"bomb without a length", stream(t, 1000, zeros)},
		{"bomb without a length, one byte", stream(t, 12<<20-1, zeros)},
		{"stream too short", stream(t, 12<<20+1, zeros)},
		{"more than a frame can hold", append(wire.AppendUvarint([]byte{1}, 16<<20), good[4:40]...)},
	}
	d := newDecoder(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dst := append(make([]byte, 0, 64), "dst"...)
			if out, err := d.Decode(dst, tt.p, 16<<20); !errors.Is(err, codec.ErrCorrupt) || string(out) != "dst" {
				t.Errorf("Decode = %d bytes, %v, want ErrCorrupt", len(out), err)
			}
		})
	}
	if out, err := d.Decode(nil, []byte{77, 1, 7}, 16<<20); !errors.Is(err, codec.ErrUnknown) || errors.Is(err, codec.ErrCorrupt) || out != nil {
		t.Errorf("codec 77: Decode = %d bytes, %v, want ErrUnknown", len(out), err)
	}
	for _, ok := range [][]byte{good, stream(t, 300_000, content)} {
		if out, err := d.Decode(nil, ok, 300_000); err != nil || !bytes.Equal(out, content) {
			t.Errorf("a good block after the bad ones: %v", err)
		}
	}
}

// TestDecodeMemory gives bombs to a Decoder and measures what it takes.
func TestDecodeMemory(t *testing.T) {
	zeros := make([]byte, 16<<20)
	bombs := [][]byte{
		frame(t, 1000, zeros), stream(t, 1000, zeros), frame(t, 16<<20, zeros), stream(t, 900, zeros[:1<<20]),
		append(wire.AppendUvarint([]byte{2}, 1000), s2.Encode(nil, zeros)...), append(wire.AppendUvarint([]byte{2}, 16<<20), s2.Encode(nil, zeros)...),
	}
	hollow := stream(t, 16<<20, text(1000))
	d := newDecoder(t)
	_, _ = d.Decode(nil, stream(t, 10, text(10)), 10) // the decoder's own memory
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 10 {
		for _, b := range bombs {
			if _, err := d.Decode(nil, b, 1<<20); err == nil {
				t.Fatal("a bomb was decoded")
			}
		}
		// The other way round: little that says it is much.
		if _, err := d.Decode(nil, hollow, 16<<20); err == nil {
			t.Fatal("16 MiB were decoded from 1 KiB")
		}
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 4<<20 {
		t.Errorf("60 bombs of 16 MiB took %d bytes", n)
	}
}

func TestMutations(t *testing.T) {
	in := text(3000)
	for _, good := range [][]byte{newEncoder(t, codec.Default).Encode(nil, in), codec.AppendRaw(nil, in), newEncoder(t, codec.S2).Encode(nil, in)} {
		d := newDecoder(t)
		for i := range len(good) * 8 {
			bad := bytes.Clone(good)
			bad[i/8] ^= 1 << (i % 8)
			// The content may be wrong: that is for the hash of the chunks.
			if out, err := d.Decode(nil, bad, 4000); err != nil && !errors.Is(err, codec.ErrCorrupt) && !errors.Is(err, codec.ErrUnknown) {
				t.Fatalf("bit %d: %v", i, err)
			} else if n, _ := codec.RawLen(bad); err == nil && n != len(out) {
				t.Fatalf("bit %d: %d bytes, %d stated", i, len(out), n)
			}
		}
	}
}

func TestNoAllocationInSteadyState(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector empties pools at random")
	}
	for name, in := range map[string][]byte{"text": text(1 << 20), "random": random(1 << 20), "small": text(500)} {
		for _, l := range []codec.Level{codec.Fastest, codec.S2} {
			e, d := newEncoder(t, l), newDecoder(t)
			var encoded, out []byte
			run := func() {
				encoded = e.Encode(encoded[:0], in)
				var err error
				if out, err = d.Decode(out[:0], encoded, len(in)); err != nil {
					t.Fatal(err)
				}
			}
			run()
			if n := testing.AllocsPerRun(10, run); n > 0 {
				t.Errorf("%s, level %d: %v allocations a block", name, l, n)
			}
		}
	}
}

func TestProperty(t *testing.T) {
	e, d := newEncoder(t, codec.Fastest), newDecoder(t)
	rapid.Check(t, func(t *rapid.T) {
		unit := rapid.SliceOf(rapid.Byte()).Draw(t, "unit")
		in := bytes.Repeat(unit, rapid.IntRange(0, 50).Draw(t, "times"))
		in = append(in, rapid.SliceOf(rapid.Byte()).Draw(t, "tail")...)
		out, err := d.Decode(nil, e.Encode(nil, in), len(in))
		if err != nil || !bytes.Equal(in, out) {
			t.Fatalf("%x: %x, %v", in, out, err)
		}
	})
}

func TestScratch(t *testing.T) {
	d := newDecoder(t)
	if p := d.Scratch(100); len(p) != 100 {
		t.Errorf("Scratch(100) has %d bytes", len(p))
	}
	if p := d.Scratch(10); len(p) != 10 || cap(p) < 100 {
		t.Errorf("Scratch(10) has %d bytes of %d", len(p), cap(p))
	}
}

// TestView: what is stored as it is stays where it is, and all else goes to the
// buffer, which is used again.
func TestView(t *testing.T) {
	e, d := newEncoder(t, codec.Fastest), newDecoder(t)
	var buf []byte
	for i, in := range [][]byte{random(5000), text(5000), random(70_000), text(70_000), nil, text(300)} {
		encoded := e.Encode(nil, in)
		before := bytes.Clone(encoded)
		content, grown, err := d.View(buf, encoded, len(in))
		if err != nil || !bytes.Equal(content, in) {
			t.Fatalf("%d: View = %d bytes, %v, want %d", i, len(content), err, len(in))
		}
		if raw := len(encoded) > len(in); raw && len(in) > 0 && &content[0] != &encoded[len(encoded)-len(in)] {
			t.Errorf("%d: a block that is stored as it is was copied", i)
		} else if !raw && &content[0] != &grown[0] {
			t.Errorf("%d: what was decompressed is not in the buffer", i)
		}
		if longer := append(content, 7); len(longer) == 0 || !bytes.Equal(encoded, before) {
			t.Errorf("%d: View changed its argument", i)
		}
		if _, _, err := d.View(buf, encoded, len(in)-1); len(in) > 0 && !errors.Is(err, codec.ErrCorrupt) {
			t.Errorf("%d: View of more than the limit = %v", i, err)
		}
		buf = grown
	}
	for _, bad := range [][]byte{nil, {0}, {0, 3, 1, 2}, {9, 1, 0}} {
		if content, grown, err := d.View(buf, bad, 100); err == nil || content != nil || &grown[0] != &buf[0] {
			t.Errorf("View of %x = %x, %v", bad, content, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	e, d := newEncoder(f, codec.Fastest), newDecoder(f)
	f.Add(e.Encode(nil, text(500)))
	f.Add(e.Encode(nil, make([]byte, 50_000)))
	f.Add(codec.AppendRaw(nil, text(50)))
	f.Add(stream(f, 1000, text(1000)))
	f.Add(newEncoder(f, codec.S2).Encode(nil, text(500)))
	f.Add([]byte{1, 0x80, 0x80, 0x80, 8, 0x28, 0xb5, 0x2f, 0xfd})
	f.Fuzz(func(t *testing.T, p []byte) {
		const limit = 1 << 20
		out, err := d.Decode(nil, p, limit)
		if err != nil {
			if !errors.Is(err, codec.ErrCorrupt) && !errors.Is(err, codec.ErrUnknown) || out != nil {
				t.Errorf("Decode = %d bytes, %v", len(out), err)
			}
			return
		}
		if n, err := codec.RawLen(p); err != nil || n != len(out) || n > limit {
			t.Errorf("%d bytes, RawLen = %d, %v", len(out), n, err)
		}
		again, err := d.Decode(nil, e.Encode(nil, out), len(out))
		if err != nil || !bytes.Equal(again, out) {
			t.Errorf("encoded again: %v", err)
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	for _, l := range []codec.Level{codec.Fastest, codec.Default, codec.S2} {
		for _, size := range []int{64 << 10, 1 << 20} {
			for name, in := range map[string][]byte{"text": text(size), "random": random(size)} {
				b.Run(fmt.Sprintf("level=%d/%s/%dKiB", l, name, size>>10), func(b *testing.B) {
					e := newEncoder(b, l)
					dst := e.Encode(nil, in)
					b.SetBytes(int64(len(in)))
					b.ReportAllocs()
					for b.Loop() {
						dst = e.Encode(dst[:0], in)
					}
					b.ReportMetric(float64(len(in))/float64(len(dst)), "ratio")
				})
			}
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	for name, in := range map[string][]byte{"text": text(1 << 20), "random": random(1 << 20)} {
		b.Run(name, func(b *testing.B) {
			d := newDecoder(b)
			p := newEncoder(b, codec.Fastest).Encode(nil, in)
			var dst []byte
			b.SetBytes(int64(len(in)))
			b.ReportAllocs()
			for b.Loop() {
				var err error
				if dst, err = d.Decode(dst[:0], p, len(in)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// Frozen: cases are added by
//
//	go test ./chunk/codec -run TestVectors -add
//
// and never written again. They are decoded, not compared with what the
// encoder gives today: compressors may find shorter forms.
const vectorFile = "../../testdata/vectors/codec.json"

var add = flag.Bool("add", false, "add missing cases to the vector file")

type vector struct {
	Name    string `json:"name"`
	Encoded string `json:"encoded"` // hex
	Unit    string `json:"unit"`    // hex; the content is this,
	Times   int    `json:"times"`   // so many times
}

func vectorInputs(t *testing.T) []vector {
	t.Helper()
	e := newEncoder(t, codec.Default)
	var vs []vector
	for _, in := range []struct {
		name  string
		unit  []byte
		times int
	}{
		{"empty", nil, 0},
		{"one byte", []byte{42}, 1},
		{"raw", random(200), 1},
		{"text", text(600), 1},
		{"text that repeats", text(300), 10},
		{"zeros", []byte{0}, 1 << 20},
	} {
		encoded := e.Encode(nil, bytes.Repeat(in.unit, in.times))
		vs = append(vs, vector{in.name, hex.EncodeToString(encoded), hex.EncodeToString(in.unit), in.times})
	}
	for _, v := range slices.Clone(vs[3:]) {
		unit, _ := hex.DecodeString(v.Unit) // it was encoded just now
		v.Name += ", S2"
		v.Encoded = hex.EncodeToString(newEncoder(t, codec.S2).Encode(nil, bytes.Repeat(unit, v.Times)))
		vs = append(vs, v)
	}
	streamed := vector{Name: "frame without a content size", Unit: hex.EncodeToString(text(300)), Times: 2}
	streamed.Encoded = hex.EncodeToString(stream(t, 600, bytes.Repeat(text(300), 2)))
	return append(vs, streamed)
}

func TestVectors(t *testing.T) {
	var vs []vector
	p, err := os.ReadFile(vectorFile)
	if err == nil {
		err = json.Unmarshal(p, &vs)
	}
	if err != nil && !*add {
		t.Fatal(err)
	}
	if *add {
		for _, in := range vectorInputs(t) {
			if !slices.ContainsFunc(vs, func(v vector) bool { return v.Name == in.Name }) {
				vs = append(vs, in)
			}
		}
		p, err := json.MarshalIndent(vs, "", "\t")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(vectorFile, append(p, '\n'), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	if len(vs) < 10 {
		t.Errorf("%d vectors in the file", len(vs))
	}
	for _, v := range vs {
		t.Run(v.Name, func(t *testing.T) {
			encoded, err := hex.DecodeString(v.Encoded)
			if err != nil {
				t.Fatal(err)
			}
			unit, err := hex.DecodeString(v.Unit)
			if err != nil {
				t.Fatal(err)
			}
			want := bytes.Repeat(unit, v.Times)
			if got, err := newDecoder(t).Decode(nil, encoded, len(want)); err != nil || !bytes.Equal(got, want) {
				t.Errorf("Decode = %d bytes, %v, want %d bytes", len(got), err, len(want))
			}
		})
	}
}

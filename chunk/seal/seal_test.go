package seal_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/cairn-backup/cairn/chunk/seal"
)

var (
	testKey  = seal.Key(bytes.Repeat([]byte{0xA7}, 32))
	testBind = seal.Binding{Repository: [16]byte{1, 2, 3}, Number: 7}
)

func newWriter(tb testing.TB, kind seal.Kind) *seal.Writer {
	tb.Helper()
	w, err := seal.NewWriter(testKey, seal.Template{Kind: kind, Generation: 3, Envelope: []byte("envelope")}, testBind)
	if err != nil {
		tb.Fatal(err)
	}
	return w
}

func newOpener(tb testing.TB, w *seal.Writer) *seal.Opener {
	tb.Helper()
	o, err := seal.NewOpener(testKey, w.Header(), testBind)
	if err != nil {
		tb.Fatal(err)
	}
	return o
}

func sample(tb testing.TB) []byte {
	tb.Helper()
	_, object, err := seal.Object(testKey, seal.Template{Kind: seal.KindRecord, Generation: 3, Envelope: []byte("env")},
		testBind, []byte("first"), []byte("second"), []byte("third"))
	if err != nil {
		tb.Fatal(err)
	}
	return object
}

func open(object []byte) ([][]byte, error) {
	_, parts, err := seal.OpenObject(testKey, seal.KindRecord, testBind, object)
	return parts, err
}

func TestWriterAndOpener(t *testing.T) {
	w := newWriter(t, seal.KindDataPack)
	o := newOpener(t, w)
	prefix := []byte("prefix")
	for i := range uint64(5) {
		plain := bytes.Repeat([]byte{byte(i)}, int(i)*100)
		seal1, last := w.Part, seal.More
		if i == 4 {
			seal1, last = w.Finish, seal.Final
		}
		sealed, n, err := seal1(bytes.Clone(prefix), plain)
		if err != nil || n != i || len(sealed) != len(prefix)+len(plain)+seal.Overhead {
			t.Fatalf("part %d: number %d, %d bytes, %v", i, n, len(sealed), err)
		}
		sealed = bytes.TrimPrefix(sealed, prefix)
		for name, f := range map[string]func([]byte, []byte, uint64, seal.Last) ([]byte, error){"Open": o.Open, "Check": w.Check} {
			got, err := f(bytes.Clone(prefix), sealed, n, last)
			if err != nil || !bytes.Equal(got, append(bytes.Clone(prefix), plain...)) {
				t.Errorf("%s(part %d) = %q, %v", name, n, got, err)
			}
			for _, bad := range []struct {
				number uint64
				last   seal.Last
			}{{n + 1, last}, {n, !last}, {n + 1<<32, last}, {n | 1<<63, last}} {
				if got, err := f(prefix, sealed, bad.number, bad.last); !errors.Is(err, seal.ErrDamaged) || !bytes.Equal(got, prefix) {
					t.Errorf("%s(part %d as %v) = %q, %v", name, n, bad, got, err)
				}
			}
		}
	}
	for range 2 {
		if _, _, err := w.Part(nil, nil); !errors.Is(err, seal.ErrFinished) {
			t.Errorf("Part after Finish = %v", err)
		}
		if _, _, err := w.Finish(nil, nil); !errors.Is(err, seal.ErrFinished) {
			t.Errorf("Finish after Finish = %v", err)
		}
	}
}

func TestWriterErrorSticks(t *testing.T) {
	w := newWriter(t, seal.KindMetaPack)
	if _, _, err := w.Part(nil, make([]byte, seal.MaxBlock+1)); !errors.Is(err, seal.ErrTooLarge) {
		t.Fatalf("Part = %v, want ErrTooLarge", err)
	}
	if out, _, err := w.Part([]byte("dst"), nil); !errors.Is(err, seal.ErrTooLarge) || string(out) != "dst" {
		t.Errorf("next Part = %q, %v, want the same error", out, err)
	}
}

// TestNothingRepeats is V10 as far as a test can see it: equal plaintexts under
// one key never give equal ciphertexts, because salts differ between Writers
// and numbers within one, also when parts are thrown away.
func TestNothingRepeats(t *testing.T) {
	const writers, each = 2000, 20
	plain := make([]byte, 32)
	salts, sealed := make(map[[32]byte]bool), make(map[[48]byte]bool)
	for range writers {
		w := newWriter(t, seal.KindRecord)
		if salts[w.Header().Salt] {
			t.Fatal("a salt repeats")
		}
		salts[w.Header().Salt] = true
		scratch := make([]byte, 0, 64)
		for i := range uint64(each) {
			out, n, err := w.Part(scratch, plain) // every part overwrites the one before
			if err != nil || n != i {
				t.Fatalf("number %d, want %d: %v", n, i, err)
			}
			if sealed[[48]byte(out)] {
				t.Fatal("a key and nonce repeat")
			}
			sealed[[48]byte(out)] = true
		}
	}
}

func TestNewWriterRefuses(t *testing.T) {
	for name, tt := range map[string]struct {
		template seal.Template
		want     error
	}{
		"no kind":           {seal.Template{}, seal.ErrDamaged},
		"unknown kind":      {seal.Template{Kind: 10}, seal.ErrDamaged},
		"too much envelope": {seal.Template{Kind: seal.KindConfig, Envelope: make([]byte, seal.MaxEnvelope+1)}, seal.ErrTooLarge},
	} {
		if _, err := seal.NewWriter(testKey, tt.template, testBind); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
	most := make([]byte, seal.MaxEnvelope)
	h, object, err := seal.Object(testKey, seal.Template{Kind: seal.KindConfig, Envelope: most}, testBind, nil)
	if err != nil || h.Len() != seal.MaxHeader {
		t.Fatalf("largest envelope: header of %d bytes, %v", h.Len(), err)
	}
	most[0] = 1 // the Writer has its own copy
	if h, _, err := seal.OpenObject(testKey, seal.KindConfig, testBind, object); err != nil || h.Envelope[0] != 0 {
		t.Errorf("OpenObject: %v", err)
	}
	if _, _, err := seal.Object(testKey, seal.Template{Kind: seal.KindConfig}, testBind); err == nil {
		t.Error("an object without parts was sealed")
	}
	if _, _, err := seal.Object(testKey, seal.Template{Kind: seal.KindConfig}, testBind, make([]byte, seal.MaxPart+1)); !errors.Is(err, seal.ErrTooLarge) {
		t.Errorf("part of more than 16 MiB: %v", err)
	}
}

func TestNewOpenerRefuses(t *testing.T) {
	good := newWriter(t, seal.KindConfig).Header()
	for name, tt := range map[string]struct {
		change func(*seal.Header)
		want   error
	}{
		"no suite":  {func(h *seal.Header) { h.Suite = 0 }, seal.ErrDamaged},
		"new suite": {func(h *seal.Header) { h.Suite = 2 }, seal.ErrNewerFormat},
		"kind":      {func(h *seal.Header) { h.Kind = 99 }, seal.ErrDamaged},
		"envelope":  {func(h *seal.Header) { h.Envelope = make([]byte, 1<<16) }, seal.ErrTooLarge},
	} {
		h := good
		tt.change(&h)
		if _, err := seal.NewOpener(testKey, h, testBind); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
}

func TestParseHeaderErrors(t *testing.T) {
	good := newWriter(t, seal.KindSlot).Header().Append(nil)
	with := func(at int, v byte) []byte {
		p := bytes.Clone(good)
		p[at] = v
		return p
	}
	for _, tt := range []struct {
		name string
		p    []byte
		want error
	}{
		{"nothing", nil, seal.ErrDamaged},
		{"half the magic", good[:4], seal.ErrDamaged},
		{"another start", []byte("age"), seal.ErrNotCairn},
		{"text", []byte("this is a file of something else, quite long, longer than a header"), seal.ErrNotCairn},
		{"magic after text mode", bytes.Replace(good, []byte("\r\n"), []byte("\n"), 1), seal.ErrNotCairn},
		{"only the magic", good[:8], seal.ErrDamaged},
		{"cut off", good[:49], seal.ErrDamaged},
		{"no envelope", good[:50], seal.ErrDamaged},
		{"envelope cut off", good[:len(good)-1], seal.ErrDamaged},
		{"format 0", with(8, 0), seal.ErrDamaged},
		{"format 2", with(8, 2), seal.ErrNewerFormat},
		{"format 2, cut off", with(8, 2)[:12], seal.ErrNewerFormat},
		{"kind 0", with(9, 0), seal.ErrDamaged},
		{"kind 10", with(9, 10), seal.ErrDamaged},
		{"suite 0", with(10, 0), seal.ErrDamaged},
		{"suite 2", with(10, 2), seal.ErrNewerFormat},
		{"reserved byte", with(11, 1), seal.ErrDamaged},
		{"huge envelope", append(with(49, 0xff), make([]byte, 1<<16)...), seal.ErrDamaged},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, _, err := seal.ParseHeader(tt.p); !errors.Is(err, tt.want) {
				t.Errorf("ParseHeader = %v, want %v", err, tt.want)
			}
		})
	}
}

func TestHeaderRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := seal.Header{
			Kind:       seal.Kind(rapid.IntRange(1, 9).Draw(t, "kind")),
			Suite:      seal.SuiteAESGCM,
			Generation: rapid.Uint32().Draw(t, "generation"),
			Salt:       [32]byte(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "salt")),
			Envelope:   rapid.SliceOfN(rapid.Byte(), 1, 300).Draw(t, "envelope"),
		}
		p := in.Append([]byte("x"))[1:]
		out, n, err := seal.ParseHeader(append(p, "what follows"...))
		if err != nil || n != len(p) || n != in.Len() || fmt.Sprint(out) != fmt.Sprint(in) {
			t.Fatalf("ParseHeader = %v, %d, %v, want %v", out, n, err, in)
		}
		if name := out.Name(); !bytes.Equal(name[:], in.Salt[:16]) {
			t.Fatalf("Name = %x", name)
		}
	})
}

func TestObjectIsBound(t *testing.T) {
	object := sample(t)
	if _, err := open(object); err != nil {
		t.Fatal(err)
	}
	key, bind := testKey, testBind
	key[31] ^= 1
	if _, _, err := seal.OpenObject(key, seal.KindRecord, bind, object); !errors.Is(err, seal.ErrDamaged) {
		t.Errorf("other key: %v", err)
	}
	bind.Number++
	if _, _, err := seal.OpenObject(testKey, seal.KindRecord, bind, object); !errors.Is(err, seal.ErrDamaged) {
		t.Errorf("other number: %v", err)
	}
	bind = testBind
	bind.Repository[15] ^= 1
	if _, _, err := seal.OpenObject(testKey, seal.KindRecord, bind, object); !errors.Is(err, seal.ErrDamaged) {
		t.Errorf("other repository: %v", err)
	}
	_, _, err := seal.OpenObject(testKey, seal.KindCheckpoint, testBind, object)
	if !errors.Is(err, seal.ErrDamaged) || !strings.Contains(err.Error(), "checkpoint") || !strings.Contains(err.Error(), "record") {
		t.Errorf("other kind: %v", err)
	}
	object[9] = byte(seal.KindCheckpoint) // as if it had always been one
	if _, _, err := seal.OpenObject(testKey, seal.KindCheckpoint, testBind, object); !errors.Is(err, seal.ErrDamaged) {
		t.Errorf("kind changed in the header: %v", err)
	}
}

func TestParseHeaderCopies(t *testing.T) {
	p := newWriter(t, seal.KindConfig).Header().Append(nil)
	h, _, err := seal.ParseHeader(p)
	if err != nil {
		t.Fatal(err)
	}
	clear(p)
	if string(h.Envelope) != "envelope" {
		t.Errorf("the envelope is %q when the bytes have changed", h.Envelope)
	}
}

// TestFramedPartIsBounded makes a framed object of a part that only a pack may
// have.
func TestFramedPartIsBounded(t *testing.T) {
	for n, want := range map[int]error{seal.MaxPart: nil, seal.MaxPart + 1: seal.ErrDamaged} {
		w := newWriter(t, seal.KindRecord)
		p := w.Header().Append(nil)
		p = binary.LittleEndian.AppendUint32(p, uint32(n+seal.Overhead)|1<<31)
		p, _, err := w.Finish(p, make([]byte, n))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := open(p); !errors.Is(err, want) {
			t.Errorf("part of %d bytes: %v, want %v", n, err, want)
		}
	}
}

// TestEveryBit flips every bit of an object and cuts it at every length.
func TestEveryBit(t *testing.T) {
	object := sample(t)
	for i := range len(object) * 8 {
		bad := bytes.Clone(object)
		bad[i/8] ^= 1 << (i % 8)
		if parts, err := open(bad); !typed(err) || parts != nil {
			t.Errorf("bit %d of byte %d: %q, %v", i%8, i/8, parts, err)
		}
	}
	for n := range object {
		if parts, err := open(object[:n:n]); !typed(err) || parts != nil {
			t.Errorf("cut to %d bytes: %q, %v", n, parts, err)
		}
	}
	if parts, err := open(append(bytes.Clone(object), 0)); !errors.Is(err, seal.ErrDamaged) {
		t.Errorf("a byte more: %q, %v", parts, err)
	}
}

func typed(err error) bool {
	return errors.Is(err, seal.ErrDamaged) || errors.Is(err, seal.ErrNotCairn) || errors.Is(err, seal.ErrNewerFormat)
}

// TestPartsAreOrdered takes an object apart and puts it together in ways that
// leave every part as it was sealed.
func TestPartsAreOrdered(t *testing.T) {
	object := sample(t)
	head, first, second, third := object[:53], object[53:53+4+21], object[78:78+4+22], object[104:]
	if len(third) != 4+21 {
		t.Fatalf("last frame is %d bytes", len(third))
	}
	other := sample(t)[53 : 53+4+21] // the same part of another object
	early := append(append(bytes.Clone(second[:3]), second[3]|0x80), second[4:]...)
	late := append(append(bytes.Clone(third[:3]), third[3]&^0x80), third[4:]...)
	for name, frames := range map[string][][]byte{
		"swapped":            {second, first, third},
		"one is missing":     {first, third},
		"the first is gone":  {second, third},
		"one is there twice": {first, first, second, third},
		"last is missing":    {first, second},
		"nothing but a head": {},
		"only the last":      {third},
		"last comes first":   {third, first, second},
		"cut off and marked": {first, early},
		"last is not marked": {first, second, late},
		"something follows":  {first, second, third, third},
		"of another object":  {other, second, third},
	} {
		bad := bytes.Join(append([][]byte{head}, frames...), nil)
		if parts, err := open(bad); !errors.Is(err, seal.ErrDamaged) {
			t.Errorf("%s: %q, %v", name, parts, err)
		}
	}
	if _, err := open(bytes.Join([][]byte{head, first, second, third}, nil)); err != nil {
		t.Errorf("put together again: %v", err)
	}
}

func TestOpenerIsConcurrent(t *testing.T) {
	w := newWriter(t, seal.KindDataPack)
	o := newOpener(t, w)
	var wg sync.WaitGroup
	for range 8 {
		plain := bytes.Repeat([]byte("x"), 5000)
		sealed, n, err := w.Part(nil, plain)
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			for range 50 {
				if got, err := o.Open(nil, sealed, n, seal.More); err != nil || !bytes.Equal(got, plain) {
					t.Errorf("Open(part %d): %v", n, err)
				}
			}
		})
	}
	wg.Wait()
}

func TestOpenInPlace(t *testing.T) {
	w := newWriter(t, seal.KindDataPack)
	sealed, n, err := w.Part(nil, []byte("plain"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := newOpener(t, w).Open(sealed[:0], sealed, n, seal.More); err != nil || string(got) != "plain" {
		t.Errorf("Open = %q, %v", got, err)
	}
}

var verbs = []string{"%v", "%+v", "%#v", "%s", "%x", "%X", "%d", "%q", "%08b", "%t"}

// TestCipherIsHidden prints structures in which a Writer lies in an unexported
// field: there fmt calls no methods, and follows pointers if the verb is wrong.
func TestCipherIsHidden(t *testing.T) {
	w := newWriter(t, seal.KindConfig)
	o := newOpener(t, w)
	type holder struct {
		w *seal.Writer
		o *seal.Opener
	}
	for _, v := range []any{w, *w, o, *o, holder{w, o}, &holder{w, o}} {
		for _, verb := range verbs {
			if s := fmt.Sprintf(verb, v); strings.Contains(strings.ToLower(s), "gcm") || len(s) > 2500 {
				t.Errorf("%s of %T: %s", verb, v, s)
			}
		}
	}
}

func TestKeyIsRedacted(t *testing.T) {
	type config struct {
		Key  seal.Key
		List []seal.Key
		Ptr  *seal.Key
		Map  map[seal.Key]seal.Key
	}
	c := config{testKey, []seal.Key{testKey}, &testKey, map[seal.Key]seal.Key{testKey: testKey}}
	var shown []string
	for _, v := range []any{testKey, &testKey, c, &c} {
		for _, verb := range verbs {
			shown = append(shown, fmt.Sprintf(verb, v))
		}
		j, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		shown = append(shown, string(j))
		for _, h := range []func(*bytes.Buffer) slog.Handler{
			func(b *bytes.Buffer) slog.Handler { return slog.NewTextHandler(b, nil) },
			func(b *bytes.Buffer) slog.Handler { return slog.NewJSONHandler(b, nil) },
		} {
			var b bytes.Buffer
			slog.New(h(&b)).Info("m", slog.Any("v", v))
			_, rest, _ := strings.Cut(b.String(), "m") // the time may hold anything
			shown = append(shown, rest)
		}
	}
	text, err := testKey.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	shown = append(shown, testKey.String(), testKey.GoString(), string(text))
	for _, s := range shown {
		for _, secret := range []string{"a7a7", "A7A7", "a7, ", "xa7,", "167, 167", "167 167", "167,167", "10100111 10100111", "p6en", "\xa7"} {
			if strings.Contains(s, secret) {
				t.Errorf("%q shows the key", s)
			}
		}
	}
}

func TestSealingDoesNotAllocate(t *testing.T) {
	w := newWriter(t, seal.KindDataPack)
	plain, dst, back := make([]byte, 1000), make([]byte, 0, 1100), make([]byte, 0, 1100)
	if n := testing.AllocsPerRun(100, func() {
		sealed, number, err := w.Part(dst, plain)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Check(back, sealed, number, seal.More); err != nil {
			t.Fatal(err)
		}
	}); n > 1 { // the nonce of Check
		t.Errorf("%v allocations", n)
	}
}

func FuzzParseHeader(f *testing.F) {
	f.Add(newWriter(f, seal.KindDataPack).Header().Append(nil))
	f.Add([]byte("cairn\r\n\x1a"))
	f.Fuzz(func(t *testing.T, p []byte) {
		h, n, err := seal.ParseHeader(p)
		if err != nil {
			if !typed(err) {
				t.Errorf("ParseHeader(%x): %v", p, err)
			}
			return
		}
		if !bytes.Equal(h.Append(nil), p[:n]) || h.Len() != n || n > seal.MaxHeader {
			t.Errorf("ParseHeader(%x) = %v, %d bytes", p, h, n)
		}
	})
}

// FuzzOpenObject cannot make a part that opens; it looks for panics, and for
// more memory than an object has.
func FuzzOpenObject(f *testing.F) {
	f.Add(sample(f))
	f.Add(sample(f)[:60])
	f.Fuzz(func(t *testing.T, p []byte) {
		_, parts, err := seal.OpenObject(testKey, seal.KindRecord, testBind, p)
		if err != nil && !typed(err) {
			t.Errorf("OpenObject: %v", err)
		}
		total := 0
		for _, part := range parts {
			total += len(part)
		}
		if total > len(p) {
			t.Errorf("%d bytes of %d", total, len(p))
		}
	})
}

func BenchmarkPart(b *testing.B) {
	for _, size := range []int{1 << 10, 64 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			w := newWriter(b, seal.KindDataPack)
			plain, dst := make([]byte, size), make([]byte, 0, size+seal.Overhead)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := w.Part(dst, plain); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkOpen(b *testing.B) {
	w := newWriter(b, seal.KindDataPack)
	o := newOpener(b, w)
	const size = 1 << 20
	sealed, n, err := w.Part(nil, make([]byte, size))
	if err != nil {
		b.Fatal(err)
	}
	dst := make([]byte, 0, size)
	b.SetBytes(size)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := o.Open(dst, sealed, n, seal.More); err != nil {
			b.Fatal(err)
		}
	}
}

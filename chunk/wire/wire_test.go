package wire_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"

	"pgregory.net/rapid"

	"github.com/cairn-backup/cairn/chunk/wire"
)

// sample has one field of every shape that stored structures use.
type sample struct {
	Version uint64            `cbor:"1,keyasint"`
	Key     [4]byte           `cbor:"2,keyasint"`
	Bytes   []byte            `cbor:"3,keyasint,omitempty"`
	Text    string            `cbor:"4,keyasint,omitempty"`
	Signed  int64             `cbor:"5,keyasint,omitempty"`
	Fact    bool              `cbor:"6,keyasint,omitempty"`
	List    []entry           `cbor:"7,keyasint,omitempty"`
	Labels  map[string]string `cbor:"8,keyasint,omitempty"`
	Rest    wire.Raw          `cbor:"9,keyasint,omitempty"`
	Maybe   *entry            `cbor:"10,keyasint,omitempty"`
}

type entry struct {
	_    struct{} `cbor:",toarray"`
	Type uint64
	Name string
}

func full() sample {
	return sample{
		Version: 1, Key: [4]byte{1, 2, 3, 4}, Bytes: []byte{0xff}, Text: "text", Signed: -7, Fact: true,
		List:   []entry{{Type: 3, Name: "a"}, {Type: 300, Name: "b"}},
		Labels: map[string]string{"b": "2", "a": "1", "aa": "3"},
		Rest:   wire.Raw{0x82, 1, 2}, Maybe: &entry{Type: 1},
	}
}

func TestMarshalIsDeterministic(t *testing.T) {
	const want = "aa" + "01" + "01" + "02" + "4401020304" + "03" + "41ff" + "04" + "6474657874" + "05" + "26" + "06" + "f5" +
		"07" + "8282036161821901" + "2c6162" + "08" + "a3616161316162613262616161" + "33" + "09" + "820102" + "0a" + "820160"
	for range 20 { // maps come in random order
		p, err := wire.Marshal(full())
		if err != nil {
			t.Fatal(err)
		}
		if got := hex.EncodeToString(p); got != want {
			t.Fatalf("Marshal = %s, want %s", got, want)
		}
	}
}

func TestMarshalNilIsEmpty(t *testing.T) {
	type lists struct {
		A []uint64          `cbor:"1,keyasint"`
		B map[uint64]uint64 `cbor:"2,keyasint"`
	}
	p, err := wire.Marshal(lists{})
	if err != nil || !bytes.Equal(p, []byte{0xa2, 1, 0x80, 2, 0xa0}) {
		t.Fatalf("Marshal(nil slice, nil map) = %x, %v", p, err)
	}
	if err := wire.Unmarshal(p, new(lists)); err != nil {
		t.Fatal(err)
	}
}

func TestUnmarshalRefuses(t *testing.T) {
	deep := append(append([]byte{0xa3, 1, 1, 2, 0x44, 1, 2, 3, 4, 9}, bytes.Repeat([]byte{0x81}, 16)...), 0)
	tests := []struct{ name, hex string }{
		{"nothing", ""},
		{"cut off", "a20101024401"},
		{"trailing byte", "a20101024401020304" + "00"},
		{"unknown key", "a30101024401020304" + "181e" + "01"},
		{"text key", "a301010244010203046161" + "01"},
		{"duplicate key", "a301010102024401020304"},
		{"keys out of order", "a202440102030401" + "01"},
		{"required key is missing", "a10101"},
		{"long integer", "a2011801024401020304"},
		{"long length", "a201010258040102030" + "4"},
		{"indefinite map", "bf0101024401020304ff"},
		{"indefinite bytes", "a20101025f420102420304ff"},
		{"tag", "a201c1010244010203" + "04"},
		{"null", "a201f6024401020304"},
		{"array too short", "a201010243010203"},
		{"array too long", "a20101024501020304" + "05"},
		{"wrong type", "a201616102" + "4401020304"},
		{"negative in unsigned", "a20120024401020304"},
		{"float", "a201f93c00024401020304"},
		{"invalid UTF-8", "a3010102440102030404" + "61ff"},
		{"empty field written out", "a3010102440102030404" + "60"},
		{"array of records too short", "a3010102440102030407" + "818103"},
		{"huge array", "a3010102440102030407" + "9a04000000"},
		{"huge text", "a3010102440102030404" + "7b7fffffffffffffff"},
		{"too deep", hex.EncodeToString(deep)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, err := hex.DecodeString(tt.hex)
			if err != nil {
				t.Fatal(err)
			}
			if err := wire.Unmarshal(p, new(sample)); !errors.Is(err, wire.ErrMalformed) {
				t.Errorf("Unmarshal(%x) = %v, want ErrMalformed", p, err)
			}
		})
	}
}

// TestUnmarshalLarge decodes what a checkpoint of 100,000 snapshots is like.
func TestUnmarshalLarge(t *testing.T) {
	type snapshot struct {
		ID    [16]byte    `cbor:"1,keyasint"`
		Needs [][2]uint64 `cbor:"2,keyasint"`
	}
	type state struct {
		Snapshots []snapshot        `cbor:"1,keyasint"`
		Packs     map[uint64]uint64 `cbor:"2,keyasint"`
	}
	in := state{Snapshots: make([]snapshot, 140_000 /* more than the library's default limit */), Packs: make(map[uint64]uint64)}
	for i := range in.Snapshots {
		in.Snapshots[i].Needs = [][2]uint64{{uint64(i), uint64(i) + 10}}
		if i%100 == 0 {
			in.Packs[uint64(i)] = uint64(i)
		}
	}
	p, err := wire.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	var out state
	if err := wire.Unmarshal(p, &out); err != nil {
		t.Fatal(err)
	}
	last := len(in.Snapshots) - 1
	if len(out.Snapshots) != len(in.Snapshots) || len(out.Packs) != len(in.Packs) || out.Snapshots[last].Needs[0] != in.Snapshots[last].Needs[0] {
		t.Errorf("%d snapshots, %d packs", len(out.Snapshots), len(out.Packs))
	}
}

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := sample{
			Version: rapid.Uint64().Draw(t, "version"),
			Bytes:   rapid.SliceOf(rapid.Byte()).Draw(t, "bytes"),
			Text:    rapid.String().Draw(t, "text"),
			Signed:  rapid.Int64().Draw(t, "signed"),
			Fact:    rapid.Bool().Draw(t, "fact"),
			Labels:  rapid.MapOf(rapid.String(), rapid.String()).Draw(t, "labels"),
		}
		p, err := wire.Marshal(in)
		if err != nil {
			t.Fatal(err)
		}
		var out sample
		if err := wire.Unmarshal(p, &out); err != nil {
			t.Fatalf("Unmarshal(%x): %v", p, err)
		}
		if q, err := wire.Marshal(out); err != nil || !bytes.Equal(p, q) {
			t.Fatalf("%x decoded and encoded is %x, %v", p, q, err)
		}
	})
}

// FuzzUnmarshal looks for bytes that are accepted but are not what Marshal
// gives for the value.
func FuzzUnmarshal(f *testing.F) {
	p, err := wire.Marshal(full())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(p)
	f.Add([]byte{0xa2, 1, 1, 2, 0x44, 1, 2, 3, 4})
	f.Fuzz(func(t *testing.T, p []byte) {
		var v sample
		if err := wire.Unmarshal(p, &v); err != nil {
			if !errors.Is(err, wire.ErrMalformed) {
				t.Errorf("Unmarshal(%x): %v", p, err)
			}
			return
		}
		if q, err := wire.Marshal(v); err != nil || !bytes.Equal(p, q) {
			t.Errorf("%x decoded and encoded is %x, %v", p, q, err)
		}
	})
}

func BenchmarkUnmarshal(b *testing.B) {
	p, err := wire.Marshal(full())
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(p)))
	b.ReportAllocs()
	for b.Loop() {
		if err := wire.Unmarshal(p, new(sample)); err != nil {
			b.Fatal(err)
		}
	}
}

package seal

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"slices"
	"testing"
)

// Frozen: a case is added by writing it into vectorInputs and running
//
//	go test ./chunk/seal -run TestVectors -add
//
// Cases in the file are never written again.
const vectorFile = "../../testdata/vectors/seal.json"

var add = flag.Bool("add", false, "add missing cases to the vector file")

type hexBytes []byte

func (h hexBytes) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(h)), nil }

func (h *hexBytes) UnmarshalText(p []byte) (err error) {
	*h, err = hex.DecodeString(string(p))
	return err
}

// A vector is one framed object and all that is needed to make it.
type vector struct {
	Name       string     `json:"name"`
	Key        hexBytes   `json:"key"`
	Repository hexBytes   `json:"repository"`
	Number     uint64     `json:"number"`
	Kind       uint8      `json:"kind"`
	Generation uint32     `json:"generation"`
	Salt       hexBytes   `json:"salt"`
	Envelope   hexBytes   `json:"envelope"`
	Parts      []hexBytes `json:"parts"`
	ObjectKey  hexBytes   `json:"object_key"`
	Object     hexBytes   `json:"object"`
}

func vectorInputs() []vector {
	run := func(from byte, n int) hexBytes {
		p := make([]byte, n)
		for i := range p {
			p[i] = from + byte(i)
		}
		return p
	}
	base := vector{Key: run(0, 32), Repository: run(0x40, 16), Salt: run(0x80, 32), Generation: 1}
	record, config, segment, empty := base, base, base, base
	record.Name, record.Kind, record.Number = "record 258, two parts", uint8(KindRecord), 258
	record.Parts = []hexBytes{hexBytes("signature"), hexBytes("body of the record")}
	config.Name, config.Kind, config.Envelope = "config with an envelope", uint8(KindConfig), hexBytes("\xa1\x01\x42hi")
	config.Parts = []hexBytes{hexBytes("settings")}
	segment.Name, segment.Kind, segment.Generation = "segment, three parts, generation 2^32-1", uint8(KindSegment), 1<<32-1
	segment.Parts = []hexBytes{run(0, 300), {}, run(7, 17)}
	empty.Name, empty.Kind, empty.Parts = "local state, one empty part", uint8(KindLocal), []hexBytes{{}}
	return []vector{record, config, segment, empty}
}

func (v vector) make(t *testing.T) vector {
	t.Helper()
	key := Key(v.Key)
	w, err := newWriter(key, Template{Kind: Kind(v.Kind), Generation: v.Generation, Envelope: v.Envelope},
		Binding{Repository: [16]byte(v.Repository), Number: v.Number}, [32]byte(v.Salt))
	if err != nil {
		t.Fatal(err)
	}
	parts := make([][]byte, len(v.Parts))
	for i, p := range v.Parts {
		parts[i] = p
	}
	object, err := w.object(parts)
	if err != nil {
		t.Fatal(err)
	}
	salt := [32]byte(v.Salt)
	k := objectKey(&key, &salt)
	v.ObjectKey, v.Object = k[:], object
	return v
}

func readVectors(t *testing.T) []vector {
	t.Helper()
	p, err := os.ReadFile(vectorFile)
	if err != nil && (!*add || !errors.Is(err, os.ErrNotExist)) {
		t.Fatal(err)
	}
	var vs []vector
	if len(p) > 0 {
		if err := json.Unmarshal(p, &vs); err != nil {
			t.Fatal(err)
		}
	}
	return vs
}

func TestVectors(t *testing.T) {
	vectors := readVectors(t)
	if *add {
		for _, in := range vectorInputs() {
			if !slices.ContainsFunc(vectors, func(v vector) bool { return v.Name == in.Name }) {
				vectors = append(vectors, in.make(t))
			}
		}
		p, err := json.MarshalIndent(vectors, "", "\t")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(vectorFile, append(p, '\n'), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	if len(vectors) < len(vectorInputs()) {
		t.Fatalf("%d vectors in the file, %d known", len(vectors), len(vectorInputs()))
	}
	for _, v := range vectors {
		t.Run(v.Name, func(t *testing.T) {
			if made := v.make(t); !bytes.Equal(made.Object, v.Object) || !bytes.Equal(made.ObjectKey, v.ObjectKey) {
				t.Errorf("sealed with the same salt:\n%x, want\n%x", made.Object, v.Object)
			}
			b := Binding{Repository: [16]byte(v.Repository), Number: v.Number}
			h, parts, err := OpenObject(Key(v.Key), Kind(v.Kind), b, v.Object)
			if err != nil {
				t.Fatal(err)
			}
			if h.Generation != v.Generation || h.Salt != [32]byte(v.Salt) || !bytes.Equal(h.Envelope, v.Envelope) {
				t.Errorf("header = %+v", h)
			}
			second := secondReader(t, v)
			for i, want := range v.Parts {
				if i >= len(parts) || !bytes.Equal(parts[i], want) || !bytes.Equal(second[i], want) {
					t.Errorf("part %d does not read as %x", i, want)
				}
			}
			if len(parts) != len(v.Parts) || len(second) != len(v.Parts) {
				t.Errorf("%d parts, want %d", len(parts), len(v.Parts))
			}
		})
	}
}

// secondReader opens an object by the words of docs/format.md alone.
func secondReader(t *testing.T, v vector) [][]byte {
	t.Helper()
	block, err := aes.NewCipher(v.ObjectKey)
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	header := 50 + int(binary.LittleEndian.Uint16(v.Object[48:]))
	data := append(bytes.Clone(v.Object[:header]), v.Repository...)
	data = binary.LittleEndian.AppendUint64(data, v.Number)
	var parts [][]byte
	for at := header; at < len(v.Object); {
		length := binary.LittleEndian.Uint32(v.Object[at:])
		nonce := append(binary.LittleEndian.AppendUint64(nil, uint64(len(parts))), 0, 0, 0, byte(length>>31))
		length &= 1<<31 - 1
		plain, err := aead.Open(nil, nonce, v.Object[at+4:at+4+int(length)], data)
		if err != nil {
			t.Fatalf("part %d: %v", len(parts), err)
		}
		parts = append(parts, plain)
		at += 4 + int(length)
	}
	return parts
}

// TestNumbersEnd puts a Writer at the end of its numbers, which no test can
// reach by sealing.
func TestNumbersEnd(t *testing.T) {
	w, err := NewWriter(Key{}, Template{Kind: KindDataPack}, Binding{})
	if err != nil {
		t.Fatal(err)
	}
	w.next = MaxParts - 1
	if _, n, err := w.Part(nil, nil); err != nil || n != MaxParts-1 {
		t.Fatalf("last part: number %d, %v", n, err)
	}
	for range 2 {
		if _, _, err := w.Finish(nil, nil); !errors.Is(err, ErrExhausted) {
			t.Errorf("Finish = %v, want ErrExhausted", err)
		}
	}
}

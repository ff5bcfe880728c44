package pack

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/cairn-backup/cairn/chunk"
	"github.com/cairn-backup/cairn/chunk/codec"
	"github.com/cairn-backup/cairn/chunk/seal"
)

// TestSizeFull makes a Writer believe that it has nearly 256 MiB.
func TestSizeFull(t *testing.T) {
	w, err := NewWriter(Config{Kind: seal.KindDataPack})
	if err != nil {
		t.Fatal(err)
	}
	content := make([]byte, 1000)
	chunks := []Chunk{{ID: chunk.NewHasher(chunk.Key{}).Sum(content), Length: 1000}}
	encoded := codec.AppendRaw(nil, content)
	b := Block{Raw: 1000, Chunks: chunks}
	// The largest start at which the block and a footer of 276 bytes fit.
	full := MaxSize - len(encoded) - seal.Overhead - 276
	w.buf = make([]byte, full+1, MaxSize) // the system maps zeros, and nothing is copied
	if err := w.Add(chunks, encoded, nil); !errors.Is(err, ErrFull) {
		t.Errorf("Add = %v, want ErrFull", err)
	}
	if err := w.AddSealed(b, seal.Header{Kind: seal.KindDataPack, Suite: 1}, make([]byte, 1020)); !errors.Is(err, ErrFull) {
		t.Errorf("AddSealed = %v, want ErrFull", err)
	}
	w.buf = w.buf[:full]
	if err := w.Add(chunks, encoded, nil); err != nil {
		t.Fatal(err)
	}
	if p, err := w.Finish(); err != nil || len(p.Object) != MaxSize {
		t.Errorf("Finish = %d bytes, %v", len(p.Object), err)
	}
}

// TestWriterHidesKeys prints what lies in unexported fields.
func TestWriterHidesKeys(t *testing.T) {
	key := bytes.Repeat([]byte{0xA7}, 32)
	w, err := NewWriter(Config{Kind: seal.KindDataPack, Key: seal.Key(key), Hash: chunk.Key(key)})
	if err != nil {
		t.Fatal(err)
	}
	v, err := NewVerifier(chunk.Key(key))
	if err != nil {
		t.Fatal(err)
	}
	w.verifier = v
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d", "%q", "%t"} {
		for _, x := range []any{w, v, struct{ w *Writer }{w}, struct{ v *Verifier }{v}} {
			s := strings.ToLower(fmt.Sprintf(verb, x))
			for _, secret := range []string{"167 167 167", "a7a7a7", "xa7, 0xa7, 0xa7", "gcm", "blake3", "2812782503"} {
				if strings.Contains(s, secret) {
					t.Errorf("%s of %T: %s", verb, x, s[:min(len(s), 400)])
				}
			}
		}
	}
}

package pages

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"flag"
	"os"
	"testing"

	"github.com/cairn-backup/cairn/chunk"
	"github.com/cairn-backup/cairn/chunk/seal"
)

// The vectors are frozen with the format: they were made by
//
//	go test ./engine/internal/pages -run TestVectors -add-vectors
//
// which adds what the file does not have, and leaves all else as it is.
var addVectors = flag.Bool("add-vectors", false, "write vectors that testdata/vectors/pages.json does not have")

const vectorsFile = "../../../testdata/vectors/pages.json"

// vectors is what the file holds: bytes in hexadecimal.
type vectors struct {
	// Prints has the fingerprints of pages of 1, 512, 1000 and 4096 bytes, of which
	// the i-th byte is i modulo 251, under the key of bytes 0 to 31.
	Prints map[string]string `json:"prints"`
	// Record is one of group 300, behind group 41, with Key and ID of bytes 0xaa and
	// 0xbb, and the fingerprints of two pages: bytes 0 to 23.
	Record string `json:"record"`
	// File is a file of pages of 1,024 bytes with that record, under the meta key of
	// bytes 64 to 95, in the repository of bytes 0 to 15.
	File string `json:"file"`
}

func run(from byte, n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = from + byte(i)
	}
	return p
}

func vectorCache(dir string) *Cache {
	return &Cache{Dir: dir, Meta: seal.Key(run(64, 32)), Repository: [16]byte(run(0, 16))}
}

func vectorRecord() Record {
	return Record{
		Group: 300, Key: chunk.ID(bytes.Repeat([]byte{0xaa}, 32)), ID: chunk.ID(bytes.Repeat([]byte{0xbb}, 32)), Prints: run(0, 2*printSize),
	}
}

func TestVectors(t *testing.T) {
	var want vectors
	p, err := os.ReadFile(vectorsFile)
	if err == nil {
		err = json.Unmarshal(p, &want)
	}
	if err != nil && !*addVectors {
		t.Fatal(err)
	}
	print, err := NewPrinter(chunk.Key(run(0, 32)))
	if err != nil {
		t.Fatal(err)
	}
	got := vectors{Prints: make(map[string]string), File: want.File}
	for name, n := range map[string]int{"1": 1, "512": 512, "1000": 1000, "4096": 4096} {
		page := make([]byte, n)
		for i := range page {
			page[i] = byte(i % 251)
		}
		got.Prints[name] = hex.EncodeToString(print.Prints(nil, page, n))
	}
	record := vectorRecord()
	got.Record = hex.EncodeToString(record.append(nil, 42))
	name := [16]byte{1}
	cache := vectorCache(t.TempDir())
	if *addVectors {
		addMissing(t, &want, got, cache)
	}
	for name, print := range got.Prints {
		if want.Prints[name] != print {
			t.Errorf("the fingerprint of %s bytes is %s, want %s", name, print, want.Prints[name])
		}
	}
	if got.Record != want.Record {
		t.Errorf("the record is %s, want %s", got.Record, want.Record)
	}
	file, err := hex.DecodeString(want.File)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(cache.path(name), file, 0o600); err != nil {
		t.Fatal(err)
	}
	r := cache.Open(name, 1024)
	if r == nil {
		t.Fatal("the file does not open")
	}
	defer r.Close()
	if found, ok := r.Find(300); !ok || found.Key != record.Key || found.ID != record.ID || !bytes.Equal(found.Prints, record.Prints) {
		t.Errorf("the file has the record %v, %t", found, ok)
	}
	if _, ok := r.Find(301); ok {
		t.Error("the file has another record")
	}
}

// addMissing writes what want lacks to the file.
func addMissing(t *testing.T, want *vectors, got vectors, cache *Cache) {
	t.Helper()
	if want.Prints == nil {
		want.Prints = make(map[string]string)
	}
	for name, print := range got.Prints {
		if want.Prints[name] == "" {
			want.Prints[name] = print
		}
	}
	if want.Record == "" {
		want.Record = got.Record
	}
	if want.File == "" {
		w := cache.Create([16]byte{2}, 1024)
		w.Add(vectorRecord())
		w.Finish()
		p, err := os.ReadFile(cache.path([16]byte{2}))
		if err != nil {
			t.Fatal(err)
		}
		want.File = hex.EncodeToString(p)
	}
	p, err := json.MarshalIndent(want, "", "  ")
	if err == nil {
		err = os.WriteFile(vectorsFile, append(p, '\n'), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

package source

import (
	"bytes"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"testing"
	"testing/fstest"

	"github.com/cairn-backup/cairn/manifest"
)

// TestGrain: databases are told by their magic, page size and length, in every
// source that can look at the begin of a file.
func TestGrain(t *testing.T) {
	sqlite := func(page uint16, size int) []byte {
		p := make([]byte, size)
		copy(p, "SQLite format 3\x00")
		binary.BigEndian.PutUint16(p[16:], page)
		return p
	}
	bbolt := func(magic, version, page uint32, size int) []byte {
		p := make([]byte, size)
		binary.LittleEndian.PutUint32(p[16:], magic)
		binary.LittleEndian.PutUint32(p[20:], version)
		binary.LittleEndian.PutUint32(p[24:], page)
		return p
	}
	tests := map[string]struct {
		data []byte
		want int
	}{
		"sqlite":            {sqlite(4096, minPaged), DatabaseGrain},
		"sqlite-small-page": {sqlite(512, minPaged+512), DatabaseGrain},
		"sqlite-64k-page":   {sqlite(1, minPaged), DatabaseGrain},
		"sqlite-small":      {sqlite(4096, minPaged-4096), 0},
		"sqlite-torn":       {sqlite(4096, minPaged+1), 0},
		"sqlite-odd-page":   {sqlite(4095, 4095*300), 0},
		"sqlite-tiny-page":  {sqlite(256, minPaged), 0},
		"sqlite-no-page":    {sqlite(0, minPaged), 0},
		"bbolt":             {bbolt(0xED0CDAED, 2, 4096, minPaged), DatabaseGrain},
		"bbolt-version":     {bbolt(0xED0CDAED, 3, 4096, minPaged), 0},
		"bbolt-magic":       {bbolt(0xED0CDAEE, 2, 4096, minPaged), 0},
		"bbolt-page":        {bbolt(0xED0CDAED, 2, 1<<20, minPaged), 0},
		"zeros":             {make([]byte, minPaged), 0},
		"text":              {bytes.Repeat([]byte("SQLite"), minPaged/6), 0},
	}
	dir, m := t.TempDir(), fstest.MapFS{}
	for name, c := range tests {
		m[name] = &fstest.MapFile{Data: c.data, Mode: 0o600}
		if err := os.WriteFile(filepath.Join(dir, name), c.data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for kind, s := range map[string]Source{"dir": Dir(dir), "fs": FS("tree", m), "join": Join(Dir(dir))} {
		v, err := s.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		root := v.Info().Roots[0].Name
		for name, c := range tests {
			f, err := v.OpenFile(t.Context(), root+"/"+name)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := Grain(v.Info(), f); got != c.want || err != nil {
				t.Errorf("%s: Grain(%s) = %d, %v, want %d", kind, name, got, err, c.want)
			}
			// Looking moves nothing.
			if got, err := io.ReadAll(f); err != nil || !bytes.Equal(got, c.data) {
				t.Errorf("%s: %s was not read from its begin: %d bytes, %v", kind, name, len(got), err)
			}
			if err := f.Close(); err != nil {
				t.Error(err)
			}
		}
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestGrainOfProfile: a view may say it for files that cannot.
func TestGrainOfProfile(t *testing.T) {
	for _, c := range []struct {
		info Info
		want int
	}{{Info{Kind: manifest.KindFiles}, 0}, {Info{Profile: ProfilePage}, imageGrain}} {
		if got, err := Grain(c.info, bytes.NewReader(nil)); got != c.want || err != nil {
			t.Errorf("Grain(%+v) = %d, %v, want %d", c.info, got, err, c.want)
		}
	}
}

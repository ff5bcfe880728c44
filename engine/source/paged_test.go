package source

import (
	"bytes"
	"encoding/binary"
	"errors"
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

// TestPagesByHand: patterns say which files of a directory consist of pages, and
// which do not.
func TestPagesByHand(t *testing.T) {
	db := make([]byte, minPaged)
	copy(db, "SQLite format 3\x00")
	binary.BigEndian.PutUint16(db[16:], 4096)
	dir := t.TempDir()
	files := map[string][]byte{"a.img": {1}, "b.img": {2}, "c": {3}, "app.db": db, "vm/d": {4}, "vm/deep/e": {5}, "vm/deep/f.txt": {6}, "vm/app.db": db}
	for name, data := range files {
		at := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		pages []string
		want  map[string]int // all others 0
	}{
		"none":      {nil, map[string]int{"app.db": DatabaseGrain, "vm/app.db": DatabaseGrain}},
		"suffix":    {[]string{"*.img", "!b.*"}, map[string]int{"a.img": imageGrain, "app.db": DatabaseGrain, "vm/app.db": DatabaseGrain}},
		"directory": {[]string{"vm/", "!*.txt"}, map[string]int{"app.db": DatabaseGrain, "vm/d": imageGrain, "vm/deep/e": imageGrain, "vm/app.db": DatabaseGrain}},
		"top":       {[]string{"/c", "!app.db"}, map[string]int{"c": imageGrain}},
	} {
		src := Dir(dir)
		src.Pages = c.pages
		v, err := src.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for at := range files {
			if got := grainAt(t, v, v.Info().Roots[0].Name+"/"+at); got != c.want[at] {
				t.Errorf("%s: the grain of %s is %d, want %d", name, at, got, c.want[at])
			}
		}
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	}
	one := Dir(filepath.Join(dir, "a.img"))
	one.Pages = []string{"*.img"}
	v, err := one.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	if got := grainAt(t, v, v.Info().Roots[0].Name); got != imageGrain {
		t.Errorf("the grain of a root that is a file is %d, want %d", got, imageGrain)
	}
	bad := Dir(dir)
	bad.Pages = []string{"/"}
	if _, err := bad.Open(t.Context()); !errors.Is(err, ErrPattern) {
		t.Errorf("Open = %v, want ErrPattern", err)
	}
}

func grainAt(t *testing.T, v View, at string) int {
	t.Helper()
	f, err := v.OpenFile(t.Context(), at)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	grain, err := Grain(v.Info(), f)
	if err != nil {
		t.Fatal(err)
	}
	return grain
}

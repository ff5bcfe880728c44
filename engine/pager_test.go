//go:build unix

package engine_test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"pgregory.net/rapid"

	"github.com/cairn-backup/cairn/backend/mem"
	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/engine/source"
	"github.com/cairn-backup/cairn/manifest"
)

// databaseOf returns n bytes that look like a database of SQLite from outside.
func databaseOf(seed uint64, n int) []byte {
	p := random(seed, n)
	copy(p, "SQLite format 3\x00")
	binary.BigEndian.PutUint16(p[16:], 4096)
	return p
}

// shake changes a database as databases are, and as they are not. Some of it
// becomes what it was in before.
func shake(rng *rand.Rand, p, before []byte) []byte {
	const page = 4096
	pages := func() (at, n int) {
		n = 1 + rng.IntN(20)
		at = 1 + rng.IntN(max(len(p)/page-n, 1))
		return at * page, min(n*page, len(p)-at*page)
	}
	for range 1 + rng.IntN(30) {
		at, n := pages()
		switch rng.IntN(14) {
		case 0: // zeros
			clear(p[at : at+n])
		case 1: // equal groups, one beside the other
			group := 65536 * (1 + rng.IntN(len(p)/65536-2))
			copy(p[group:group+65536], p[group-65536:group])
		case 2: // something moves
			from, _ := pages()
			copy(p[at:], bytes.Clone(p[from:min(from+n, len(p))]))
		case 3: // many pages
			copy(p[at:at+n], random(rng.Uint64(), n))
		case 6: // as it was
			copy(p[at:at+n], before[min(at, len(before)):])
		case 7: // a group as it was
			at -= at % 65536
			copy(p[at:min(at+65536, len(p))], before[min(at, len(before)):])
		case 4, 5: // one page
			copy(p[at:at+page], random(rng.Uint64(), page))
		default: // part of a row
			at += rng.IntN(page - 100)
			copy(p[at:], random(rng.Uint64(), 1+rng.IntN(99)))
		}
	}
	switch rng.IntN(8) {
	case 0:
		p = append(p, random(rng.Uint64(), page*(1+rng.IntN(40)))...)
	case 1:
		if n := page * rng.IntN(30); len(p)-n > 1<<20 {
			p = p[:len(p)-n]
		}
	}
	return p
}

// TestPagedModel backs a database up again and again while it changes, with
// fingerprints and without, with those of another version and of another file,
// and with what was read forgotten; every snapshot gives back what was read.
func TestPagedModel(t *testing.T) {
	few(t, 3, func(rt *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 3))
		b := mem.New()
		cache := t.TempDir()
		dir := filepath.Join(t.TempDir(), "data")
		path := filepath.Join(dir, "app.db")
		p := databaseOf(rng.Uint64(), 1<<20+4096*rng.IntN(100))
		saved := map[manifest.ID][]byte{}
		var kept, versions [][]byte // files of fingerprints, and of the database
		for round := range 14 {
			opts := engine.Options{Workers: 2, CacheDir: cache}
			if rng.IntN(3) == 0 {
				opts.CacheDir = ""
			}
			r := open(t, b, engine.Tuned(opts, small))
			update(t, dir, map[string][]byte{"app.db": p, "beside": random(rng.Uint64(), 1000)})
			if rng.IntN(6) == 0 { // holes, as far as the file has zeros
				sparsely(t, path, p)
			}
			report := backUp(t, r, source.Dir(dir), engine.BackupOptions{Host: "h", Reread: rng.IntN(8) == 0})
			saved[report.Snapshot.ID] = bytes.Clone(p)
			readsAt(t, r, report.Snapshot.ID, "data/app.db", p, rng)
			if rng.IntN(4) == 0 {
				other := backUp(t, r, source.Dir(dir), engine.BackupOptions{Host: "h"})
				if !other.Unchanged && other.Snapshot.Stats.New > 60_000 {
					t.Fatalf("nothing changed, and %d bytes are new", other.Snapshot.Stats.New)
				}
				saved[other.Snapshot.ID] = bytes.Clone(p)
			}
			kept, versions = meddle(t, rng, cache, kept), append(versions, bytes.Clone(p))
			if round%5 == 4 {
				whole(t, r)
				forgetSome(t, r, rng, saved)
			}
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
			p = shake(rng, p, versions[rng.IntN(len(versions))])
		}
		r := open(t, b, engine.Options{})
		whole(t, r)
		for id, want := range saved {
			got, err := os.ReadFile(filepath.Join(restore(t, r, id), "app.db"))
			if err != nil || !bytes.Equal(got, want) {
				t.Fatalf("restored: %v, the right bytes: %t", err, bytes.Equal(got, want))
			}
		}
	})
}

// sparsely writes p with holes where it is zeros.
func sparsely(t testing.TB, path string, p []byte) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(int64(len(p))); err != nil {
		t.Fatal(err)
	}
	for at := 0; at < len(p); at += 4096 {
		if page := p[at:min(at+4096, len(p))]; len(bytes.Trim(page, "\x00")) > 0 {
			if _, err := f.WriteAt(page, int64(at)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// meddle keeps a file of fingerprints, brings an old one back, damages one, or
// removes it. None of it may matter.
func meddle(t testing.TB, rng *rand.Rand, cache string, kept [][]byte) [][]byte {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(cache, "*", "pages", "*"))
	if err != nil || len(found) > 1 {
		t.Fatalf("files of fingerprints: %q, %v; want one", found, err)
	}
	if len(found) == 0 {
		return kept
	}
	now, err := os.ReadFile(found[0])
	if err != nil {
		t.Fatal(err)
	}
	kept = append(kept, now)
	switch rng.IntN(8) {
	case 0:
		err = os.Remove(found[0])
	case 1, 2:
		err = os.WriteFile(found[0], kept[rng.IntN(len(kept))], 0o600)
	case 3:
		now = bytes.Clone(now)
		now[rng.IntN(len(now))] ^= 1
		err = os.WriteFile(found[0], now, 0o600)
	case 4:
		err = os.WriteFile(found[0], now[:rng.IntN(len(now))], 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return kept
}

// forgetSome deletes snapshots and collects what only they need.
func forgetSome(t testing.TB, r *engine.Repository, rng *rand.Rand, saved map[manifest.ID][]byte) {
	t.Helper()
	all := list(t, r)
	for _, snap := range all[:len(all)-1] {
		if rng.IntN(2) == 0 {
			if err := r.Delete(t.Context(), snap.ID); err != nil {
				t.Fatal(err)
			}
			delete(saved, snap.ID)
		}
	}
	gc(t, r, atOnce)
}

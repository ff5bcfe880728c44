package engine_test

import (
	"bytes"
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/backend/mem"
	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/engine/source"
)

// wordy returns n bytes of words.
func wordy(seed uint64, n int) []byte {
	words := bytes.Fields([]byte("package func return error if err nil for range var type struct string int byte"))
	p := make([]byte, 0, n+16)
	for _, c := range random(seed, n/4) {
		p = append(append(p, words[int(c)%len(words)]...), "abcdefghijklmnop"[c>>4], ' ')
	}
	return p[:n]
}

// TestCompression stores the same data at every level, each in a repository of
// its own: all read back, and the stronger of the first three stores less. (On
// random words the next one does not.)
func TestCompression(t *testing.T) {
	dir := write(t, map[string][]byte{"text": wordy(1, 1<<20), "random": random(2, 100_000)})
	levels := []engine.Compression{
		engine.CompressionS2, engine.CompressionFastest, engine.CompressionDefault, engine.CompressionBetter, engine.CompressionAuto,
	}
	var stored []uint64
	for _, level := range levels {
		r := open(t, mem.New(), engine.Options{Compression: level})
		report := backUp(t, r, source.Dir(dir), engine.BackupOptions{})
		same(t, dir, restore(t, r, report.Snapshot.ID))
		whole(t, r)
		stored = append(stored, report.Snapshot.Stats.Stored)
	}
	t.Logf("stored %v", stored)
	for i := 1; i < 3; i++ {
		if stored[i] >= stored[i-1] {
			t.Errorf("level %v stores %d bytes, %v %d", levels[i], stored[i], levels[i-1], stored[i-1])
		}
	}
}

// TestCompressionMixed stores data at one level beside what another stored, and
// moves all of it by a collection at a third.
func TestCompressionMixed(t *testing.T) {
	b := mem.New()
	dir := write(t, map[string][]byte{"a": wordy(1, 300_000)})
	r := open(t, b, engine.Options{Compression: engine.CompressionS2})
	first := backUp(t, r, source.Dir(dir), engine.BackupOptions{})
	update(t, dir, map[string][]byte{"b": wordy(2, 300_000)})
	again := open(t, b, engine.Options{Compression: engine.CompressionBest})
	second := backUp(t, again, source.Dir(dir), engine.BackupOptions{})
	if second.Snapshot.Stats.New > 310_000 {
		t.Errorf("%d bytes are new, want those of one file", second.Snapshot.Stats.New)
	}
	same(t, dir, restore(t, again, second.Snapshot.ID))
	restore(t, again, first.Snapshot.ID)
	whole(t, again)
}

// TestCompressionAdapts: through a store that takes a second for each pack a
// backup comes to a level that stores less than the one it began with. All times
// are those of a bubble, in which computing takes none.
func TestCompressionAdapts(t *testing.T) {
	data := map[string][]byte{"text": wordy(3, 6<<20)}
	dir := write(t, data)
	stored := func(level engine.Compression) (n uint64) {
		synctest.Test(t, func(t *testing.T) {
			r := open(t, slow{mem.New()}, engine.Tuned(engine.Options{Compression: level, Workers: 1}, engine.Limits{Pack: 200 << 10}))
			n = backUp(t, r, source.Dir(dir), engine.BackupOptions{}).Snapshot.Stats.Stored
		})
		return n
	}
	auto, fastest := stored(engine.CompressionAuto), stored(engine.CompressionFastest)
	t.Logf("stored %d, at the level it begins with %d", auto, fastest)
	if auto > fastest-fastest/50 {
		t.Errorf("stored %d bytes, at the level it begins with %d", auto, fastest)
	}
}

// slow is a store that is far away.
type slow struct{ backend.Backend }

func (s slow) Put(ctx context.Context, key backend.Key, data []byte) error {
	select {
	case <-time.After(time.Second):
	case <-ctx.Done():
		return backend.Ended(ctx)
	}
	return s.Backend.Put(ctx, key, data)
}

func TestParseCompression(t *testing.T) {
	for c := range engine.CompressionAuto + 1 {
		if got, err := engine.ParseCompression(c.String()); got != c || err != nil {
			t.Errorf("ParseCompression(%q) = %v, %v", c, got, err)
		}
	}
	if _, err := engine.ParseCompression("Compression(6)"); err == nil {
		t.Error("a level that there is not was taken")
	}
	if _, err := engine.Open(t.Context(), mem.New(), engine.Passphrase("x"), engine.Options{Compression: 6}); err == nil || is(err, engine.ErrNoRepository) {
		t.Errorf("Open = %v, want an error about the options", err)
	}
}

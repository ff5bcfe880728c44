package store

import (
	"testing"
	"time"

	"github.com/cairn-backup/cairn/chunk/codec"
)

// TestAdapter: who waits for whom decides, one step at a time.
func TestAdapter(t *testing.T) {
	const sealers = 2
	now := time.Now()
	a := newAdapter(Compression{Level: codec.Fastest, Adapt: true}, sealers)
	a.since = now
	pack := func(blocked, idle time.Duration) codec.Level { // one in ten seconds
		now = now.Add(10 * time.Second)
		for range sealers {
			a.waited(idle)
		}
		a.handed(now, blocked)
		return a.level()
	}
	steps := []struct {
		what          string
		blocked, idle time.Duration
		want          codec.Level
	}{
		{"the store holds everything up", 5 * time.Second, time.Second, codec.Default},
		{"and does again", 3 * time.Second, time.Second, codec.Better},
		{"and there is nothing stronger", 9 * time.Second, 0, codec.Better},
		{"neither", time.Second, time.Second, codec.Better},
		{"nothing waits for the store, once", 0, time.Second, codec.Better},
		{"twice", 0, time.Second, codec.Better},
		{"three times", 100 * time.Millisecond, time.Second, codec.Default},
		{"and goes on", 0, 0, codec.Default},
		{"the source is slow: the count begins anew", 0, 6 * time.Second, codec.Default},
		{"once", 0, 0, codec.Default},
		{"twice", 0, 0, codec.Default},
		{"three times", 0, 0, codec.Fastest},
		{"once", 0, 0, codec.Fastest},
		{"twice", 0, 0, codec.Fastest},
		{"three times", 0, 0, codec.S2},
		{"once", 0, 0, codec.S2},
		{"twice", 0, 0, codec.S2},
		{"and there is nothing cheaper", 0, 0, codec.S2},
		{"the store is slow again", 3 * time.Second, 0, codec.Fastest},
	}
	for i, s := range steps {
		if got := pack(s.blocked, s.idle); got != s.want {
			t.Fatalf("step %d, %s: level %d, want %d", i, s.what, got, s.want)
		}
	}
	a.handed(now, 0) // a clock that stands still, or goes back, says nothing
	a.handed(now.Add(-time.Hour), time.Second)
	if got := a.level(); got != codec.Fastest {
		t.Errorf("level %d after no time at all, want %d", got, codec.Fastest)
	}
	if newAdapter(Compression{Level: codec.Best}, sealers) != nil {
		t.Error("a level that stays has an adapter")
	}
}

// TestCompressorFollows: a sealer takes the level of the moment.
func TestCompressorFollows(t *testing.T) {
	in := make([]byte, 5000)
	a := newAdapter(Compression{Level: codec.Fastest, Adapt: true}, 1)
	c := compressor{adapter: a, level: codec.Fastest}
	for step, want := range []byte{2, 1, 1, 1} { // the codec: S2, then zstd
		a.step.Store(int32(step)) //nolint:gosec // four
		p, err := c.encode(nil, in)
		if err != nil || p[0] != want || c.level != ladder()[step] {
			t.Errorf("step %d: codec %d, level %d, %v", step, p[0], c.level, err)
		}
	}
}

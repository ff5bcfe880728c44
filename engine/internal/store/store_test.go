package store

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/backend/fault"
	"github.com/cairn-backup/cairn/chunk"
	"github.com/cairn-backup/cairn/chunk/pack"
	"github.com/cairn-backup/cairn/chunk/seal"
	"github.com/cairn-backup/cairn/chunk/wire"
	"github.com/cairn-backup/cairn/engine/internal/index"
	"github.com/cairn-backup/cairn/engine/internal/layout"
	"github.com/cairn-backup/cairn/engine/internal/log"
)

func TestClaims(t *testing.T) {
	var c claims
	c.init()
	a, b := chunk.ID{1, 2}, chunk.ID{1, 3}
	if !c.claim(a) || c.claim(a) || !c.claim(b) {
		t.Error("the first to claim has it, and no one else")
	}
	c.drop(a)
	if !c.claim(a) || c.claim(b) {
		t.Error("a claim that was dropped can be had again, others not")
	}
}

func TestBlockCache(t *testing.T) {
	c := newBlockCache(10)
	at := func(n uint32) blockPlace { return blockPlace{pack: 1, offset: n} }
	c.put(at(1), make([]byte, 4))
	c.put(at(2), make([]byte, 4))
	c.put(at(1), make([]byte, 4)) // already there
	if _, ok := c.get(at(1)); !ok || c.size != 8 {
		t.Fatalf("size %d", c.size)
	}
	c.put(at(3), make([]byte, 4)) // drops 2, which was used longest ago
	c.put(at(4), make([]byte, 11))
	for n, want := range map[uint32]bool{1: true, 2: false, 3: true, 4: false} {
		if _, ok := c.get(at(n)); ok != want {
			t.Errorf("block %d is there: %v, want %v", n, ok, want)
		}
	}
	if c.size != 8 || c.order.Len() != 2 || len(c.byPlace) != 2 {
		t.Errorf("size %d, %d in order, %d by place", c.size, c.order.Len(), len(c.byPlace))
	}
}

// TestLostPut: the answer to the Put of a pack or segment that is lost is
// sought again, and what stays unknown is no ErrUnknownOutcome of the backup.
func TestLostPut(t *testing.T) {
	r := newRig()
	lost := fault.Rule{Op: fault.Put, Prefix: layout.Packs, LostReply: backend.ErrUnknownOutcome, Count: 1}
	s := r.open(t, fault.New(r.mem, lost, fault.Rule{Op: fault.Put, Prefix: layout.Segments, LostReply: backend.ErrUnknownOutcome, Count: 1}))
	ids := r.put(t, s, random(1, 3000), random(2, 3000))
	for _, id := range ids {
		if _, err := s.Chunk(t.Context(), id); err != nil {
			t.Errorf("Chunk: %v", err)
		}
	}
	never := r.open(t, fault.New(r.mem, fault.Rule{Op: fault.Put, Prefix: layout.Packs, Err: backend.ErrUnknownOutcome}))
	err := never.put(t.Context(), layout.Pack([16]byte{1}), []byte("pack"))
	if !errors.Is(err, backend.ErrUnavailable) || errors.Is(err, backend.ErrUnknownOutcome) {
		t.Errorf("put = %v, want ErrUnavailable and not ErrUnknownOutcome", err)
	}
	// What another has put first is not ours.
	taken := layout.Pack([16]byte{2})
	if err := errors.Join(r.mem.Put(t.Context(), taken, nil)); err != nil {
		t.Fatal(err)
	}
	if err := s.put(t.Context(), taken, []byte("pack")); !errors.Is(err, backend.ErrExist) {
		t.Errorf("put of a key that is taken = %v, want ErrExist", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := never.put(ctx, layout.Pack([16]byte{3}), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("put = %v, want context.Canceled", err)
	}
}

// TestBrokenRead: an object that ends early is corrupt, a body that breaks off
// is not.
func TestBrokenRead(t *testing.T) {
	r := newRig()
	s := r.open(t, r.mem)
	id := r.put(t, s, random(1, 3000))[0]
	places, err := s.Find(t.Context(), []chunk.ID{id})
	if err != nil {
		t.Fatal(err)
	}
	info, _ := s.packInfo(places[0].Pack)
	cut := r.open(t, fault.New(r.mem, fault.Rule{Op: fault.Get, Prefix: layout.Packs, CutErr: io.ErrUnexpectedEOF, CutAfter: 100}))
	if _, err := cut.ReadTable(t.Context(), info); !errors.Is(err, backend.ErrUnavailable) || errors.Is(err, ErrCorrupt) {
		t.Errorf("ReadTable over a body that breaks off = %v", err)
	}
	short := r.open(t, fault.New(r.mem, fault.Rule{Op: fault.Get, Prefix: layout.Packs, Corrupt: func(p []byte) []byte { return p[:100] }}))
	if _, err := short.ReadTable(t.Context(), info); !errors.Is(err, ErrCorrupt) {
		t.Errorf("ReadTable of a pack that ends early = %v", err)
	}
}

// TestConflictKeepsPacks: a session that cannot be committed, since what it
// needs was doomed, records what it stored all the same.
func TestConflictKeepsPacks(t *testing.T) {
	ctx := t.Context()
	r := newRig()
	s := r.open(t, r.mem)
	r.put(t, s, random(1, 3000))
	ss, err := s.Begin(ctx, SessionOptions{})
	if err != nil {
		t.Fatal(err)
	}
	w := ss.Writer()
	var ids []chunk.ID
	for _, data := range [][]byte{random(1, 3000), random(2, 3000)} {
		id, _, err := w.Put(ctx, data)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	if err := errors.Join(w.Flush(ctx), ss.Drain(ctx)); err != nil {
		t.Fatal(err)
	}
	other := r.openLog(t, r.mem)
	_, err = other.Append(ctx, func(st *log.State) ([]log.Effect, error) {
		var forget log.Forget
		for snap := range st.Snapshots() {
			forget.IDs = append(forget.IDs, snap.Summary.ID)
		}
		return []log.Effect{forget, log.Doom{Packs: st.Live()}}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := commit(ctx, ss); !errors.Is(err, log.ErrConflict) {
		t.Fatalf("Commit = %v, want ErrConflict", err)
	}
	ss.Abort(ctx)
	again, err := s.Begin(ctx, SessionOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Abort(ctx)
	for i, want := range []bool{true, false} {
		if store, _, err := again.admit(ctx, ids[i]); err != nil || store != want {
			t.Errorf("chunk %d is to be stored again: %v, %v; want %v", i, store, err, want)
		}
	}
}

// TestDamagedSegment: where a segment is damaged, the footers tell.
func TestDamagedSegment(t *testing.T) {
	for _, change := range []func([]byte) []byte{
		func(p []byte) []byte { return p[:len(p)/2] },
		func(p []byte) []byte { q := bytes.Clone(p); q[len(q)-1] ^= 1; return q },
		func(p []byte) []byte { return make([]byte, len(p)) },
	} {
		r := newRig()
		data := [][]byte{random(1, 3000), random(2, 9000), random(3, 500)}
		ids := r.put(t, r.open(t, r.mem), data...)
		s := r.open(t, fault.New(r.mem, fault.Rule{Op: fault.Get, Prefix: layout.Segments, Corrupt: change}))
		if err := s.LoadAll(t.Context()); err != nil {
			t.Fatalf("LoadAll: %v", err)
		}
		for i, id := range ids {
			if got, err := s.Chunk(t.Context(), id); err != nil || !bytes.Equal(got, data[i]) {
				t.Errorf("Chunk %d: %v", i, err)
			}
		}
		missing := chunk.ID{9}
		if _, err := s.Chunk(t.Context(), missing); !errors.Is(err, ErrCorrupt) {
			t.Errorf("Chunk of what is nowhere = %v, want ErrCorrupt", err)
		}
	}
}

// TestCheckIndex: an index of another history is emptied.
func TestCheckIndex(t *testing.T) {
	r := newRig()
	s := r.open(t, r.mem)
	r.put(t, s, random(1, 3000))
	r.put(t, s, random(2, 3000))
	head := s.opts.Log.Head()
	first, err := s.opts.Log.HashAt(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		tag  index.Tag
		kept bool
	}{
		{"the head", index.Tag{N: head.N, Hash: head.Hash}, true},
		{"below it", index.Tag{N: 1, Hash: first}, true},
		{"another record", index.Tag{N: 1, Hash: [32]byte{1}}, false},
		{"another head", index.Tag{N: head.N, Hash: [32]byte{1}}, false},
		{"ahead", index.Tag{N: head.N + 5, Hash: head.Hash}, false},
	} {
		if err := errors.Join(s.LoadAll(t.Context()), s.index().SetTag(c.tag), s.CheckIndex(t.Context())); err != nil {
			t.Fatal(err)
		}
		if n, err := s.index().Count(); err != nil || (n > 0) != c.kept {
			t.Errorf("%s: %d entries are left, want some: %v", c.name, n, c.kept)
		}
	}
}

// segmentParts is the plain text of a segment of one pack.
func segmentParts(tb testing.TB) []byte {
	tb.Helper()
	t := PackTable{Pack: pack.ID{1}, Size: 4096, Table: pack.Table{Blocks: []pack.Block{
		{Number: 0, Offset: 72, Stored: 500, Raw: 900, Chunks: []pack.Chunk{{ID: chunk.ID{1}, Length: 400}, {ID: chunk.ID{2}, Length: 500}}},
	}}}
	r := newRig()
	_, object, err := sealSegment(r.keys, r.id, []PackTable{t})
	if err != nil {
		tb.Fatal(err)
	}
	_, parts, err := seal.OpenObject(r.keys.Meta, seal.KindSegment, seal.Binding{Repository: r.id}, object)
	if err != nil {
		tb.Fatal(err)
	}
	got, err := parseSegment(parts)
	if err != nil || len(got) != 1 || got[0].Size != t.Size || len(got[0].Table.Blocks) != 1 {
		tb.Fatalf("parseSegment = %+v, %v", got, err)
	}
	return parts[0]
}

func FuzzParseSegment(f *testing.F) {
	good := segmentParts(f)
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Add(append(bytes.Clone(good), 0))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, part []byte) {
		tables, err := parseSegment([][]byte{part})
		if err != nil {
			return
		}
		// What is accepted is the only encoding of what it says.
		p := tables[0]
		if got := p.Table.Append(wire.AppendUvarint(bytes.Clone(p.Pack[:]), p.Size)); !bytes.Equal(got, part) {
			t.Errorf("%x was read as what encodes to %x", part, got)
		}
		for _, e := range Entries(1, tables[0]) {
			if uint64(e.Place.Offset)+uint64(e.Place.Stored) > tables[0].Size {
				t.Errorf("a block at %d of %d bytes in a pack of %d", e.Place.Offset, e.Place.Stored, tables[0].Size)
			}
		}
	})
}

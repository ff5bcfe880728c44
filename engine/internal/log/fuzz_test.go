package log

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/chunk/seal"
	"github.com/cairn-backup/cairn/chunk/wire"
	"github.com/cairn-backup/cairn/manifest"
)

// everyEffect returns a record with effects of every type.
func everyEffect() Record {
	pin, note := true, "kept"
	return Record{
		N: 7, Prev: Hash{1}, Nonce: [16]byte{2}, Writer: "host cairn", Time: time.Unix(1_800_000_000, 5).UTC(),
		Effects: []Effect{
			Add{First: 3, Packs: []PackInfo{newPack(), newPack()}, Segments: []SegmentInfo{{ID: [16]byte{3}, Size: 9, Packs: Ranges{{3, 4}}}}},
			Doom{
				Packs: Ranges{{1, 2}, {5, 5}}, Objects: []backend.Key{"packs/00/x"}, Segments: [][16]byte{{1}},
				Successors: []Successor{{1, Ranges{{3, 3}}}}, Deleted: 2,
			},
			newSnapshot(3, 4),
			Forget{IDs: []manifest.ID{{1}, {2}}},
			Undelete{IDs: []manifest.ID{{2}}},
			Annotate{ID: manifest.ID{1}, AddTags: []string{"a"}, RemoveTags: []string{"b"}, Pin: &pin, Note: &note},
			Session{ID: [16]byte{1}, Needs: Ranges{{3, 3}}, Group: [16]byte{2}, Partial: []byte("p"), Started: time.Unix(9, 0).UTC(), Host: "h"},
			End{Session: [16]byte{1}},
			Key{Public: [32]byte{1}, Roles: Keeper},
			Feature{Name: "f"},
			Damage{Pack: 3, Blocks: Ranges{{0, 1}}},
			Repaired{N: 6, Body: Hash{4}},
		},
	}
}

func FuzzRecord(f *testing.F) {
	whole, err := marshalRecord(everyEffect())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	for _, e := range everyEffect().Effects {
		p, err := marshalRecord(Record{N: 1, Effects: []Effect{e}})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		rec, err := unmarshalRecord(p)
		if err != nil {
			if !errors.Is(err, wire.ErrMalformed) && !errors.Is(err, seal.ErrNewerFormat) && !errors.Is(err, manifest.ErrMalformed) {
				t.Fatalf("untyped error %v", err)
			}
			return
		}
		again, err := marshalRecord(rec)
		if err != nil || !bytes.Equal(again, p) {
			t.Fatalf("encoded again: %x, %v", again, err)
		}
		// Whatever it says, it is folded without harm.
		s := NewState(Hash{}, Keys{Admin: [32]byte{9}})
		s.lenient = true
		rec.N, rec.Prev, rec.Signer = 1, Hash{}, [32]byte{9}
		if _, err := s.Apply(rec); err != nil {
			t.Fatal(err)
		}
		body, err := marshalState(s)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := unmarshalState(body); err != nil {
			t.Fatalf("a state that replay came to is not accepted: %v", err)
		}
	})
}

func FuzzCheckpoint(f *testing.F) {
	s := NewState(Hash{1}, Keys{Admin: [32]byte{1}, Keeper: [32]byte{2}, Writer: [32]byte{3}})
	rec := Record{N: 1, Prev: Hash{1}, Signer: [32]byte{1}, Effects: []Effect{
		Add{First: 1, Packs: []PackInfo{newPack(), newPack(), newPack()}, Segments: []SegmentInfo{{ID: [16]byte{3}, Packs: Ranges{{1, 3}}}}},
		newSnapshot(1, 2), newSnapshot(3),
		Session{ID: [16]byte{4}, Needs: Ranges{{1, 1}}, Partial: []byte("x")},
		Damage{Pack: 2, Blocks: Ranges{{0, 5}}},
		Feature{Name: "f"},
	}}
	add := func() {
		p, err := marshalState(s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(p)
	}
	add()
	if ignored, err := s.Apply(rec); err != nil || len(ignored) > 0 {
		f.Fatal(err, ignored)
	}
	add()
	var id manifest.ID
	for info := range s.Snapshots() {
		id = info.Summary.ID
	}
	rec = Record{N: 2, Signer: [32]byte{1}, Effects: []Effect{
		Annotate{ID: id, AddTags: []string{"t"}}, Forget{IDs: []manifest.ID{id}}, Doom{Objects: []backend.Key{"index/000102030405060708090a0b0c0d0e0f"}},
	}}
	if ignored, err := s.Apply(rec); err != nil || len(ignored) > 0 {
		f.Fatal(err, ignored)
	}
	s.repair = &repairMark{n: 2}
	add()
	f.Fuzz(func(t *testing.T, p []byte) {
		s, err := unmarshalState(p)
		if err != nil {
			if !errors.Is(err, wire.ErrMalformed) && !errors.Is(err, manifest.ErrMalformed) {
				t.Fatalf("untyped error %v", err)
			}
			return
		}
		again, err := marshalState(s)
		if err != nil || !bytes.Equal(again, p) {
			t.Fatalf("encoded again: %x, %v", again, err)
		}
		// Lookups on it must not run away or panic.
		for n, info := range s.Packs() {
			if got, ok := s.PackNumber(info.ID); !ok || got != n {
				t.Fatalf("PackNumber(%v) = %d, %v, want %d", info.ID, got, ok, n)
			}
		}
		_, _ = s.Apply(Record{N: s.pos.N + 1, Prev: s.pos.Hash, Effects: []Effect{Doom{Packs: s.Live()}}})
	})
}

func TestEveryEffectComesBack(t *testing.T) {
	rec := everyEffect()
	p, err := marshalRecord(rec)
	if err != nil {
		t.Fatal(err)
	}
	got, err := unmarshalRecord(p)
	if err != nil {
		t.Fatal(err)
	}
	again, err := marshalRecord(got)
	if err != nil || !bytes.Equal(p, again) || len(got.Effects) != len(rec.Effects) || !got.Time.Equal(rec.Time) {
		t.Fatalf("came back as %+v, %v", got, err)
	}
	for i, e := range got.Effects {
		if e.effect() != rec.Effects[i].effect() || e.effect().String() == "unknown" {
			t.Errorf("effect %d came back as %v", i, e.effect())
		}
	}
	if a, ok := got.Effects[0].(Add); !ok || a.Packs[1].ID != a.Packs[1].Header().Name() {
		t.Error("the id of a pack is not that of its salt")
	}
}

package layout_test

import (
	"errors"
	"math"
	"testing"

	"pgregory.net/rapid"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/engine/internal/layout"
)

func TestKeys(t *testing.T) {
	id := [16]byte{0xab, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 0xff}
	hash := [32]byte{0: 0xab, 15: 0xff, 31: 0x77}
	for _, tt := range []struct{ got, want backend.Key }{
		{layout.Config, "config"},
		{layout.Slot(id), "keys/ab0102030405060708090a0b0c0d0eff"},
		{layout.Pack(id), "packs/ab/ab0102030405060708090a0b0c0d0eff"},
		{layout.PackShard(0xab), "packs/ab/"},
		{layout.Segment(id), "index/ab0102030405060708090a0b0c0d0eff"},
		{layout.Record(1), "log/00000000000000000001"},
		{layout.Record(math.MaxUint64), "log/18446744073709551615"},
		{layout.RecordBlock(12345, 3), "log/00000000000000012"},
		{layout.RecordBlock(12345, 4), "log/0000000000000001"},
		{layout.Checkpoint(256, hash), "checkpoints/00000000000000000256-ab0000000000000000000000000000ff"},
		{layout.CheckpointName{N: 7, Repaired: true}.Key(), "checkpoints/00000000000000000007-00000000000000000000000000000000-repaired"},
	} {
		if tt.got != tt.want {
			t.Errorf("got %q, want %q", tt.got, tt.want)
		}
		if err := tt.got.ValidatePrefix(); err != nil {
			t.Errorf("%q: %v", tt.got, err)
		}
	}
}

func TestParseIsInverse(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		id := [16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "id"))
		n := rapid.Uint64().Draw(t, "n")
		if got, err := layout.ParseSlot(layout.Slot(id)); got != id || err != nil {
			t.Fatalf("slot %x: %x, %v", id, got, err)
		}
		if got, err := layout.ParsePack(layout.Pack(id)); got != id || err != nil {
			t.Fatalf("pack %x: %x, %v", id, got, err)
		}
		if got, err := layout.ParseSegment(layout.Segment(id)); got != id || err != nil {
			t.Fatalf("segment %x: %x, %v", id, got, err)
		}
		if got, err := layout.ParseRecord(layout.Record(n)); got != n || err != nil {
			t.Fatalf("record %d: %d, %v", n, got, err)
		}
		c := layout.CheckpointName{N: n, Hash: id, Repaired: rapid.Bool().Draw(t, "repaired")}
		if got, err := layout.ParseCheckpoint(c.Key()); got != c || err != nil {
			t.Fatalf("checkpoint %v: %v, %v", c, got, err)
		}
	})
}

func TestParseRefuses(t *testing.T) {
	const hex32 = "ab0102030405060708090a0b0c0d0eff"
	for _, key := range []backend.Key{
		"", "config", "keys/", "keys/ab", "keys/" + hex32 + "0", "keys/AB0102030405060708090a0b0c0d0eff",
		"keys/zz0102030405060708090a0b0c0d0eff", "packs/" + hex32, "packs/ac/" + hex32, "packs/ab/" + hex32 + "/",
		"packs/ab-" + hex32, "index", "index/" + hex32 + "-", "log/", "log/1", "log/+0000000000000000001",
		"log/99999999999999999999", "log/000000000000000000001", "checkpoints/00000000000000000001",
		"checkpoints/00000000000000000001-" + hex32 + "-", "checkpoints/00000000000000000001-" + hex32 + "-repair",
		"checkpoints/0000000000000000000x-" + hex32, "checkpoints/00000000000000000001/" + hex32,
	} {
		check := func(name string, err error) {
			if !errors.Is(err, layout.ErrKey) {
				t.Errorf("%s(%q) = %v, want ErrKey", name, key, err)
			}
		}
		_, err := layout.ParseSlot(key)
		check("ParseSlot", err)
		_, err = layout.ParsePack(key)
		check("ParsePack", err)
		_, err = layout.ParseSegment(key)
		check("ParseSegment", err)
		_, err = layout.ParseRecord(key)
		check("ParseRecord", err)
		_, err = layout.ParseCheckpoint(key)
		check("ParseCheckpoint", err)
	}
}

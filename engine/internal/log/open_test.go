package log

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/backend/fault"
	"github.com/cairn-backup/cairn/backend/meter"
	"github.com/cairn-backup/cairn/chunk/seal"
	"github.com/cairn-backup/cairn/engine/internal/layout"
)

// filled returns a rig with n records and the positions after each, from 0 on.
func filled(t *testing.T, n int) (*rig, []Position) {
	t.Helper()
	r := newRig()
	l := r.open(t)
	at := []Position{l.Head()}
	for range n {
		backUp(t, l, 1)
		at = append(at, l.Head())
	}
	return r, at
}

func TestBrokenLogs(t *testing.T) {
	for _, tt := range []struct {
		name string
		do   func(t *testing.T, r *rig, at []Position)
		want error
		n    uint64 // the last good record
	}{
		{"hole", func(t *testing.T, r *rig, _ []Position) { remove(t, r, 5) }, ErrLogHole, 4},
		{"wide hole", func(t *testing.T, r *rig, _ []Position) { remove(t, r, 5, 6, 7, 8, 9) }, ErrLogHole, 4},
		{"first missing", func(t *testing.T, r *rig, _ []Position) { remove(t, r, 1) }, ErrLogHole, 0},
		{"truncated", func(t *testing.T, r *rig, _ []Position) {
			p := read(t, r, layout.Record(5))
			overwrite(t, r, layout.Record(5), p[:len(p)-1])
		}, ErrLogDamaged, 4},
		{"empty", func(t *testing.T, r *rig, _ []Position) { overwrite(t, r, layout.Record(5), nil) }, ErrLogDamaged, 4},
		{"foreign", func(t *testing.T, r *rig, _ []Position) { overwrite(t, r, layout.Record(5), []byte("hello")) }, ErrLogDamaged, 4},
		{"swapped", func(t *testing.T, r *rig, _ []Position) {
			five, six := read(t, r, layout.Record(5)), read(t, r, layout.Record(6))
			overwrite(t, r, layout.Record(5), six)
			overwrite(t, r, layout.Record(6), five)
		}, ErrLogDamaged, 4},
		{"copied over the next", func(t *testing.T, r *rig, _ []Position) {
			overwrite(t, r, layout.Record(6), read(t, r, layout.Record(5)))
		}, ErrLogDamaged, 5},
		{"head damaged", func(t *testing.T, r *rig, _ []Position) { overwrite(t, r, layout.Record(10), []byte("x")) }, ErrLogDamaged, 9},
		{"another record in the chain", func(t *testing.T, r *rig, at []Position) {
			remove(t, r, 5)
			forge(t, r, r.opts.Signer, at[4], newSnapshot())
		}, ErrLogDamaged, 5},
		{"does not follow", func(t *testing.T, r *rig, at []Position) {
			forge(t, r, r.opts.Signer, Position{10, at[9].Hash}, newSnapshot())
		}, ErrLogDamaged, 10},
		{"unknown signer", func(t *testing.T, r *rig, at []Position) {
			forge(t, r, NewSigner([32]byte{77}, allRoles), at[10], newSnapshot())
		}, ErrLogDamaged, 10},
		{"signature of another", func(t *testing.T, r *rig, at []Position) {
			overwrite(t, r, layout.Record(10), forgeSignature(t, r, at[9]))
		}, ErrLogDamaged, 9},
		{"of another repository", func(t *testing.T, r *rig, at []Position) {
			other := newRig()
			other.opts.Repository[0]++
			forge(t, other, r.opts.Signer, at[9], newSnapshot())
			overwrite(t, r, layout.Record(10), read(t, other, layout.Record(10)))
		}, ErrLogDamaged, 9},
		{"newer clear header", func(t *testing.T, r *rig, _ []Position) {
			p := read(t, r, layout.Record(5))
			p[8] = 2
			overwrite(t, r, layout.Record(5), p)
		}, ErrLogDamaged, 4},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, at := filled(t, 10)
			tt.do(t, r, at)
			l := r.openAny(t)
			if err := l.Problem(); !errors.Is(err, tt.want) {
				t.Fatalf("Problem = %v, want %v", err, tt.want)
			}
			if head := l.Head(); head.N != tt.n || len(visible(l)) != int(tt.n) {
				t.Errorf("head %d with %d snapshots, want %d", head.N, len(visible(l)), tt.n)
			}
			before := len(objects(t, r, ""))
			_, err := l.Append(t.Context(), fixed(newSnapshot()))
			if !errors.Is(err, ErrReadOnlyLog) || !errors.Is(err, tt.want) {
				t.Errorf("Append = %v", err)
			}
			if err := l.Close(); err != nil || len(objects(t, r, "")) != before {
				t.Errorf("Close = %v, something was written", err)
			}
		})
	}
}

// forgeSignature returns a record that opens but whose signature does not hold.
func forgeSignature(t *testing.T, r *rig, head Position) []byte {
	t.Helper()
	body, err := marshalRecord(Record{N: head.N + 1, Prev: head.Hash})
	if err != nil {
		t.Fatal(err)
	}
	b := seal.Binding{Repository: r.opts.Repository, Number: head.N + 1}
	text := sign(r.opts.Signer, recordContext, b, body)
	text[40]++
	_, object, err := seal.Object(r.opts.Meta, seal.Template{Kind: seal.KindRecord}, b, text)
	if err != nil {
		t.Fatal(err)
	}
	return object
}

func TestNewerFormat(t *testing.T) {
	t.Run("feature", func(t *testing.T) {
		r := newRig()
		l := r.open(t, func(o *Options) { o.Features = []string{"later"} })
		other := r.open(t)
		mustAppend(t, l, Feature{Name: "later"})
		if _, err := Open(t.Context(), r.opts); !errors.Is(err, seal.ErrNewerFormat) {
			t.Errorf("Open = %v", err)
		}
		if err := other.Refresh(t.Context()); !errors.Is(err, seal.ErrNewerFormat) {
			t.Errorf("Refresh = %v", err)
		}
		r.open(t, func(o *Options) { o.Features = []string{"later"} })
	})
	t.Run("effect", func(t *testing.T) {
		r := newRig()
		forge(t, r, r.opts.Signer, Position{Hash: r.opts.Genesis}, newerEffect{})
		if _, err := Open(t.Context(), r.opts); !errors.Is(err, seal.ErrNewerFormat) {
			t.Errorf("Open = %v", err)
		}
	})
}

type newerEffect struct{}

func (newerEffect) effect() effectType { return 99 }

func TestLocalState(t *testing.T) {
	r, at := filled(t, 10)
	dir := t.TempDir()
	l := r.open(t, in(dir))
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(dir, localName))
	if err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Fatalf("local state: %v, %v", info, err)
	}

	t.Run("two requests", func(t *testing.T) {
		var gets atomic.Int32
		counting := fault.New(r.mem, fault.Rule{Op: fault.Get | fault.List | fault.Stat, Corrupt: func(p []byte) []byte { gets.Add(1); return p }})
		l := r.open(t, in(dir), r.on(counting))
		if l.Head() != at[10] || gets.Load() != 1 { // the second one finds nothing to corrupt
			t.Errorf("head %v, %d objects read", l.Head(), gets.Load())
		}
	})
	t.Run("records since", func(t *testing.T) {
		other := r.open(t)
		backUp(t, other, 1)
		if l := r.open(t, in(dir)); encoded(t, l) != encoded(t, other) {
			t.Error("another state")
		}
	})
	t.Run("mutants are passed over", func(t *testing.T) {
		good, err := os.ReadFile(filepath.Join(dir, localName))
		if err != nil {
			t.Fatal(err)
		}
		alien := func(change func(*Options)) []byte {
			other, dir := newRig(), t.TempDir()
			change(&other.opts)
			l := other.open(t, in(dir))
			backUp(t, l, 1)
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			p, err := os.ReadFile(filepath.Join(dir, localName))
			if err != nil {
				t.Fatal(err)
			}
			return p
		}
		want := r.open(t)
		for _, p := range [][]byte{
			nil, []byte("x"), good[:len(good)/2], flip(good, len(good)-3), flip(good, 20),
			alien(func(o *Options) { o.Repository[3]++ }), alien(func(o *Options) { o.Genesis[3]++ }), alien(func(o *Options) { o.Meta[3]++ }),
		} {
			if err := os.WriteFile(filepath.Join(dir, localName), p, 0o600); err != nil {
				t.Fatal(err)
			}
			if l := r.open(t, in(dir)); l.Head() != want.Head() {
				t.Errorf("%d bytes: head %v", len(p), l.Head())
			}
		}
	})
}

func flip(p []byte, i int) []byte {
	p = bytes.Clone(p)
	p[i] ^= 0x10
	return p
}

func TestRolledBack(t *testing.T) {
	for _, tt := range []struct {
		name  string
		do    func(t *testing.T, r *rig, at []Position)
		found uint64
	}{
		{"shorter", func(t *testing.T, r *rig, _ []Position) { remove(t, r, 8, 9, 10) }, 7},
		{"empty", func(t *testing.T, r *rig, _ []Position) { remove(t, r, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10) }, 0},
		{"and gone on", func(t *testing.T, r *rig, at []Position) {
			remove(t, r, 8, 9, 10)
			pos := at[7]
			for range 5 {
				pos = forge(t, r, r.opts.Signer, pos, newSnapshot())
			}
		}, 12},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, at := filled(t, 10)
			dir := t.TempDir()
			if err := r.open(t, in(dir)).Close(); err != nil {
				t.Fatal(err)
			}
			tt.do(t, r, at)
			for range 2 { // closing it does not make it forget
				l := r.openAny(t, in(dir))
				var back *RolledBackError
				if err := l.Problem(); !errors.As(err, &back) || back.Known != at[10] || back.Found != l.Head() {
					t.Fatalf("Problem = %v", err)
				}
				if l.Head().N != tt.found || len(visible(l)) != int(tt.found) {
					t.Errorf("head %d with %d snapshots", l.Head().N, len(visible(l)))
				}
				if _, err := l.Append(t.Context(), fixed(newSnapshot())); !errors.Is(err, ErrRolledBack) {
					t.Errorf("Append = %v", err)
				}
				if err := l.Close(); err != nil {
					t.Fatal(err)
				}
			}
			l := r.openAny(t, in(dir))
			plan, err := l.PlanRepair(t.Context())
			if err != nil || !plan.Forget || plan.Write || len(plan.Gone) == 0 {
				t.Fatalf("plan %+v, %v", plan, err)
			}
			before := len(objects(t, r, ""))
			if err := plan.Run(t.Context()); err != nil || len(objects(t, r, "")) != before {
				t.Fatalf("Run: %v", err)
			}
			backUp(t, l, 1)
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			r.open(t, in(dir))
		})
	}
}

// A warm open goes on where others cannot: the damaged record is the one that
// the local state ends with, or lies before it.
func TestDamageBelowTheLocalState(t *testing.T) {
	r, _ := filled(t, 10)
	dir := t.TempDir()
	if err := r.open(t, in(dir)).Close(); err != nil {
		t.Fatal(err)
	}
	good := r.open(t)
	t.Run("the last known", func(t *testing.T) {
		overwrite(t, r, layout.Record(10), []byte("x"))
		l := r.openAny(t, in(dir))
		if err := l.Problem(); !errors.Is(err, ErrLogDamaged) || len(visible(l)) != 10 {
			t.Fatalf("Problem = %v with %d snapshots", err, len(visible(l)))
		}
	})
	t.Run("and gone on", func(t *testing.T) {
		forge(t, r, r.opts.Signer, good.Head(), newSnapshot())
		l := r.open(t, in(dir))
		if len(visible(l)) != 11 {
			t.Fatalf("%d snapshots", len(visible(l)))
		}
		mustAppend(t, l, newSnapshot())
	})
}

// A warm open asks for one record more, no list; but before anything is
// appended the log is listed, if that was not done for a day.
func TestHoleBeforeTheFirstAppend(t *testing.T) {
	r, _ := filled(t, 4)
	dir := t.TempDir()
	if err := r.open(t, in(dir)).Close(); err != nil {
		t.Fatal(err)
	}
	other := r.open(t)
	for range 20 {
		backUp(t, other, 1)
	}
	remove(t, r, 5)
	l := r.open(t, in(dir), func(o *Options) { o.Relist = time.Nanosecond })
	_, err := l.Append(t.Context(), fixed(newSnapshot()))
	var hole *HoleError
	if !errors.As(err, &hole) || hole.N != 5 || hole.Above != 24 {
		t.Fatalf("Append = %v", err)
	}
	if slices.Contains(objects(t, r, ""), layout.Record(5)) || !errors.Is(l.Problem(), ErrLogHole) {
		t.Errorf("Problem = %v", l.Problem())
	}
}

// A hole wider than what is fetched at a time shows by what the store lists, which
// Open asks for before it reads.
func TestWideHole(t *testing.T) {
	r := long(t, 120)
	for n := uint64(50); n < 120; n++ {
		remove(t, r, n)
	}
	var hole *HoleError
	if err := r.openAny(t).Problem(); !errors.As(err, &hole) || hole.N != 50 || hole.Above != 120 {
		t.Errorf("Problem = %v", err)
	}
}

// TestListAround: a listing shows whatever lies in the thousand around a record
// and in the next, and takes one request where the log is short.
func TestListAround(t *testing.T) {
	for n, requests := range map[uint64]int64{1: 1, 999: 1, 1000: 2, 5500: 2, 9999: 2, 10_000: 1, 10_999: 1, 11_000: 2} {
		r := newRig()
		store := meter.New(r.mem)
		r.opts.Backend = store
		top := n - n%1000 + 1999
		for _, m := range []uint64{n, top} {
			if err := r.mem.Put(t.Context(), layout.Record(m), []byte("x")); err != nil {
				t.Fatal(err)
			}
		}
		got, err := list(t.Context(), r.opts.Backend, n)
		if err != nil || got.top != top || got.first > n || got.end <= top || store.Counts().Requests() != requests {
			t.Errorf("list(%d) = %+v, %v by %d requests, want the top %d by %d", n, got, err, store.Counts().Requests(), top, requests)
		}
	}
}

// Right after Open a Refresh asks for the next record alone, and the second one
// looks whether the last is there, too.
func TestRefreshAfterOpen(t *testing.T) {
	r, _ := filled(t, 4)
	store := meter.New(r.mem)
	l, other := r.open(t, r.on(store)), r.open(t)
	backUp(t, other, 1)
	for _, want := range []int64{3, 2} { // the new one, and two behind it; the last, and one behind it
		before := store.Counts().Requests()
		err := l.Refresh(t.Context())
		if n := store.Counts().Requests() - before; err != nil || l.Head() != other.Head() || n != want {
			t.Errorf("Refresh = %v at %d by %d requests, want %d", err, l.Head().N, n, want)
		}
	}
	remove(t, r, 5)
	if err := l.Refresh(t.Context()); !errors.Is(err, ErrRolledBack) {
		t.Errorf("Refresh of a log that was rolled back = %v", err)
	}
}

// long returns a rig with n cheap records.
func long(t testing.TB, n int) *rig {
	t.Helper()
	r := newRig()
	s := NewState(r.opts.Genesis, r.opts.Keys)
	l := newLog(r.opts.withDefaults())
	l.state = s
	for range n {
		if _, err := l.Append(t.Context(), fixed(newSnapshot())); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

func TestCheckpoints(t *testing.T) {
	r := long(t, 600)
	names := objects(t, r, layout.Checkpoints)
	if len(names) != 2 {
		t.Fatalf("checkpoints %v", names)
	}
	want := encoded(t, r.open(t))

	t.Run("cold open reads the tail", func(t *testing.T) {
		var reads atomic.Int32
		counting := fault.New(r.mem, fault.Rule{Op: fault.Get, Prefix: layout.Records, Corrupt: func(p []byte) []byte { reads.Add(1); return p }})
		l := r.open(t, r.on(counting))
		if encoded(t, l) != want || reads.Load() != 600-512+1 {
			t.Errorf("%d records read", reads.Load())
		}
	})
	t.Run("verify", func(t *testing.T) {
		if found, err := r.open(t).Verify(t.Context()); err != nil || len(found) != 0 {
			t.Errorf("%v, %v", found, err)
		}
	})
	// One that writes would leave a newer checkpoint behind.
	reader := func(t *testing.T) *Log { return r.open(t, func(o *Options) { o.ReadOnly = true }) }
	newest := names[1]
	good := read(t, r, newest)
	name, err := layout.ParseCheckpoint(newest)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		object []byte
	}{
		{"truncated", good[:len(good)-1]},
		{"flipped", flip(good, len(good)/2)},
		{"empty", nil},
		{"older in its place", read(t, r, names[0])},
		{"of another repository", forgedCheckpoint(t, r, name, func(o *Options) { o.Repository[0]++ })},
		{"of an unknown key", forgedCheckpoint(t, r, name, func(o *Options) { o.Signer = NewSigner([32]byte{66}, allRoles) })},
		{"under another key", forgedCheckpoint(t, r, name, func(o *Options) { o.Meta[0]++ })},
	} {
		t.Run(tt.name, func(t *testing.T) {
			overwrite(t, r, newest, tt.object)
			if got := encoded(t, reader(t)); got != want {
				t.Error("another state")
			}
			found, err := reader(t).Verify(t.Context())
			if err != nil || len(found) != 1 || found[0].Key != newest || !errors.Is(found[0].Err, ErrCheckpoint) {
				t.Errorf("Verify = %v, %v", found, err)
			}
			overwrite(t, r, newest, good)
		})
	}
	t.Run("deleted while the log is verified", func(t *testing.T) {
		l := reader(t)
		if err := r.mem.Delete(t.Context(), newest); err != nil {
			t.Fatal(err)
		}
		late := &listsLate{Backend: r.mem, key: newest}
		l.opts.Backend = late
		if found, err := l.Verify(t.Context()); err != nil || len(found) != 0 || !late.listed {
			t.Errorf("Verify = %v, %v", found, err)
		}
		if err := r.mem.Put(t.Context(), newest, good); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("forged by a key of the config", func(t *testing.T) {
		// Nothing but computing it again can find this out.
		overwrite(t, r, newest, forgedCheckpoint(t, r, name, func(*Options) {}))
		found, err := reader(t).Verify(t.Context())
		if err != nil || len(found) != 1 || !errors.Is(found[0].Err, ErrCheckpoint) {
			t.Errorf("Verify = %v, %v", found, err)
		}
		overwrite(t, r, newest, good)
	})
	t.Run("of a record of another history", func(t *testing.T) {
		other := layout.CheckpointName{N: 590, Hash: [16]byte{1, 2, 3}}
		if err := r.mem.Put(t.Context(), other.Key(), forgedCheckpoint(t, r, other, func(*Options) {})); err != nil {
			t.Fatal(err)
		}
		if got := encoded(t, reader(t)); got != want {
			t.Error("another state")
		}
		if err := r.mem.Delete(t.Context(), other.Key()); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("of records that are gone", func(t *testing.T) {
		// The hole is in nobody's list, but a checkpoint knows of it.
		for n := uint64(500); n <= 600; n++ {
			remove(t, r, n)
		}
		var hole *HoleError
		if err := r.openAny(t).Problem(); !errors.As(err, &hole) || hole.N != 500 || hole.Above != 512 {
			t.Errorf("Problem = %v", err)
		}
	})
}

// forgedCheckpoint returns a checkpoint of that name with a state of its own.
func forgedCheckpoint(t *testing.T, r *rig, name layout.CheckpointName, change func(*Options)) []byte {
	t.Helper()
	o := r.opts
	change(&o)
	s := NewState(o.Genesis, o.Keys)
	s.pos = Position{N: name.N}
	copy(s.pos.Hash[:], name.Hash[:])
	if name.N <= 600 {
		if p, err := backend.ReadAll(t.Context(), r.mem, layout.Record(name.N), maxRecord); err == nil && [16]byte(p[:16]) != [16]byte{} {
			if h := HashOf(p); [16]byte(h[:16]) == name.Hash {
				s.pos.Hash = h
			}
		}
	}
	body, err := marshalState(s)
	if err != nil {
		t.Fatal(err)
	}
	object, err := sealCheckpoint(o.Meta, o.Repository, o.Signer, name.N, body)
	if err != nil {
		t.Fatal(err)
	}
	return object
}

// Two logs that came to a record by different ways write the same body.
func TestCheckpointIsPure(t *testing.T) {
	r := long(t, 300)
	ids := visible(r.open(t))
	l := r.open(t)
	mustAppend(t, l, Forget{IDs: ids[10:12]}, Session{ID: [16]byte{3}, Partial: []byte("x"), Host: "h"})
	on := true
	mustAppend(t, l, Annotate{ID: ids[0], AddTags: []string{"z", "b"}, RemoveTags: []string{"a"}, Pin: &on})
	_, needs := backUp(t, l, 5)
	repack(t, l, needs)
	mustAppend(t, l, Undelete{IDs: ids[11:12]}, Damage{Pack: 6, Blocks: Ranges{{3, 4}}}, Key{Public: [32]byte{5}, Roles: Keeper})
	for _, key := range objects(t, r, layout.Checkpoints) {
		if err := r.mem.Delete(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	replayed := r.open(t) // from record 1, and writes a checkpoint
	names := objects(t, r, layout.Checkpoints)
	if len(names) != 1 || encoded(t, replayed) != encoded(t, l) {
		t.Fatalf("checkpoints %v, equal %v", names, encoded(t, replayed) == encoded(t, l))
	}
	if got := r.open(t); encoded(t, got) != encoded(t, l) {
		t.Error("the state from the checkpoint is another")
	}
	if found, err := l.Verify(t.Context()); err != nil || len(found) > 0 {
		t.Errorf("Verify: %v, %v", found, err)
	}
}

func TestRefreshMeetsDamage(t *testing.T) {
	r, _ := filled(t, 3)
	l, writer := r.open(t), r.open(t)
	for range 5 {
		backUp(t, writer, 1)
	}
	overwrite(t, r, layout.Record(6), []byte("x"))
	var damaged *DamagedError
	if err := l.Refresh(t.Context()); !errors.As(err, &damaged) || damaged.N != 6 || l.Head().N != 5 {
		t.Fatalf("Refresh = %v at %d", err, l.Head().N)
	}
	if !slices.Equal(visible(l), visible(writer)[:5]) {
		t.Error("another state")
	}
	backUp(t, writer, 1) // does not see it and goes on
}

// Refresh lists nothing, but what it fetched ahead shows the hole.
func TestRefreshMeetsHole(t *testing.T) {
	r, _ := filled(t, 3)
	l, writer := r.open(t), r.open(t)
	for range 20 {
		backUp(t, writer, 1)
	}
	remove(t, r, 9)
	var hole *HoleError
	if err := l.Refresh(t.Context()); !errors.As(err, &hole) || hole.N != 9 || l.Head().N != 8 {
		t.Fatalf("Refresh = %v at %d", err, l.Head().N)
	}
}

func TestHashAt(t *testing.T) {
	r, at := filled(t, 4)
	l := r.open(t)
	for _, pos := range at {
		if h, err := l.HashAt(t.Context(), pos.N); err != nil || h != pos.Hash {
			t.Errorf("HashAt(%d) = %v, %v", pos.N, h, err)
		}
	}
	if _, err := l.HashAt(t.Context(), 9); !errors.Is(err, backend.ErrNotExist) {
		t.Errorf("HashAt(9) = %v", err)
	}
}

func TestErrorsOfTheStore(t *testing.T) {
	r, _ := filled(t, 4)
	for _, rule := range []fault.Rule{
		{Op: fault.Get, Prefix: layout.Record(3), Err: backend.ErrUnavailable},
		{Op: fault.Get, Prefix: layout.Record(5), Err: backend.ErrUnauthorized},
		{Op: fault.List, Err: backend.ErrUnavailable},
	} {
		_, err := Open(t.Context(), func() Options { o := r.opts; o.Backend = fault.New(r.mem, rule); return o }())
		if !errors.Is(err, rule.Err) {
			t.Errorf("Open = %v, want %v", err, rule.Err)
		}
	}
}

// A snapshot is listed by the log alone; many must not make opening slow.
func BenchmarkOpen(b *testing.B) {
	for _, n := range []int{1000, 10000} {
		r := long(b, n)
		dir := b.TempDir()
		o := r.opts
		o.Dir = dir
		l, err := Open(b.Context(), o)
		if err != nil {
			b.Fatal(err)
		}
		if err := l.Close(); err != nil {
			b.Fatal(err)
		}
		for name, opts := range map[string]Options{"warm": o, "cold": r.opts} {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				for b.Loop() {
					if _, err := Open(b.Context(), opts); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
		if l, err = Open(b.Context(), o); err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprintf("append/%d", n), func(b *testing.B) {
			for b.Loop() {
				if _, err := l.Append(b.Context(), fixed(newSnapshot())); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// listsLate lists a key that is not there any more.
type listsLate struct {
	backend.Backend
	key    backend.Key
	listed bool
}

func (b *listsLate) List(ctx context.Context, prefix backend.Key) iter.Seq2[backend.Info, error] {
	return func(yield func(backend.Info, error) bool) {
		if strings.HasPrefix(string(b.key), string(prefix)) {
			b.listed = true
			if !yield(backend.Info{Key: b.key, Size: 1}, nil) {
				return
			}
		}
		b.Backend.List(ctx, prefix)(yield)
	}
}

package log

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/backend/fault"
	"github.com/cairn-backup/cairn/engine/internal/layout"
	"github.com/cairn-backup/cairn/manifest"
)

// visible returns the snapshots of a log, in commit order.
func visible(l *Log) []manifest.ID {
	var ids []manifest.ID
	_ = l.View(func(s *State) error {
		for info := range s.Snapshots() {
			ids = append(ids, info.Summary.ID)
		}
		return nil
	})
	return ids
}

func encoded(t *testing.T, l *Log) string {
	t.Helper()
	var p []byte
	err := l.View(func(s *State) (err error) {
		p, err = marshalState(s)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(p)
}

// N logs append at the same time: every effect is there exactly once, in one
// order that all see, and pack numbers are unique.
func TestConcurrentAppends(t *testing.T) {
	r := newRig()
	const writers, each = 8, 40
	var mu sync.Mutex
	var want []manifest.ID
	var logs []*Log
	var wg sync.WaitGroup
	for range writers {
		// On a busy machine a turn among so many takes longer than the default here.
		l := r.open(t, func(o *Options) { o.Settle = time.Minute })
		logs = append(logs, l)
		for range 2 { // two users of one Log
			wg.Go(func() {
				for range each / 2 {
					id, _ := backUp(t, l, 2)
					mu.Lock()
					want = append(want, id)
					mu.Unlock()
				}
			})
		}
	}
	wg.Wait()
	fresh := r.open(t)
	got := visible(fresh)
	sorted := func(ids []manifest.ID) []manifest.ID {
		return slices.SortedFunc(slices.Values(ids), func(a, b manifest.ID) int { return slices.Compare(a[:], b[:]) })
	}
	if !slices.Equal(sorted(got), sorted(want)) || fresh.Head().N != writers*each {
		t.Fatalf("%d snapshots at record %d, want %d", len(got), fresh.Head().N, len(want))
	}
	for i, l := range logs {
		if err := l.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		if encoded(t, l) != encoded(t, fresh) {
			t.Errorf("log %d has another state", i)
		}
	}
	_ = fresh.View(func(s *State) error {
		if !s.Live().Equal(Ranges{{1, 2 * writers * each}}) {
			t.Errorf("live packs %v", s.Live())
		}
		return nil
	})
	if n := len(fresh.Ignored()); n != 0 {
		t.Errorf("%d effects ignored", n)
	}
}

func TestFaultsOfPut(t *testing.T) {
	lost := errors.New("the reply was lost")
	for _, tt := range []struct {
		name   string
		rule   fault.Rule
		want   error // nil: done
		stored bool
	}{
		{"before, once", fault.Rule{Op: fault.Put, Count: 1, Err: lost}, nil, true},
		{"after, once", fault.Rule{Op: fault.Put, Count: 1, LostReply: lost}, nil, true},
		{"unknown, stored", fault.Rule{Op: fault.Put, Count: 1, LostReply: backend.ErrUnknownOutcome}, nil, true},
		{"unknown, not stored", fault.Rule{Op: fault.Put, Count: 2, Err: backend.ErrUnknownOutcome}, nil, true},
		{"before, for good", fault.Rule{Op: fault.Put, Err: lost}, ErrUnknownOutcome, false},
		{"after, for good", fault.Rule{Op: fault.Put, LostReply: lost}, nil, true},
		{"full", fault.Rule{Op: fault.Put, Err: backend.ErrNoSpace}, backend.ErrNoSpace, false},
		{"full, but stored", fault.Rule{Op: fault.Put, LostReply: backend.ErrNoSpace}, nil, true},
		{"read-only", fault.Rule{Op: fault.Put, Err: backend.ErrReadOnly}, backend.ErrReadOnly, false},
		{"unauthorized", fault.Rule{Op: fault.Put, Err: backend.ErrUnauthorized}, backend.ErrUnauthorized, false},
		{"away for good", fault.Rule{Op: fault.Put, Err: backend.ErrUnavailable}, backend.ErrUnavailable, false},
		{"away, once", fault.Rule{Op: fault.Put, Count: 1, Err: backend.ErrUnavailable}, nil, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig()
			backUp(t, r.open(t), 1)
			faults := fault.New(r.mem)
			l := r.open(t, r.on(faults))
			tt.rule.Prefix = layout.Records
			faults.Add(tt.rule)
			builds := 0
			snap := newSnapshot(1)
			pos, err := l.Append(t.Context(), func(*State) ([]Effect, error) {
				builds++
				return []Effect{snap}, nil
			})
			if !errors.Is(err, tt.want) || tt.want == nil && err != nil {
				t.Fatalf("Append = %v, want %v", err, tt.want)
			}
			if tt.want != nil && !errors.Is(tt.want, ErrUnknownOutcome) && errors.Is(err, ErrUnknownOutcome) {
				t.Errorf("Append = %v, which hides that nothing is visible", err)
			}
			if tt.want == nil && pos != (Position{2, pos.Hash}) || builds != 1 {
				t.Errorf("record %d after %d builds", pos.N, builds)
			}
			faults.Clear()
			if err := l.Refresh(t.Context()); err != nil {
				t.Fatal(err)
			}
			if n := len(visible(l)); (n == 2) != tt.stored || len(visible(r.open(t))) != n {
				t.Errorf("%d snapshots are visible, stored is %v", n, tt.stored)
			}
			backUp(t, l, 1)
		})
	}
}

// A lost reply and a rival at the same time: the record that lost the place is
// built again, and is there once.
func TestLostReplyAndRival(t *testing.T) {
	r := newRig()
	faults := fault.New(r.mem)
	l, rival := r.open(t, r.on(faults)), r.open(t)
	builds := 0
	id := manifest.NewID()
	pos, err := l.Append(t.Context(), func(s *State) ([]Effect, error) {
		if builds++; builds == 1 {
			backUp(t, rival, 3)
			backUp(t, rival, 3)
			// The next Put of ours, at the third place, is stored and its
			// answer is lost.
			faults.Add(fault.Rule{Op: fault.Put, Prefix: layout.Record(3), Count: 1, LostReply: errors.New("lost")})
		}
		snap := newSnapshot(s.NextPack())
		snap.Summary.ID = id
		return []Effect{Add{Packs: []PackInfo{newPack()}}, snap}, nil
	})
	if err != nil || pos.N != 3 || builds != 2 {
		t.Fatalf("record %d after %d builds: %v", pos.N, builds, err)
	}
	_ = r.open(t).View(func(s *State) error {
		if info, ok := s.Snapshot(id); !ok || !info.Needs.Equal(Ranges{{7, 7}}) || s.SnapshotCount() != 3 {
			t.Errorf("snapshot %v %+v of %d", ok, info, s.SnapshotCount())
		}
		return nil
	})
}

// R1: a Log whose head is no longer in the store appends nothing, although the
// place behind it is free.
func TestAppendReadsTheHead(t *testing.T) {
	r := newRig()
	l := r.open(t)
	backUp(t, l, 1)
	backUp(t, l, 1)
	remove(t, r, 2)
	_, err := l.Append(t.Context(), fixed(newSnapshot()))
	if !errors.Is(err, ErrRolledBack) || !errors.Is(err, ErrReadOnlyLog) {
		t.Fatalf("Append = %v, want ErrRolledBack", err)
	}
	if got := objects(t, r, layout.Records); len(got) != 1 {
		t.Fatalf("the store holds %v", got)
	}
	if _, err := l.Append(t.Context(), fixed(newSnapshot())); !errors.Is(err, ErrReadOnlyLog) {
		t.Errorf("second Append = %v", err)
	}
	if err := l.Refresh(t.Context()); !errors.Is(err, ErrRolledBack) {
		t.Errorf("Refresh = %v", err)
	}
}

// What does not hold in an old state is not refused before the newest is read.
func TestAppendReadsOnBeforeItRefuses(t *testing.T) {
	r := newRig()
	l, other := r.open(t), r.open(t)
	for range 100 {
		backUp(t, other, 1)
	}
	id := visible(other)[70]
	pos, err := l.Append(t.Context(), fixed(Forget{IDs: []manifest.ID{id}}))
	if err != nil || pos.N != 101 {
		t.Fatalf("Append = %v, %v", pos, err)
	}
	missing := errors.New("missing")
	pos, err = other.Append(t.Context(), func(s *State) ([]Effect, error) {
		if _, ok := s.ForgottenSnapshot(id); !ok {
			return nil, missing
		}
		return []Effect{Undelete{IDs: []manifest.ID{id}}}, nil
	})
	if err != nil || pos.N != 102 {
		t.Fatalf("Append = %v, %v", pos, err)
	}
}

func TestRely(t *testing.T) {
	r := newRig()
	l, collector := r.open(t), r.open(t)
	_, parent := backUp(t, l, 2)
	first := visible(l)[0]
	if err := collector.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}

	t.Run("needs of a doomed pack", func(t *testing.T) {
		mustAppend(t, collector, Forget{IDs: []manifest.ID{first}}, Doom{Packs: parent})
		before := len(objects(t, r, ""))
		for name, e := range map[string]Effect{
			"snapshot": Snapshot{Summary: newSnapshot().Summary, Needs: parent},
			"session":  Session{ID: [16]byte{1}, Needs: parent},
			"unknown":  Snapshot{Summary: newSnapshot().Summary, Needs: Ranges{{1000, 1000}}},
			"next":     Snapshot{Summary: newSnapshot().Summary, Needs: Ranges{{3, 3}}},
		} {
			_, err := l.Append(t.Context(), fixed(e))
			var ee *EffectError
			if !errors.Is(err, ErrConflict) || !errors.As(err, &ee) {
				t.Errorf("%s: Append = %v, want ErrConflict", name, err)
			}
		}
		if n := len(objects(t, r, "")); n != before {
			t.Errorf("%d objects were written", n-before)
		}
	})
	t.Run("own pack doomed in flight", func(t *testing.T) {
		p := newPack()
		seg := [16]byte{44}
		mustAppend(t, collector, Doom{Objects: []backend.Key{layout.Pack(p.ID), layout.Segment(seg)}})
		if l.DoomedSince(p.ID) {
			t.Error("doomed before it was read")
		}
		_, err := l.Append(t.Context(), func(s *State) ([]Effect, error) {
			return []Effect{Add{Packs: []PackInfo{p}}, newSnapshot(s.NextPack())}, nil
		})
		if !errors.Is(err, ErrConflict) || !l.DoomedSince(p.ID) || !collector.DoomedSince(p.ID) {
			t.Errorf("Append = %v, DoomedSince %v", err, l.DoomedSince(p.ID))
		}
		// Who opened the log later, and read no Doom, knows it from the state.
		dir := t.TempDir()
		if err := r.open(t, in(dir)).Close(); err != nil {
			t.Fatal(err)
		}
		for _, e := range []Effect{
			Add{Packs: []PackInfo{p}}, Add{Segments: []SegmentInfo{{ID: seg}}},
		} {
			later := r.open(t, in(dir))
			if _, err := later.Append(t.Context(), fixed(e)); !errors.Is(err, ErrConflict) || later.DoomedSince(p.ID) {
				t.Errorf("a later Log: Append = %v", err)
			}
		}
		// The collector says that it is done: the state forgets the Doom, the
		// Log does not, since the pack is gone.
		mustAppend(t, collector, Doom{Deleted: collector.Head().N})
		if err := l.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		_ = l.View(func(s *State) error {
			for d := range s.Doomed() {
				t.Errorf("%s is still doomed", d.Key)
			}
			return nil
		})
		_, err = l.Append(t.Context(), func(s *State) ([]Effect, error) {
			return []Effect{Add{Packs: []PackInfo{p}}, newSnapshot(s.NextPack())}, nil
		})
		if !errors.Is(err, ErrConflict) {
			t.Errorf("after Deleted: Append = %v, want ErrConflict", err)
		}
		if _, err := l.Append(t.Context(), fixed(Add{Segments: []SegmentInfo{{ID: seg}}})); !errors.Is(err, ErrConflict) {
			t.Errorf("after Deleted: Append of a segment = %v, want ErrConflict", err)
		}
	})
	t.Run("build sees mapped needs", func(t *testing.T) {
		id, old := backUp(t, l, 2)
		tries := 0
		_, err := l.Append(t.Context(), func(s *State) ([]Effect, error) {
			if tries++; tries == 1 {
				repack(t, collector, old)
			}
			info, _ := s.Snapshot(id)
			return []Effect{Snapshot{Summary: newSnapshot().Summary, Needs: info.Needs}}, nil
		})
		if err != nil || tries != 2 {
			t.Fatalf("%d tries: %v", tries, err)
		}
		_ = l.View(func(s *State) error {
			for info := range s.Snapshots() {
				if info.Needs.Intersects(old) || len(s.Dead(info.Needs)) > 0 || info.Needs.Count() != 1 {
					t.Errorf("needs %v after the repack", info.Needs)
				}
			}
			return nil
		})
	})
}

// repack moves the chunks of packs to one new pack.
func repack(t *testing.T, l *Log, packs Ranges) {
	t.Helper()
	if err := l.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, err := l.Append(t.Context(), func(s *State) ([]Effect, error) {
		d := Doom{Packs: packs}
		for n := range packs.All() {
			d.Successors = append(d.Successors, Successor{Pack: n, By: RangesOf([]uint64{s.NextPack()})})
		}
		return []Effect{Add{Packs: []PackInfo{newPack()}}, d}, nil
	})
	if err != nil {
		t.Fatalf("repack: %v", err)
	}
}

func TestRoles(t *testing.T) {
	r := newRig()
	admin := r.open(t)
	id, needs := backUp(t, admin, 1)
	mustAppend(t, admin, Session{ID: [16]byte{5}, Needs: needs})
	signer := func(s *Signer) func(*Options) { return func(o *Options) { o.Signer = s } }
	writer := NewSigner([32]byte{3}, Writer)
	keeper := NewSigner([32]byte{2}, Keeper)
	stranger := NewSigner([32]byte{42}, allRoles)
	pin := true
	for _, tt := range []struct {
		name   string
		signer *Signer
		effect Effect
		want   error
	}{
		{"writer snapshot", writer, newSnapshot(1), nil},
		{"writer forget", writer, Forget{IDs: []manifest.ID{id}}, ErrRole},
		{"writer claims more", NewSigner([32]byte{3}, allRoles), Forget{IDs: []manifest.ID{id}}, ErrRole},
		{"admin key as writer", NewSigner([32]byte{1}, Writer), Forget{IDs: []manifest.ID{id}}, ErrRole},
		{"writer doom", writer, Doom{Objects: []backend.Key{layout.Pack([16]byte{1})}}, ErrRole},
		{"writer end of another's", writer, End{Session: [16]byte{5}}, ErrRole},
		{"writer session of another's", writer, Session{ID: [16]byte{5}}, ErrRole},
		{"writer end of none", writer, End{Session: [16]byte{6}}, nil},
		{"writer annotate", writer, Annotate{ID: id, Pin: &pin}, nil},
		{"writer key", writer, Key{Public: stranger.Public(), Roles: Writer}, ErrRole},
		{"writer feature", writer, Feature{Name: "x"}, ErrRole},
		{"keeper snapshot", keeper, newSnapshot(1), ErrRole},
		{"keeper add", keeper, Add{Packs: []PackInfo{newPack()}}, ErrRole},
		{"keeper session", keeper, Session{ID: [16]byte{8}}, ErrRole},
		{"keeper damage", keeper, Damage{Pack: 1, Blocks: Ranges{{0, 0}}}, ErrRole},
		{"keeper end", keeper, End{Session: [16]byte{5}}, nil},
		{"keeper forget", keeper, Forget{IDs: []manifest.ID{id}}, nil},
		{"keeper undelete", keeper, Undelete{IDs: []manifest.ID{id}}, nil},
		{"stranger", stranger, newSnapshot(1), ErrLogDamaged},
		{"admin lets stranger in", NewSigner([32]byte{1}, allRoles), Key{Public: stranger.Public(), Roles: Writer}, nil},
		{"stranger as writer", stranger, newSnapshot(1), nil},
		{"stranger forget", stranger, Forget{IDs: []manifest.ID{id}}, ErrRole},
		{"admin revokes", NewSigner([32]byte{1}, allRoles), Key{Public: stranger.Public()}, nil},
		{"last admin", NewSigner([32]byte{1}, allRoles), Key{Public: NewSigner([32]byte{1}, 0).Public(), Roles: Writer}, ErrConflict},
		{"unknown role", NewSigner([32]byte{1}, allRoles), Key{Public: stranger.Public(), Roles: 64}, ErrConflict},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := r.open(t, signer(tt.signer))
			before := l.Head()
			_, err := l.Append(t.Context(), fixed(tt.effect))
			if !errors.Is(err, tt.want) || tt.want == nil && err != nil {
				t.Fatalf("Append = %v, want %v", err, tt.want)
			}
			if head := r.open(t).Head(); (head != before) != (tt.want == nil) {
				t.Errorf("head was %d and is %d", before.N, head.N)
			}
		})
	}
}

// Another program may write what ours refuses: replay leaves it out, reports
// it, and goes on.
func TestReplayIgnores(t *testing.T) {
	r := newRig()
	l := r.open(t)
	id, needs := backUp(t, l, 1)
	writer := NewSigner([32]byte{3}, Writer)
	good := newSnapshot(1)
	forge(t, r, writer, l.Head(), Forget{IDs: []manifest.ID{id}}, good, Doom{Packs: needs}, newSnapshot(77))
	l = r.open(t)
	ignored := l.Ignored()
	if len(ignored) != 3 || !errors.Is(&ignored[0], ErrRole) || !errors.Is(&ignored[1], ErrRole) || !errors.Is(&ignored[2], ErrConflict) {
		t.Fatalf("ignored %+v", ignored)
	}
	if got := visible(l); !slices.Equal(got, []manifest.ID{id, good.Summary.ID}) {
		t.Errorf("visible %v", got)
	}
	// Numbers of packs that were left out are used up: what follows in the
	// record counted on them.
	forge(t, r, NewSigner([32]byte{2}, Keeper), l.Head(), Add{First: 2, Packs: []PackInfo{newPack(), newPack()}})
	l = r.open(t)
	_, fresh := backUp(t, l, 1)
	if !fresh.Equal(Ranges{{4, 4}}) {
		t.Errorf("the next pack got number %v", fresh)
	}
}

// forge stores a record without any checks of effects.
func forge(t *testing.T, r *rig, s *Signer, head Position, effects ...Effect) Position {
	t.Helper()
	rec := Record{N: head.N + 1, Prev: head.Hash, Nonce: [16]byte(manifest.NewID()), Time: time.Unix(0, 0), Effects: effects}
	object, err := sealRecord(r.opts.Meta, r.opts.Repository, s, rec)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.mem.Put(t.Context(), layout.Record(rec.N), object); err != nil {
		t.Fatal(err)
	}
	return Position{rec.N, HashOf(object)}
}

func TestAppendRefuses(t *testing.T) {
	r := newRig()
	l := r.open(t)
	id, needs := backUp(t, l, 2)
	seg := SegmentInfo{ID: [16]byte{1}, Size: 1, Packs: needs}
	mustAppend(t, l, Add{Segments: []SegmentInfo{seg}})
	_ = l.View(func(s *State) error {
		if got, ok := s.Segment(seg.ID); !ok || !got.Packs.Equal(needs) {
			t.Errorf("segment %v %v", got, ok)
		}
		return nil
	})
	known, _ := packAt(l, 1)
	wrong := newPack()
	wrong.ID[0]++
	for name, effects := range map[string][]Effect{
		"same snapshot":             {Snapshot{Summary: manifest.Summary{ID: id, Kind: "files"}}},
		"forget twice":              {Forget{IDs: []manifest.ID{id, id}}},
		"forget unknown":            {Forget{IDs: []manifest.ID{manifest.NewID()}}},
		"undelete visible":          {Undelete{IDs: []manifest.ID{id}}},
		"annotate unknown":          {Annotate{ID: manifest.NewID()}},
		"doom what is needed":       {Doom{Packs: needs}},
		"doom unknown":              {Doom{Packs: Ranges{{50, 50}}}},
		"doom a live key":           {Doom{Objects: []backend.Key{layout.Pack(known.ID)}}},
		"doom the log":              {Doom{Objects: []backend.Key{layout.Record(1)}}},
		"doom config":               {Doom{Objects: []backend.Key{layout.Config}}},
		"doom unknown segment":      {Doom{Segments: [][16]byte{{9}}}},
		"successor not live":        {Doom{Packs: needs, Successors: []Successor{{1, Ranges{{9, 9}}}, {2, Ranges{{9, 9}}}}}},
		"successor doomed":          {Doom{Packs: needs, Successors: []Successor{{1, Ranges{{2, 2}}}, {2, Ranges{{1, 1}}}}}},
		"successor of what is not":  {Doom{Packs: Ranges{{1, 1}}, Successors: []Successor{{2, Ranges{{2, 2}}}}}},
		"deleted in the future":     {Doom{Deleted: 99}},
		"same pack":                 {Add{Packs: []PackInfo{known}}},
		"pack twice":                {Add{Packs: []PackInfo{wrong, wrong}}},
		"pack with another salt":    {Add{Packs: []PackInfo{wrong}}},
		"same segment":              {Add{Segments: []SegmentInfo{seg}}},
		"segment of a dead pack":    {Add{Segments: []SegmentInfo{{ID: [16]byte{2}, Packs: Ranges{{9, 9}}}}}},
		"damage of a dead pack":     {Damage{Pack: 9, Blocks: Ranges{{0, 0}}}},
		"repaired":                  {Repaired{N: 2}},
		"session without id":        {Session{}},
		"second effect":             {newSnapshot(1), newSnapshot(9)},
		"forget, then need nothing": {Forget{IDs: []manifest.ID{id}}, Annotate{ID: id}},
	} {
		if _, err := l.Append(t.Context(), fixed(effects...)); !errors.Is(err, ErrConflict) {
			t.Errorf("%s: Append = %v, want ErrConflict", name, err)
		}
	}
	if head := r.open(t).Head(); head.N != 2 {
		t.Errorf("the log is at record %d", head.N)
	}
	if _, err := l.Append(t.Context(), fixed(Feature{Name: string([]byte{0xff})})); err == nil {
		t.Error("text that is not UTF-8 was written")
	}
	own := errors.New("own")
	if _, err := l.Append(t.Context(), func(*State) ([]Effect, error) { return nil, own }); !errors.Is(err, own) {
		t.Errorf("Append = %v, want build's error", err)
	}
	if pos, err := l.Append(t.Context(), fixed()); err != nil || pos != l.Head() || pos.N != 2 {
		t.Errorf("Append of nothing = %v, %v", pos, err)
	}
	_, err := l.Append(t.Context(), fixed(Snapshot{Summary: newSnapshot().Summary, Body: make([]byte, 17<<20)}))
	if !errors.Is(err, ErrTooLarge) {
		t.Errorf("Append of 17 MiB = %v", err)
	}
	if err := l.Problem(); err != nil {
		t.Errorf("Problem after refusals: %v", err)
	}
	backUp(t, l, 1)
}

func packAt(l *Log, n uint64) (p PackInfo, ok bool) {
	_ = l.View(func(s *State) error {
		p, ok = s.Pack(n)
		return nil
	})
	return p, ok
}

func TestReadOnly(t *testing.T) {
	r := newRig()
	backUp(t, r.open(t), 1)
	dir := t.TempDir()
	for name, change := range map[string]func(*Options){
		"option":    func(o *Options) { o.ReadOnly, o.Dir = true, dir },
		"no signer": func(o *Options) { o.Signer = nil },
	} {
		l := r.open(t, change)
		if _, err := l.Append(t.Context(), fixed(newSnapshot(1))); !errors.Is(err, ErrReadOnlyLog) {
			t.Errorf("%s: Append = %v", name, err)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if err := l.Refresh(t.Context()); !errors.Is(err, ErrClosed) {
			t.Errorf("%s: Refresh after Close = %v", name, err)
		}
	}
	if got := objects(t, r, ""); len(got) != 1 {
		t.Errorf("the store holds %v", got)
	}
	if known := (&Log{opts: Options{Dir: dir, Meta: r.opts.Meta, Repository: r.opts.Repository}}).loadLocal(); known != nil {
		t.Error("local state was written")
	}
}

// A disk that lost what was written does not get it back by waiting. What is not
// known then is said at once, and so is that nothing was stored.
func TestUndurableIsNotWaitedFor(t *testing.T) {
	lost := &backend.TroubleError{Cause: backend.Undurable, Err: errors.New("fsync: input/output error")}
	for _, tc := range []struct {
		name    string
		rule    fault.Rule
		unknown bool
	}{
		{"stored", fault.Rule{LostReply: fmt.Errorf("%w: %w", backend.ErrUnknownOutcome, lost)}, true},
		{"refused", fault.Rule{Err: lost}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig()
			faults := fault.New(r.mem)
			tc.rule.Op, tc.rule.Prefix = fault.Put, layout.Records
			faults.Add(tc.rule)
			l := r.open(t, r.on(faults), func(o *Options) { o.Settle = time.Hour })
			_, err := l.Append(t.Context(), fixed(newSnapshot()))
			if trouble, ok := errors.AsType[*backend.TroubleError](err); !ok || trouble.Cause != backend.Undurable {
				t.Fatalf("Append = %v, want that it is not durable", err)
			}
			if got := errors.Is(err, ErrUnknownOutcome); got != tc.unknown {
				t.Errorf("Append = %v: unknown is %v, want %v", err, got, tc.unknown)
			}
			if got := len(objects(t, r, layout.Records)); (got > 0) != tc.unknown {
				t.Errorf("%d records are stored", got)
			}
		})
	}
}

func TestCancel(t *testing.T) {
	r := newRig()
	faults := fault.New(r.mem)
	l := r.open(t, r.on(faults))
	t.Run("before the record is sent", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		_, err := l.Append(ctx, func(*State) ([]Effect, error) {
			cancel()
			return []Effect{newSnapshot()}, nil
		})
		if !errors.Is(err, context.Canceled) || len(objects(t, r, "")) != 0 {
			t.Fatalf("Append = %v, store %v", err, objects(t, r, ""))
		}
	})
	t.Run("while it is sent", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		gate := fault.NewGate()
		faults.Add(fault.Rule{Op: fault.Put, Prefix: layout.Records, Count: 1, Gate: gate})
		go func() {
			<-gate.Arrived()
			cancel()
			gate.Release()
		}()
		pos, err := l.Append(ctx, fixed(newSnapshot()))
		if err != nil || pos.N != 1 {
			t.Fatalf("Append = %v, %v: a record that was stored is not reported", pos, err)
		}
	})
	t.Run("while the store is away", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		faults.Add(fault.Rule{Op: fault.Put, Prefix: layout.Records, Err: backend.ErrUnavailable})
		defer faults.Clear()
		l := r.open(t, r.on(faults), func(o *Options) { o.Settle = time.Hour })
		_, err := l.Append(ctx, fixed(newSnapshot()))
		if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, backend.ErrUnavailable) || errors.Is(err, ErrUnknownOutcome) {
			t.Fatalf("Append = %v", err)
		}
	})
	t.Run("waiting for another", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := l.Refresh(ctx); !errors.Is(err, context.Canceled) {
			t.Fatalf("Refresh = %v", err)
		}
	})
}

// Whatever the write at which the process dies, the next one finds a whole log
// in which the record is there or not, and can go on.
func TestCrashAtEveryWrite(t *testing.T) {
	for _, mode := range []struct {
		name  string
		crash func(backend.Backend, int) *fault.CrashBackend
	}{{"before", fault.Crash}, {"after", fault.CrashAfter}} {
		t.Run(mode.name, func(t *testing.T) {
			base := newRig()
			for range checkpointEvery - 2 { // so that a checkpoint falls into it
				forgeNext(t, base)
			}
			for n := 0; ; n++ {
				r := base.copy(t)
				crash := mode.crash(r.mem, n)
				l := r.open(t, r.on(crash), func(o *Options) { o.Settle = 20 * time.Millisecond })
				done := 0
				for range 3 {
					if _, err := l.Append(t.Context(), fixed(newSnapshot())); err != nil {
						if !errors.Is(err, fault.ErrInjected) {
							t.Fatalf("crash %d: %v", n, err)
						}
						break
					}
					done++
				}
				after := r.open(t)
				if got := len(visible(after)) - (checkpointEvery - 2); got < done || got > done+1 {
					t.Fatalf("crash %d: %d records are there, %d were reported", n, got, done)
				}
				backUp(t, after, 1)
				if found, err := r.open(t).Verify(t.Context()); err != nil || len(found) > 0 {
					t.Fatalf("crash %d: Verify: %v, %v", n, found, err)
				}
				if !crash.Crashed() {
					if n < 4 {
						t.Fatalf("only %d writes", n)
					}
					return
				}
			}
		})
	}
}

// forgeNext appends a snapshot without a checkpoint and at little cost.
func forgeNext(t *testing.T, r *rig) {
	t.Helper()
	head := Position{Hash: r.opts.Genesis}
	if r.last != nil {
		head = *r.last
	}
	pos := forge(t, r, r.opts.Signer, head, newSnapshot())
	r.last = &pos
}

func TestSignerPrintsNothing(t *testing.T) {
	s := NewSigner([32]byte{0xab, 0xcd}, allRoles)
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%d", "%x"} {
		for _, v := range []any{s, *s, Options{Signer: s}.Signer} {
			if got := fmt.Sprintf(format, v); got != "log.Signer(redacted)" {
				t.Errorf("%s: %q", format, got)
			}
		}
	}
	if s.Public() != NewSigner([32]byte{0xab, 0xcd}, 0).Public() || s.Public() == ([32]byte{}) {
		t.Error("public key")
	}
}

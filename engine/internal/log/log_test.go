package log

import (
	"testing"
)

func TestAppendAndOpen(t *testing.T) {
	r := newRig()
	l := r.open(t)
	if l.Head() != (Position{Hash: r.opts.Genesis}) {
		t.Fatalf("empty log: head %v", l.Head())
	}
	id, needs := backUp(t, l, 3)
	l2 := r.open(t)
	if l2.Head() != l.Head() || l.Head().N != 1 {
		t.Fatalf("heads %v and %v", l.Head(), l2.Head())
	}
	_ = l2.View(func(s *State) error {
		info, ok := s.Snapshot(id)
		if !ok || !info.Needs.Equal(needs) || info.N != 1 {
			t.Errorf("snapshot %v: %+v", ok, info)
		}
		if !s.Live().Equal(needs) || s.NextPack() != 4 {
			t.Errorf("live %v, next %d", s.Live(), s.NextPack())
		}
		return nil
	})
	backUp(t, l2, 1)
	backUp(t, l, 1)
	if err := l2.Refresh(t.Context()); err != nil || l2.Head() != l.Head() || l.Head().N != 3 {
		t.Fatalf("Refresh: %v, heads %v and %v", err, l.Head(), l2.Head())
	}
}

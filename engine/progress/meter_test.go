package progress

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestMeterTicksAtMostTenASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var times []time.Time
		m := NewMeter(func(e Event) {
			if _, ok := e.(Tick); ok {
				times = append(times, time.Now())
			}
		})
		for range 3000 {
			m.AddBytes(1)
			time.Sleep(time.Millisecond)
		}
		m.AddBytes(1)
		m.Finish(nil)
		if len(times) < 20 {
			t.Errorf("%d ticks in three seconds, want about 24", len(times))
		}
		for i := range times {
			if i >= 10 && times[i].Sub(times[i-10]) < time.Second {
				t.Fatalf("ticks %d to %d lie within %v", i-10, i, times[i].Sub(times[i-10]))
			}
		}
	})
}

func TestMeterIsQuietWhileNothingHappens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		events := 0
		m := NewMeter(func(Event) { events++ })
		m.AddFiles(1)
		time.Sleep(time.Hour)
		m.Finish(nil)
		if events != 2 {
			t.Errorf("%d events, want one tick and Finished", events)
		}
	})
}

// TestMeterUnderConcurrency holds every promise of Func at once.
func TestMeterUnderConcurrency(t *testing.T) {
	var inside atomic.Int32
	var last Tick
	problems, finished := 0, 0
	m := NewMeter(func(e Event) {
		if inside.Add(1) != 1 {
			t.Error("calls overlap")
		}
		defer inside.Add(-1)
		if finished > 0 {
			t.Errorf("%T after Finished", e)
		}
		switch e := e.(type) {
		case Tick:
			if e.Bytes.Done < last.Bytes.Done || e.Files.Done < last.Files.Done || e.Bytes.Total < last.Bytes.Total || e.New < last.New {
				t.Errorf("a number shrank: %+v after %+v", e, last)
			}
			last = e
		case Problem:
			problems++
		case Finished:
			finished++
		}
	})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 1000 {
				m.SetPhase(Read)
				m.AddFiles(1)
				m.AddBytes(10)
				m.AddBytes(-5)
				m.AddBytesTotal(1)
				if i%100 == 0 {
					m.Problem("p", Changed, nil)
				}
			}
		})
	}
	wg.Wait()
	m.Finish(nil)
	m.Finish(errors.New("second"))
	m.Problem("late", Changed, nil)
	m.AddFiles(1)
	if problems != 80 || finished != 1 {
		t.Errorf("%d problems and %d Finished, want 80 and 1", problems, finished)
	}
	want := Tick{Phase: Read, Files: Count{Done: 8000}, Bytes: Count{Done: 80000, Total: 80000}}
	if last != want {
		t.Errorf("last tick %+v, want %+v", last, want)
	}
}

func TestMeterFinishCarriesTheError(t *testing.T) {
	boom := errors.New("boom")
	var got error
	m := NewMeter(func(e Event) {
		if f, ok := e.(Finished); ok {
			got = f.Err
		}
	})
	m.Finish(boom)
	if !errors.Is(got, boom) {
		t.Errorf("Finished carries %v", got)
	}
}

func TestMeterWithoutFuncStillCounts(t *testing.T) {
	m := NewMeter(nil)
	m.AddRequests(2)
	m.AddRetries(1)
	m.AddStored(7)
	m.AddFilesTotal(5)
	m.Problem("p", Unreadable, nil)
	m.Finish(nil)
	m.SetTraffic(func() (requests, retries int64) { return 40, 10 })
	want := Tick{Files: Count{Total: 5}, Requests: 42, Retries: 11, Stored: 7}
	if got := m.Tick(); got != want {
		t.Errorf("Tick() = %+v, want %+v", got, want)
	}
}

func BenchmarkMeter(b *testing.B) {
	m := NewMeter(func(Event) {})
	defer m.Finish(nil)
	b.ReportAllocs()
	for b.Loop() {
		m.AddBytes(1)
	}
}

package backendtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cairn-backup/cairn/backend"
)

// race lets creators race for each of many keys, half of them through another
// opening of the store, and looks for the one winner.
func (s *suite) race() {
	stores := []backend.Backend{s.open(), s.open()}
	for k := range s.RacedKeys {
		key := backend.Key(fmt.Sprintf("log/%020d", k))
		errs := make([]error, s.RacingCreators)
		bodies := make([][]byte, s.RacingCreators)
		start := make(chan struct{})
		var wg sync.WaitGroup
		for i := range errs {
			// The sizes differ, so that a mixture of two is seen.
			bodies[i] = random(uint64(k*len(errs)+i), 100+i)
			wg.Go(func() {
				<-start
				errs[i] = stores[i%2].Put(s.Context(), key, bodies[i])
			})
		}
		close(start)
		wg.Wait()

		winner, winners := 0, 0
		for i, err := range errs {
			switch {
			case err == nil:
				winner, winners = i, winners+1
			case !errors.Is(err, backend.ErrExist):
				s.Fatalf("Put(%s) by racer %d = %v, want nil or ErrExist", key, i, err)
			}
		}
		if winners != 1 {
			s.Fatalf("%d racers for %s: %d winners, want 1", len(errs), key, winners)
		}
		s.want(stores[k%2], key, bodies[winner])
	}
}

// atomic reads an object again and again while it is put: it is whole or it is
// not there, and once there it stays.
func (s *suite) atomic() {
	b := s.open()
	for k := range 8 {
		key := backend.Key(fmt.Sprintf("packs/%d", k))
		data := random(uint64(k), s.LargeObject/8)
		done := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() { s.watch(b, key, data, done) })
		wg.Go(func() {
			defer close(done)
			if err := b.Put(s.Context(), key, data); err != nil {
				s.Errorf("Put(%s) = %v", key, err)
			}
		})
		wg.Wait()
	}
}

func (s *suite) watch(b backend.Backend, key backend.Key, data []byte, done <-chan struct{}) {
	seen := false
	for last := false; !last; {
		select {
		case <-done:
			last = true // one more look
		default:
		}
		got, err := get(s.Context(), b, key, 0, -1)
		switch {
		case errors.Is(err, backend.ErrNotExist) && !seen && !last:
		case err != nil:
			s.Errorf("Get(%s) while it is put = %v (seen before: %t, put done: %t)", key, err, seen, last)
			return
		case !bytes.Equal(got, data):
			s.Errorf("Get(%s) while it is put = %s, want %s", key, brief(got), brief(data))
			return
		default:
			seen = true
		}
	}
}

// cancelledMidway cancels Puts after a while that grows: each leaves the whole
// object or nothing, and nil means whole.
func (s *suite) cancelledMidway() {
	b := s.open()
	data := random(9, s.LargeObject/4)
	var whole []backend.Key
	soon := make(map[backend.Key]bool) // may still come
	for i := range 20 {
		key := backend.Key(fmt.Sprintf("packs/%02d", i))
		ctx, cancel := context.WithTimeout(s.Context(), time.Duration(i*i)*100*time.Microsecond)
		putErr := b.Put(ctx, key, data)
		cancel()
		if putErr != nil {
			s.wantErr("Put, cut off", putErr, context.DeadlineExceeded)
		}
		got, err := get(s.Context(), s.open(), key, 0, -1)
		switch {
		case err == nil && bytes.Equal(got, data):
			whole = append(whole, key)
			if putErr != nil && !errors.Is(putErr, backend.ErrUnknownOutcome) {
				s.Errorf("Put(%s), cut off = %v, and the object is there", key, putErr)
			}
		case errors.Is(err, backend.ErrNotExist) && putErr != nil:
			soon[key] = errors.Is(putErr, backend.ErrUnknownOutcome)
		default:
			s.Errorf("Put(%s), cut off = %v; Get then = %s, %v", key, putErr, brief(got), err)
		}
	}
	var listed []backend.Key
	for info, err := range b.List(s.Context(), "") {
		if err != nil {
			s.Fatalf("List = %v", err)
		}
		// An object whose outcome was unknown may have come meanwhile, whole.
		if soon[info.Key] {
			s.want(b, info.Key, data)
			continue
		}
		listed = append(listed, info.Key)
	}
	if !slices.Equal(listed, whole) {
		s.Errorf("List yields %q, want %q", listed, whole)
	}
}

// mixed has several goroutines do everything at once, each on keys of its own
// and all in one listing, and compares with what each knows.
func (s *suite) mixed() {
	const workers, steps = 8, 60
	b := s.open()
	models := make([]map[backend.Key][]byte, workers)
	var stop atomic.Bool
	var lister, wg sync.WaitGroup
	lister.Go(func() {
		for !stop.Load() {
			var prev backend.Key
			for info, err := range b.List(s.Context(), "mix/") {
				if err != nil || info.Key <= prev {
					s.Errorf("List while others write yields %s, %v behind %s", info.Key, err, prev)
					return
				}
				prev = info.Key
			}
		}
	})
	for w := range workers {
		models[w] = make(map[backend.Key][]byte)
		wg.Go(func() { s.work(b, w, steps, models[w]) })
	}
	wg.Wait()
	stop.Store(true)
	lister.Wait()

	var keys []backend.Key
	again := s.open()
	for _, m := range models {
		for key, data := range m {
			s.want(again, key, data)
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	s.wantKeys(again, "", keys)
}

// work does random things to keys that belong to worker w alone.
func (s *suite) work(b backend.Backend, w, steps int, model map[backend.Key][]byte) {
	rng := rand.New(rand.NewPCG(uint64(w), 1))
	for i := range steps {
		key := backend.Key(fmt.Sprintf("mix/%d/w%d", rng.IntN(6), w))
		data, there := model[key]
		switch rng.IntN(4) {
		case 0, 1:
			fresh := random(rng.Uint64(), rng.IntN(5000))
			err := b.Put(s.Context(), key, fresh)
			if there != errors.Is(err, backend.ErrExist) || !there && err != nil {
				s.Errorf("worker %d, step %d: Put(%s) = %v, key taken: %t", w, i, key, err, there)
				return
			}
			if !there {
				model[key] = fresh
			}
		case 2:
			got, err := get(s.Context(), b, key, 0, -1)
			if there && (err != nil || !bytes.Equal(got, data)) || !there && !errors.Is(err, backend.ErrNotExist) {
				s.Errorf("worker %d, step %d: Get(%s) = %s, %v; want %s, there: %t",
					w, i, key, brief(got), err, brief(data), there)
				return
			}
		case 3:
			if err := b.Delete(s.Context(), key); err != nil {
				s.Errorf("worker %d, step %d: Delete(%s) = %v", w, i, key, err)
				return
			}
			delete(model, key)
		}
	}
}

package backend

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// How much Validate tries. Racing creators are the one thing that stores get
// wrong in ways a single try does not show: a store whose rename is checked
// beforehand had two winners for one key in ten (4 creators, 2,000 keys).
const (
	probeRacers = 32
	probeKeys   = 8 // rounds of racers
	shortKeys   = 3 // in the short form
	// probeLarge is the size of the object whose put is watched, in bytes: more
	// than one write or packet carries.
	probeLarge   = 1 << 20
	probeReaders = 4
	// Each reader looks so often at most; it waits this long between two looks,
	// and twice as long after every 8: 0.8 s in all.
	probeLooks = 80
	probePause = 100 * time.Microsecond
	// cleanUp bounds how long Validate deletes its probes once ctx has ended.
	cleanUp = 30 * time.Second
)

// Validate finds out whether the store behind b keeps the contract, by about
// 400 requests, up to 32 at once, on small objects and one of a MiB below
// "probe/" and a random name: that Put creates only if absent, one after the
// other and in a race, that nobody sees a part of an object, that reads, ranges
// and listings return what was put, at once, and that Delete deletes. It deletes
// its objects again, also when it fails.
//
// An error that errors.Is finds to be ErrUnsupported says what the store got
// wrong. Any other error is one that the store returned, and proves nothing.
// Nor does nil prove a store right: a window may be too narrow for these races.
func Validate(ctx context.Context, b Backend) error {
	return validate(ctx, b, []step{
		{"missing objects", (*probe).missing},
		{"create if absent", (*probe).create},
		{"read after write", (*probe).fresh},
		{"racing creators", func(p *probe, ctx context.Context) error { return p.race(ctx, probeKeys) }},
		{"whole objects", (*probe).atomic},
		{"range reads", (*probe).ranges},
		{"listing", (*probe).list},
		{"deletion", (*probe).delete},
	})
}

// ValidateCreate is the short form of Validate, by about 150 requests: that Put
// creates only if absent, one after the other and in a race, and that what was
// put is there at once and gone once it was deleted. No writer of a repository
// is safe from another one without that.
func ValidateCreate(ctx context.Context, b Backend) error {
	return validate(ctx, b, []step{
		{"create if absent", (*probe).create},
		{"read after write", (*probe).fresh},
		{"racing creators", func(p *probe, ctx context.Context) error { return p.race(ctx, shortKeys) }},
		{"deletion", (*probe).delete},
	})
}

// A step looks at one part of the contract.
type step struct {
	name string
	run  func(*probe, context.Context) error
}

func validate(ctx context.Context, b Backend, steps []step) (err error) {
	name := make([]byte, 8)
	_, _ = rand.Read(name) // never fails
	p := &probe{b: b, dir: Key("probe/" + hex.EncodeToString(name) + "/")}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUp)
		defer cancel()
		if cerr := DeleteAll(ctx, b, p.keys); err == nil && cerr != nil {
			err = fmt.Errorf("clean up: %w", cerr)
		}
	}()
	for _, s := range steps {
		if err := s.run(p, ctx); err != nil {
			return fmt.Errorf("validate %s: %w", s.name, err)
		}
	}
	return nil
}

// A probe is one run of Validate.
type probe struct {
	b    Backend
	dir  Key   // begins every key, ends in a slash
	keys []Key // all that may be there
}

// wrong is what the store did against the contract.
func wrong(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrUnsupported, fmt.Sprintf(format, args...))
}

// key returns a key for a probe and notes it for the cleaning up.
func (p *probe) key(name string) Key {
	key := p.dir + Key(name)
	p.keys = append(p.keys, key)
	return key
}

// absent turns the answer of a call on a missing object into a verdict.
func absent(call string, err error) error {
	_, trouble := errors.AsType[*TroubleError](err)
	switch {
	case trouble: // there is no store, for one
		return err
	case errors.Is(err, ErrNotExist):
		return nil
	case err == nil:
		return wrong("%s finds an object that is not there", call)
	default:
		return err
	}
}

// holds reads key and says if it is not data.
func (p *probe) holds(ctx context.Context, key Key, data []byte) error {
	got, err := p.read(ctx, key, 0, -1)
	if errors.Is(err, ErrNotExist) {
		return wrong("an object that was put is not there")
	}
	if err != nil {
		return err
	}
	if !bytes.Equal(got, data) {
		return wrong("an object of %d bytes reads back as %d other bytes", len(data), len(got))
	}
	info, err := p.b.Stat(ctx, key)
	if err != nil {
		return err
	}
	if info.Key != key || info.Size != int64(len(data)) {
		return wrong("stat of %s, %d bytes, says %s, %d bytes", key, len(data), info.Key, info.Size)
	}
	return nil
}

// read is Get with a bound, since a store may ignore the range.
func (p *probe) read(ctx context.Context, key Key, off, n int64) ([]byte, error) {
	const most = probeLarge + 1 // bytes, more than any probe has
	r, err := p.b.Get(ctx, key, off, n)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(r, most))
	if cerr := r.Close(); err == nil {
		err = cerr
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, wrong("a body breaks off after %d bytes", len(data))
	}
	return data, err
}

func (p *probe) missing(ctx context.Context) error {
	key := p.dir + "missing"
	_, err := p.b.Stat(ctx, key)
	if err := absent("stat", err); err != nil {
		return err
	}
	_, err = p.read(ctx, key, 0, -1)
	if err := absent("get", err); err != nil {
		return err
	}
	return p.b.Delete(ctx, key)
}

func (p *probe) create(ctx context.Context) error {
	for _, first := range [][]byte{[]byte("first"), nil} {
		key := p.key(fmt.Sprintf("create-%d", len(first)))
		if err := p.b.Put(ctx, key, first); err != nil {
			return taken(err)
		}
		if err := p.holds(ctx, key, first); err != nil {
			return err
		}
		switch err := p.b.Put(ctx, key, []byte("second")); {
		case err == nil:
			return wrong("put overwrites, or claims to")
		case !errors.Is(err, ErrExist):
			return err
		}
		if err := p.holds(ctx, key, first); err != nil {
			return fmt.Errorf("after a second put: %w", err)
		}
	}
	return nil
}

// taken is the verdict on an error from the Put of a fresh key.
func taken(err error) error {
	if errors.Is(err, ErrExist) {
		return wrong("put of a new key says that it exists")
	}
	return err
}

func (p *probe) race(ctx context.Context, rounds int) error {
	for k := range rounds {
		key := p.key(fmt.Sprintf("race-%d", k))
		errs := make([]error, probeRacers)
		data := func(i int) []byte { return fmt.Appendf(nil, "%s racer %0*d", key, 4+i, i) }
		start := make(chan struct{})
		var wg sync.WaitGroup
		for i := range errs {
			wg.Go(func() {
				<-start
				errs[i] = p.b.Put(ctx, key, data(i))
			})
		}
		close(start)
		wg.Wait()

		winner, winners := 0, 0
		for i, err := range errs {
			switch {
			case err == nil:
				winner, winners = i, winners+1
			case !errors.Is(err, ErrExist):
				return err
			}
		}
		if winners != 1 {
			return wrong("%d creators of one key have %d winners", probeRacers, winners)
		}
		if err := p.holds(ctx, key, data(winner)); err != nil {
			return fmt.Errorf("the winner's object: %w", err)
		}
	}
	return nil
}

// fresh looks for an answer that is older than the last change: an object that
// was asked for before it was there, and one that was read before it was deleted.
func (p *probe) fresh(ctx context.Context) error {
	key, data := p.key("fresh"), []byte("fresh")
	for range 2 { // names are never used twice, but nothing says that they cannot be
		_, err := p.b.Stat(ctx, key)
		if err := absent("stat", err); err != nil {
			return err
		}
		_, err = p.read(ctx, key, 0, -1)
		if err := absent("get", err); err != nil {
			return err
		}
		if err := p.b.Put(ctx, key, data); err != nil {
			return taken(err)
		}
		if err := p.holds(ctx, key, data); err != nil {
			return err
		}
		if err := p.b.Delete(ctx, key); err != nil {
			return err
		}
		_, err = p.read(ctx, key, 0, -1)
		if err := absent("get after delete", err); err != nil {
			return err
		}
	}
	return nil
}

// atomic reads an object while it is put: it is there as a whole or not at all.
func (p *probe) atomic(ctx context.Context) error {
	key, data := p.key("whole"), make([]byte, probeLarge)
	_, _ = rand.Read(data) // never fails
	errs := make([]error, probeReaders)
	done := make(chan struct{})
	var wg, looked sync.WaitGroup // looked: each has looked once
	looked.Add(len(errs))
	for i := range errs {
		wg.Go(func() { errs[i] = p.watch(ctx, key, data, sync.OnceFunc(looked.Done), done) })
	}
	looked.Wait()
	err := p.b.Put(ctx, key, data)
	close(done)
	wg.Wait()
	if err != nil {
		return taken(err)
	}
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return p.holds(ctx, key, data)
}

// watch reads key until done is closed, and calls looked after the first time.
// Once it was there it must stay.
func (p *probe) watch(ctx context.Context, key Key, data []byte, looked func(), done <-chan struct{}) error {
	defer looked()
	seen := false
	for look := range probeLooks {
		info, err := p.b.Stat(ctx, key)
		var got []byte
		if err == nil {
			got, err = p.read(ctx, key, 0, -1)
		}
		switch {
		case errors.Is(err, ErrNotExist) && !seen:
		case errors.Is(err, ErrNotExist):
			return wrong("an object that is being put is there, and then is not")
		case err != nil:
			return err
		case info.Size != int64(len(data)) || !bytes.Equal(got, data):
			return wrong("an object of %d bytes that is being put is seen with %d", len(data), min(int64(len(got)), info.Size))
		default:
			seen = true
		}
		looked()
		select {
		case <-done:
			return nil
		case <-time.After(probePause << (look / 8)):
		}
	}
	return nil
}

func (p *probe) ranges(ctx context.Context) error {
	key := p.key("ranges")
	data := make([]byte, 1000)
	for i := range data {
		data[i] = byte(i ^ i>>8)
	}
	if err := p.b.Put(ctx, key, data); err != nil {
		return taken(err)
	}
	for _, r := range []struct{ off, n, want int64 }{
		{0, -1, 1000}, {0, 1, 1}, {0, 0, 0}, {300, 400, 400}, {999, 1, 1}, {900, 200, 100}, {500, -1, 500}, {1000, -1, 0},
	} {
		got, err := p.read(ctx, key, r.off, r.n)
		switch {
		case errors.Is(err, ErrRange):
			return wrong("get(%d, %d) of %d bytes refuses the range", r.off, r.n, len(data))
		case err != nil:
			return err
		case !bytes.Equal(got, data[r.off:r.off+r.want]):
			return wrong("get(%d, %d) of %d bytes returns %d bytes that are not those %d",
				r.off, r.n, len(data), len(got), r.want)
		}
	}
	for _, off := range []int64{1001, 1 << 40, -1} {
		_, err := p.read(ctx, key, off, 10)
		switch {
		case err == nil:
			return wrong("get(%d, 10) of %d bytes returns something", off, len(data))
		case !errors.Is(err, ErrRange):
			return err
		}
	}
	return nil
}

func (p *probe) list(ctx context.Context) error {
	// In key order, put in another. '-' sorts below '/', and '/' below digits.
	names := []string{"list/a-b", "list/a/0", "list/a/b", "list/a0", "list/b"}
	keys := make([]Key, len(names))
	for _, i := range []int{3, 0, 4, 2, 1} {
		keys[i] = p.key(names[i])
		if err := p.b.Put(ctx, keys[i], []byte(names[i])); err != nil {
			return taken(err)
		}
	}
	for _, l := range []struct {
		prefix Key
		want   []Key
	}{
		{p.dir + "list/", keys},
		{p.dir + "list/a", keys[:4]},
		{p.dir + "list/a/", keys[1:3]},
		{p.dir + "list/b", keys[4:]},
		{p.dir + "list/c", nil},
	} {
		if err := p.lists(ctx, l.prefix, l.want); err != nil {
			return err
		}
	}
	return nil
}

// lists compares the objects below prefix with what they should be.
func (p *probe) lists(ctx context.Context, prefix Key, want []Key) error {
	n := 0
	for info, err := range p.b.List(ctx, prefix) {
		if err != nil {
			return err
		}
		if n >= len(want) || info.Key != want[n] {
			return wrong("object %d below %s is %s, not what it should be in key order", n, prefix, info.Key)
		}
		if size := len(want[n]) - len(p.dir); info.Size != int64(size) {
			return wrong("%s is listed with %d bytes, not %d", info.Key, info.Size, size)
		}
		n++
	}
	if n < len(want) {
		return wrong("%d objects are listed below %s, not %d", n, prefix, len(want))
	}
	return nil
}

func (p *probe) delete(ctx context.Context) error {
	key := p.key("delete")
	if err := p.b.Put(ctx, key, []byte("x")); err != nil {
		return taken(err)
	}
	for range 2 { // the second finds nothing, and that is no error
		if err := p.b.Delete(ctx, key); err != nil {
			return err
		}
		_, err := p.b.Stat(ctx, key)
		if err := absent("stat after delete", err); err != nil {
			return err
		}
	}
	return p.lists(ctx, key, nil)
}

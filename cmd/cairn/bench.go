package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/backend/local"
	"github.com/cairn-backup/cairn/cmd/internal/kernel"
)

const (
	benchTime    = 200 * time.Millisecond // for each kernel, at least
	benchSmall   = 1 << 10                // bytes of an object by which the latency is told
	benchSmalls  = 8                      // how many of them
	maxBenchSize = 64                     // MiB
	maxParallel  = 64
)

type benchOptions struct {
	size     int // MiB of an object
	parallel int
}

func (a *app) benchCommand() *cobra.Command {
	o := benchOptions{size: 4, parallel: 8}
	c := &cobra.Command{
		Use:   "bench [LOCATION]",
		Short: "Measure what this machine and a store can do",
		Long: `Measure what this machine and a store can do, and say what to set.

What a backup does with each byte is measured on one processor, in MB (10^6 bytes)
a second. LOCATION, a directory or a URL as of a repository, is written to
and read from with more and more requests at once; default is the directory for
temporary files. Give one on the disk or in the bucket that the repository is
to use, and beside it, not in it: a repository, and a place in a cloud where
anything is, are refused. What is stored for the measurement is deleted in
the end, and nothing else is touched. No key is needed.`,
		Example: `  cairn bench
  cairn bench /mnt/usb
  cairn bench s3://bucket/scratch --parallel 16`,
		Args: atMost(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			where := os.TempDir()
			if len(args) > 0 {
				where = args[0]
			}
			return a.bench(cmd.Context(), where, o)
		},
	}
	c.Flags().IntVar(&o.size, "size", o.size, "`MiB` of an object, 1 to 64")
	c.Flags().IntVar(&o.parallel, "parallel", o.parallel, "most `requests` at once, 1 to 64")
	return c
}

type benchJSON struct {
	Schema     int          `json:"schema"`
	Processors int          `json:"processors"`
	Kernels    []kernelJSON `json:"kernels"`
	Location   string       `json:"location"`
	PutLatency float64      `json:"put_latency"` // seconds, median
	GetLatency float64      `json:"get_latency"`
	Store      []storeJSON  `json:"store"`
	Advice     []string     `json:"advice"`
}

type kernelJSON struct {
	Name  string  `json:"name"`
	Speed float64 `json:"speed"`           // bytes a second of one processor, before compression
	Ratio float64 `json:"ratio,omitempty"` // of content to what is stored
}

type storeJSON struct {
	Parallel int     `json:"parallel"`
	Put      float64 `json:"put"` // bytes a second
	Get      float64 `json:"get"`
}

func (a *app) bench(ctx context.Context, where string, o benchOptions) error {
	if o.size < 1 || o.size > maxBenchSize || o.parallel < 1 || o.parallel > maxParallel {
		return usagef("--size must lie between 1 and %d, --parallel between 1 and %d", maxBenchSize, maxParallel)
	}
	l, err := a.locateText(where)
	if err != nil {
		return err
	}
	store, remove, err := benchStore(ctx, l)
	if err != nil {
		return err
	}
	doc := benchJSON{Schema: schema, Processors: runtime.GOMAXPROCS(0), Location: l.where()}
	s := &storeBench{store: store, opts: o}
	err = doc.measure(ctx, s)
	// Also what was stored before an interruption goes.
	if err := errors.Join(err, s.clean(context.WithoutCancel(ctx)), remove()); err != nil {
		return err
	}
	doc.Advice = doc.advise()
	if a.out.json {
		return a.out.document(doc)
	}
	return a.printBench(doc)
}

// benchStore returns where objects may be put, and what removes the place.
func benchStore(ctx context.Context, l location) (backend.Backend, func() error, error) {
	if l.remote() {
		for info, err := range l.store().List(ctx, "") {
			if err != nil {
				return nil, nil, err
			}
			return nil, nil, withHint(usagef("%s is not empty: it holds %s", printable(l.where()), printable(string(info.Key))), "give a prefix that nothing else uses")
		}
		return l.store(), func() error { return nil }, nil
	}
	switch _, err := local.New(l.dir).Stat(ctx, "config"); {
	case err == nil:
		return nil, nil, withHint(usagef("%s holds a repository", printable(l.where())), "give the directory beside it")
	case !errors.Is(err, backend.ErrNotExist):
		return nil, nil, err
	}
	// A directory of its own: nothing else in LOCATION is so much as looked at.
	dir, err := os.MkdirTemp(l.dir, "cairn-bench-")
	if err != nil {
		return nil, nil, err
	}
	l.dir = dir
	return l.store(), func() error { return os.RemoveAll(dir) }, nil
}

// measure fills in everything but the advice.
func (doc *benchJSON) measure(ctx context.Context, s *storeBench) error {
	for _, name := range kernel.Names() {
		k, err := timeKernel(ctx, name)
		if err != nil {
			return err
		}
		doc.Kernels = append(doc.Kernels, k)
	}
	return s.measure(ctx, doc)
}

// timeKernel runs a kernel for a while.
func timeKernel(ctx context.Context, name string) (kernelJSON, error) {
	k, err := kernel.New(ctx, name)
	if err != nil {
		return kernelJSON{}, err
	}
	if err := k.Run(); err != nil { // what is made once
		return kernelJSON{}, err
	}
	begin, n := time.Now(), 0
	for time.Since(begin) < benchTime {
		if err := errors.Join(k.Run(), context.Cause(ctx)); err != nil {
			return kernelJSON{}, err
		}
		n++
	}
	return kernelJSON{Name: name, Speed: float64(n*k.Bytes) / time.Since(begin).Seconds(), Ratio: k.Ratio}, nil
}

// A storeBench puts objects to a store and gets them back.
type storeBench struct {
	store backend.Backend
	opts  benchOptions
	keys  []backend.Key // of what may be stored
}

// newKey returns the key of an object that is about to be put.
func (s *storeBench) newKey() backend.Key {
	var random [16]byte
	_, _ = rand.Read(random[:]) // never returns an error: it ends the program instead
	key := backend.Key("bench/" + hex.EncodeToString(random[:]))
	s.keys = append(s.keys, key)
	return key
}

func (s *storeBench) measure(ctx context.Context, doc *benchJSON) error {
	if err := backend.Init(ctx, s.store); err != nil {
		return err
	}
	var puts, gets []float64
	for range benchSmalls {
		put, get, err := s.round(ctx, 1, benchSmall)
		if err != nil {
			return err
		}
		puts, gets = append(puts, put.Seconds()), append(gets, get.Seconds())
	}
	slices.Sort(puts)
	slices.Sort(gets)
	doc.PutLatency, doc.GetLatency = puts[benchSmalls/2], gets[benchSmalls/2]
	for n := 1; n <= s.opts.parallel; n *= 2 {
		put, get, err := s.round(ctx, n, s.opts.size<<20)
		if err != nil {
			return err
		}
		bytes := float64(n) * float64(s.opts.size<<20)
		doc.Store = append(doc.Store, storeJSON{Parallel: n, Put: bytes / put.Seconds(), Get: bytes / get.Seconds()})
	}
	return nil
}

// round puts n objects at once, and then gets them at once.
func (s *storeBench) round(ctx context.Context, n, size int) (put, get time.Duration, err error) {
	data := make([]byte, size)
	_, _ = rand.Read(data) // as newKey does
	keys := make([]backend.Key, n)
	for i := range keys {
		keys[i] = s.newKey()
	}
	all := func(f func(ctx context.Context, key backend.Key) error) (time.Duration, error) {
		begin := time.Now()
		g, ctx := errgroup.WithContext(ctx)
		for _, key := range keys {
			g.Go(func() error { return f(ctx, key) })
		}
		err := g.Wait()
		return max(time.Since(begin), time.Nanosecond), err
	}
	put, err = all(func(ctx context.Context, key backend.Key) error { return s.store.Put(ctx, key, data) })
	if err != nil {
		return 0, 0, err
	}
	get, err = all(func(ctx context.Context, key backend.Key) error {
		got, err := backend.ReadAll(ctx, s.store, key, int64(size))
		if err == nil && string(got) != string(data) {
			err = fmt.Errorf("get %s: other bytes than were put", key)
		}
		return err
	})
	return put, get, err
}

// clean deletes what measure has put, and nothing else.
func (s *storeBench) clean(ctx context.Context) error {
	var errs []error
	for _, key := range s.keys {
		if err := s.store.Delete(ctx, key); err != nil && !errors.Is(err, backend.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cairn-backup/cairn/backend/local"
	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/engine/enginetest"
	"github.com/cairn-backup/cairn/engine/source"
	"github.com/cairn-backup/cairn/engine/target"
	"github.com/cairn-backup/cairn/manifest"
)

// growStepArg makes this program do one step of grow.
const growStepArg = "grow-step"

// A growStep is one step, which a process of its own does.
type growStep struct {
	Step   string
	Dir    string // with repo and key in it
	Cache  string
	Data   string // what is backed up, or restored to
	Number uint64
}

// A stepper does a step and notes its figures.
type stepper struct {
	growStep
	figures []figure
}

// runGrowStep does one step, and prints its figures as JSON.
func runGrowStep(ctx context.Context, args []string, stdout io.Writer) error {
	var s stepper
	if len(args) != 1 {
		return errors.New("a step takes one argument")
	}
	if err := json.Unmarshal([]byte(args[0]), &s.growStep); err != nil {
		return err
	}
	debug.SetGCPercent(50) // as the command line does
	steps := map[string]func(context.Context) error{
		"fill": s.fill, "backup": s.backup, "repeat": s.repeat, "open": s.open, "restore": s.restore, "lookup": s.lookup, "kill": s.kill,
	}
	step, ok := steps[s.Step]
	if !ok {
		return fmt.Errorf("no step %q", s.Step)
	}
	memory := watchAnonymous()
	if err := step(ctx); err != nil {
		return err
	}
	if peak := memory(); peak > 0 {
		s.note("anonymous memory MiB", float64(peak)/(1<<20))
	}
	return json.NewEncoder(stdout).Encode(s.figures)
}

func (s *stepper) note(name string, value float64) {
	s.figures = append(s.figures, figure{name, value})
}

// timed notes how long f takes.
func (s *stepper) timed(what string, f func() error) error {
	begin, cpu := time.Now(), cpuTime()
	if err := f(); err != nil {
		return err
	}
	s.note(what+" wall s", time.Since(begin).Seconds())
	s.note(what+" CPU s", (cpuTime() - cpu).Seconds())
	return nil
}

func (s *stepper) backend() *local.Backend { return local.New(filepath.Join(s.Dir, "repo")) }
func (s *stepper) key() string             { return filepath.Join(s.Dir, "key") }

// fill makes a repository of so many chunks.
func (s *stepper) fill(ctx context.Context) error {
	if err := engine.NewKeyFile(s.key()); err != nil {
		return err
	}
	if err := engine.Init(ctx, s.backend(), engine.KeyFile(s.key()), engine.InitOptions{}); err != nil {
		return err
	}
	added, err := enginetest.Fill(ctx, s.backend(), s.key(), s.Number)
	s.note("chunks", float64(added))
	return err
}

// session opens the repository, does f, and closes it, each with its time, and
// notes what was asked of the store.
func (s *stepper) session(ctx context.Context, what string, f func(r *engine.Repository) error) error {
	var r *engine.Repository
	err := s.timed("open", func() (err error) {
		r, err = engine.Open(ctx, s.backend(), engine.KeyFile(s.key()), engine.Options{CacheDir: s.Cache})
		return err
	})
	if err != nil {
		return err
	}
	if f != nil {
		if err := s.timed(what, func() error { return f(r) }); err != nil {
			return errors.Join(err, r.Close())
		}
	}
	t := r.Traffic()
	s.note("requests", float64(t.Requests()))
	s.note("read of the store MiB", float64(t.Get.Bytes)/(1<<20))
	s.note("written to the store MiB", float64(t.Put.Bytes)/(1<<20))
	return s.timed("close", r.Close)
}

func (s *stepper) open(ctx context.Context) error { return s.session(ctx, "", nil) }

func (s *stepper) backup(ctx context.Context) error {
	return s.session(ctx, "backup", func(r *engine.Repository) error {
		_, err := r.Backup(ctx, source.Dir(s.Data), engine.BackupOptions{})
		return err
	})
}

// repeat makes so many snapshots.
func (s *stepper) repeat(ctx context.Context) error {
	return s.session(ctx, "backup", func(r *engine.Repository) error {
		for range s.Number {
			if _, err := r.Backup(ctx, source.Dir(s.Data), engine.BackupOptions{}); err != nil {
				return err
			}
		}
		return nil
	})
}

// restore restores the latest snapshot, and notes when its first byte is
// written, and what was read of the store until then.
func (s *stepper) restore(ctx context.Context) error {
	began, cpu := time.Now(), cpuTime()
	return s.session(ctx, "restore", func(r *engine.Repository) error {
		var last manifest.ID
		for snap, err := range r.Snapshots(ctx, manifest.Filter{}) {
			if err != nil {
				return err
			}
			last = snap.ID
		}
		first := new(sync.Once)
		dst := &watchedTarget{Target: target.Dir(s.Data), written: func() {
			first.Do(func() {
				s.note("first byte wall s", time.Since(began).Seconds())
				s.note("first byte CPU s", (cpuTime() - cpu).Seconds())
				s.note("first byte: read of the store MiB", float64(r.Traffic().Get.Bytes)/(1<<20))
				s.note("first byte: requests", float64(r.Requests()))
			})
		}}
		_, err := r.Restore(ctx, last, dst, engine.RestoreOptions{})
		return err
	})
}

// A watchedTarget tells when something is about to be written to a file.
type watchedTarget struct {
	target.Target
	written func()
}

func (t *watchedTarget) Begin(ctx context.Context, need target.Need) (target.Writer, error) {
	w, err := t.Target.Begin(ctx, need)
	if err != nil {
		return nil, err
	}
	return &watchedWriter{w, t.written}, nil
}

type watchedWriter struct {
	target.Writer
	written func()
}

func (w *watchedWriter) Create(ctx context.Context, path string, n manifest.Node) (target.File, error) {
	f, err := w.Writer.Create(ctx, path, n)
	if err != nil {
		return nil, err
	}
	return &watchedFile{f, w.written}, nil
}

type watchedFile struct {
	target.File
	written func()
}

func (f *watchedFile) WriteAt(p []byte, off int64) (int, error) {
	f.written()
	return f.File.WriteAt(p, off)
}

const (
	lookups  = 100_000
	lookRun  = 256 // neighbours asked for at once
	lookFrom = 1 << 40
)

// lookup opens the index and asks for chunks: some that are there one by one,
// some that are not, and runs of neighbours.
func (s *stepper) lookup(context.Context) error {
	entries, err := os.ReadDir(s.Cache)
	if err != nil || len(entries) != 1 {
		return errors.Join(err, fmt.Errorf("%s holds %d caches", s.Cache, len(entries)))
	}
	var x *enginetest.FilledIndex
	err = s.timed("open", func() (err error) {
		x, err = enginetest.OpenFilledIndex(s.Cache, entries[0].Name())
		return err
	})
	if err != nil {
		return err
	}
	rng := rand.New(rand.NewPCG(1, s.Number))
	ask := func(what string, want, run int, from uint64) error {
		begin, cpu := time.Now(), cpuTime()
		numbers := make([]uint64, run)
		found := 0
		for range lookups / run {
			first := from + rng.Uint64N(s.Number-uint64(run)) //nolint:gosec // positive
			for i := range numbers {
				numbers[i] = first + uint64(i) //nolint:gosec // an index
			}
			n, err := x.Find(numbers...)
			if err != nil {
				return err
			}
			found += n
		}
		if found != want {
			return fmt.Errorf("%s: %d of %d were found, want %d", what, found, lookups, want)
		}
		s.note(what+" a wall s", lookups/time.Since(begin).Seconds())
		s.note(what+" a CPU s", lookups/(cpuTime()-cpu).Seconds())
		return nil
	}
	return errors.Join(
		ask("hits", lookups, 1, 0),
		ask("misses", 0, 1, lookFrom),
		ask("hits in runs", lookups/lookRun*lookRun, lookRun, 0),
		s.timed("close", x.Close),
	)
}

// kill opens the repository, and leaves it as a kill does.
func (s *stepper) kill(ctx context.Context) error {
	if _, err := engine.Open(ctx, s.backend(), engine.KeyFile(s.key()), engine.Options{CacheDir: s.Cache}); err != nil {
		return err
	}
	s.figures = []figure{}
	return nil
}

// watchAnonymous looks at the anonymous memory of this process 50 times a
// second. The function that it returns ends that, and returns the most, in
// bytes; 0 where the system does not tell.
func watchAnonymous() (stop func() int64) {
	var most atomic.Int64
	ended, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			most.Store(max(most.Load(), anonymous()))
			select {
			case <-ended:
				return
			case <-tick.C:
			}
		}
	}()
	return func() int64 {
		close(ended)
		<-done
		return most.Load()
	}
}

// anonymous returns the resident anonymous memory of this process, in bytes: what
// maps of files take can be had back by the system at any time.
func anonymous() int64 {
	f, err := os.Open("/proc/self/status")
	if err != nil {
		return 0 // not Linux
	}
	defer f.Close() // only read
	var text [4096]byte
	n, _ := f.Read(text[:]) // as much as there is
	return statusField(string(text[:n]), "RssAnon:") << 10
}

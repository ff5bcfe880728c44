package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"text/tabwriter"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/backend/s3"
)

// An s3Bench measures through S3.
type s3Bench struct {
	opts   s3Options
	dir    string
	server *s3Server
	tools  []program
	count  *counter         // in front of the server
	costs  map[string]*cost // by tool and operation
	out    io.Writer
	say    func(format string, args ...any)

	removed time.Time // when trees of many files were removed last
}

func (b *s3Bench) findTools(ctx context.Context) error {
	for _, name := range []string{"cairn", "restic"} {
		t, err := findTool(ctx, name, b.opts.options, b.dir)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		switch t := t.(type) {
		case cairn:
			b.tools = append(b.tools, t.program)
		case restic:
			b.tools = append(b.tools, t.program)
		}
	}
	return nil
}

// An s3Step is one operation of the first table.
type s3Step struct {
	name   string
	args   []string
	before func(ctx context.Context, data string) error
}

// A cost is what an operation of one tool took, in every round.
type cost struct{ cpu, wall, peak, requests []float64 }

func (c *cost) add(u usage, requests int64, key float64) {
	c.cpu = append(c.cpu, max(0, u.cpu()-key))
	c.wall = append(c.wall, u.wall.Seconds())
	c.peak = append(c.peak, float64(u.peak)/(1<<20))
	c.requests = append(c.requests, float64(requests))
}

// operations measures every operation on the source tree, and counts requests.
func (b *s3Bench) operations(ctx context.Context) error {
	var err error
	if b.count, err = newCounter(ctx, b.server.addr); err != nil {
		return err
	}
	defer b.count.close()
	s := newSet("src", b.opts.options)
	steps := []s3Step{
		{name: "first", args: []string{"backup", "."}},
		{name: "unchanged", args: []string{"backup", "."}},
		{name: "changed", args: []string{"backup", "."}, before: func(ctx context.Context, data string) error { return s.change(ctx, data, 0) }},
		{name: "unchanged again", args: []string{"backup", "."}},
		{name: "restore"},
		{name: "restore elsewhere"}, // with an empty cache
	}
	b.costs = make(map[string]*cost)
	for round := range b.opts.rounds {
		b.say("round %d of %d through S3", round+1, b.opts.rounds)
		if err := b.round(ctx, round, s, steps); err != nil {
			return err
		}
	}
	t := tabwriter.NewWriter(b.out, 0, 0, 1, ' ', 0)
	_, _ = fmt.Fprintln(t, "| operation\t| Cairn CPU s\t| restic CPU s\t| ratio\t| Cairn requests\t| restic requests\t| Cairn peak MiB\t| restic peak MiB\t|") // Flush tells
	_, _ = fmt.Fprintln(t, "| ---\t| --:\t| --:\t| --:\t| --:\t| --:\t| --:\t| --:\t|")
	for _, step := range steps {
		c, r := b.costs["cairn "+step.name], b.costs["restic "+step.name]
		var ratios []float64
		for i := range c.cpu {
			if r.cpu[i] > 0 {
				ratios = append(ratios, c.cpu[i]/r.cpu[i])
			}
		}
		_, _ = fmt.Fprintf(t, "| %s\t| %.2f\t| %.2f\t| %.2f\t| %.0f\t| %.0f\t| %.0f\t| %.0f\t|\n", step.name, median(c.cpu), median(r.cpu), median(ratios),
			median(c.requests), median(r.requests), slices.Max(c.peak), slices.Max(r.peak)) // Flush tells
	}
	return t.Flush()
}

// round does the steps with each tool in turn, on new data and repositories.
func (b *s3Bench) round(ctx context.Context, round int, s set, steps []s3Step) error {
	dir := filepath.Join(b.dir, fmt.Sprintf("round%d", round))
	data := filepath.Join(dir, "data")
	if err := errors.Join(os.MkdirAll(data, 0o700), s.make(ctx, data)); err != nil {
		return err
	}
	places, keys := make(map[string]place), make(map[string]float64)
	for _, p := range b.tools {
		at, err := newPlace(filepath.Join(dir, p.label))
		if err != nil {
			return err
		}
		places[p.label] = at
		t := s3Tool{program: p, prefix: fmt.Sprintf("%s-%d", p.label, round)}
		if _, err := execute(ctx, t.command(b.count.url, at, data, "init")); err != nil {
			return fmt.Errorf("%s init: %w", p.label, err)
		}
		if p.label == "restic" {
			u, err := execute(ctx, t.command(b.count.url, at, data, "cat", "config"))
			if err != nil {
				return err
			}
			keys[p.label] = u.cpu()
		}
	}
	for _, step := range steps {
		if step.before != nil {
			if err := step.before(ctx, data); err != nil {
				return err
			}
		}
		pause := settle
		if step.args == nil && b.opts.scale >= fewFiles { // see forget
			pause = max(settle, forget-time.Since(b.removed))
		}
		if err := wait(ctx, pause); err != nil {
			return err
		}
		for _, p := range b.tools {
			t := s3Tool{program: p, prefix: fmt.Sprintf("%s-%d", p.label, round)}
			at, args := places[p.label], step.args
			restored := filepath.Join(at.restored(), step.name) // stays until the round ends: see forget
			if args == nil {
				args = []string{"restore", "latest", "--target", restored}
			}
			if step.name == "restore elsewhere" {
				if err := errors.Join(removeAll(at.cache()), os.Mkdir(at.cache(), 0o700)); err != nil {
					return err
				}
			}
			if err := b.present(ctx, data); err != nil {
				return err
			}
			b.count.take()
			u, err := execute(ctx, t.command(b.count.url, at, data, args...))
			if err != nil {
				return fmt.Errorf("%s %s: %w", p.label, step.name, err)
			}
			name := p.label + " " + step.name
			if b.costs[name] == nil {
				b.costs[name] = new(cost)
			}
			b.costs[name].add(u, b.count.take(), keys[p.label])
			if step.args == nil {
				err = sameTrees(ctx, data, restored, time.Microsecond)
			}
			if err != nil {
				return fmt.Errorf("%s %s: %w", p.label, step.name, err)
			}
		}
	}
	err := removeAll(dir)
	b.removed = time.Now()
	return err
}

// present makes memory present for an operation on what dir holds.
func (b *s3Bench) present(ctx context.Context, dir string) error {
	data, err := size(dir)
	if err != nil {
		return err
	}
	return present(ctx, b.dir, data)
}

// bareStreams is how many parallel GETs a restore is compared with.
const bareStreams = 8

// far measures restores of one large file over lines with a latency, with an
// empty cache, beside bare parallel GETs of as many bytes.
func (b *s3Bench) far(ctx context.Context) error {
	if b.opts.size == 0 {
		return nil
	}
	data := filepath.Join(b.dir, "far")
	n := b.opts.size << 20
	if err := errors.Join(os.MkdirAll(data, 0o700), writeFile(ctx, filepath.Join(data, "file"), n, newRandom("far", 0).Bytes)); err != nil {
		return err
	}
	// An object is a file in the directory of the bucket.
	if err := os.Link(filepath.Join(data, "file"), filepath.Join(b.server.data, "bare")); err != nil {
		return err
	}
	key := 0.0
	places := make(map[string]place)
	for _, p := range b.tools {
		at, err := newPlace(filepath.Join(b.dir, "far-"+p.label))
		if err != nil {
			return err
		}
		places[p.label] = at
		t := s3Tool{program: p, prefix: "far-" + p.label}
		for _, args := range [][]string{{"init"}, {"backup", "."}} {
			if _, err := execute(ctx, t.command("http://"+b.server.addr, at, data, args...)); err != nil {
				return fmt.Errorf("%s %s: %w", p.label, args[0], err)
			}
		}
		if p.label == "restic" {
			u, err := execute(ctx, t.command("http://"+b.server.addr, at, data, "cat", "config"))
			if err != nil {
				return err
			}
			key = u.cpu()
		}
	}
	t := tabwriter.NewWriter(b.out, 0, 0, 1, ' ', 0)
	_, _ = fmt.Fprintf(t, "\n%d MiB restored over a line of %v, restic's key derivation (%.2f s) left out\n\n", b.opts.size, b.opts.latency, key) // Flush tells
	_, _ = fmt.Fprintln(t, "| window KiB\t| eight GETs s\t| Cairn s\t| restic s\t| restic by Cairn\t| GETs by Cairn\t| Cairn peak MiB\t| restic peak MiB\t|")
	_, _ = fmt.Fprintln(t, "| --:\t| --:\t| --:\t| --:\t| --:\t| --:\t| --:\t| --:\t|")
	for _, window := range b.opts.windows {
		if err := b.farLine(ctx, window<<10, key, places, t); err != nil {
			return err
		}
	}
	return t.Flush()
}

func (b *s3Bench) farLine(ctx context.Context, window int64, key float64, places map[string]place, out io.Writer) error {
	var bare []float64
	var peersFaster, bareFaster []float64
	costs := map[string]*cost{"cairn": {}, "restic": {}}
	for round := range b.opts.rounds {
		b.say("line with a window of %d KiB, round %d of %d", window>>10, round+1, b.opts.rounds)
		wall, err := b.bare(ctx, window)
		if err != nil {
			return fmt.Errorf("bare GETs: %w", err)
		}
		b.say("%d GETs %.2f s", bareStreams, wall)
		bare = append(bare, wall)
		for _, p := range b.tools {
			u, err := b.farRestore(ctx, window, s3Tool{program: p, prefix: "far-" + p.label}, places[p.label])
			if err != nil {
				return fmt.Errorf("%s: %w", p.label, err)
			}
			if p.label == "restic" {
				u.wall -= time.Duration(key * float64(time.Second))
			}
			costs[p.label].add(u, 0, 0)
			b.say("%s %.2f s, %.2f CPU s", p.label, u.wall.Seconds(), u.cpu())
		}
		mine := costs["cairn"].wall[round]
		peersFaster = append(peersFaster, costs["restic"].wall[round]/mine)
		bareFaster = append(bareFaster, wall/mine)
	}
	c, r := costs["cairn"], costs["restic"]
	_, err := fmt.Fprintf(out, "| %d\t| %.2f\t| %.2f\t| %.2f\t| %.2f\t| %.2f\t| %.0f\t| %.0f\t|\n", window>>10, median(bare), median(c.wall), median(r.wall),
		median(peersFaster), median(bareFaster), slices.Max(c.peak), slices.Max(r.peak))
	return err
}

// farRestore restores over a new line, into a new cache, and compares.
func (b *s3Bench) farRestore(ctx context.Context, window int64, t s3Tool, at place) (usage, error) {
	l, err := startLine(ctx, b.server.addr, b.opts.latency, window)
	if err != nil {
		return usage{}, err
	}
	defer l.close()
	if err := errors.Join(removeAll(at.cache()), os.Mkdir(at.cache(), 0o700)); err != nil {
		return usage{}, err
	}
	data := filepath.Join(b.dir, "far")
	if err := b.present(ctx, data); err != nil {
		return usage{}, err
	}
	u, err := execute(ctx, t.command("http://"+l.addr, at, data, "restore", "latest", "--target", at.restored()))
	if err != nil {
		return u, err
	}
	return u, errors.Join(sameTrees(ctx, data, at.restored(), time.Microsecond), removeAll(at.restored()), os.Mkdir(at.restored(), 0o700))
}

// bare gets the bytes of the file by parallel GETs, and returns the seconds that
// took.
func (b *s3Bench) bare(ctx context.Context, window int64) (float64, error) {
	l, err := startLine(ctx, b.server.addr, b.opts.latency, window)
	if err != nil {
		return 0, err
	}
	defer l.close()
	store, err := s3.New(s3.Options{
		Bucket: s3Bucket, Endpoint: "http://" + l.addr, Region: s3Region, PathStyle: true, AccessKey: s3Key, SecretKey: s3Secret,
	})
	if err != nil {
		return 0, err
	}
	defer func() { _ = store.Close() }() // nothing is under way
	if err := b.present(ctx, filepath.Join(b.dir, "far")); err != nil {
		return 0, err
	}
	begin := time.Now()
	part := b.opts.size << 20 / bareStreams
	g, ctx := errgroup.WithContext(ctx)
	for i := range int64(bareStreams) {
		g.Go(func() error { return discard(ctx, store, i*part, part) })
	}
	err = g.Wait()
	return time.Since(begin).Seconds(), err
}

func discard(ctx context.Context, store backend.Backend, off, n int64) error {
	body, err := store.Get(ctx, "bare", off, n)
	if err != nil {
		return err
	}
	got, err := io.Copy(io.Discard, body)
	if err == nil && got != n {
		err = fmt.Errorf("%d bytes of %d", got, n)
	}
	return errors.Join(err, body.Close())
}

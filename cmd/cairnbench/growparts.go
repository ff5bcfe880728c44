package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// chunks measures what the number of chunks in the index costs.
func (g *grower) chunks(ctx context.Context, dir string, n uint64) (all []figure, err error) {
	at := func(name string) string { return filepath.Join(dir, name) }
	warm := at("cache")
	if err := errors.Join(
		randomFile(ctx, at("tiny"), 1<<10), randomFile(ctx, at("small"), 1<<20), randomFile(ctx, at("big"), g.opts.restored<<20),
	); err != nil {
		return nil, err
	}
	for _, s := range []struct {
		what string
		growStep
	}{
		{"fill", growStep{Step: "fill", Number: n}},
		{"first backup of a machine", growStep{Step: "backup", Cache: warm, Data: at("tiny")}},
		{"index", growStep{Step: "lookup", Cache: warm, Number: n}},
		{"small backup", growStep{Step: "backup", Cache: warm, Data: at("small")}},
		{"", growStep{Step: "kill", Cache: warm}},
		{"open after a kill", growStep{Step: "open", Cache: warm}},
		{"backup of data", growStep{Step: "backup", Cache: warm, Data: at("big")}},
		{"open of a new machine", growStep{Step: "open", Cache: at("cache-open")}},
		{"restore of a new machine", growStep{Step: "restore", Cache: at("cache-restore"), Data: at("restored")}},
	} {
		s.Dir = dir
		figures, err := g.step(ctx, s.what, s.growStep)
		if err != nil {
			return nil, err
		}
		if s.what != "" {
			all = append(all, figures...)
		}
		if s.Step == "lookup" {
			bytes, err := size(warm)
			if err != nil {
				return nil, err
			}
			all = append(all, figure{"index: disk B a chunk", float64(bytes) / float64(n)})
		}
	}
	return all, sameTrees(ctx, at("big"), at("restored"), 0)
}

// repository makes an empty repository and a job that works on it.
func (g *grower) repository(ctx context.Context, dir string) (job, error) {
	p, err := newPlace(dir)
	if err != nil {
		return job{}, err
	}
	j := job{place: p, data: filepath.Join(dir, "data")}
	if err := os.Mkdir(j.data, 0o700); err != nil {
		return j, err
	}
	_, err = execute(ctx, g.tool.cairn(j, "init"))
	return j, err
}

// backups makes a repository of what fill puts into a directory, and measures a
// first and an unchanged backup.
func (g *grower) backups(ctx context.Context, dir string, fill func(dir string) error) (j job, all []figure, err error) {
	if j, err = g.repository(ctx, dir); err != nil {
		return j, nil, err
	}
	if err := fill(j.data); err != nil {
		return j, nil, err
	}
	if err := wait(ctx, settle); err != nil {
		return j, nil, err
	}
	for _, what := range []string{"first backup", "unchanged backup"} {
		figures, err := g.run(ctx, what, j, "backup", ".")
		if err != nil {
			return j, nil, err
		}
		all = append(all, figures...)
	}
	bytes, err := size(j.repo())
	return j, append(all, figure{"repository MiB", float64(bytes) / (1 << 20)}), err
}

// files measures n files of 100 bytes, a hundred in each directory.
func (g *grower) files(ctx context.Context, dir string, n uint64) ([]figure, error) {
	_, all, err := g.backups(ctx, dir, func(dir string) error {
		for first := uint64(0); first < n; first += 100 {
			sub := filepath.Join(dir, fmt.Sprintf("d%07d", first/100))
			if err := os.Mkdir(sub, 0o700); err != nil {
				return err
			}
			for i := first; i < min(first+100, n); i++ {
				text := fmt.Appendf(nil, "%-100d", i)
				if err := os.WriteFile(filepath.Join(sub, fmt.Sprintf("f%02d", i-first)), text, 0o600); err != nil {
					return err
				}
			}
		}
		return nil
	})
	return all, err
}

// directory measures n empty files in one directory.
func (g *grower) directory(ctx context.Context, dir string, n uint64) ([]figure, error) {
	j, all, err := g.backups(ctx, dir, func(dir string) error {
		for i := range n {
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("entry-%09d", i)), nil, 0o600); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	one := filepath.Join(j.data, fmt.Sprintf("entry-%09d", n/2))
	if err := os.Remove(one); err != nil {
		return nil, err
	}
	figures, err := g.run(ctx, "backup with one entry less", j, "backup", ".")
	return append(all, figures...), err
}

// snapshots measures the list of n snapshots, on the machine that made them and
// on one that sees the repository for the first time.
func (g *grower) snapshots(ctx context.Context, dir string, n uint64) ([]figure, error) {
	j, err := g.repository(ctx, dir)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(j.data, "file"), []byte("one file"), 0o600); err != nil {
		return nil, err
	}
	if err := wait(ctx, settle); err != nil {
		return nil, err
	}
	all, err := g.step(ctx, "make them", growStep{Step: "repeat", Dir: dir, Cache: j.cache(), Data: j.data, Number: n})
	if err != nil {
		return nil, err
	}
	bytes, err := size(j.repo())
	if err != nil {
		return nil, err
	}
	all = append(all, figure{"repository B a snapshot", float64(bytes) / float64(n)})
	for _, what := range []string{"list", "list on a new machine"} {
		if what != "list" {
			if err := errors.Join(removeAll(j.cache()), os.Mkdir(j.cache(), 0o700)); err != nil {
				return nil, err
			}
		}
		figures, err := g.run(ctx, what, j, "snapshots")
		if err != nil {
			return nil, err
		}
		all = append(all, figures...)
	}
	return all, nil
}

// sparse measures a file of n GiB of which one MiB in each is data.
func (g *grower) sparse(ctx context.Context, dir string, n uint64) ([]figure, error) {
	const name = "disk"
	j, all, err := g.backups(ctx, dir, func(dir string) error {
		path := filepath.Join(dir, name)
		f, err := os.Create(path)
		if err != nil {
			return err
		}
		data, r := make([]byte, 1<<20), newRandom("grow sparse", 0)
		for i := range int64(n) { //nolint:gosec // at most 1e12
			r.Bytes(data)
			if _, err := f.WriteAt(data, i<<30); err != nil {
				return errors.Join(err, f.Close())
			}
		}
		return errors.Join(f.Truncate(int64(n)<<30), f.Close()) //nolint:gosec // at most 1e12
	})
	if err != nil {
		return nil, err
	}
	figures, err := g.run(ctx, "restore", j, "restore", "latest", "--target", j.restored())
	if err != nil {
		return nil, err
	}
	used, err := allocated(filepath.Join(j.restored(), name))
	return append(append(all, figures...), figure{"restored file on disk MiB", float64(used) / (1 << 20)}), err
}

// randomFile makes a directory with one file of n random bytes in it.
func randomFile(ctx context.Context, dir string, n int64) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	return writeFile(ctx, filepath.Join(dir, "file"), n, newRandom("grow "+filepath.Base(dir), 0).Bytes)
}

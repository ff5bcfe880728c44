package main

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// A set is a data set: how it is made in an empty directory, and what changes
// in it, the n-th time from 0. Both follow from the seed alone.
type set struct {
	name    string
	make    func(ctx context.Context, dir string) error
	change  func(ctx context.Context, dir string, n int) error
	ops     []op
	steps   int // changes in a round
	backups int // in a round
	// doomed returns the numbers, from 1, of those of n backups that are deleted.
	doomed func(n int) []int
}

func setNames() []string { return append(defaultSets(), "history") }

func defaultSets() []string { return []string{"big", "src", "many", "db", "vm"} }

// newSet returns the data set of that name. Each name is one of setNames.
func newSet(name string, o options) set {
	s := set{name: name, steps: 1, backups: 3, doomed: allButLast}
	s.ops = slices.DeleteFunc(ops(), func(o op) bool { return o == opHistory })
	switch name {
	case "src":
		s.make, s.change = sourceSet{scale: o.scale, generate: o.noGoroot}.make, changeFiles
	case "big":
		d := bigSet{unit: int64(o.scale * (1 << 30) / 16)}
		s.make, s.change = d.make, d.change
	case "many":
		s.make, s.change = manySet{files: int(o.scale * 500_000)}.make, changeFiles
	case "db":
		pages := int64(o.scale * (1 << 30) / pageSize)
		d := dbSet{pages: pages, rows: max(1, pages*rowsPerPage/100)}
		s.make, s.change = d.make, d.change
	case "vm":
		d := vmSet{size: int64(o.scale * (10 << 30)), data: int64(o.scale * (2 << 30))}
		s.make, s.change = d.make, d.change
	case "history":
		d := historySet{pages: max(1, int64(o.scale*(4<<30)/pageSize/historyFiles))}
		s.make, s.change = d.make, d.change
		s.steps, s.backups, s.doomed = o.backups-1, o.backups, everyOther
		s.ops = []op{opInit, opFirst, opHistory, opDelete, opCollect, opRestore, opCheck}
	}
	return s
}

func allButLast(n int) []int {
	var all []int
	for i := 1; i < n; i++ {
		all = append(all, i)
	}
	return all
}

// everyOther leaves the last one.
func everyOther(n int) []int {
	var all []int
	for i := n - 1; i > 0; i -= 2 {
		all = append([]int{i}, all...)
	}
	return all
}

// newRandom returns the numbers for one part of a data set.
func newRandom(what string, round int) *random {
	var seed [32]byte
	copy(seed[:], what)
	seed[30], seed[31] = byte(round>>8), byte(round)
	source := rand.NewChaCha8(seed)
	return &random{Rand: rand.New(source), source: source}
}

// random makes content from a seed.
type random struct {
	*rand.Rand
	source *rand.ChaCha8
	words  []string
	line   []byte // what Text has not yet given out
}

// Bytes fills p with what cannot be compressed.
func (r *random) Bytes(p []byte) {
	_, _ = r.source.Read(p) // it never fails
}

// Text fills p with lines that a compressor makes about a third of.
func (r *random) Text(p []byte) {
	if r.words == nil {
		r.words = make([]string, 4096)
		for i := range r.words {
			r.words[i] = r.word()
		}
	}
	for len(p) > 0 {
		if len(r.line) == 0 {
			r.line = r.appendLine(r.line[:0])
		}
		n := copy(p, r.line)
		p, r.line = p[n:], r.line[n:]
	}
}

func (r *random) word() string {
	var b strings.Builder
	for range 2 + r.IntN(9) {
		b.WriteByte("etaoinshrdlucmfwypvbgkqjxz"[min(r.IntN(26), r.IntN(26))])
	}
	return b.String()
}

// appendLine appends some words, the first ones of the list more often.
func (r *random) appendLine(p []byte) []byte {
	for range 4 + r.IntN(10) {
		p = append(p, r.words[min(r.IntN(4096), r.IntN(4096), r.IntN(4096))]...)
		p = append(p, ' ')
	}
	return append(p, '\n')
}

// piece is in how large pieces files are written, in bytes.
const piece = 256 << 10

// writeFile writes a new file of n bytes, piece by piece as fill makes them.
func writeFile(ctx context.Context, path string, n int64, fill func(p []byte)) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return fillAt(ctx, f, place64{0, n}, fill)
}

// A place64 is a range of a file, in bytes.
type place64 struct{ at, n int64 }

// fillAt writes a range of a file.
func fillAt(ctx context.Context, f io.WriterAt, where place64, fill func(p []byte)) error {
	p := make([]byte, min(piece, where.n))
	for where.n > 0 {
		p = p[:min(int64(len(p)), where.n)]
		fill(p)
		if _, err := f.WriteAt(p, where.at); err != nil {
			return err
		}
		where.at, where.n = where.at+int64(len(p)), where.n-int64(len(p))
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	return nil
}

// changeFile opens a file for change.
func changeFile(path string, change func(f *os.File) error) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(change(f), f.Close())
}

// changeFiles changes a directory of many files as a day's work does: of a
// hundred files one grows by a line; of two hundred one goes; of two hundred
// one comes; and one directory gets another name.
func changeFiles(ctx context.Context, dir string, round int) error {
	r := newRandom("change files", round)
	var dirs []string
	err := walk(ctx, dir, func(path string, e os.DirEntry) error {
		if e.IsDir() {
			dirs = append(dirs, path)
			return nil
		}
		if !e.Type().IsRegular() {
			return nil
		}
		switch n := r.IntN(200); n {
		case 0, 1:
			return changeOld(r, path)
		case 2:
			return os.Remove(path)
		case 3:
			return writeFile(ctx, path+".new", int64(r.IntN(8<<10)), r.Text)
		}
		return nil
	})
	if err != nil || len(dirs) < 2 {
		return err
	}
	moved := dirs[1+r.IntN(len(dirs)-1)]
	return os.Rename(moved, moved+".moved")
}

func changeOld(r *random, path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	line := make([]byte, 80)
	r.Text(line)
	return changeFile(path, func(f *os.File) error {
		_, err := f.WriteAt(line, info.Size())
		return err
	})
}

// walk calls visit for everything in dir, dir itself included, in an order that
// depends on the names alone.
func walk(ctx context.Context, dir string, visit func(path string, e os.DirEntry) error) error {
	return filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err == nil {
			err = visit(path, e)
		}
		return errors.Join(err, context.Cause(ctx))
	})
}

// scattered returns n different numbers below limit, in order.
func scattered(r *random, n, limit int64) []int64 {
	chosen := make(map[int64]bool, n)
	for int64(len(chosen)) < min(n, limit) {
		chosen[r.Int64N(limit)] = true
	}
	all := make([]int64, 0, len(chosen))
	for i := range chosen {
		all = append(all, i)
	}
	slices.Sort(all)
	return all
}

package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// A sourceSet is the source tree of the Go toolchain, whole, or a tree like it.
type sourceSet struct {
	scale    float64 // of the generated one
	generate bool
}

func (s sourceSet) make(ctx context.Context, dir string) error {
	if s.generate {
		return manySet{files: int(s.scale * 15_000), size: 32 << 10}.make(ctx, dir)
	}
	out, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return fmt.Errorf("go env GOROOT: %w (--no-goroot does without)", err)
	}
	root := strings.TrimSpace(string(out))
	return walk(ctx, root, func(path string, e os.DirEntry) error {
		rel, err := filepath.Rel(root, path)
		if err != nil || rel == "." {
			return err
		}
		return copyEntry(path, filepath.Join(dir, rel), e)
	})
}

// copyEntry copies a directory without what is in it, a file, or a link.
func copyEntry(from, to string, e os.DirEntry) (err error) {
	switch {
	case e.IsDir():
		return os.Mkdir(to, 0o755)
	case e.Type()&os.ModeSymlink != 0:
		target, err := os.Readlink(from)
		if err != nil {
			return err
		}
		return os.Symlink(target, to)
	case !e.Type().IsRegular():
		return nil
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, info.Mode().Perm()|0o200)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	_, err = io.Copy(out, in)
	return err
}

// A manySet is small files of text, in directories of a hundred.
type manySet struct {
	files int
	size  int // a size is drawn from 0 to this many bytes, small ones more often; 0: 4 KiB
}

func (s manySet) make(ctx context.Context, dir string) error {
	r := newRandom("many", 0)
	content := make([]byte, max(s.size, 4<<10))
	var parent string
	for i := range max(1, s.files) {
		if i%100 == 0 {
			parent = filepath.Join(dir, fmt.Sprintf("d%03d", i/10_000), fmt.Sprintf("d%02d", i/100%100))
			if err := os.MkdirAll(parent, 0o755); err != nil {
				return err
			}
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
		}
		p := content[:min(r.IntN(len(content)), r.IntN(len(content)))]
		r.Text(p)
		if err := os.WriteFile(filepath.Join(parent, fmt.Sprintf("f%06d.txt", i)), p, 0o644); err != nil { //nolint:gosec // as files are
			return err
		}
	}
	return nil
}

// A bigSet is some large files, 16 units together: five of what cannot be
// compressed, five of text, two of numbers, and a copy of two units of each of
// the first two, shifted by some bytes.
type bigSet struct{ unit int64 }

func (s bigSet) make(ctx context.Context, dir string) error {
	u := s.unit
	return errors.Join(
		writeFile(ctx, filepath.Join(dir, "random.bin"), 5*u, newRandom("big random", 0).Bytes),
		writeFile(ctx, filepath.Join(dir, "text.log"), 5*u, newRandom("big text", 0).Text),
		writeFile(ctx, filepath.Join(dir, "numbers.dat"), 2*u, newRandom("big numbers", 0).numbers),
		shifted(ctx, filepath.Join(dir, "random.copy"), 2*u, newRandom("big random", 0).Bytes),
		shifted(ctx, filepath.Join(dir, "text.copy"), 2*u, newRandom("big text", 0).Text),
	)
}

// numbers fills p with the records of a sensor: compressible, but not text.
func (r *random) numbers(p []byte) {
	value := r.Uint32()
	for i := 0; i+8 <= len(p); i += 8 {
		value += r.Uint32N(1 << 10)
		binary.LittleEndian.PutUint32(p[i:], value)
		binary.LittleEndian.PutUint32(p[i+4:], uint32(r.IntN(16))) //nolint:gosec // below 16
	}
}

// shifted writes what fill makes with some bytes in front of it.
func shifted(ctx context.Context, path string, n int64, fill func(p []byte)) error {
	const shift = 1009
	first := true
	return writeFile(ctx, path, n, func(p []byte) {
		if first {
			clear(p[:min(shift, len(p))])
			p, first = p[min(shift, len(p)):], false
		}
		fill(p)
	})
}

// change overwrites 64 KiB at ten places of each file, and makes one longer.
func (s bigSet) change(ctx context.Context, dir string, round int) error {
	r := newRandom("change big", round)
	for _, name := range []string{"random.bin", "text.log", "numbers.dat"} {
		err := changeFile(filepath.Join(dir, name), func(f *os.File) error {
			for range 10 {
				where := place64{r.Int64N(max(1, 2*s.unit-64<<10)), 64 << 10}
				if err := fillAt(ctx, f, where, r.Bytes); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return changeFile(filepath.Join(dir, "text.log"), func(f *os.File) error {
		end, err := f.Seek(0, io.SeekEnd)
		if err != nil {
			return err
		}
		return fillAt(ctx, f, place64{end, s.unit / 16}, r.Text)
	})
}

// pageSize is that of the database, in bytes: SQLite's default.
const pageSize = 4096

// A dbSet is one file of pages as SQLite lays them out: a header, pointers to
// cells, zeros in the free space, and the cells from the end of the page down.
type dbSet struct {
	pages int64
	rows  int64 // that change, scattered
}

const dbName = "app.db"

func (s dbSet) make(ctx context.Context, dir string) error {
	return newRandom("db", 0).database(ctx, filepath.Join(dir, dbName), max(1, s.pages))
}

// database writes a file of that many pages.
func (r *random) database(ctx context.Context, path string, pages int64) error {
	n := uint32(0)
	return writeFile(ctx, path, pages*pageSize, func(p []byte) {
		for ; len(p) > 0; p = p[pageSize:] {
			n++
			r.page(p[:pageSize], n)
		}
	})
}

// page makes a leaf page of a table. Rows hold a number, a random key, and text.
func (r *random) page(p []byte, number uint32) {
	clear(p)
	free := r.IntN(400) // bytes that no row was found for
	top, cells := len(p), 0
	for {
		length := 60 + r.IntN(240)
		if 8+2*(cells+1)+free > top-length {
			break
		}
		top -= length
		cell := p[top : top+length]
		binary.BigEndian.PutUint32(cell, number)
		binary.BigEndian.PutUint32(cell[4:], uint32(cells)) //nolint:gosec // some tens
		r.Bytes(cell[8:24])
		r.Text(cell[24:])
		binary.BigEndian.PutUint16(p[8+2*cells:], uint16(top)) //nolint:gosec // below 4096
		cells++
	}
	p[0] = 13                                             // a leaf of a table
	binary.BigEndian.PutUint16(p[3:], uint16(cells))      //nolint:gosec // some tens
	binary.BigEndian.PutUint16(p[5:], uint16(top&0xffff)) //nolint:gosec // masked
	if number == 1 {
		r.header(p)
	}
}

// header makes a page the first of its file, by which programs tell a database.
func (r *random) header(p []byte) {
	clear(p[:100])
	copy(p, "SQLite format 3\x00")
	binary.BigEndian.PutUint16(p[16:], pageSize)
	copy(p[18:], []byte{1, 1, 0, 64, 32, 32})      // rollback journal, nothing reserved, fixed fractions
	binary.BigEndian.PutUint32(p[24:], r.Uint32()) // the counter of changes
}

// change updates scattered rows and the first page, in which SQLite counts.
func (s dbSet) change(ctx context.Context, dir string, round int) error {
	r := newRandom("change db", round)
	return changeFile(filepath.Join(dir, dbName), func(f *os.File) error {
		if err := r.replace(f, 0); err != nil {
			return err
		}
		for _, n := range scattered(r, s.rows, s.pages*rowsPerPage) {
			if err := r.updateRow(f, n); err != nil {
				return err
			}
		}
		return context.Cause(ctx)
	})
}

// rowsPerPage is how many rows a page has at the least, almost always.
const rowsPerPage = 16

// updateRow writes the text of a row anew; a page with fewer rows stays.
func (r *random) updateRow(f *os.File, row int64) error {
	p := make([]byte, pageSize)
	at := row / rowsPerPage * pageSize
	if at == 0 {
		return nil // the first page is new as a whole
	}
	if _, err := f.ReadAt(p, at); err != nil {
		return err
	}
	cell := int(row % rowsPerPage)
	if cell >= int(binary.BigEndian.Uint16(p[3:])) {
		return nil
	}
	end := len(p)
	if cell > 0 {
		end = int(binary.BigEndian.Uint16(p[8+2*(cell-1):]))
	}
	begin := int(binary.BigEndian.Uint16(p[8+2*cell:])) + 24 // the number and the key stay
	r.Text(p[begin:end])
	_, err := f.WriteAt(p[begin:end], at+int64(begin))
	return err
}

// replace writes a page anew, counted from 0.
func (r *random) replace(f *os.File, n int64) error {
	p := make([]byte, pageSize)
	r.page(p, uint32(n+1)) //nolint:gosec // at most 2^32 pages
	_, err := f.WriteAt(p, n*pageSize)
	return err
}

// A historySet is the databases of an application: files as that of a dbSet, of
// which a few change from one backup to the next. A program that cuts large chunks stores the
// whole of a file again that has a few hundred new pages, and nothing of the others.
type historySet struct {
	pages int64 // of each file
}

const (
	historyFiles   = 64
	historyChanged = 3  // of them, before each backup
	historyEvery   = 36 // of so many pages of such a file one is new
)

func (s historySet) make(ctx context.Context, dir string) error {
	for i := range int64(historyFiles) {
		if err := newRandom("history", int(i)).database(ctx, s.path(dir, i), s.pages); err != nil {
			return err
		}
	}
	return nil
}

func (historySet) path(dir string, file int64) string {
	return filepath.Join(dir, fmt.Sprintf("app-%02d.db", file))
}

// change replaces pages of some files, scattered, and always the first.
func (s historySet) change(ctx context.Context, dir string, round int) error {
	r := newRandom("change history", round)
	for _, file := range scattered(r, historyChanged, historyFiles) {
		err := changeFile(s.path(dir, file), func(f *os.File) error {
			if err := r.replace(f, 0); err != nil {
				return err
			}
			for _, n := range scattered(r, s.pages/historyEvery, s.pages) {
				if err := r.replace(f, n); err != nil {
					return err
				}
			}
			return context.Cause(ctx)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// A vmSet is one large file, most of it holes: a disk image.
type vmSet struct{ size, data int64 }

const (
	vmName = "disk.img"
	// vmRuns is in how many places the data lies.
	vmRuns = 64
)

func (s vmSet) make(ctx context.Context, dir string) (err error) {
	f, err := os.Create(filepath.Join(dir, vmName))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := f.Truncate(s.size); err != nil {
		return err
	}
	r := newRandom("vm", 0)
	for i := range int64(vmRuns) {
		fill := r.Bytes
		if i%2 == 0 {
			fill = r.Text
		}
		if err := fillAt(ctx, f, s.run(i), fill); err != nil {
			return err
		}
	}
	return nil
}

// run returns where the data of that number lies.
func (s vmSet) run(i int64) place64 {
	at := s.size / vmRuns * i
	return place64{at - at%pageSize, s.data / vmRuns}
}

// change overwrites an eighth of every eighth run.
func (s vmSet) change(ctx context.Context, dir string, round int) error {
	r := newRandom("change vm", round)
	return changeFile(filepath.Join(dir, vmName), func(f *os.File) error {
		for i := r.Int64N(8); i < vmRuns; i += 8 {
			where := s.run(i)
			where.n /= 8
			if err := fillAt(ctx, f, where, r.Bytes); err != nil {
				return err
			}
		}
		return nil
	})
}

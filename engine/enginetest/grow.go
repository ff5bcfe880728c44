package enginetest

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/cairn-backup/cairn/chunk"
)

// Grow makes a tree in dir, which exists, as the bytes of plan say; any bytes
// are a plan, and the same plan gives the same tree. In a directory that holds
// something it makes changes: entries are added, removed, renamed, rewritten,
// cut, made longer, and get other metadata. So a fuzzer or a property test can
// search the trees by searching byte strings, 8 of which are one step.
//
// Trees hold files of sizes around every limit, with random, periodic, zero
// and sparse content, empty and full directories, symbolic and hard links,
// FIFOs, extended attributes, names that are no UTF-8, and for the superuser
// owners, devices and setuid bits. What the system or the user's rights do not
// permit is left out. A plan makes at most 8 MiB of content.
func Grow(dir string, plan []byte) error {
	g := &grower{top: dir, budget: maxContent}
	if err := g.look(); err != nil {
		return err
	}
	for step := range slices.Chunk(plan, stepSize) {
		var s [stepSize]byte
		copy(s[:], step)
		if err := g.step(s); err != nil {
			return fmt.Errorf("grow %s: %w", dir, err)
		}
	}
	return g.finish()
}

const (
	stepSize   = 8
	maxContent = 8 << 20 // bytes of data that one plan makes
)

type grower struct {
	top     string
	budget  int
	entries []string // below top, rising
	times   map[string][2]int64
	modes   map[string]uint32
}

// look finds what is there already.
func (g *grower) look() error {
	g.times, g.modes = make(map[string][2]int64), make(map[string]uint32)
	return filepath.WalkDir(g.top, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || path == g.top {
			return err
		}
		rel, err := filepath.Rel(g.top, path)
		g.entries = append(g.entries, rel)
		return err
	})
}

// names are tried in turn: a plan names one by number.
func (g *grower) name(b byte) string {
	names := []string{
		"a", "b", "c", "file", "dir", " ", "  two ", "-rf", "...", "a.b", "CON", "ümläut", "名", "e\u0301", "new\nline",
		"tab\t", "\x01", "\xff\xfe", "caf\xe9", "*?[x]", "\\", "'\"", strings.Repeat("n", 255), "~", "#", "%00", ".hidden",
	}
	if !oddNames {
		names = names[:5]
	}
	name := names[int(b)%len(names)]
	if n := int(b) / len(names); n > 0 {
		name = (strconv.Itoa(n) + name)[:min(len(name)+1, 255)]
	}
	return name
}

// step carries out one step of a plan: what, where, and how.
func (g *grower) step(s [stepSize]byte) error {
	kind, where := s[0]%20, s[1]
	path := filepath.Join(g.parent(where), g.name(s[2]))
	old := ""
	if len(g.entries) > 0 {
		old = g.entries[int(s[3])%len(g.entries)]
	}
	switch {
	case kind < 8:
		return g.make(path, func(at string) error { return g.writeFile(at, s) }, s)
	case kind == 8 || kind == 9:
		return g.make(path, func(at string) error { return os.Mkdir(at, 0o700) }, s)
	case kind == 10:
		target := []string{"a", "../x", "/", "nowhere", strings.Repeat("l/", 300), "\xff", "."}[int(s[4])%7]
		return g.make(path, func(at string) error { return os.Symlink(target, at) }, s)
	case kind == 11:
		return g.make(path, makeFIFO, s)
	case kind == 12 && s[4]%8 == 0:
		return g.make(path, func(at string) error { return makeDevice(at, uint32(s[5])) }, s)
	case kind == 12 || old == "":
		return g.many(path, int(s[4]))
	case kind == 13:
		return g.link(old, path)
	case kind == 14:
		return g.remove(old)
	case kind == 15:
		return g.rename(old, path)
	case kind == 16:
		return g.rewrite(old, s)
	}
	g.describe(old, s)
	return g.attributes(old, s)
}

func (g *grower) at(rel string) string { return filepath.Join(g.top, rel) }

// parent chooses a directory; "." is the top.
func (g *grower) parent(where byte) string {
	dirs := []string{"."}
	for _, e := range g.entries {
		if info, err := os.Lstat(g.at(e)); err == nil && info.IsDir() && len(e) < 1000 {
			dirs = append(dirs, e)
		}
	}
	return dirs[int(where)%len(dirs)]
}

func (g *grower) make(rel string, f func(at string) error, s [stepSize]byte) error {
	if _, err := os.Lstat(g.at(rel)); err == nil {
		return nil // the name is taken
	}
	if err := f(g.at(rel)); err != nil {
		if errors.Is(err, errLeftOut) {
			return nil
		}
		return err
	}
	if _, err := os.Lstat(g.at(rel)); err != nil {
		return nil //nolint:nilerr // it was not permitted
	}
	g.entries = append(g.entries, rel)
	slices.Sort(g.entries)
	g.describe(rel, s)
	if s[7]%4 == 0 {
		return g.attributes(rel, s)
	}
	return nil
}

// describe chooses the metadata that are set at the end.
func (g *grower) describe(rel string, s [stepSize]byte) {
	sec := []int64{0, 1, -1, 1e9, 1<<31 + 5, 1 << 32, int64(s[6]) << 24}[int(s[6])%7]
	g.times[rel] = [2]int64{sec, int64(s[7]) * 3_921_568}
	modes := []uint32{0o644, 0o600, 0o755, 0o400, 0o777, 0o640, 0o7, 0o4755, 0o2711, 0o1777, 0o6750}
	g.modes[rel] = modes[int(s[5])%len(modes)]
}

func (g *grower) attributes(rel string, s [stepSize]byte) error {
	info, err := os.Lstat(g.at(rel))
	if err != nil || !info.Mode().IsRegular() && !info.IsDir() {
		return err
	}
	if err := setOwner(g.at(rel), int(s[4])*257, int(s[5])); err != nil {
		return err
	}
	if err := setXattr(g.at(rel), "user.a", bytes.Repeat([]byte{s[6]}, int(s[7])*8)); err != nil {
		return err
	}
	return setXattr(g.at(rel), "user.\xc3\xa9", nil)
}

// writeFile makes a file of which s chooses size and content.
func (g *grower) writeFile(at string, s [stepSize]byte) error {
	if s[4]%8 == 7 {
		return g.sparseFile(at, s)
	}
	return os.WriteFile(at, g.content(s), 0o600)
}

// content returns what s chooses. Sizes lie around what changes the way of
// data: content in the node, the chunk sizes, the end of a block.
func (g *grower) content(s [stepSize]byte) []byte {
	p := chunk.General()
	sizes := []int{
		0, 1, 100, 511, 512, 513, 4095, 4096, 4097, p.Min - 1, p.Min, p.Min + 1, p.Max - 1, p.Max, p.Max + 1,
		2 * p.Max, 3*p.Max + 17, 300_000, 1 << 20, 1<<20 + 1,
	}
	n := min(sizes[int(s[3])%len(sizes)], max(g.budget, 0))
	g.budget -= n
	data := make([]byte, n)
	rng := rand.New(rand.NewPCG(uint64(s[5]), uint64(s[6])))
	switch s[4] % 8 {
	case 0: // zeros
	case 1, 2: // periodic
		period := []int{1, 2, 63, 64, 65, 4096, p.Min, p.Max + 3}[int(s[7])%8]
		for i := range data {
			if i < period {
				data[i] = byte(rng.Uint32())
			} else {
				data[i] = data[i-period]
			}
		}
	case 3: // zeros in the middle
		for i := range data {
			if i < n/3 || i > 2*n/3 {
				data[i] = byte(rng.Uint32())
			}
		}
	case 4: // compressible
		for i := range data {
			data[i] = "etaoin shrdlu\n"[rng.IntN(14)]
		}
	default:
		for i := range data {
			data[i] = byte(rng.Uint32())
		}
	}
	return data
}

// sparseFile makes a file with holes in front, between and behind.
func (g *grower) sparseFile(at string, s [stepSize]byte) error {
	f, err := os.Create(at)
	if err != nil {
		return err
	}
	data := g.content([stepSize]byte{3: s[3] % 15, 4: 5, 5: s[5], 6: s[6]})
	size := int64(s[7])<<13 + 1
	if s[5]%2 == 0 {
		_, err = f.WriteAt(data, size/3)
	}
	if s[5]%4 == 0 {
		_, werr := f.WriteAt(data, size)
		err = errors.Join(err, werr)
		size += int64(len(data))
	}
	if s[5]%8 != 0 {
		err = errors.Join(err, f.Truncate(max(size, 1<<16)*2))
	}
	return errors.Join(err, f.Close())
}

// many makes a directory of small files: enough for more than one page.
func (g *grower) many(rel string, n int) error {
	if _, err := os.Lstat(g.at(rel)); err == nil {
		return nil
	}
	if err := os.Mkdir(g.at(rel), 0o700); err != nil {
		return err
	}
	for i := range n {
		name := filepath.Join(g.at(rel), fmt.Sprintf("%03d", i*37%256))
		if err := os.WriteFile(name, fmt.Appendf(nil, "file %d", i%50), 0o600); err != nil {
			return err
		}
	}
	g.entries = append(g.entries, rel)
	slices.Sort(g.entries)
	return nil
}

func (g *grower) link(old, rel string) error {
	info, err := os.Lstat(g.at(old))
	if err != nil || !info.Mode().IsRegular() {
		return err
	}
	if _, err := os.Lstat(g.at(rel)); err == nil {
		return nil
	}
	if err := os.Link(g.at(old), g.at(rel)); err != nil {
		return err
	}
	g.entries = append(g.entries, rel)
	slices.Sort(g.entries)
	return nil
}

// forget drops rel and all below it.
func (g *grower) forget(rel string) {
	under := func(path string) bool {
		return path == rel || strings.HasPrefix(path, rel+string(filepath.Separator))
	}
	g.entries = slices.DeleteFunc(g.entries, under)
	for path := range g.times {
		if under(path) {
			delete(g.times, path)
			delete(g.modes, path)
		}
	}
}

func (g *grower) remove(rel string) error {
	g.forget(rel)
	return os.RemoveAll(g.at(rel))
}

func (g *grower) rename(old, rel string) error {
	if _, err := os.Lstat(g.at(rel)); err == nil || strings.HasPrefix(rel, old) {
		return nil
	}
	g.forget(old)
	if err := os.Rename(g.at(old), g.at(rel)); err != nil {
		return err
	}
	g.entries = append(g.entries, rel)
	slices.Sort(g.entries)
	return nil
}

// rewrite changes the content of a file.
func (g *grower) rewrite(rel string, s [stepSize]byte) error {
	info, err := os.Lstat(g.at(rel))
	if err != nil || !info.Mode().IsRegular() {
		return err
	}
	if err := os.Chmod(g.at(rel), 0o600); err != nil {
		return err
	}
	switch s[4] % 3 {
	case 0:
		return os.Truncate(g.at(rel), info.Size()/2)
	case 1:
		f, err := os.OpenFile(g.at(rel), os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			return err
		}
		_, err = f.Write(g.content(s))
		return errors.Join(err, f.Close())
	}
	f, err := os.OpenFile(g.at(rel), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt([]byte{s[5], s[6]}, info.Size()*int64(s[7])/256)
	return errors.Join(err, f.Close())
}

// finish sets modes and times, innermost first, since making entries changes
// the times of directories.
func (g *grower) finish() error {
	for _, rel := range slices.Backward(g.entries) {
		at := g.at(rel)
		info, err := os.Lstat(at)
		if err != nil {
			return err
		}
		mode, ok := g.modes[rel]
		if info.IsDir() {
			mode |= 0o700 // else nobody but root could look into it
		}
		if ok && info.Mode()&fs.ModeSymlink == 0 {
			if err := setMode(at, mode|0o400); err != nil {
				return err
			}
		}
		if t, ok := g.times[rel]; ok {
			if err := setTime(at, t[0], t[1]); err != nil {
				return err
			}
		}
	}
	return nil
}

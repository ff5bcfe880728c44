package engine_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/fstest"
	"time"

	"github.com/cairn-backup/cairn/backend/mem"
	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/engine/source"
)

// An imageFile is a file in an image of a disk.
type imageFile struct {
	name string
	data []byte
}

// imageFiles makes files of together n bytes as disks have them: half of the bytes
// in files of 4 to 200 KiB, half in files of 1 to 8 MiB; a third cannot be
// compressed, the others are text and tables.
func imageFiles(rng *rand.Rand, n int) (files []imageFile) {
	for small, large := 0, 0; small+large < n; {
		size := 4000 + rng.IntN(200_000)
		if large < small {
			size = 1<<20 + rng.IntN(7<<20)
			large += size
		} else {
			small += size
		}
		files = append(files, imageFile{name: fmt.Sprintf("f%04d", len(files)), data: imageData(rng, size)})
	}
	return files
}

// imageData makes what a file or block holds.
func imageData(rng *rand.Rand, n int) []byte {
	switch rng.IntN(3) {
	case 0:
		return random(rng.Uint64(), n)
	case 1: // text
		var b bytes.Buffer
		for b.Len() < n {
			fmt.Fprintf(&b, "%x ", rng.IntN(5000)*77_777)
		}
		return b.Bytes()[:n]
	}
	p := random(rng.Uint64(), n)
	for i := range p { // a table, of which every other byte says little
		if i%2 == 0 {
			p[i] &= 3
		}
	}
	return p
}

// An image is a disk on which files lie at blocks of 4 KiB, with free space of
// zeros behind.
type image struct {
	bytes []byte
	used  int
}

func newImage(size int, files []imageFile) *image {
	m := &image{bytes: make([]byte, size), used: 1 << 20} // tables of the file system
	for i := 4096; i < 200<<10; i += 32 {
		copy(m.bytes[i:], fmt.Sprintf("inode %d", i*31))
	}
	for _, f := range files {
		m.add(f.data)
	}
	return m
}

// add puts a file behind the others, as far as there is room.
func (m *image) add(data []byte) {
	if m.used+len(data) > len(m.bytes) {
		return
	}
	copy(m.bytes[m.used:], data)
	m.used += (len(data) + 4095) / 4096 * 4096
}

// scatter writes n blocks somewhere.
func (m *image) scatter(rng *rand.Rand, n int) {
	for range n {
		copy(m.bytes[4096*rng.IntN(m.used/4096):], imageData(rng, 4096))
	}
}

// work is what a system does in a day: new files, and blocks of tables and logs.
func (m *image) work(rng *rand.Rand) {
	for range 10 {
		m.add(imageData(rng, 4000+rng.IntN(400_000)))
	}
	m.scatter(rng, 40)
}

// TestImageFigures prints what a repository takes of images of disks, cut by
// content and by pages.
func TestImageFigures(t *testing.T) {
	if !*pageFigures {
		t.Skip("only with -engine.figures")
	}
	const size = 128 << 20
	for _, byPages := range []bool{false, true} {
		rng := rand.New(rand.NewPCG(40, 1))
		files := imageFiles(rng, size*6/10)
		m := newImage(size, files)
		cache := t.TempDir()
		r := open(t, mem.New(), engine.Options{Workers: 2, CacheDir: cache})
		before := int64(0)
		save := func(what, name string, files fstest.MapFS, plain bool) {
			src := source.FS(name, files)
			if byPages && !plain {
				src = pagedSource{src}
			}
			begin := time.Now()
			backUp(t, r, src, engine.BackupOptions{Host: "h"})
			now := r.Traffic().Put.Bytes
			t.Logf("pages %5t: %-40s %8d KiB put, %6d chunks, %v", byPages, what, (now-before)>>10, chunksOf(r), time.Since(begin).Round(time.Millisecond))
			before = now
		}
		disk := func(m *image) fstest.MapFS { return fstest.MapFS{"disk.img": {Data: m.bytes, Mode: 0o600}} }
		save("first", "vm", disk(m), false)
		for i := range 10 {
			m.scatter(rng, 250)
			save(fmt.Sprint("250 scattered blocks, ", i+1), "vm", disk(m), false)
		}
		for i := range 5 {
			m.work(rng)
			save(fmt.Sprint("a day's work, ", i+1), "vm", disk(m), false)
		}
		rng.Shuffle(len(files), func(i, j int) { files[i], files[j] = files[j], files[i] })
		save("another image of the same files", "other", disk(newImage(size, files)), false)
		tree := make(fstest.MapFS)
		for _, f := range files {
			tree[f.name] = &fstest.MapFile{Data: f.data, Mode: 0o600}
		}
		save("the files by themselves", "files", tree, true)
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

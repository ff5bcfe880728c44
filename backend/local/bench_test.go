package local

import (
	"fmt"
	"io"
	"path/filepath"
	"testing"

	"github.com/cairn-backup/cairn/backend"
)

// go test ./backend/local -run - -bench . writes to the temporary directory.
func BenchmarkPut(b *testing.B) {
	for _, size := range []int{100, 1 << 20, 16 << 20} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			store := New(filepath.Join(b.TempDir(), "repo"))
			if err := store.Init(b.Context()); err != nil {
				b.Fatal(err)
			}
			defer store.Close()
			data := make([]byte, size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				key := backend.Key(fmt.Sprintf("packs/%02x/%d", i%256, i))
				if err := store.Put(b.Context(), key, data); err != nil {
					b.Fatal(err)
				}
				if i%8 == 7 { // or a long run fills the disk
					b.StopTimer()
					for k := i - 7; k <= i; k++ {
						if err := store.Delete(b.Context(), backend.Key(fmt.Sprintf("packs/%02x/%d", k%256, k))); err != nil {
							b.Fatal(err)
						}
					}
					b.StartTimer()
				}
			}
		})
	}
}

func BenchmarkGet(b *testing.B) {
	store := New(filepath.Join(b.TempDir(), "repo"))
	if err := store.Init(b.Context()); err != nil {
		b.Fatal(err)
	}
	defer store.Close()
	if err := store.Put(b.Context(), "packs/00/1", make([]byte, 16<<20)); err != nil {
		b.Fatal(err)
	}
	for _, size := range []int64{1 << 10, 1 << 20, 16 << 20} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			buf := make([]byte, size)
			b.SetBytes(size)
			b.ReportAllocs()
			for b.Loop() {
				r, err := store.Get(b.Context(), "packs/00/1", 0, size)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(r, buf); err != nil {
					b.Fatal(err)
				}
				_ = r.Close()
			}
		})
	}
}

func BenchmarkList(b *testing.B) {
	store := New(filepath.Join(b.TempDir(), "repo"))
	if err := store.Init(b.Context()); err != nil {
		b.Fatal(err)
	}
	defer store.Close()
	for i := range 2000 {
		if err := store.Put(b.Context(), backend.Key(fmt.Sprintf("packs/%02x/%d", i%64, i)), nil); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		n := 0
		for _, err := range store.List(b.Context(), "packs/") {
			if err != nil {
				b.Fatal(err)
			}
			n++
		}
		if n != 2000 {
			b.Fatalf("%d objects", n)
		}
	}
}

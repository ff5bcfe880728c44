package kernel_test

import (
	"testing"

	"github.com/cairn-backup/cairn/cmd/internal/kernel"
)

func BenchmarkKernel(b *testing.B) {
	for _, name := range kernel.Names() {
		b.Run(name, func(b *testing.B) {
			k, err := kernel.New(b.Context(), name)
			if err != nil {
				b.Fatal(err)
			}
			if err := k.Run(); err != nil { // what is made once is no cost of an operation
				b.Fatal(err)
			}
			b.SetBytes(int64(k.Bytes))
			b.ReportAllocs()
			for b.Loop() {
				if err := k.Run(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestKernels: each does something, again and again, and says how much.
func TestKernels(t *testing.T) {
	t.Parallel()
	for _, name := range kernel.Names() {
		k, err := kernel.New(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		if k.Bytes < 1000 {
			t.Errorf("%s: works on %d bytes", name, k.Bytes)
		}
		for range 2 {
			if err := k.Run(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	if _, err := kernel.New(t.Context(), "nothing/text"); err == nil {
		t.Error("there is a kernel nothing")
	}
}

// TestCompressionIsOneOfText: else the kernels that compress would measure
// nothing.
func TestCompressionIsOneOfText(t *testing.T) {
	t.Parallel()
	for name, ok := range map[string]func(ratio float64) bool{
		"compress-fastest/text":   func(ratio float64) bool { return ratio > 1.5 && ratio < 8 },
		"compress-fastest/random": func(ratio float64) bool { return ratio > 0.99 && ratio < 1.01 },
	} {
		k, err := kernel.New(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		if !ok(k.Ratio) {
			t.Errorf("%s: ratio %v", name, k.Ratio)
		}
	}
}

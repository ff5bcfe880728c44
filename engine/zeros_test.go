package engine

import "testing"

func TestZeros(t *testing.T) {
	for _, n := range []int{0, 1, minHole - 1, minHole, minHole + 1, 24 << 10} {
		data := make([]byte, n)
		if got := zeros(data); got != (n >= minHole) {
			t.Errorf("%d zeros: %v", n, got)
		}
		for _, at := range []int{0, 1, n / 2, n - 2, n - 1} {
			if at < 0 || at >= n {
				continue
			}
			data[at] = 1
			if zeros(data) {
				t.Errorf("%d bytes, of which the one at %d is no zero, are zeros", n, at)
			}
			data[at] = 0
		}
	}
}

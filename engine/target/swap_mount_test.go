//go:build unix && !linux

package target

import "testing"

func mountMemory(t *testing.T, _ string) {
	t.Helper()
	t.Skip("mounting is tested on Linux")
}

//go:build unix

package target

import (
	"path/filepath"
	"strings"
	"testing"
)

// TestRecord holds that the record is that of the last exchange, also where the
// last had none, and that a restore which failed leaves it alone.
func TestRecord(t *testing.T) {
	eachSwapCase(t, func(t *testing.T, c swapCase) {
		dir := fastDir(t)
		c.prepare(t, dir)
		s := Swap(filepath.Join(dir, c.target))
		s.Force = true
		check := func(want string) {
			t.Helper()
			if got, err := s.Recorded(t.Context()); got != want || err != nil {
				t.Fatalf("Recorded = %q, %v, want %q", got, err, want)
			}
		}
		check("")
		for _, s.Record = range []string{"one", "two", "", "three"} {
			if err := c.restoreTo(t.Context(), s); err != nil {
				t.Fatal(err)
			}
			check(s.Record)
		}
		s.Record = "aborted"
		w, err := s.Begin(t.Context(), Need{})
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Abort(); err != nil {
			t.Fatal(err)
		}
		check("three")
		s.Record = strings.Repeat("x", maxRecord+1)
		if _, err := s.Begin(t.Context(), Need{}); err == nil {
			t.Fatal("a record of any size is taken")
		}
	})
}

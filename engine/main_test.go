package engine_test

import (
	"flag"
	"os"
	"testing"
)

// TestMain makes property tests short; -rapid.checks makes them longer.
func TestMain(m *testing.M) {
	if f := flag.Lookup("rapid.checks"); f != nil {
		_ = f.Value.Set("30") // a number
	}
	flag.Parse()
	fastTemp()
	os.Exit(m.Run())
}

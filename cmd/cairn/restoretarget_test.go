package main

import (
	"errors"
	"testing"

	"github.com/cairn-backup/cairn/manifest"
)

// TestInPlaceTakesWhatHadAPlace: assets, and streams, whose roots are not where they
// were, are not put back in place, with --overwrite or without.
func TestInPlaceTakesWhatHadAPlace(t *testing.T) {
	root := []manifest.Root{{Path: "/", Name: "root"}}
	for kind, want := range map[manifest.Kind]bool{
		manifest.KindFiles: true, manifest.KindDatabase: true, manifest.KindAssets: false, manifest.KindStream: false, "": false,
	} {
		for _, overwrite := range []string{"", "changed"} {
			mode := restoreMode{inPlace: true, overwrite: overwrite, dryRun: true}
			_, _, err := new(app).inPlace(mode, manifest.Snapshot{Summary: manifest.Summary{Kind: kind}, Roots: root})
			if want && err != nil || !want && !errors.Is(err, errUsage) {
				t.Errorf("kind %q, --overwrite=%q: %v", kind, overwrite, err)
			}
		}
	}
}

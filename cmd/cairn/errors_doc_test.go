package main

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/cairn-backup/cairn/engine"
)

// TestExitCodesDocumented: the exit codes of docs/errors.md are those that
// errors of package engine lead to.
func TestExitCodesDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/errors.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\n## Package engine\n")
	section, _, _ = strings.Cut(section, "\n## ")
	known := map[string]error{
		"ErrNoRepository": engine.ErrNoRepository, "ErrExists": engine.ErrExists, "ErrWrongKey": engine.ErrWrongKey,
		"ErrNewerFormat": engine.ErrNewerFormat, "ErrNoSecret": engine.ErrNoSecret, "ErrExpensiveSlot": engine.ErrExpensiveSlot,
		"ErrLastKey": engine.ErrLastKey, "ErrUnauthorized": engine.ErrUnauthorized, "ErrUnavailable": engine.ErrUnavailable,
		"ErrNoSpace": engine.ErrNoSpace, "ErrReadOnly": engine.ErrReadOnly, "ErrUnknownOutcome": engine.ErrUnknownOutcome,
		"ErrConflict": engine.ErrConflict, "ErrRolledBack": engine.ErrRolledBack, "ErrLogHole": engine.ErrLogHole,
		"ErrLogDamaged": engine.ErrLogDamaged, "ErrCorrupt": engine.ErrCorrupt, "ErrNotFound": engine.ErrNotFound,
		"ErrAmbiguous": engine.ErrAmbiguous, "ErrForgotten": engine.ErrForgotten, "ErrIncomplete": engine.ErrIncomplete,
		"ErrClosed": engine.ErrClosed, "ErrEmptyPolicy": engine.ErrEmptyPolicy, "ErrPlanStale": engine.ErrPlanStale,
	}
	rows := regexp.MustCompile("(?m)^\\| `(Err\\w+)` .*\\| (\\d+) \\|$").FindAllStringSubmatch(section, -1)
	if len(rows) != len(known) {
		t.Errorf("the page has %d rows for package engine, this test knows %d errors", len(rows), len(known))
	}
	for _, row := range rows {
		err, ok := known[row[1]]
		if !ok {
			t.Errorf("this test does not know %s", row[1])
			continue
		}
		for _, err := range []error{err, fmt.Errorf("backup: %w", err)} {
			if got := strconv.Itoa(exitCode(context.Background(), err)); got != row[2] {
				t.Errorf("%v: exit code %s, the page says %s", err, got, row[2])
			}
		}
	}
}

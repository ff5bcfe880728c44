package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

const header = `# What one operation of each benchmark costs: bytes and allocations exactly,
# instructions within 5 %% (0: not counted). Compared by .ci/run; written by
#   (cd testdata/tools && go build -o /tmp/costs ./costs) && /tmp/costs -renew
release %s
`

// format returns the text of the file.
func format(costs map[string]cost) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, header, goRelease())
	for _, name := range slices.Sorted(maps.Keys(costs)) {
		c := costs[name]
		fmt.Fprintf(&b, "%-32s %10d B %8d allocs %12d instructions\n", name, c.bytes, c.allocs, c.instructions)
	}
	return []byte(b.String())
}

// parse reads what format writes.
func parse(text string) (costs map[string]cost, release string, err error) {
	costs = make(map[string]cost)
	for line := range strings.Lines(text) {
		switch {
		case strings.HasPrefix(line, "#") || strings.TrimSpace(line) == "":
			continue
		case strings.HasPrefix(line, "release "):
			release = strings.TrimSpace(strings.TrimPrefix(line, "release "))
			continue
		}
		var name string
		var c cost
		if _, err := fmt.Sscanf(line, "%s %d B %d allocs %d instructions", &name, &c.bytes, &c.allocs, &c.instructions); err != nil {
			return nil, "", fmt.Errorf("%q: %w", line, err)
		}
		costs[name] = c
	}
	if release == "" || len(costs) == 0 {
		return nil, "", errors.New("it holds no costs")
	}
	return costs, release, nil
}

// filter returns the costs with part in their names.
func filter(costs map[string]cost, part string) map[string]cost {
	maps.DeleteFunc(costs, func(name string, _ cost) bool { return !strings.Contains(name, part) })
	return costs
}

// compare returns a line for every difference that matters.
func compare(want, got map[string]cost) (diffs []string) {
	for _, name := range slices.Sorted(maps.Keys(want)) {
		w, g := want[name], cost{}
		var ok bool
		if g, ok = got[name]; !ok {
			diffs = append(diffs, name+": was not measured")
			continue
		}
		if w.bytes != g.bytes || w.allocs != g.allocs {
			diffs = append(diffs, fmt.Sprintf("%s: %d B in %d allocations an operation, want %d B in %d", name, g.bytes, g.allocs, w.bytes, w.allocs))
		}
		if w.instructions == 0 || g.instructions == 0 {
			continue
		}
		if by := float64(g.instructions)/float64(w.instructions) - 1; by > tolerance || by < -tolerance {
			diffs = append(diffs, fmt.Sprintf("%s: %d instructions an operation, want %d: %+.1f %%", name, g.instructions, w.instructions, 100*by))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(got)) {
		if _, ok := want[name]; !ok {
			diffs = append(diffs, name+": is not in the file")
		}
	}
	return diffs
}
